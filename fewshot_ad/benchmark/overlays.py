"""Pictures of single results: image, truth, anomaly map, predicted mask and its outline side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.inspection.overlay import blend_heat

SIDE = 192
# For the common color scale: values sampled per map, and the most maps that are sampled.
SAMPLED, SAMPLED_MAPS = 256, 1000


@dataclass(frozen=True, eq=False)
class _Result:
    image: Uint8Array
    mask: npt.NDArray[np.uint8] | None
    heat: Float32Array


class Overlays:
    """Keeps the first few results of one category: defective ones, and a good one as the last.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._good: list[_Result] = []
        self._defective: list[_Result] = []
        self._values: list[Float32Array] = []

    def offer(self, image: Uint8Array, mask: npt.NDArray[np.bool_] | None, heat: Float32Array, label: int) -> None:
        """Look at one result.

        Args:
            image: (H, W, 3) uint8 RGB.
            mask: (H, W) bool, or None where the truth is not known by pixel.
            heat: (H, W) float32 anomaly map.
            label: 0 = good, 1 = defective.
        """
        if self._count and len(self._values) < SAMPLED_MAPS:
            self._values.append(heat.ravel()[:: max(1, heat.size // SAMPLED)].copy())
        results, most = (self._defective, self._count - 1) if label else (self._good, min(1, self._count))
        if len(results) < most:
            truth = None if mask is None else _small(mask.astype(np.uint8) * 255)
            results.append(_Result(_small(image), truth, _small(heat)))

    def pictures(self, key: str, threshold: float | None = None) -> dict[str, bytes]:
        """The results as JPEG, by the path they are to have relative to the record file.

        All maps of the category have one color scale, from the median of the sampled values to their 99.5th
        percentile, so that a good image looks good beside a defective one.

        Args:
            key: What the names start with.
            threshold: From which value of a map on a pixel is shown as defective; None leaves out predicted mask and
                outline.
        """
        results = [*self._defective, *self._good]
        if not results:
            return {}
        low, high = (float(v) for v in np.percentile(np.concatenate(self._values), (50, 99.5)))
        files = {}
        for number, result in enumerate(results):
            strip = cv2.cvtColor(_strip(result, low, high, threshold), cv2.COLOR_RGB2BGR)
            encoded = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
            files[f"overlays/{key}-{number}.jpg"] = encoded.tobytes()
        return files


def _small(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    scale = SIDE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _strip(result: _Result, low: float, high: float, threshold: float | None) -> Uint8Array:
    truth = result.image.copy()
    if result.mask is None:
        # Gray says that nobody knows, in contrast to an untouched image, which says that nothing is wrong.
        truth = cv2.cvtColor(cv2.cvtColor(truth, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) // 2
    else:
        _outline(truth, (result.mask > 127).astype(np.uint8), (255, 0, 255))
    heat = np.clip((result.heat - low) / max(high - low, 1e-12), 0, 1)
    panels = [result.image, truth, blend_heat(result.image, heat, 0.45 * heat * heat)]
    if threshold is not None:
        predicted = (result.heat >= threshold).astype(np.uint8)
        outlined = result.image.copy()
        _outline(outlined, predicted, (255, 0, 0))
        panels += [np.repeat(predicted[..., None] * np.uint8(255), 3, axis=2), outlined]
    return np.ascontiguousarray(np.hstack(panels))


def _outline(image: Uint8Array, mask: npt.NDArray[np.uint8], color: tuple[int, int, int]) -> None:
    edges, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, edges, -1, color, 2)
