"""Color and depth: CFM, which foretells shape from color and color from shape, beside methods that see color alone.

Draws generated parts of two products into `out/rgbd_parts`, in the layout of MVTec 3D-AD, and runs rgbd_parts.yaml on
them. Positions are of the surface that is lit in the image, in meters from a camera above, with a scanner's noise;
where there is no part there are none, as CFM's authors take the plane under the part away. Defects are a dent and a
bump, which shape and shading show, and a stain, which is in color alone.

    python benchmarks/rgbd_parts.py                    # needs the extra `zoo`
    python benchmarks/rgbd_parts.py --report           # the table of what is on record
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from boards import HERE, board_script

from fewshot_ad.training.parts import PlacedPart, render_placed
from fewshot_ad.training.parts.canvas import Canvas, Field

ROOT = HERE / "out" / "rgbd_parts"
# Two of the categories with a relief of their own, in color, as variants that no encoder was trained on.
PRODUCTS = {"impeller": 90_001, "tablet": 90_001}
SIZE, TRAIN, GOOD, DEFECTIVE = 320, 12, 15, 5
KINDS = ("dent", "bump", "stain")
# A part fills about 2 units; one of them is 3 cm, seen from half a meter. The scanner errs by a tenth of a millimeter.
UNIT, DISTANCE, NOISE = 0.03, 0.5, 1e-4


class Damage:
    """A defect of a kind at a random place of the part; `mask` is where it is, (size, size) bool."""

    def __init__(self, kind: str, seed: int) -> None:
        self._kind, self._rng = kind, np.random.default_rng([53, seed])
        self.mask = np.zeros((SIZE, SIZE), bool)

    def __call__(self, canvas: Canvas) -> None:
        """Change the part."""
        inner = cv2.erode(canvas.mask, np.ones((25, 25), np.uint8)) > 0.9
        y, x = self._rng.choice(np.argwhere(inner))
        radius = np.float32(self._rng.uniform(0.1, 0.2))
        away = np.hypot(canvas.x - canvas.x[y, x], canvas.y - canvas.y[y, x]) / radius
        shape: Field = np.square(np.clip(1 - away * away, 0, 1)).astype(np.float32) * canvas.mask
        if self._kind == "stain":
            canvas.tint(1 - np.float32(0.5) * np.sqrt(shape))
        else:
            canvas.relief(shape * radius * np.float32(-0.5 if self._kind == "dent" else 0.5))
        self.mask = (shape > 0.05) & (canvas.mask >= 0.5)


def positions(part: PlacedPart, rng: np.random.Generator) -> np.ndarray:
    """Where each pixel's surface lies from the camera, (size, size, 3) float32 in meters; 0 where there is no part."""
    pixel = 2 * UNIT / SIZE * np.sqrt(abs(np.linalg.det(part.transform[:, :2])))
    line = (np.arange(SIZE) - SIZE / 2) * pixel
    z = DISTANCE - UNIT * part.height + rng.normal(0, NOISE, (SIZE, SIZE))
    points = np.stack([*np.meshgrid(line, line), z], 2).astype(np.float32)
    points[part.cover < 0.5] = 0
    return points


def save(part: PlacedPart, folder: Path, seed: int, mask: np.ndarray | None) -> None:
    """One part in the layout of MVTec 3D-AD."""
    points = positions(part, np.random.default_rng([54, seed]))
    files = {f"rgb/{seed:03d}.png": part.image[..., ::-1], f"xyz/{seed:03d}.tiff": points[..., ::-1]}
    if mask is not None:
        files[f"gt/{seed:03d}.png"] = mask.astype(np.uint8) * 255
    for name, pixels in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.ascontiguousarray(pixels))


def draw(category: str, variant: int) -> None:
    """All images of one product."""
    folder = ROOT / category
    for seed in range(TRAIN + GOOD):
        kind = folder / ("train" if seed < TRAIN else "test") / "good"
        save(render_placed(category, seed, SIZE, variant=variant), kind, seed, None)
    for at, name in enumerate(KINDS):
        for seed in range(100 * (at + 1), 100 * (at + 1) + DEFECTIVE):
            damage = Damage(name, seed)
            part = render_placed(category, seed, SIZE, variant=variant, damage=damage)
            save(part, folder / "test" / name, seed, damage.mask)


if __name__ == "__main__":
    for product, number in PRODUCTS.items():
        draw(product, number)  # seconds, and the same each time
    board_script(__doc__, "rgbd_parts", ["rgbd_parts.yaml"])
