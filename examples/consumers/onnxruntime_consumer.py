"""Inspect with an exported product: onnxruntime and numpy, nothing else.

    fewshot-ad export bracket.fsad exported/ --target onnx-single
    python onnxruntime_consumer.py exported/ image.npy

The image is an array (H, W, 3) uint8 RGB of the size in the manifest, as your camera gives it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


class Product:
    """An exported product."""

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self._session = onnxruntime.InferenceSession(str(folder / "product.onnx"), providers=["CPUExecutionProvider"])

    def inspect(self, image: np.ndarray) -> tuple[float, float, bool, np.ndarray]:
        """Score, threshold, whether it is anomalous, and the map (h, w) at the working scale."""
        expected = tuple(self.manifest["input"]["shape"])
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(f"expected uint8 {expected}, got {image.dtype} {image.shape}")
        names = ["score", "threshold", "is_anomalous", "anomaly_map"]
        score, threshold, flag, heat = self._session.run(names, {"photograph": image})
        return float(score[0]), float(threshold[0]), bool(flag[0]), heat


def main() -> None:
    folder, image = Path(sys.argv[1]), np.load(sys.argv[2], allow_pickle=False)
    score, threshold, anomalous, heat = Product(folder).inspect(image)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    scale = np.array(image.shape[:2]) / heat.shape
    y, x = ((np.array([row, column]) + 0.5) * scale).astype(int)
    print(f"{'ANOMALY' if anomalous else 'good'} score {score:.6f} threshold {threshold:.6f} peak at ({x}, {y})")


if __name__ == "__main__":
    main()
