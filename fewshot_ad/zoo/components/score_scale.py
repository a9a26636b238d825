"""What the scores and maps of a baseline mean on one product: from good images that it was not fitted on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Progress
from fewshot_ad.enrollment.views import View, parse_views
from fewshot_ad.errors import ZooError
from fewshot_ad.inspection.regions import MapScale
from fewshot_ad.metrics.distributions import student_t_quantile
from fewshot_ad.zoo.components.colored_points import colored_points
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

    def explain(self) -> str:
        """Where the threshold comes from, and on what its promise rests, in words."""
        if not self.held_out:
            return "set by hand"
        if self.held_out == 1:
            return (
                "from one good image that it was not fitted on, in small variations: what share of good parts is above "
                "it, nobody knows"
            )
        origin = (
            f"from {self.held_out} good images that it was not fitted on: about {100 * self.max_false_reject:g}% of "
            "good parts are expected above it"
        )
        # Of n images none shows a share below 1 in n + 1.
        if self.held_out + 1 < 1 / self.max_false_reject:
            origin += " if their scores are normally distributed, which so few cannot show"
        return origin


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


@dataclass(frozen=True, eq=False)
class Fitting:
    """How a baseline is to be fitted to the good images of a product.

    Attributes:
        name: Name of the baseline.
        asked: What `create` takes for it.
        images: (H, W, 3) uint8 RGB each, or (H, W, 6) float32 of a method that needs positions.
        labeled: For baselines that learn from defects.
        progress: Called as `progress(stage, done, total)`.
    """

    name: str
    asked: Mapping[str, Any]
    images: Sequence[Any]
    labeled: Sequence[Labeled]
    progress: Progress | None

    def with_held_out(self) -> Fit:
        """Fit so that there are scores of good images that the method has not seen.

        Raises:
            ZooError: There are too few images.
        """
        count = len(self.images)
        if count < 2:
            raise ZooError(
                f"{self.name}: expected 2 or more good images, got {count}: the threshold comes from images that it is "
                "not fitted on. Give more images, or a threshold of your own (threshold=, --threshold)."
            )
        card = cards()[self.name]
        try:
            if card.trains:
                return self._once()
            # A method that learns nothing from good images has seen none of them.
            return self._judged_on(range(count), range(count)) if card.supervision == "none" else self._in_turn()
        except ZooError as error:
            # Only where it is of as many images as it was fitted on without the others.
            if not any(re.search(rf"\bgot {fewer}\b", str(error)) for fewer in range(1, count)):
                raise
            raise ZooError(
                f"{str(error).rstrip('.')} (for the threshold it is fitted without some of the {count} images: give "
                "more, or a threshold of your own, threshold= or --threshold)."
            ) from error

    def on_all(self) -> Fit:
        """Fit to all images; good scores and maps are those of small variations of the same ones."""
        every = range(len(self.images))
        return replace(self._judged_on(every, every, VARIATIONS), held_out=0)

    def _once(self) -> Fit:
        """Some images are kept back, evenly spaced, and judged in small variations."""
        total = len(self.images)
        count = max(1, round(HELD_SHARE * total))
        held = sorted({round((i + 0.5) * total / count - 0.5) for i in range(count)})
        return self._judged_on([i for i in range(total) if i not in held], held, VARIATIONS)

    def _in_turn(self) -> Fit:
        """Fitted without each part of the images in turn, then on all."""
        count = len(self.images)
        folds = min(count, FOLDS)
        scores = np.zeros(count, np.float32)
        maps: list[Float32Array] = []
        for fold in range(folds):
            held = range(fold, count, folds)
            quiet = replace(self, progress=None)
            part = quiet._judged_on([i for i in range(count) if i not in held], held)
            if self.progress is not None:
                self.progress("threshold", fold + 1, folds)
            scores[list(held)] = part.scores
            maps.extend(part.maps)
        return Fit(self._fitted_on(range(count)), tuple(range(count)), scores, tuple(maps), count)

    def _fitted_on(self, chosen: Sequence[int]) -> Method:
        method = create(self.name, **self.asked)
        method.fit([self.images[i] for i in chosen], self.labeled, self.progress)
        return method

    def _judged_on(self, chosen: Sequence[int], held: Sequence[int], variations: str = "none") -> Fit:
        """Fit to some images, and judge others, with variations of them."""
        method = self._fitted_on(chosen)
        copies = []
        for i in held:
            image = self.images[i]
            copies += [image, *(_varied(image, view) for view in parse_views(variations))]
        predicted = finite(self.name, method.predict(copies))
        return Fit(method, tuple(chosen), predicted.scores, predicted.maps or (), len(held))


def _varied(image: Any, view: View) -> Any:
    """A variation of an image; where it has positions, they go with their pixels, and what comes in has none."""
    color = np.ascontiguousarray(image[..., :3], np.uint8)
    varied, _, back = view.apply(color, np.full(image.shape[:2], 255, np.uint8))
    if image.shape[2] == color.shape[2]:
        return varied
    positions = np.ascontiguousarray(image[..., 3:])
    # Between two positions there is nothing, so none is interpolated.
    moved = cv2.warpAffine(positions, back, image.shape[1::-1], flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return colored_points(varied, moved.astype(np.float32, copy=False))


def finite(name: str, predicted: Predictions) -> Predictions:
    """The predictions of a baseline.

    Raises:
        ZooError: A score is not finite.
    """
    if not np.isfinite(predicted.scores).all():
        raise ZooError(f"{name}: expected finite scores, got {predicted.scores.tolist()[:3]}. Fit it on more images.")
    return predicted


def score_scale(name: str, scores: Float32Array, held_out: int, max_false_reject: float) -> ScoreScale:
    """The scale that follows from scores of good images that a method was not fitted on.

    Args:
        name: Of the baseline.
        scores: (n,) float32.
        held_out: Number of those images, without their copies.
        max_false_reject: Share of good parts that is to lie above the threshold.

    Raises:
        ZooError: They are all the same.
    """
    if np.ptp(scores) == 0:
        few = " Of two images each says the same of the other: give three or more." if held_out == 2 else ""
        raise ZooError(
            f"{name}: expected scores of good images that differ, got {scores[0]:g} for all of them: no threshold "
            f"follows.{few} Or give a threshold of your own (threshold=, --threshold)."
        )
    good, threshold = float(np.median(scores)), _bound(scores, max_false_reject)
    # Where half of the good may be rejected, the threshold is their mean, which may be below their median.
    good = good if threshold > good else float(scores.min())
    return ScoreScale(good, threshold, held_out, max_false_reject)


def by_hand(name: str, fit: Fit, threshold: float, max_false_reject: float) -> ScoreScale:
    """The scale with a threshold set by hand.

    Raises:
        ZooError: Half of the good images would be above it.
    """
    return scale_with_threshold(name, float(np.median(fit.scores)), threshold, max_false_reject)


def scale_with_threshold(name: str, good: float, threshold: float, max_false_reject: float) -> ScoreScale:
    """The same by the median score of good images.

    Raises:
        ZooError: Half of the good images would be above it.
    """
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
