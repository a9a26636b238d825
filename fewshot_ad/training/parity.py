"""The parity check of a trained encoder: on every engine, the exported encoder must agree with the network in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder import Encoder, EncoderSpec
from fewshot_ad.encoder.engine import Engine, EngineName
from fewshot_ad.errors import WeightsError
from fewshot_ad.inspector import Inspector
from fewshot_ad.metrics.agreement import decision_flips, relative_difference

# Largest difference of a feature, as a share of the features' root mean square. All engines compute in float32,
# whatever precision the encoder was trained in, so they differ by rounding alone.
FEATURE_TOLERANCE = 5e-3
SIDE = 256
MIN_IMAGES = 6


@dataclass(frozen=True)
class EncoderParity:
    """How far an exported encoder is from the network in torch, by engine.

    Attributes:
        images: Number of images that were compared.
        feature_difference: Largest |difference| of a feature, as a share of the features' root mean square.
        score_difference: Largest |difference| of an image score, as a share of the score.
        decision_flips: Number of images on which the decisions differ.
    """

    images: int
    feature_difference: dict[str, float]
    score_difference: dict[str, float]
    decision_flips: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return asdict(self)


def check_encoder_parity(
    spec: EncoderSpec,
    reference: Engine,
    engines: dict[EngineName, Callable[[], Engine]],
    good: Sequence[Uint8Array],
    changed: Sequence[Uint8Array],
) -> EncoderParity:
    """Compare engines with torch: features, scores and decisions of a product that is enrolled on each.

    Args:
        spec: The encoder's specification.
        reference: The engine that runs the network in torch.
        engines: Functions that load the other engines, by engine name.
        good: Good images of one product, (H, W, 3) uint8; the first half is enrolled, the second half inspected.
        changed: Further images to inspect, such as the same images with defects.

    Raises:
        WeightsError: A feature differs by more than the tolerance, a decision flips, or there are too few images.
    """
    if len(good) < MIN_IMAGES:
        raise WeightsError(f"expected at least {MIN_IMAGES} images to prove parity, got {len(good)}.")
    half = len(good) // 2
    support, inspected = good[:half], [*good[half:], *changed]
    expected = _inspect_all(Encoder(spec, reference, "torch", None), support, inspected)
    feature_difference: dict[str, float] = {}
    score_difference: dict[str, float] = {}
    flips: dict[str, int] = {}
    for name, load in engines.items():
        results = _inspect_all(Encoder(spec, load(), name, None), support, inspected)
        feature_difference[name] = max(
            relative_difference(values, torch_values, float(np.sqrt((torch_values**2).mean())))
            for values, torch_values in zip(results.features, expected.features, strict=True)
        )
        score_difference[name] = max(
            relative_difference(score, torch_score, torch_score)
            for score, torch_score in zip(results.scores, expected.scores, strict=True)
        )
        flips[name] = decision_flips(results.decisions, expected.decisions)
    report = EncoderParity(len(inspected), feature_difference, score_difference, flips)
    # Written so that a difference which is no number fails, too.
    agree = all(value <= FEATURE_TOLERANCE for value in feature_difference.values())
    if not (agree and np.isfinite(list(score_difference.values())).all()) or any(flips.values()):
        raise WeightsError(
            f"the exported encoder {spec.name} does not agree with torch: feature differences {feature_difference} "
            f"(tolerance {FEATURE_TOLERANCE}), decisions that flip {flips} of {len(inspected)}. It was not released."
        )
    return report


@dataclass(frozen=True, eq=False)
class _Results:
    """What one engine computes of each image: (n,) features of all stages, score, decision."""

    features: list[Float32Array]
    scores: list[float]
    decisions: list[bool]


def _inspect_all(encoder: Encoder, support: Sequence[Uint8Array], images: Sequence[Uint8Array]) -> _Results:
    inspector = Inspector.from_support(list(support), encoder=encoder, image_size=SIDE, views="none")
    inspections = [inspector.inspect(image) for image in images]
    maps = [encoder.encode(_shrink_to_multiple(image, encoder.spec.multiple)) for image in images]
    return _Results(
        [np.concatenate([feature_map.ravel() for feature_map in image_maps]) for image_maps in maps],
        [inspection.score for inspection in inspections],
        [inspection.is_anomalous for inspection in inspections],
    )


def _shrink_to_multiple(image: Uint8Array, multiple: int) -> Uint8Array:
    height, width = (max(side // multiple, 2) * multiple for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
