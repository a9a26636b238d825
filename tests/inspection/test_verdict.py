from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot_ad.inspection.verdict import format_severity, verdict_column, verdict_words


@pytest.mark.parametrize(
    ("severity", "is_anomalous", "text"),
    [
        (0.876, False, "0.88"),
        (0.994, False, "0.99"),
        (0.996, False, "0.99"),
        (1.0, False, "1.00"),
        (1.0, True, "1.01"),
        (1.0001, True, "1.01"),
        (1.006, True, "1.01"),
        (1.844, True, "1.84"),
        (12.0, True, "12.00"),
    ],
)
def test_a_severity_reads_as_its_verdict(severity: float, is_anomalous: bool, text: str) -> None:
    assert format_severity(severity, is_anomalous) == text


def test_more_digits_stay_closer_to_the_threshold() -> None:
    assert format_severity(1.00001, True, digits=4) == "1.0001"
    assert format_severity(0.99999, False, digits=4) == "0.9999"


@given(st.floats(0.9, 1.1), st.integers(1, 6))
def test_no_text_is_that_of_both_verdicts(severity: float, digits: int) -> None:
    above = float(np.nextafter(1, 2)) if severity <= 1 else severity
    below = min(severity, 1.0)
    assert format_severity(below, False, digits) != format_severity(above, True, digits)


def test_verdicts_stand_below_each_other() -> None:
    assert verdict_words("not_inspectable") == "NOT INSPECTABLE"
    assert verdict_column(0.9999, False) == "good       severity  0.99"
    assert verdict_column(1.0001, True) == "ANOMALOUS  severity  1.01"
