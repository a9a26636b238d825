"""What one inspection returns."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.images import row_blocks
from fewshot_ad.lifetime import native_work

Verdict: TypeAlias = Literal["good", "anomalous", "not_inspectable"]
RESULT_SCHEMA = "fewshot-ad/inspect/1"


@dataclass(frozen=True)
class Region:
    """One connected area of an image that looks anomalous.

    Attributes:
        box: (x, y, width, height) in pixels of the image.
        area: Number of pixels in it, to the working scale's accuracy.
        peak: (x, y) of its highest anomaly, in pixels of the image.
        severity: Anomaly at the peak on the fixed scale: 0 = median good patch, 1 = threshold of the map.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: tuple[int, int]
    severity: float


@dataclass(frozen=True)
class MapScale:
    """The fixed color scale of a product's heatmaps, in distance units.

    Attributes:
        median_good: Distance of a median patch of held-out good images; 0 on the scale.
        threshold: The value that the map of a good image stays below, set from the held-out maps' peaks as the
            score's threshold is from the held-out scores; 1 on the scale. A few red pixels alone do not reject a part:
            the score decides.
    """

    median_good: float
    threshold: float

    def apply(self, anomaly_map: Float32Array) -> Float32Array:
        """Distances -> 0 at the median good patch, 1 at the threshold (not clipped)."""
        return (anomaly_map - np.float32(self.median_good)) / np.float32(self.threshold - self.median_good)


@dataclass(frozen=True, eq=False)
class Inspection:
    """The verdict on one image.

    Attributes:
        product: Name of the product.
        encoder: Name of the encoder.
        score: Image score; higher is worse. A distance in the encoder's feature space.
        threshold: Scores above it are anomalous.
        is_anomalous: The decision: `score > threshold`. Also True for an image that cannot be judged, so that a script
            that asks nothing else never passes a part that nobody has seen.
        severity: `score / threshold`; above 1 is anomalous.
        regions: Where, worst first; empty for a good part.
        map_scale: The fixed scale for showing the map.
        timings_ms: Milliseconds by stage (`decode`, `resize`, `encode`, `search`, `map`) and in `total`. Where encoder
            and search are one graph, `encode` is both and `search` only the score.
        image: (H, W, 3) uint8 RGB that was inspected; of an array that was RGB uint8 already, the array itself,
            so copy it before reusing its memory.
        draw_map: Makes `working_map`.
        name: File name, or empty for one from memory.
        reason: Why the image cannot be judged: another product, red and blue swapped, too dark, overexposed, blurred.
            Empty if it can.
    """

    product: str
    encoder: str
    score: float
    threshold: float
    is_anomalous: bool
    severity: float
    regions: tuple[Region, ...]
    map_scale: MapScale = field(repr=False)
    timings_ms: dict[str, float] = field(repr=False)
    image: Uint8Array = field(repr=False)
    draw_map: Callable[[], Float32Array] = field(repr=False)
    name: str = ""
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """`good`, `anomalous`, or `not_inspectable`: the image cannot be judged, and `reason` says why."""
        if self.reason:
            return "not_inspectable"
        return "anomalous" if self.is_anomalous else "good"

    @property
    def photograph(self) -> Uint8Array:
        """Former name of `image`, until version 0.3."""
        warnings.warn("Inspection.photograph is now Inspection.image.", DeprecationWarning, stacklevel=2)
        return self.image

    @functools.cached_property
    @native_work()
    def working_map(self) -> Float32Array:
        """(h, w) float32: smoothed distance to good patches at the working scale, made when it is first read."""
        return self.draw_map()

    @functools.cached_property
    @native_work()
    def anomaly_map(self) -> Float32Array:
        """(H, W) float32: the map in the image's own size, made from `working_map` when it is first read."""
        return cv2.resize(self.working_map, self.image.shape[1::-1], interpolation=cv2.INTER_LINEAR)

    @native_work()
    def overlay(self, opacity: float = 0.55) -> Uint8Array:
        """The image with the heatmap and the regions' outlines on it.

        The colors mean the same on every image of a product, see `map_scale`: nothing is drawn up to the median good
        patch (0); above it come blue, green and yellow; 0.8 is orange, 0.95 looks red already, and from the map's
        threshold (1) on it is pure red. The score decides, not the map: a good part may show a red spot. Outlines are
        drawn only on rejected images, since only these have regions.

        Args:
            opacity: Of the strongest color, 0..1.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        picture = np.empty_like(self.image)
        for columns, distances in self._map_columns():
            heat = np.clip(self.map_scale.apply(distances), 0, 1)
            # The weight grows with the square, so ordinary texture stays visible under a faint tint.
            picture[:, columns] = blend_heat(self.image[:, columns], heat, opacity * heat * heat)
        line = max(1, round(max(picture.shape[:2]) / 300))
        for region in self.regions:
            x, y, width, height = region.box
            cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), (255, 0, 0), line)
        return picture

    def _map_columns(self) -> Iterator[tuple[slice, Float32Array]]:
        """`anomaly_map` in blocks of columns: the whole takes more memory than the image."""
        height, width = self.image.shape[:2]
        # First along x alone, so that a block along y needs nothing of its neighbors and comes out exactly the same.
        wide = cv2.resize(self.working_map, (width, len(self.working_map)), interpolation=cv2.INTER_LINEAR)
        for columns in row_blocks(width, height):
            size = (columns.stop - columns.start, height)
            yield columns, cv2.resize(wide[:, columns], size, interpolation=cv2.INTER_LINEAR)

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON types, without the pictures: what `fewshot-ad inspect --json` prints.

        `schema` names these fields and their version, see docs/reference/schemas/inspect.json.
        """
        return {
            "schema": RESULT_SCHEMA,
            "name": self.name,
            "product": self.product,
            "encoder": self.encoder,
            "verdict": self.verdict,
            "reason": self.reason,
            "is_anomalous": self.is_anomalous,
            "score": self.score,
            "threshold": self.threshold,
            "severity": self.severity,
            "size": [self.image.shape[1], self.image.shape[0]],
            "regions": [
                {"box": list(r.box), "area": r.area, "peak": list(r.peak), "severity": r.severity} for r in self.regions
            ],
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings_ms.items()},
        }


def blend_heat(image: Uint8Array, heat: Float32Array, weight: Float32Array) -> Uint8Array:
    """An image with a score map over it, from blue to red.

    Args:
        image: (H, W, 3) uint8 RGB.
        heat: (H, W) float32 in 0..1, 1 is red.
        weight: (H, W) float32 in 0..1, how much of the color is laid over the image.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    blended = np.empty_like(image)
    for rows in row_blocks(*image.shape[:2]):
        # The upper end of the color map is a dark red that reads as brown on an image; 225 is its pure red.
        colors = cv2.applyColorMap(np.rint(heat[rows] * 225).astype(np.uint8), cv2.COLORMAP_JET)
        colors = cv2.cvtColor(colors, cv2.COLOR_BGR2RGB)
        share = weight[rows][..., None]
        blended[rows] = np.rint(image[rows] * (1 - share) + colors * share)
    return blended
