"""What becomes of a product's threshold by images whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass

from fewshot_ad.check.report import Check
from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.recalibration import recalibrate
from fewshot_ad.enrollment.sensitivity import Sensitivity, sensitivity
from fewshot_ad.errors import ArgumentError
from fewshot_ad.metrics import Rate, auroc, needed_for
from fewshot_ad.product import Product

# The rate that engineers ask for most often, as the example of what a promise takes.
_EXAMPLE = 0.01


@dataclass(frozen=True)
class Recalibration:
    """A product's threshold before and after a calibration on further images.

    Attributes:
        product: Name of the product.
        former_threshold: The threshold that held before.
        was_set_by_hand: Whether that was set by hand.
        former: The calibration before.
        calibration: The calibration now.
        max_false_reject: The limit on false rejects that it was to keep; None for none.
        former_sensitivity: Which drawn defects were caught before; None for products of earlier versions.
        sensitivity: Which are caught now; None likewise.
        notes: Images that were left out, with the reason.
        max_review: The share of good parts that may be looked at by someone; None for no such band.
    """

    product: str
    former_threshold: float
    was_set_by_hand: bool
    former: Calibration
    calibration: Calibration
    max_false_reject: float | None
    former_sensitivity: Sensitivity | None
    sensitivity: Sensitivity | None
    notes: tuple[str, ...]
    max_review: float | None = None

    @property
    def event(self) -> str:
        """What was done in one sentence, for the record of the product."""
        now, by_hand = self.calibration, " (set by hand)" if self.was_set_by_hand else ""
        bad = f" and {len(now.bad_scores)} bad" if now.bad_scores else ""
        return (
            f"calibrated on {now.n} good{bad} images ({now.method}): threshold {self.former_threshold:.6g}{by_hand} -> "
            f"{now.threshold:.6g}."
        )

    def false_rejects(self, threshold: float) -> Rate:
        """How many of the good images that it was calibrated on a threshold rejects."""
        scores = self.calibration.further_scores
        return Rate(sum(score > threshold for score in scores), len(scores))

    def explain(self) -> str:
        """Plain text for the engineer: before and after, what is promised, and what would take more images."""
        return "\n".join([f"{self.product}: {self.event}", *self._lines(), self.calibration.explain()])

    def _lines(self) -> list[str]:
        lines = [f"note: {note}" for note in self.notes]
        if self.was_set_by_hand:
            lines.append("The threshold that was set by hand is replaced.")
        if self.former.further_scores and len(self.former.further_scores) > self.calibration.n:
            lines.append(
                f"warning: this replaces a calibration on {self.former.n} good images by one on {self.calibration.n}, "
                "and what it promised. Give all of them together."
            )
        before, after = (self.false_rejects(at) for at in (self.former_threshold, self.calibration.threshold))
        lines.append(f"Rejects of these {before.total} good images: {before.count} before, {after.count} now.")
        if self.calibration.bad_scores:
            scores = self.calibration.bad_scores
            was, now = (
                sum(score <= at for score in scores) for at in (self.former_threshold, self.calibration.threshold)
            )
            lines.append(f"Passes of these {len(scores)} bad images: {was} before, {now} now.")
        if self.former_sensitivity is not None and self.sensitivity is not None:
            passed = [1 - found.caught for found in (self.former_sensitivity, self.sensitivity)]
            lines.append(
                f"Passes of the drawn defects of the smallest size that matters: {passed[0]:.0%} before, "
                f"{passed[1]:.0%} now."
            )
        return [*lines, self._promise(), *self._review()]

    def _review(self) -> list[str]:
        if self.max_review is None:
            return []
        low, high = self.calibration.review_threshold, self.calibration.threshold
        if low is None:
            return [
                f"No band to be looked at: the threshold alone rejects {self.max_review:.3g} of good parts or more."
            ]
        own = sum(low < score <= high for score in self.calibration.further_scores)
        bad = self.calibration.bad_scores
        caught = f", and {sum(low < score <= high for score in bad)} of {len(bad)} bad ones" if bad else ""
        seen = f"{own} of these {self.calibration.n} good images{caught}"
        return [f"To be looked at, scores from {low:.4g} to {high:.4g}: {seen}."]

    def _promise(self) -> str:
        n, asked = self.calibration.n, self.max_false_reject
        if asked is None:
            return (
                f"Whatever the distribution of scores, {n} good images can promise a false reject rate of "
                f"{1 / (n + 1):.1%} at best (max_false_reject); {_EXAMPLE:.0%} takes {needed_for(_EXAMPLE)}."
            )
        if n < needed_for(asked):
            return (
                f"To promise a false reject rate of {asked:.3g} takes {needed_for(asked)} good images, got {n}: until "
                f"then it is predicted, not promised, and the prediction is {self.calibration.false_reject_rate:.1%}."
            )
        return f"Promised: a false reject rate of at most {asked:.3g} on average, whatever the distribution of scores."


def recalibration(
    product: Product, check: Check, max_false_reject: float | None, max_review: float | None = None
) -> Recalibration:
    """The threshold that further images give a product, which stays as it is.

    Args:
        product: The product.
        check: Its verdicts on these images.
        max_false_reject: Highest share of good parts to be rejected; None takes the limit of the enrollment, if there
            is one.
        max_review: Share of good parts that may be looked at by someone, those rejected among them; None for none.

    Raises:
        ArgumentError: A limit is out of range, or the second is not above the first.
    """
    settings, before = product.enrollment.settings, product.calibration
    good, bad = check.scores("good"), check.scores("bad")
    if bad and auroc([0] * len(good) + [1] * len(bad), [*good, *bad]) < 0.5:
        raise ArgumentError(
            f"expected bad images that are farther from the support set than good ones, got {len(bad)} bad ones that "
            f"mostly score below the {len(good)} good ones. Are the two swapped? Nothing was changed; "
            "`fewshot-ad check` names each."
        )
    limit = settings.max_false_reject if max_false_reject is None else max_false_reject
    if max_review is not None and limit is not None and max_review <= limit:
        raise ArgumentError(
            f"expected max_review above max_false_reject ({limit:g}), got {max_review:g}: what is rejected is among "
            "it. Give a larger share."
        )
    calibration = recalibrate(before, good, bad, limit, max_review=max_review)
    caught = [
        sensitivity(before, threshold, settings.min_defect)
        for threshold in (product.model.threshold, calibration.threshold)
    ]
    return Recalibration(
        product=product.enrollment.product_name,
        former_threshold=product.model.threshold,
        was_set_by_hand=product.threshold_set_by_hand,
        former=before,
        calibration=calibration,
        max_false_reject=limit,
        former_sensitivity=caught[0],
        sensitivity=caught[1],
        max_review=max_review,
        notes=tuple(
            f"left out of the calibration: {image.name} ({image.truth}): {image.reason}"
            for image in (*check.left_out, *check.unreadable)
        ),
    )
