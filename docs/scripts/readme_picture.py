"""Draw docs/pictures/verdicts.png: one good part without and with a scratch, each beside its overlay.

    python docs/scripts/readme_picture.py    # extra `demo`

The bricks are one of scikit-image's photographs (CC0), cut into crops; the scratch is drawn.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fewshot_ad import Inspection, Inspector
from fewshot_ad.demo import texture_product
from fewshot_ad.enrollment.defects import scratch

OUTPUT = Path(__file__).resolve().parents[1] / "pictures" / "verdicts.png"
SIDE = 320
GAP = 12
COLORS = 256
SEED = 3


def enlarged(crop: np.ndarray) -> np.ndarray:
    """One crop at the size it is shown in, (SIDE, SIDE, 3) uint8 RGB."""
    return cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def panel(result: Inspection) -> np.ndarray:
    """Image and overlay side by side, the verdict in the bar below the overlay."""
    overlay = result.overlay(bar=True)
    image = np.full((len(overlay), SIDE + GAP // 2, 3), 255, np.uint8)
    image[:SIDE, :SIDE] = result.image
    return np.hstack([image, overlay])


def main() -> None:
    product = texture_product("brick", shots=8, seed=0)
    inspector = Inspector.from_support([enlarged(crop) for crop in product.support], product=product.name)
    crops = [enlarged(test.pixels) for test in product.tests if test.truth == "good"]
    results = sorted((inspector.inspect(crop) for crop in crops), key=lambda result: result.severity)
    # The one in the middle: neither the clearest verdict nor the closest.
    good = results[len(results) // 2]
    scratched = scratch(good.image, np.random.default_rng(SEED), length=0.35, width=0.012, contrast=0.7)
    panels = [panel(good), panel(inspector.inspect(scratched))]
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    picture = Image.fromarray(np.hstack([panels[0], gap, panels[1]]))
    # A palette makes the file a third as large, and the eye sees no difference at this size.
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(OUTPUT, optimize=True)
    print(f"{OUTPUT}: {picture.width} x {picture.height} pixels, {OUTPUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
