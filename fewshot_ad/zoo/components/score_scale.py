"""What the scores and maps of a baseline mean on one product: from good images that it was not fitted on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.enrollment.views import parse_views
from fewshot_ad.errors import ZooError
from fewshot_ad.inspection.regions import MapScale
from fewshot_ad.metrics.distributions import student_t_quantile
from fewshot_ad.zoo.method import Labeled, Method, Predictions, cards, create

# Into so many parts the good images are split for the threshold of a method without gradient steps.
FOLDS = 8
# Share of the good images that a method with gradient steps is not fitted on: the scores of two fits do not compare.
HELD_SHARE = 0.25
# What a line varies, small: each of these images is judged in these copies, too.
VARIATIONS = "translate_x=-0.01/0.01,translate_y=-0.01/0.01,rotate=-1/1,brightness=0.97/1.03"


@dataclass(frozen=True)
class ScoreScale:
    """What a baseline's scores mean on one product.

    Attributes:
        median_good: Median score of good images that the method was not fitted on; severity 0.
        threshold: Scores above it are anomalous; severity 1.
        held_out: Number of such images; 0 where the threshold was set by hand.
        max_false_reject: Share of good parts that is expected above the threshold.
    """

    median_good: float
    threshold: float
    held_out: int
    max_false_reject: float

    def severity(self, score: float) -> float:
        """A score on the scale: 0 for a median good image, 1 at the threshold, and never below 0."""
        return max(0.0, (score - self.median_good) / (self.threshold - self.median_good))


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted method, and what it says of good images.

    Attributes:
        method: The method.
        fitted_on: Indices of the images it was fitted on.
        scores: (n,) float32 of good images that it, or one like it, was not fitted on.
        maps: Their maps; none if the method has none.
        held_out: Number of those images, without their copies.
    """

    method: Method
    fitted_on: tuple[int, ...]
    scores: Float32Array
    maps: tuple[Float32Array, ...]
    held_out: int


def fit_with_held_out(
    name: str,
    asked: Mapping[str, Any],
    images: Sequence[Uint8Array],
    labeled: Sequence[Labeled],
    progress: Progress | None,
) -> Fit:
    """Fit a baseline so that there are scores of good images that it has not seen.

    Args:
        name: Name of the baseline.
        asked: What `create` takes for it.
        images: (H, W, 3) uint8 RGB each.
        labeled: For baselines that learn from defects.
        progress: Called as `progress(stage, done, total)`.

    Raises:
        ZooError: There are too few images.
    """
    if len(images) < 2:
        raise ZooError(
            f"{name}: expected 2 or more good images, got {len(images)}: the threshold comes from images that it is "
            "not fitted on. Give more images, or a threshold of your own (threshold=, --threshold)."
        )
    card = cards()[name]
    try:
        if card.trains:
            return _one_fit(name, asked, images, labeled, progress)
        if card.supervision == "none":
            method = create(name, **asked)
            method.fit(images, labeled, progress)
            predicted = finite(name, method.predict(images))
            return Fit(method, tuple(range(len(images))), predicted.scores, predicted.maps or (), len(images))
        return _fit_in_turn(name, asked, images, labeled, progress)
    except ZooError as error:
        raise ZooError(
            f"{str(error).rstrip('.')} (for the threshold it is fitted without some of the {len(images)} images: give "
            "more, or a threshold of your own, threshold= or --threshold)."
        ) from error


def fit_for_a_threshold_by_hand(
    name: str,
    asked: Mapping[str, Any],
    images: Sequence[Uint8Array],
    labeled: Sequence[Labeled],
    progress: Progress | None,
) -> Fit:
    """Fit a baseline to all images; good scores and maps are those of small variations of the same images.

    Arguments are those of `fit_with_held_out`.
    """
    method = create(name, **asked)
    method.fit(images, labeled, progress)
    predicted = finite(name, method.predict(_varied(images)))
    return Fit(method, tuple(range(len(images))), predicted.scores, predicted.maps or (), 0)


def _varied(images: Sequence[Uint8Array]) -> list[Uint8Array]:
    """Images with their small variations."""
    copies = []
    for image in images:
        whole = np.full(image.shape[:2], 255, np.uint8)
        copies += [image, *(view.apply(image, whole)[0] for view in parse_views(VARIATIONS))]
    return copies


def _one_fit(
    name: str,
    asked: Mapping[str, Any],
    images: Sequence[Uint8Array],
    labeled: Sequence[Labeled],
    progress: Progress | None,
) -> Fit:
    """Some images are kept back, evenly spaced, and judged in small variations."""
    count = max(1, round(HELD_SHARE * len(images)))
    held = {round((i + 0.5) * len(images) / count - 0.5) for i in range(count)}
    fitted_on = tuple(i for i in range(len(images)) if i not in held)
    method = create(name, **asked)
    method.fit([images[i] for i in fitted_on], labeled, progress)
    predicted = finite(name, method.predict(_varied([images[i] for i in sorted(held)])))
    return Fit(method, fitted_on, predicted.scores, predicted.maps or (), len(held))


def _fit_in_turn(
    name: str,
    asked: Mapping[str, Any],
    images: Sequence[Uint8Array],
    labeled: Sequence[Labeled],
    progress: Progress | None,
) -> Fit:
    """Fitted without each part of the images in turn, then on all."""
    folds = min(len(images), FOLDS)
    scores = np.zeros(len(images), np.float32)
    maps: list[Float32Array] = []
    for fold in range(folds):
        held = range(fold, len(images), folds)
        method = create(name, **asked)
        method.fit([image for i, image in enumerate(images) if i not in held], labeled)
        if progress is not None:
            progress("threshold", fold + 1, folds)
        predicted = finite(name, method.predict([images[i] for i in held]))
        scores[list(held)] = predicted.scores
        maps.extend(predicted.maps or ())
    method = create(name, **asked)
    method.fit(images, labeled, progress)
    return Fit(method, tuple(range(len(images))), scores, tuple(maps), len(images))


def finite(name: str, predicted: Predictions) -> Predictions:
    """The predictions of a baseline.

    Raises:
        ZooError: A score is not finite.
    """
    if not np.isfinite(predicted.scores).all():
        raise ZooError(f"{name}: expected finite scores, got {predicted.scores.tolist()[:3]}. Fit it on more images.")
    return predicted


def score_scale(name: str, fit: Fit, max_false_reject: float) -> ScoreScale:
    """The scale that follows from the held-out scores of good images.

    Raises:
        ZooError: They are all the same.
    """
    scores = fit.scores
    if np.ptp(scores) == 0:
        few = " Of two images each says the same of the other: give three or more." if fit.held_out == 2 else ""
        raise ZooError(
            f"{name}: expected scores of good images that differ, got {scores[0]:g} for all of them: no threshold "
            f"follows.{few} Or give a threshold of your own (threshold=, --threshold)."
        )
    good, threshold = float(np.median(scores)), _bound(scores, max_false_reject)
    # Where half of the good may be rejected, the threshold is their mean, which may be below their median.
    good = good if threshold > good else float(scores.min())
    return ScoreScale(good, threshold, fit.held_out, max_false_reject)


def by_hand(name: str, fit: Fit, threshold: float, max_false_reject: float) -> ScoreScale:
    """The scale with a threshold set by hand.

    Raises:
        ZooError: Half of the good images would be above it.
    """
    good = float(np.median(fit.scores))
    if not threshold > good:
        raise ZooError(
            f"{name}: expected a threshold above the median score of good images, {good:g}, got {threshold:g}. Give a "
            "higher one, or none."
        )
    return ScoreScale(good, threshold, 0, max_false_reject)


def _bound(values: Float32Array, share: float) -> float:
    """The value above which a share of new ones lies, by Student's t distribution.

    Source: the prediction interval of one further normal observation; its mean and spread are estimated.
    """
    n, spread = len(values), float(np.std(values, ddof=1))
    return float(values.mean()) + student_t_quantile(1 - share, n - 1) * spread * math.sqrt(1 + 1 / n)


def map_scale_of(maps: Sequence[Float32Array], max_false_reject: float) -> MapScale:
    """The scale of maps (H, W) of good images: 0 at their median, 1 where a share of their peaks will be above."""
    if not maps:
        return MapScale(0.0, 1.0)
    median = float(np.median([np.median(one) for one in maps]))
    peaks = np.array([one.max() for one in maps], np.float32)
    top = _bound(peaks, max_false_reject) if len(peaks) > 1 else float(peaks[0])
    return MapScale(median, max(top, median + 1e-6 * max(1.0, abs(median))))
