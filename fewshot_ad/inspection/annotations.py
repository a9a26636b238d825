"""Regions of inspections in the formats of annotation tools: COCO, LabelMe, and supervision's detections."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Float32Array, Float64Array, Uint8Array
from fewshot_ad.errors import FewshotADError
from fewshot_ad.inspection.regions import MapScale, Region, anomalous_cut

LABEL = "anomaly"
# A contour's corners may lie off it by so many pixels of the working scale: fewer corners, the same shape to the eye.
TOLERANCE = 0.5
# The form of LabelMe's files that is written; every later version reads it.
LABELME_VERSION = "5.0.1"


class Inspected(Protocol):
    """What is used of an `Inspection`."""

    @property
    def product(self) -> str:
        """Name of the product."""

    @property
    def name(self) -> str:
        """Name of the image."""

    @property
    def image(self) -> Uint8Array:
        """(H, W, 3) uint8 RGB."""

    @property
    def verdict(self) -> str:
        """The verdict."""

    @property
    def severity(self) -> float:
        """Score over threshold."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """Where."""

    @property
    def working_map(self) -> Float32Array:
        """(h, w) float32 map."""

    @property
    def map_scale(self) -> MapScale:
        """Its scale."""


def polygons_of(inspection: Inspected, region: Region) -> list[Float64Array]:
    """The outlines of a region, one per fragment, (n, 2) float64 of x and y in pixels of the image, n >= 3.

    Args:
        inspection: An anomalous image.
        region: One of its `regions`.
    """
    mask, (left, top) = _mask_of(inspection, region)
    height, width = inspection.image.shape[:2]
    scale = np.array([width / inspection.working_map.shape[1], height / inspection.working_map.shape[0]])
    found = []
    # A ring of nothing around it, and four pixels for one: so an outline runs around its pixels, not through them.
    padded = np.pad(mask.astype(np.float32), 1)
    enlarged = (cv2.resize(padded, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR) >= 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        corners = cv2.approxPolyDP(contour, 4 * TOLERANCE, True)[:, 0].astype(np.float64)
        if len(corners) < 3:
            corners = cv2.boxPoints(cv2.minAreaRect(contour)).astype(np.float64)
        on_map = (corners + 0.5) / 4 - 1 + np.array([left, top])
        found.append(np.clip(on_map * scale, 0, [width, height]))
    return found


def masks_of(inspection: Inspected) -> BoolArray:
    """Which pixels of the image belong to each of its `regions`, (n, H, W) bool."""
    height, width = inspection.image.shape[:2]
    masks = np.zeros((len(inspection.regions), height, width), np.uint8)
    for own, region in zip(masks, inspection.regions, strict=True):
        for polygon in polygons_of(inspection, region):
            cv2.fillPoly(own, [np.floor(polygon).astype(np.int32)], 1)
    return masks > 0


def _mask_of(inspection: Inspected, region: Region) -> tuple[BoolArray, tuple[int, int]]:
    """Which pixels of the map within a region's box count, and the box's corner there."""
    heat, (height, width) = inspection.working_map, inspection.image.shape[:2]
    per_y, per_x = heat.shape[0] / height, heat.shape[1] / width
    x, y, across, down = region.box
    left, top = round(x * per_x), round(y * per_y)
    right, bottom = max(left + 1, round((x + across) * per_x)), max(top + 1, round((y + down) * per_y))
    mask = heat[top:bottom, left:right] >= anomalous_cut(heat, inspection.map_scale)
    return (mask if mask.any() else np.ones_like(mask)), (left, top)


def coco(inspections: Iterable[Inspected], names: Sequence[str] | None = None) -> dict[str, Any]:
    """The regions of inspections as one COCO dataset, plain JSON types.

    Every image is listed, good ones without annotations. `score` of an annotation is the region's severity.

    Args:
        inspections: The inspections.
        names: What the images are called; None takes the inspections' names.

    Source: https://cocodataset.org/#format-data.
    """
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for at, inspection in enumerate(inspections):
        name = names[at] if names is not None else inspection.name
        height, width = inspection.image.shape[:2]
        verdict = {"verdict": inspection.verdict, "severity": inspection.severity}
        images.append({"id": at + 1, "file_name": name or f"image[{at}]", "width": width, "height": height, **verdict})
        for region in inspection.regions:
            polygons = [polygon.round(2).ravel().tolist() for polygon in polygons_of(inspection, region)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": at + 1,
                    "category_id": 1,
                    "bbox": list(region.box),
                    "area": region.area,
                    "segmentation": polygons,
                    "iscrowd": 0,
                    "score": region.severity,
                }
            )
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {
        "info": {"description": "regions found by fewshot-ad", "date_created": created},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": LABEL, "supercategory": "defect"}],
    }


def labelme(inspection: Inspected, image_path: str | Path = "") -> dict[str, Any]:
    """The regions of an inspection as a LabelMe file holds them, plain JSON types.

    Args:
        inspection: The inspection.
        image_path: Of the image, as seen from the file; empty takes the inspection's name.

    Source: https://github.com/wkentaro/labelme, `LabelFile.save`.
    """
    shapes = [
        {
            "label": LABEL,
            "points": polygon.round(2).tolist(),
            "group_id": number,
            "description": f"severity {region.severity:.2f}",
            "shape_type": "polygon",
            "flags": {},
        }
        for number, region in enumerate(inspection.regions, 1)
        for polygon in polygons_of(inspection, region)
    ]
    height, width = inspection.image.shape[:2]
    return {
        "version": LABELME_VERSION,
        "flags": {inspection.verdict: True},
        "shapes": shapes,
        "imagePath": str(image_path or inspection.name),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def detections(inspection: Inspected, masks: bool) -> Any:
    """See `Inspection.to_supervision`."""
    try:
        import supervision
    except ImportError as error:
        raise FewshotADError(
            f"to_supervision needs the extra 'supervision' (no module {error.name}): pip install "
            "'fewshot-ad[supervision]'."
        ) from error
    regions = inspection.regions
    boxes = np.array([region.box for region in regions], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return supervision.Detections(
        xyxy=boxes,
        mask=masks_of(inspection) if masks and regions else None,
        confidence=np.array([region.severity for region in regions], np.float32),
        class_id=np.zeros(len(regions), int),
        data={"class_name": np.array([LABEL] * len(regions))},
        metadata={"verdict": inspection.verdict, "severity": inspection.severity, "product": inspection.product},
    )
