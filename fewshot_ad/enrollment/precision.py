"""What `precision="auto"` rests on: how much faster a precision is, and how severe it finds what is good."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from fewshot_ad.encoder import Encoder
from fewshot_ad.encoder.tiling import TILE_SIDE
from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.embedding import embed_image, scale_image
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.support import SupportImage
from fewshot_ad.scoring import Model, measure

# Largest difference of a score, as a share of the threshold. Scores of good parts differ by more than this from one
# image to the next.
SEVERITY_TOLERANCE = 0.05
# A precision that gains less than this is not worth scores of its own.
MIN_SPEEDUP = 1.15
REPEATS = 15
MAX_IMAGES = 8


def speedup(reference: Encoder, candidate: Encoder, image_size: int) -> float:
    """How many times faster one encoder is than another, on a blank input of a working scale; medians, alternating."""
    # Larger inputs come in tiles, which gain what a single one gains.
    side = max(1, round(min(image_size, TILE_SIDE) / reference.spec.multiple)) * reference.spec.multiple
    blank = np.zeros((side, side, 3), np.uint8)
    times: tuple[list[float], list[float]] = ([], [])
    for encoder in (reference, candidate):
        encoder.encode(blank)  # compiles
    for _ in range(REPEATS):
        for encoder, series in zip((reference, candidate), times, strict=True):
            start = time.perf_counter()
            encoder.encode(blank)
            series.append(time.perf_counter() - start)
    return float(np.median(times[0]) / np.median(times[1]))


def severities(
    images: Sequence[SupportImage],
    settings: EnrollmentSettings,
    encoder: Encoder,
    model: Model,
    calibration: Calibration,
) -> list[float]:
    """Score over threshold of support images and their views: held out each, then as the line would see them.

    Args:
        images: The support set.
        settings: Views and working scale.
        encoder: The encoder that the product was enrolled with.
        model: The product's banks.
        calibration: Its held-out scores and threshold.
    """
    scores = list(calibration.scores)
    for support_image in images[:MAX_IMAGES]:
        image = scale_image(support_image.pixels, settings.image_size, encoder.spec.multiple)
        for view in (None, *settings.views):
            levels = embed_image(image, encoder, view).levels
            scores.append(measure(levels, model.banks, model.level_scale, image.geometry, settings.scoring).score)
    return [score / calibration.threshold for score in scores]
