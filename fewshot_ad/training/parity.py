"""Proof that an exported encoder says what the trained one says, on every engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.encoder import Encoder, EncoderSpec
from fewshot_ad.encoder.engine import Engine, EngineName
from fewshot_ad.errors import WeightsError

# Largest difference of a feature, as a share of the features' root mean square. bf16 training does not matter here:
# all engines compute in float32 and differ by rounding alone.
TOLERANCE = 5e-3
SIDE = 256
MIN_IMAGES = 6


@dataclass(frozen=True)
class ParityReport:
    """How far the engines are from torch.

    Attributes:
        images: Number of images that were compared.
        feature_difference: Largest |difference| of a feature over the features' root mean square, an engine.
        score_difference: Largest |difference| of an image score over the score, an engine.
        decision_flips: Images judged differently, an engine.
    """

    images: int
    feature_difference: dict[str, float]
    score_difference: dict[str, float]
    decision_flips: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check_parity(
    spec: EncoderSpec,
    reference: Engine,
    engines: dict[EngineName, Callable[[], Engine]],
    good: Sequence[Uint8Array],
    changed: Sequence[Uint8Array],
) -> ParityReport:
    """Compare engines with torch: features, scores and decisions.

    Args:
        spec: The encoder's.
        reference: torch.
        engines: The others, by name.
        good: Good images of one product, (H, W, 3) uint8; the first half is enrolled, the others are inspected.
        changed: Further images to inspect, the same with defects for example.

    Raises:
        WeightsError: A feature differs by more than the tolerance, a decision flips, or there are too few images.
    """
    from fewshot_ad.inspector import Inspector

    if len(good) < MIN_IMAGES:
        raise WeightsError(f"expected at least {MIN_IMAGES} images to prove parity, got {len(good)}.")
    half = len(good) // 2
    inspected = [*good[half:], *changed]

    def judge(name: EngineName, engine: Engine) -> tuple[list[np.ndarray], list[float], list[bool]]:
        encoder = Encoder(spec, engine, name, None)
        inspector = Inspector.from_support(list(good[:half]), encoder=encoder, image_size=SIDE, views="none")
        results = [inspector.inspect(image) for image in inspected]
        features = [np.concatenate([m.ravel() for m in encoder.encode(_fit(p, spec.multiple))]) for p in inspected]
        return features, [r.score for r in results], [r.is_anomalous for r in results]

    wanted, scores, decisions = judge("torch", reference)
    features_off: dict[str, float] = {}
    scores_off: dict[str, float] = {}
    flips: dict[str, int] = {}
    for name, make in engines.items():
        got, got_scores, got_decisions = judge(name, make())
        features_off[name] = max(
            float(np.abs(a - b).max() / np.sqrt((b**2).mean())) for a, b in zip(got, wanted, strict=True)
        )
        scores_off[name] = max(abs(a - b) / b for a, b in zip(got_scores, scores, strict=True))
        flips[name] = sum(a != b for a, b in zip(got_decisions, decisions, strict=True))
    report = ParityReport(len(inspected), features_off, scores_off, flips)
    if max(features_off.values()) > TOLERANCE or any(flips.values()):
        raise WeightsError(
            f"the exported encoder {spec.name} does not say what torch says: feature differences {features_off} "
            f"(tolerance {TOLERANCE}), decisions that flip {flips} of {len(inspected)}. It was not released."
        )
    return report


def _fit(image: Uint8Array, multiple: int) -> Uint8Array:
    height, width = (max(n // multiple, 2) * multiple for n in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
