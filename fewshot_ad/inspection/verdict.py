"""The words and figures of a verdict, the same wherever one is printed or drawn."""

from __future__ import annotations

from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["good", "review", "anomalous", "not_inspectable"]


def verdict_words(verdict: Verdict) -> str:
    """A verdict for people: `GOOD`, `REVIEW`, `ANOMALOUS` or `NOT INSPECTABLE`."""
    return verdict.replace("_", " ").upper()


def format_severity(severity: float, is_anomalous: bool, digits: int = 2) -> str:
    """A severity as text that never reads as another verdict's: rounded, but off 1 where it would round to 1.

    Args:
        severity: `score / threshold`, or a region's on the map's scale.
        is_anomalous: The decision; 1.004 reads 1.01 and not 1.00.
        digits: After the point, at least 1. A good part just below 1 reads 0.99; one at 1 exactly is good, and reads
            1.00.
    """
    text = f"{severity:.{digits}f}"
    if float(text) != 1 or (severity == 1 and not is_anomalous):
        return text
    step = 10.0**-digits
    return f"{1 + step if is_anomalous else 1 - step:.{digits}f}"


def verdict_column(severity: float, is_anomalous: bool, review: bool = False) -> str:
    """Verdict and severity as a column of text; a good part is written small, so that the others stand out."""
    word = verdict_words("anomalous") if is_anomalous else verdict_words("review") if review else "good"
    return f"{word:9}  severity {format_severity(severity, is_anomalous):>5}"
