from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.prediction import ScoredDefect
from fewshot_ad.enrollment.probes import DEFECT_KINDS
from fewshot_ad.enrollment.sensitivity import Sensitivity, sensitivity
from fewshot_ad.inspection.regions import MapScale


def calibration(scores_by_size: dict[float, float]) -> Calibration:
    defects = [
        ScoredDefect(0, kind, size, at, score)
        for size, score in scores_by_size.items()
        for kind in DEFECT_KINDS
        for at in range(4)
    ]
    return Calibration(
        "leave-one-image-out",
        3,
        1.5,
        0.05,
        "provisional",
        (1.0, 1.1, 1.2),
        MapScale(0.5, 2.0),
        nuisances=(1.15, 1.25),
        defects=tuple(defects),
    )


def found(scores_by_size: dict[float, float]) -> Sensitivity:
    result = sensitivity(calibration(scores_by_size), 1.5, 0.02)
    assert result is not None
    return result


def test_a_size_counts_as_found_if_all_larger_ones_are_found_too() -> None:
    seen = found({0.01: 9.0, 0.02: 1.3, 0.04: 1.6, 0.08: 3.0})
    assert (seen.found_from["spot"], seen.found_from["scratch"]) == (0.04, 0.01)
    assert (seen.caught, seen.caught_largest, seen.auroc) == (0.0, 1.0, 1.0)
    assert "finds spots from 40 px, scratches from 10 px wide" in seen.explain((1000, 1000))
    assert "of drawn defects of 20 px 0% are caught" in seen.explain((1000, 1000))
    assert seen.warning() is None


def test_defects_near_chance_are_warned_of() -> None:
    seen = found({0.02: 1.1, 0.08: 3.0})
    assert seen.is_blind
    assert "hardly sees defects of 2.0% of the image's side" in (seen.warning() or "")


def test_a_threshold_that_passes_even_large_defects_is_warned_of() -> None:
    seen = found({0.02: 1.4, 0.08: 1.45})
    assert not seen.is_blind
    assert "of drawn ones of 80 px only 0% are caught" in (seen.warning((1000, 1000)) or "")
    assert "not the largest spots drawn (80 px)" in seen.explain((1000, 1000))


def test_products_of_earlier_versions_say_nothing() -> None:
    assert sensitivity(dataclasses.replace(calibration({}), defects=()), 1.5, 0.02) is None


def test_a_higher_threshold_finds_less(parts: list[np.ndarray], encoder: Encoder) -> None:
    inspector = Inspector.from_support(parts, encoder=encoder, views="hflip", image_size=128, min_defect=0.1)
    before = inspector.sensitivity
    assert before is not None
    assert before.caught > 0.5
    inspector.threshold = 1e9
    after = inspector.sensitivity
    assert after is not None
    assert after.caught == 0
    assert "passes most defects" in (after.warning() or "")


@pytest.mark.parametrize(
    "options", [{"min_defect": 0.1}, {"min_defect_px": 12.8}, {"min_defect_mm": 3, "mm_per_px": 0.234375}]
)
def test_the_smallest_defect_may_be_told_in_three_ways(
    parts: list[np.ndarray], encoder: Encoder, options: dict[str, float]
) -> None:
    inspector = Inspector.from_support(parts[:2], encoder=encoder, views="hflip", image_size=128, **options)
    assert inspector.enrollment.settings.min_defect == pytest.approx(0.1, rel=1e-4)
