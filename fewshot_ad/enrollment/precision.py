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
from fewshot_ad.scoring import Model, joint_score, measure_at

# Largest difference of a score, as a share of the threshold. Scores of good parts differ by more than this from one
# image to the next.
SEVERITY_TOLERANCE = 0.05
# A precision that gains less than this is not worth scores of its own.
MIN_SPEEDUP = 1.15
REPEATS = 15
MAX_IMAGES = 8


def speedup(reference: Encoder, candidate: Encoder, image_sizes: Sequence[int]) -> float:
    """How many times faster one encoder is than another at the working scales of a product together."""
    times = encode_ms(reference, candidate, image_sizes=image_sizes)
    return times[0] / times[1]


def encode_ms(*encoders: Encoder, image_sizes: Sequence[int]) -> list[float]:
    """Milliseconds that each encoder takes for a blank input of each working scale, the encoders in turns.

    The lower quartile of the runs counts: whatever else the machine does makes some slower, and none faster.
    """
    totals = [0.0] * len(encoders)
    for image_size in image_sizes:
        multiple = encoders[0].spec.multiple
        # Larger inputs come in tiles of that side.
        tiles = max(1.0, (image_size / TILE_SIDE) ** 2)
        side = max(1, round(min(image_size, TILE_SIDE) / multiple)) * multiple
        blank = np.zeros((side, side, 3), np.uint8)
        for encoder in encoders:
            encoder.encode(blank)  # compiles
        times: list[list[float]] = [[] for _ in encoders]
        for _ in range(REPEATS):
            for encoder, series in zip(encoders, times, strict=True):
                start = time.perf_counter()
                encoder.encode(blank)
                series.append(time.perf_counter() - start)
        for at, series in enumerate(times):
            totals[at] += 1e3 * tiles * float(np.quantile(series, 0.25))
    return totals


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
        settings: Views and scoring.
        encoder: The encoder that the product was enrolled with.
        model: The product's banks.
        calibration: Its held-out scores and threshold.
    """
    scores = list(calibration.scores)
    for support_image in images[:MAX_IMAGES]:
        for view in (None, *settings.views):
            measured = []
            for scale in model.scales:
                image = scale_image(support_image.pixels, scale.image_size, encoder, settings.framing)
                levels = embed_image(image, encoder, view).levels
                measured.append(measure_at(scale, levels, image.geometry, settings.scoring))
            scores.append(joint_score(measured))
    return [score / calibration.threshold for score in scores]
