"""`precision="auto"`: the fastest precision whose scores on the support set and its views stay what they were."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.banks import Enrolled
from fewshot_ad.enrollment.embedding import Embedded, pictures_of
from fewshot_ad.enrollment.support import SupportImage, View
from fewshot_ad.images import Geometry
from fewshot_ad.scoring import ScoringConfig, measure

# Largest difference of a score, as a share of the threshold. Scores of good parts differ by more than this from one
# image to the next.
TOLERANCE = 0.05
# A precision that gains less than this is not worth scores of its own.
MIN_SPEEDUP = 1.15
REPEATS = 15
MAX_IMAGES = 8


def speedup(reference: Encoder, candidate: Encoder, image_size: int) -> float:
    """How many times faster one encoder is than another, on a blank input of a working scale; medians, alternating."""
    side = max(1, round(image_size / reference.spec.multiple)) * reference.spec.multiple
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
    views: Sequence[View],
    image_size: int,
    encoder: Encoder,
    enrolled: Enrolled,
    scoring: ScoringConfig,
) -> list[float]:
    """Score over threshold of support images and their views: held out each, then as the line would see them.

    Args:
        images: The support set.
        views: Its views.
        image_size: Working scale.
        encoder: The encoder the product was enrolled with.
        enrolled: The product.
        scoring: How distances become a score.
    """
    scores = list(enrolled.calibration.scores)
    for image in images[:MAX_IMAGES]:
        pixels = image.pixels
        geometry = Geometry.fit(pixels.shape[:2], image_size, encoder.spec.multiple)  # type: ignore[arg-type]
        for picture in pictures_of(geometry.scale(pixels), views):
            levels = encoder.encode(geometry.pad(picture.content))
            scores.append(measure(levels, enrolled.banks, enrolled.level_scale, geometry, scoring).score)
    return [score / enrolled.calibration.threshold for score in scores]


def faster_precision(
    images: Sequence[SupportImage],
    views: Sequence[View],
    image_size: int,
    scoring: ScoringConfig,
    encoder: Encoder,
    enrolled: Enrolled,
    candidate: Encoder,
    enroll: Callable[[Encoder], tuple[Embedded, Enrolled]],
) -> tuple[tuple[Embedded, Enrolled] | None, str]:
    """The product enrolled with a faster encoder, if that is faster and says the same.

    Args:
        images: The support set.
        views: Its views.
        image_size: Working scale.
        scoring: How distances become a score.
        encoder: The exact encoder.
        enrolled: The product enrolled with it.
        candidate: The faster encoder.
        enroll: Enrolls the product with an encoder, from the same patches.

    Returns:
        What `enroll` gave for the candidate, or None; and the reason.
    """
    name = candidate.spec.precision
    gain = speedup(encoder, candidate, image_size)
    if gain < MIN_SPEEDUP:
        return None, f"precision: f32; {name} is only {gain:.2f} times as fast here."
    made = enroll(candidate)
    wanted = severities(images, views, image_size, encoder, enrolled, scoring)
    got = severities(images, views, image_size, candidate, made[1], scoring)
    worst = float(np.abs(np.subtract(got, wanted)).max())
    flips = sum((a > 1) != (b > 1) for a, b in zip(got, wanted, strict=True))
    told = f"scores of {len(got)} support images and views differ by at most {worst:.1%} of the threshold"
    if flips or worst > TOLERANCE:
        return None, f"precision: f32; with {name} {told} ({TOLERANCE:.0%} allowed), {flips} decisions flip."
    return made, f"precision: {name}; {gain:.1f} times as fast as f32, and {told}."
