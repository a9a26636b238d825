"""What one inspection returns."""

from __future__ import annotations

import base64
import functools
import html
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Float64Array, Uint8Array
from fewshot_ad.host.lifetime import native_work
from fewshot_ad.inspection.annotations import coco, detections, labelme
from fewshot_ad.inspection.overlay import (
    Caption,
    Marks,
    PartMark,
    draw_marks,
    draw_parts,
    draw_region_of_interest,
    framed,
)
from fewshot_ad.inspection.parts import Box, PartCount, PlacedMap, region_on_image, to_image
from fewshot_ad.inspection.regions import NEAR_MISS, MapScale, Region, anomalous_cut, find_near_misses, near_miss_cut
from fewshot_ad.inspection.signals import Signals
from fewshot_ad.inspection.verdict import Verdict, format_severity, verdict_words

RESULT_SCHEMA = "fewshot-ad/inspect/1"
# Pixels across of what a notebook shows.
NOTEBOOK_WIDTH = 1024


@dataclass(frozen=True, eq=False)
class Inspection:
    """The verdict on one image.

    Attributes:
        product: Name of the product.
        encoder: Name of the encoder.
        score: Image score; higher is worse. A distance in the encoder's feature space.
        threshold: Scores above it are anomalous.
        is_anomalous: The decision: `score > threshold`, or `count` is not as it should be. Also True for an image that
            cannot be judged, so that a script that asks nothing else never passes a part that nobody has seen.
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
        unseen: Share of the image, or of its region of interest, 0..1, that registration turned or shifted out of view;
            nothing is said of it.
        cares: (h, w) uint8 at the working scale: how much each place of the image counted, 0 outside the region of
            interest; None where all did.
        review_threshold: Scores above it, and not above the threshold, are for someone to look at; None for none.
        signals: What the image says of light and camera, see `Inspector.drift`; None where it was not looked at.
        parts: Of a product that was enrolled with `parts`: the verdict on each part. Else empty.
        count: How many parts there are, and what else; None where they are not looked at one by one.
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
    unseen: float = 0.0
    cares: Uint8Array | None = field(default=None, repr=False)
    review_threshold: float | None = None
    signals: Signals | None = field(default=None, repr=False)
    parts: tuple[InspectedPart, ...] = field(default=(), repr=False)
    count: PartCount | None = None

    @property
    def verdict(self) -> Verdict:
        """`good`, `anomalous`, or `not_inspectable`: the image cannot be judged, and `reason` says why.

        Of a product that was calibrated with `max_review`, also `review`: it is not anomalous, and someone should look.
        """
        if self.reason:
            return "not_inspectable"
        if self.is_anomalous:
            return "anomalous"
        return "review" if self.review_threshold is not None and self.score > self.review_threshold else "good"

    @property
    def one_part(self) -> Inspection:
        """Of an image with several parts, the first that was judged, whatever its verdict; else the image itself."""
        return next((part.inspection for part in self.parts if part.inspection is not None), self)

    @property
    def parts_finding(self) -> str:
        """What is to be said of the parts of an image, in words: how many are not good, missing, or no part."""
        if self.count is None:
            return ""
        bad = [str(part.number) for part in self.parts if part.verdict == "anomalous"]
        said = [f"part{'s' * (len(bad) > 1)} {', '.join(bad)} of {len(self.parts)}"] if bad else []
        blind = sum(part.verdict == "not_inspectable" for part in self.parts)
        said += [f"{blind} not inspectable"] if blind and bad else []
        return "; ".join([*said, *filter(None, [self.count.finding])])

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

    @functools.cached_property
    @native_work()
    def near_misses(self) -> tuple[Region, ...]:
        """Places of a good part that come close to a defect, worst first, found when they are first read.

        They are looked for from a severity of 0.85 on, and count from 0.85 on the map's scale. Empty for an anomalous
        part: its places are `regions`.
        """
        if self.is_anomalous or (self.severity < NEAR_MISS and self.verdict != "review"):
            return ()
        return find_near_misses(self.working_map, self.map_scale, self.image.shape[:2])  # type: ignore[arg-type]

    @property
    def severity_text(self) -> str:
        """The severity with two digits after the point; `1.00` is never an anomalous part's."""
        return format_severity(self.severity, self.is_anomalous)

    @native_work()
    def overlay(self, opacity: float = 0.18, *, bar: bool = False) -> Uint8Array:
        """The image with what stands out marked on it; a part that is plainly good stays as it is.

        Each of `regions` has a red box with its severity, a contour where the map crosses its threshold, and a faint
        tint within and around it; each of `near_misses` has a dashed box and a contour in amber, and no number. The
        colors of the tint mean the same on every image of a product, see `map_scale`: blue and green are far below the
        map's threshold, amber is close to it, and red is above it. Nothing is red on a good part, nor outside of a
        region. A region of interest has a thin white line around it, and what lies outside is darkened. Of several
        parts each has its outline in the color of its verdict, and its number.

        Args:
            opacity: Of the tint at the map's threshold, 0..1.
            bar: Whether to put a bar below the image, with the verdict, the severity, the name, the threshold and what
                the colors mean. An image whose sides are below 320 pixels is enlarged then, or framed.

        Returns:
            (H, W, 3) uint8 RGB; with a bar (H', W', 3).
        """
        if bar:
            picture, shown, enlarged = framed(self.image, self._caption())
        else:
            picture = shown = self.image.copy()
            enlarged = 1
        if self.cares is not None:
            draw_region_of_interest(shown, self.cares)
        if self.count is not None:
            parts = [PartMark(part.number, part.box, part.verdict) for part in self.parts]
            draw_parts(shown, parts, self.count.others, enlarged)
        regions = self.regions or self.near_misses
        if regions:
            heat = self.map_scale.apply(self.working_map)
            cut = (
                anomalous_cut(self.working_map, self.map_scale) if self.is_anomalous else near_miss_cut(self.map_scale)
            )
            marks = Marks(regions, float(self.map_scale.apply(np.float32(cut))), self.is_anomalous)
            draw_marks(shown, heat, marks, opacity, enlarged)
        return picture

    def to_dict(self) -> dict[str, Any]:
        """`as_dict`, by the name that other libraries have for it."""
        return self.as_dict()

    def to_coco(self) -> dict[str, Any]:
        """The regions as a COCO dataset of this one image; see `inspection.annotations.coco` for many."""
        return coco([self])

    def to_labelme(self, image_path: str = "") -> dict[str, Any]:
        """The regions as a LabelMe file holds them.

        Args:
            image_path: Of the image, as seen from the file; empty takes `name`.
        """
        return labelme(self, image_path)

    @native_work()
    def to_supervision(self, *, masks: bool = True) -> Any:
        """The regions as `supervision.Detections`; needs the extra `supervision`.

        `confidence` is the severity, which is above 1 for a place that reaches the map's threshold; `class_id` is 0.

        Args:
            masks: Whether the mask of each region is made, a byte per pixel of the image.

        Raises:
            FewshotADError: supervision is not installed.
        """
        return detections(self, masks)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the overlay with its bar, at most 1024 pixels wide."""
        picture = self.overlay(bar=True)
        if picture.shape[1] > NOTEBOOK_WIDTH:
            height = round(picture.shape[0] * NOTEBOOK_WIDTH / picture.shape[1])
            picture = cv2.resize(picture, (NOTEBOOK_WIDTH, height), interpolation=cv2.INTER_AREA)
        return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()

    def _repr_html_(self) -> str:
        """The same beside a table of the regions."""
        cells = "".join(
            f"<tr><td>{number}</td><td>{', '.join(map(str, region.box))}</td><td>{region.severity:.2f}</td></tr>"
            for number, region in enumerate(self.regions, 1)
        )
        head = "<tr><th></th><th>x, y, width, height</th><th>severity</th></tr>"
        regions = f"<table>{head}{cells}</table>" if cells else ""
        said = html.escape(self.reason or f"severity {self.severity_text} x threshold {self.threshold:.4g}")
        name = html.escape(f"{self.product}: {self.name}" if self.name else self.product)
        data = base64.b64encode(self._repr_png_()).decode("ascii")
        return (
            f"<div><b>{html.escape(verdict_words(self.verdict))}</b> {said} <small>{name}</small><br>"
            f'<img alt="" src="data:image/png;base64,{data}" style="max-width:100%">{regions}</div>'
        )

    def _caption(self) -> Caption:
        finding = self.reason or f"severity {self.severity_text} x threshold"
        if self.parts_finding and not self.reason:
            finding = f"{self.parts_finding}, {finding}"
        if self.near_misses:
            finding += ", near miss" if len(self.near_misses) == 1 else f", {len(self.near_misses)} near misses"
        if self.unseen >= 0.005:
            finding += f", {self.unseen:.0%} not seen"
        name = f"{self.product}: {self.name}" if self.name else self.product
        return Caption(verdict_words(self.verdict), finding, name, f"threshold {self.threshold:#.4g}")

    def _parts_as_dict(self) -> dict[str, Any]:
        if self.count is None:
            return {}
        return {
            "parts": [part.as_dict() for part in self.parts],
            "count": {
                "found": self.count.found,
                "expected": self.count.expected,
                "others": [list(box) for box in self.count.others],
            },
        }

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
            "regions": [region.as_dict() for region in self.regions],
            "near_misses": [region.as_dict() for region in self.near_misses],
            **({} if self.review_threshold is None else {"review_threshold": self.review_threshold}),
            **self._parts_as_dict(),
            **({"unseen": round(self.unseen, 4)} if self.unseen else {}),
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings_ms.items()},
        }


@dataclass(frozen=True, eq=False)
class InspectedPart:
    """The verdict on one of the parts of an image.

    Attributes:
        number: 1 for the first, row by row from the top, and from the left.
        box: Of its outline, (x, y, width, height) in pixels of the image.
        verdict: As `Inspection.verdict`.
        score: As `Inspection.score`; 0 for one that cannot be judged.
        severity: Likewise.
        reason: Why it cannot be judged; empty if it can.
        regions: Where, in pixels of the image, worst first.
        inspection: Of the part's own image, cut out and in its pose; None for one that is not cut out.
        forward: The affine matrix (2, 3) from (x, y) of the image to (x, y) of that, in pixels; None likewise.
    """

    number: int
    box: Box
    verdict: Verdict
    score: float
    severity: float
    reason: str = ""
    regions: tuple[Region, ...] = ()
    inspection: Inspection | None = field(default=None, repr=False)
    forward: Float64Array | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, number: int, box: Box, forward: Float64Array, inspection: Inspection, image_hw: tuple[int, ...]
    ) -> InspectedPart:
        """A part whose own image was inspected; height and width are those of the image that it was cut from."""
        return cls(
            number,
            box,
            inspection.verdict,
            inspection.score,
            inspection.severity,
            inspection.reason,
            _regions_on_image(inspection, forward, image_hw),
            inspection,
            forward,
        )

    @classmethod
    def unseen(cls, number: int, box: Box, reason: str) -> InspectedPart:
        """A part that cannot be judged."""
        return cls(number, box, "not_inspectable", 0.0, 0.0, reason)

    @property
    def placed_map(self) -> PlacedMap | None:
        """Its map; None for one that is not cut out."""
        if self.inspection is None or self.forward is None:
            return None
        return PlacedMap(self.inspection.working_map, self.inspection.image.shape[:2], self.forward)

    @property
    def turn(self) -> float | None:
        """By how many degrees it lies turned against the support set's pose, clockwise as seen, -180..180."""
        if self.forward is None:
            return None
        return float(-np.degrees(np.arctan2(self.forward[1, 0], self.forward[0, 0])))

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON types."""
        return {
            "number": self.number,
            "box": list(self.box),
            "turn": None if self.turn is None else round(self.turn, 1),
            "verdict": self.verdict,
            "reason": self.reason,
            "score": self.score,
            "severity": self.severity,
            "regions": [region.as_dict() for region in self.regions],
        }


def _regions_on_image(inspection: Inspection, forward: Float64Array, image_hw: tuple[int, ...]) -> tuple[Region, ...]:
    """The regions of a part's own image in pixels of the image that it was cut from."""
    if not inspection.regions:
        return ()
    heat, part_hw = inspection.working_map, inspection.image.shape[:2]
    counted = heat >= anomalous_cut(heat, inspection.map_scale)
    back = to_image(forward, counted.shape, part_hw)
    return tuple(region_on_image(region, counted, part_hw, back, image_hw) for region in inspection.regions)
