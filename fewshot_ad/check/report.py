"""What a check returns."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fewshot_ad.check.suggestion import Suggestion, balanced_accuracy, suggest, why_none
from fewshot_ad.metrics import Rate, auroc

CHECK_SCHEMA = "fewshot-ad/check/1"
Truth: TypeAlias = Literal["good", "bad"]
Outcome: TypeAlias = Literal["right", "missed", "rejected"]
# Names in each list of `Check.explain`, at most.
_NAMED = 20


@dataclass(frozen=True)
class CheckedImage:
    """The verdict on one image whose truth is known.

    Attributes:
        name: File name, with as much of its folder as tells it from the others; `good[i]` or `bad[i]`, counted from 0,
            for an image from memory.
        file: Path as it was named; None for an image from memory.
        truth: `good` or `bad`, as it was given.
        score: Image score; higher is worse.
        severity: Score / threshold.
        is_anomalous: The decision: severity above 1.
    """

    name: str
    file: str | None
    truth: Truth
    score: float
    severity: float
    is_anomalous: bool

    @property
    def outcome(self) -> Outcome:
        """`missed`: a bad image that is passed; `rejected`: a good one that is rejected; else `right`."""
        if self.is_anomalous == (self.truth == "bad"):
            return "right"
        return "missed" if self.truth == "bad" else "rejected"


@dataclass(frozen=True)
class UncountedImage:
    """An image that is in no count: name, file and truth as in `CheckedImage`, and the reason."""

    name: str
    file: str | None
    truth: Truth
    reason: str


@dataclass(frozen=True)
class CheckedDefect:
    """What becomes of a defect that the operator has shown.

    Attributes:
        name: Of its image.
        severity: Score / threshold, by the patches that are stored of it.
        is_caught: Whether its image would be rejected.
    """

    name: str
    severity: float
    is_caught: bool


@dataclass(frozen=True)
class Check:
    """What a product says of images whose truth is known.

    Attributes:
        product: Name of the product.
        threshold: The product's threshold when it was checked.
        images: The images that were judged and counted: the good ones, then the bad ones, each in the order given.
        left_out: Images that say nothing: those of the support set, and exact copies of others.
        unreadable: Images that cannot be used.
        calibrated_on: How many of the images the threshold was calibrated on; of those it says little.
        known_defects: The defects that were shown by `reject`; they are in no count.
    """

    product: str
    threshold: float
    images: tuple[CheckedImage, ...]
    left_out: tuple[UncountedImage, ...]
    unreadable: tuple[UncountedImage, ...]
    calibrated_on: int = 0
    known_defects: tuple[CheckedDefect, ...] = ()

    @property
    def false_rejects(self) -> Rate:
        """The good images that are rejected, with the exact 95% interval of their rate."""
        return Rate(len(self.rejected), len(self.scores("good")))

    @property
    def escapes(self) -> Rate | None:
        """The bad images that are passed, with the exact 95% interval of their rate; None without bad images."""
        total = len(self.scores("bad"))
        return Rate(len(self.missed), total) if total else None

    @property
    def missed(self) -> tuple[CheckedImage, ...]:
        """The bad images that are passed, lowest score first."""
        return tuple(sorted(self._with_outcome("missed"), key=lambda image: image.score))

    @property
    def rejected(self) -> tuple[CheckedImage, ...]:
        """The good images that are rejected, highest score first."""
        return tuple(sorted(self._with_outcome("rejected"), key=lambda image: -image.score))

    @property
    def auroc(self) -> float | None:
        """Probability that a bad image scores above a good one, at no threshold; None without bad images."""
        if self.escapes is None:
            return None
        return auroc([image.truth == "bad" for image in self.images], [image.score for image in self.images])

    @property
    def looks_swapped(self) -> bool:
        """Whether bad images mostly score below good ones, as where the two are given in the other's place."""
        return self.auroc is not None and self.auroc < 0.5

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of the share of good images passed and of bad ones rejected; None without bad images."""
        return balanced_accuracy(self.false_rejects, self.escapes)

    @functools.cached_property
    def suggestion(self) -> Suggestion | None:
        """Another threshold for these images.

        None where there are no bad and fewer than 9 good ones, and where the two look swapped.
        """
        if self.looks_swapped:
            return None
        return suggest(self.scores("good"), self.scores("bad"))

    def scores(self, truth: Truth) -> list[float]:
        """The scores of the good or of the bad images."""
        return [image.score for image in self.images if image.truth == truth]

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain JSON types: what `fewshot-ad check --json` prints.

        `schema` names these fields and their version, see docs/reference/schemas/check.json.
        """
        return {
            "schema": CHECK_SCHEMA,
            "product": self.product,
            "threshold": self.threshold,
            "false_rejects": self.false_rejects.as_dict(),
            "escapes": None if self.escapes is None else self.escapes.as_dict(),
            "auroc": self.auroc,
            "balanced_accuracy": self.balanced_accuracy,
            "calibrated_on": self.calibrated_on,
            "missed": [image.name for image in self.missed],
            "rejected": [image.name for image in self.rejected],
            "suggestion": None if self.suggestion is None else self.suggestion.as_dict(),
            "images": [{**vars(image), "outcome": image.outcome} for image in self.images],
            "left_out": [dict(vars(image)) for image in self.left_out],
            "unreadable": [dict(vars(image)) for image in self.unreadable],
            "known_defects": [dict(vars(defect)) for defect in self.known_defects],
        }

    def explain(self) -> str:
        """Plain text for the engineer: the table, the rates, the mistakes by name, and the suggested threshold."""
        paragraphs = [
            f"{self.product}: {len(self.images)} images at threshold {self.threshold:.4g}",
            self._table(),
            self._rates(),
            self._warning(),
            _list("Missed (bad, judged good), least anomalous first", map(_named, self.missed)),
            _list("Rejected (good, judged anomalous), most anomalous first", map(_named, self.rejected)),
            self._known(),
            self._advice(),
            _list("Left out of all counts", map(_reason, self.left_out)),
            _list("Not readable, and in no count", map(_reason, self.unreadable)),
        ]
        return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)

    def _table(self) -> str:
        rejects = self.false_rejects
        rows = [("", "judged good", "judged anomalous"), ("good", rejects.total - rejects.count, rejects.count)]
        if self.escapes is not None:
            rows.append(("bad", self.escapes.count, self.escapes.total - self.escapes.count))
        return "\n".join(f"{truth:<6}{passed:>13}{rejected:>18}" for truth, passed, rejected in rows)

    def _rates(self) -> str:
        text = f"False reject rate {self.false_rejects}"
        if self.escapes is None:
            return text
        if self.looks_swapped:
            text = f"warning: bad images mostly score below good ones. Are the two swapped?\n{text}"
        accuracy = f"AUROC {self.auroc:.3f}, balanced accuracy {self.balanced_accuracy:.3f}"
        return f"{text}\nEscape rate {self.escapes}\n{accuracy}"

    def _known(self) -> str:
        if not self.known_defects:
            return ""
        passed = [defect for defect in self.known_defects if not defect.is_caught]
        text = f"Known defects: {len(self.known_defects) - len(passed)} of {len(self.known_defects)} caught"
        listed = _list("Known defects that would pass", (f"severity {d.severity:5.2f}  {d.name}" for d in passed))
        return f"{text}\n\n{listed}" if listed else text

    def _warning(self) -> str:
        if not self.calibrated_on:
            return ""
        return (
            f"warning: {self.calibrated_on} of these {len(self.images)} images score exactly as images that the "
            "threshold was calibrated on, so they are most likely the same, and the rates above better than those of "
            "the next parts. Check on other images."
        )

    def _advice(self) -> str:
        if self.looks_swapped:
            return "No threshold is suggested while bad images mostly score below good ones."
        if self.suggestion is None:
            return why_none(self.false_rejects.total)
        text = self.suggestion.explain()
        fair, own = self.suggestion.fair_balanced_accuracy, self.balanced_accuracy
        if fair is not None and own is not None and fair <= own:
            on = "most of which it was chosen on" if self.calibrated_on else "which was not chosen on them"
            text += f" The product's own threshold, {on}, does as well: no reason to change it."
        return text

    def _with_outcome(self, outcome: Outcome) -> list[CheckedImage]:
        return [image for image in self.images if image.outcome == outcome]


def _list(title: str, entries: Iterable[str]) -> str:
    lines = [f"  {entry}" for entry in entries]
    if not lines:
        return ""
    more = [f"  and {len(lines) - _NAMED} more"] if len(lines) > _NAMED else []
    return "\n".join([f"{title}:", *lines[:_NAMED], *more])


def _named(image: CheckedImage) -> str:
    return f"severity {image.severity:5.2f}  {image.name}"


def _reason(image: UncountedImage) -> str:
    return f"{image.name} ({image.truth}): {image.reason}"
