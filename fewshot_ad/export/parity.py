"""The parity check of an export: no files are released unless they agree with the product they were made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.enrollment.defects import random_defect
from fewshot_ad.enrollment.views import View
from fewshot_ad.errors import ExportError
from fewshot_ad.metrics.agreement import decision_flips, relative_difference

if TYPE_CHECKING:
    from fewshot_ad.inspector import Inspector

# Largest difference of a score, or of a value of a map, as a share of its threshold. Where images are enlarged, OpenCV
# and a graph may round a gray level in opposite directions; real faults differ by far more.
EXPORT_TOLERANCE = 0.01
MAX_IMAGES = 4
DEFECTS_PER_IMAGE = 4
# An exported model: image (H, W, 3) uint8 RGB -> score, decision, map (h, w) at the working scale.
ExportedModel: TypeAlias = Callable[[Uint8Array], tuple[float, bool, Float32Array]]


@dataclass(frozen=True)
class ProductParity:
    """How far an exported model is from the product.

    Attributes:
        target: Export target.
        images: Number of images and views that were compared.
        anomalous: Number of them that the product judges anomalous.
        score_difference: Largest |difference| of an image score, as a share of the threshold.
        map_difference: Largest |difference| of a map, as a share of its threshold.
        decision_flips: Number of images on which the decisions differ.
        tolerance: Largest difference of scores and maps that is allowed.
    """

    target: str
    images: int
    anomalous: int
    score_difference: float
    map_difference: float
    decision_flips: int
    tolerance: float = EXPORT_TOLERANCE


def check_product_parity(
    inspector: Inspector, model: ExportedModel, images: Iterable[Uint8Array], target: str
) -> ProductParity:
    """Inspect images with the product and with the exported model, and compare.

    Args:
        inspector: The product.
        model: The exported model.
        images: (H, W, 3) uint8 RGB, of `proof_images`.
        target: Export target, for the report.

    Raises:
        ExportError: A score or a map differs by more than the tolerance, or a decision flips.
    """
    score_difference = map_difference = 0.0
    decisions: list[bool] = []
    expected_decisions: list[bool] = []
    map_threshold = inspector.model.map_scale.threshold
    for image in images:
        expected = inspector.inspect(image)
        score, is_anomalous, heat = model(np.ascontiguousarray(image))
        score_difference = max(score_difference, relative_difference(score, expected.score, expected.threshold))
        map_difference = max(map_difference, relative_difference(heat, expected.working_map, map_threshold))
        decisions.append(is_anomalous)
        # An exported model judges every image, those that cannot be judged as well.
        expected_decisions.append(expected.score > expected.threshold)
    count, flips = len(decisions), decision_flips(decisions, expected_decisions)
    report = ProductParity(target, count, sum(expected_decisions), score_difference, map_difference, flips)
    if flips or max(score_difference, map_difference) > EXPORT_TOLERANCE:
        raise ExportError(
            f"the exported model ({target}) does not agree with the product: scores differ by up to "
            f"{score_difference:.2%} and maps by up to {map_difference:.2%} of their thresholds "
            f"({EXPORT_TOLERANCE:.0%} allowed), {flips} of {count} decisions flip. Nothing was released."
            + (
                " The product was enrolled with bf16 and exports are float32; enroll with precision='f32'."
                if inspector.encoder.spec.precision != "f32"
                else ""
            )
        )
    return report


def proof_images(
    inspector: Inspector, image_hw: tuple[int, int], images: Sequence[Uint8Array] | None = None
) -> Iterator[Uint8Array]:
    """Images of one size to compare on: a few images, each followed by its views and by copies with drawn defects.

    Args:
        inspector: The product, whose support images are enlarged to that size.
        image_hw: Height and width.
        images: (H, W, 3) uint8 RGB to use instead of the support images.

    Returns:
        An iterator of (H, W, 3) uint8 RGB.

    Raises:
        ExportError: There is no image, or one is not of that size.
    """
    if images is None:
        size = image_hw[::-1]
        images = [
            cv2.resize(reference.content, size, interpolation=cv2.INTER_CUBIC) for reference in inspector.references
        ]
    images = list(images)[:MAX_IMAGES]
    if not images:
        raise ExportError(
            "this product holds no support image to prove the export on (too large, or enrolled by an earlier "
            "version). Give good images with images= (command line: --images FOLDER)."
        )
    wrong_shapes = [image.shape for image in images if image.shape != (*image_hw, 3)]
    if wrong_shapes:
        raise ExportError(
            f"expected images of {image_hw[1]} x {image_hw[0]} pixels, got shape {wrong_shapes[0]}. A graph is for one "
            "size; give image_hw (command line: --size WIDTHxHEIGHT)."
        )
    return _variants(images, inspector.enrollment.settings.views)


def _variants(images: Sequence[Uint8Array], views: Sequence[View]) -> Iterator[Uint8Array]:
    rng = np.random.default_rng(0)
    for image in images:
        whole = np.full(image.shape[:2], 255, np.uint8)
        yield image
        for view in views:
            yield view.apply(image, whole)[0]
        for _ in range(DEFECTS_PER_IMAGE):
            yield random_defect(image, rng)
