"""The parity gate: nothing is released that says something else than the product it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.enrollment.defects import random_defect
from fewshot_ad.enrollment.support import View
from fewshot_ad.errors import ExportError

if TYPE_CHECKING:
    from fewshot_ad.inspector import Inspector

# Largest difference of a score or of a map, as a share of its threshold. Where images are enlarged a gray level
# may be rounded the other way in OpenCV and in a graph; anything that goes wrong differs by far more.
TOLERANCE = 0.01
MAX_IMAGES = 4
Exported: TypeAlias = Callable[[Uint8Array], tuple[float, bool, Float32Array]]


@dataclass(frozen=True)
class ParityReport:
    """How far an exported model is from the product.

    Attributes:
        target: What was exported.
        images: Number of images and views that were compared.
        anomalous: How many of them the product calls anomalous.
        score_difference: Largest |difference| of an image score, as a share of the threshold.
        map_difference: Largest |difference| of a map, as a share of its threshold.
        decision_flips: Images that are judged differently.
        tolerance: What the differences may be.
    """

    target: str
    images: int
    anomalous: int
    score_difference: float
    map_difference: float
    decision_flips: int
    tolerance: float = TOLERANCE


def proof_images(
    inspector: Inspector, photo_hw: tuple[int, int], images: Sequence[Uint8Array] | None = None
) -> Iterator[Uint8Array]:
    """Images (H, W, 3) of one size to compare on: support images, their views, and drawn defects.

    Args:
        inspector: The product; its own support images are enlarged to the images' size.
        photo_hw: Height and width.
        images: Others to take instead.

    Raises:
        ExportError: There is none, or one is not of that size.
    """
    if images is None:
        size = photo_hw[::-1]
        images = [
            cv2.resize(reference.content, size, interpolation=cv2.INTER_CUBIC) for reference in inspector.references
        ]
    images = list(images)[:MAX_IMAGES]
    if not images:
        raise ExportError(
            "this product holds no support image to prove the export on (too large, or enrolled by an earlier "
            "version). Give good images with images= (command line: --images FOLDER)."
        )
    wrong = [p.shape for p in images if p.shape != (*photo_hw, 3)]
    if wrong:
        raise ExportError(
            f"expected images of {photo_hw[1]} x {photo_hw[0]} pixels, got shape {wrong[0]}. A graph is for one "
            "size; give photo_hw (command line: --size WIDTHxHEIGHT)."
        )
    return _variants(images, inspector.enrollment.settings.views)


def _variants(images: Sequence[Uint8Array], views: Sequence[View]) -> Iterator[Uint8Array]:
    rng = np.random.default_rng(0)
    for image in images:
        everything = np.full(image.shape[:2], 255, np.uint8)
        yield image
        for view in views:
            yield view.apply(image, everything)[0]
        for _ in range(4):
            yield random_defect(image, rng)


def check_parity(inspector: Inspector, run: Exported, proof: Iterable[Uint8Array], target: str) -> ParityReport:
    """Send images through the product and the exported model.

    Args:
        inspector: The product.
        run: The exported model: image (H, W, 3) uint8 -> score, decision, map at the working scale.
        proof: The images.
        target: For the report.

    Raises:
        ExportError: A score or a map differs by more than the tolerance, or a decision flips.
    """
    score_off = map_off = 0.0
    flips = anomalous = count = 0
    scale = inspector.model.map_scale.threshold
    for image in proof:
        count += 1
        wanted = inspector.inspect(image)
        score, flag, heat = run(np.ascontiguousarray(image))
        score_off = max(score_off, abs(score - wanted.score) / wanted.threshold)
        map_off = max(map_off, float(np.abs(heat - wanted.working_map).max()) / scale)
        flips += flag != wanted.is_anomalous
        anomalous += wanted.is_anomalous
    report = ParityReport(target, count, anomalous, score_off, map_off, flips)
    if flips or max(score_off, map_off) > TOLERANCE:
        raise ExportError(
            f"the exported model ({target}) does not say what the product says: scores differ by up to "
            f"{score_off:.2%} and maps by up to {map_off:.2%} of their thresholds ({TOLERANCE:.0%} allowed), {flips} "
            f"of {count} decisions flip. Nothing was released."
            + (
                " The product was enrolled with bf16 and exports are float32; enroll with precision='f32'."
                if inspector.encoder.spec.precision != "f32"
                else ""
            )
        )
    return report
