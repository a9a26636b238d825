"""Another threshold for a product that was checked, with what it would have done and what that is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fewshot_ad.enrollment.recalibration import MARGIN
from fewshot_ad.metrics import (
    Interval,
    Rate,
    conformal_rank,
    false_reject_law,
    needed_for,
    threshold_of_labeled,
)

# False reject rates to promise from good images alone: the first is taken that their number allows.
PROMISES = (0.05, 0.1)


@dataclass(frozen=True)
class Suggestion:
    """Another threshold, and what it would have done.

    Attributes:
        threshold: Scores above it are anomalous.
        method: `labeled`: the threshold of highest balanced accuracy on these good and bad images. `conformal`: there
            were good images alone, and it is the lowest one that promises `max_false_reject`.
        false_rejects: The good images that it rejects, of these.
        escapes: The bad images that it passes, of these; None without bad images.
        interval: Where 95% of the bootstrap draws put the threshold, see `metrics.LabeledThreshold`; None if `method`
            is `conformal`.
        held_out_false_rejects: See `metrics.LabeledThreshold`; None without bad images, or with one of a kind.
        held_out_escapes: As `held_out_false_rejects`.
        max_false_reject: Highest share of good parts that is rejected on average, as promised; None if `method` is
            `labeled`.
        upper_false_reject: The share that is exceeded in one case of 20, see `metrics.false_reject_law`; None likewise.
    """

    threshold: float
    method: Literal["labeled", "conformal"]
    false_rejects: Rate
    escapes: Rate | None = None
    interval: Interval | None = None
    held_out_false_rejects: Rate | None = None
    held_out_escapes: Rate | None = None
    max_false_reject: float | None = None
    upper_false_reject: float | None = None

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of the share of good images passed and of bad ones rejected; None without bad images."""
        return balanced_accuracy(self.false_rejects, self.escapes)

    @property
    def fair_balanced_accuracy(self) -> float | None:
        """The same of the held-out images, where there are such."""
        return balanced_accuracy(
            self.held_out_false_rejects or self.false_rejects, self.held_out_escapes or self.escapes
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        fields = {name: value.as_dict() if isinstance(value, Rate) else value for name, value in vars(self).items()}
        interval = None if self.interval is None else list(self.interval)
        return {**fields, "interval": interval, "balanced_accuracy": self.balanced_accuracy}

    def explain(self) -> str:
        """One paragraph for the engineer."""
        return self._explain_labeled() if self.method == "labeled" else self._explain_promise()

    def _explain_labeled(self) -> str:
        low, high = self.interval or (self.threshold, self.threshold)
        bad = self.escapes.total if self.escapes is not None else 0
        text = (
            f"Suggested threshold {self.threshold:.4g} ({low:.4g} to {high:.4g} in 95% of 1,000 bootstrap draws, "
            f"seed 0). On these images: false reject rate {self.false_rejects}, escape rate {self.escapes}, "
            f"balanced accuracy {self.balanced_accuracy:.3f}. That flatters it, since it was chosen on these same "
            f"{self.false_rejects.total} good and {bad} bad images. "
        )
        if self.held_out_false_rejects is None:
            return text + "With a single image of a kind, nothing fairer can be said."
        return text + (
            f"Chosen each time without the images it then judges: false reject rate {self.held_out_false_rejects}, "
            f"escape rate {self.held_out_escapes}."
        )

    def _explain_promise(self) -> str:
        rejects = self.false_rejects
        return (
            f"Suggested threshold {self.threshold:.4g}, from the {rejects.total} good images alone: of good parts that "
            f"come from where these came from it rejects at most {self.max_false_reject:.0%} on average; in one case "
            f"of 20, more than {self.upper_false_reject:.1%}. It would have rejected {rejects.count} of these "
            f"{rejects.total}, which proves nothing, since it was chosen on them. How many bad parts it passes is not "
            "known: give bad images, too."
        )


def suggest(good_scores: Sequence[float], bad_scores: Sequence[float]) -> Suggestion | None:
    """A threshold for images whose truth is known.

    Args:
        good_scores: (n,) scores of good images, one at least; none of them enrolled.
        bad_scores: (m,) scores of bad images; may be empty.

    Returns:
        None where there are no bad and too few good images to promise one of `PROMISES`.
    """
    if bad_scores:
        return Suggestion(method="labeled", **vars(threshold_of_labeled(good_scores, bad_scores)))
    total = len(good_scores)
    for promise in PROMISES:
        rank = conformal_rank(total, promise)
        if rank is not None:
            threshold = sorted(good_scores)[rank - 1] * (1 + MARGIN)
            return Suggestion(
                threshold,
                "conformal",
                Rate(sum(score > threshold for score in good_scores), total),
                max_false_reject=promise,
                upper_false_reject=false_reject_law(rank, total).upper,
            )
    return None


def why_none(total: int) -> str:
    """Why no threshold is suggested from so many good images and no bad ones."""
    needed = " and ".join(f"{needed_for(promise)} for {promise:.0%}" for promise in reversed(PROMISES))
    return (
        f"No threshold is suggested: {total} good images are too few to promise a false reject rate. It takes "
        f"{needed}; or give bad images, too."
    )


def balanced_accuracy(false_rejects: Rate, escapes: Rate | None) -> float | None:
    """Mean of the share of good images passed and of bad ones rejected, 0..1; None without bad images."""
    return None if escapes is None else 1 - (false_rejects.rate + escapes.rate) / 2
