from __future__ import annotations

import cv2
import numpy as np
import pytest

from fewshot_ad.enrollment.presets import defect_share
from fewshot_ad.enrollment.probes import (
    DEFECT_KINDS,
    DefectKind,
    DrawnDefect,
    Probes,
    defect_series,
    distinct_images,
    nuisances,
)
from fewshot_ad.errors import SupportSetError
from tests.conftest import make_part


def test_a_series_has_every_kind_and_size() -> None:
    series = defect_series([2, 5], 0.01, 0)
    assert {defect.kind for defect in series} == set(DEFECT_KINDS)
    assert {defect.size for defect in series} == {0.005, 0.01, 0.015, 0.0225, 0.035}
    assert {defect.image for defect in series} == {2, 5}
    assert series == defect_series([2, 5], 0.01, 0) != defect_series([2, 5], 0.01, 1)


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_a_defect_is_about_as_large_as_it_says_at_any_resolution(kind: DefectKind) -> None:
    texture = np.random.default_rng(0).integers(60, 200, (400, 400, 3)).astype(np.uint8)
    sizes = []
    for side in (400, 200):
        image = cv2.resize(texture, (side, side), interpolation=cv2.INTER_NEAREST)
        changed = np.abs(DrawnDefect(0, kind, 0.1, 7).draw(image).astype(int) - image).max(axis=2) > 8
        rows, columns = np.nonzero(changed)
        # Of a scratch the width, across its length, which is the area over the length.
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        sizes.append((changed.sum() / extent * 4 if kind == "scratch" else extent) / side)
    assert sizes[0] == pytest.approx(0.1, rel=0.5)
    assert sizes[1] == pytest.approx(sizes[0], rel=0.25)


def test_nuisances_keep_the_part_and_its_size() -> None:
    part = cv2.resize(make_part(3), (512, 512), interpolation=cv2.INTER_CUBIC)
    changed = list(nuisances(part, 0))
    assert len(changed) == 4
    for image in changed:
        assert (image.shape, image.dtype) == (part.shape, np.uint8)
        assert 0.1 < np.abs(image.astype(int) - part).mean() < 20


def test_nothing_is_drawn_on_images_that_are_not_given() -> None:
    part = make_part(3)
    probes = Probes({1: part}, defect_series([1], 0.05, 0), 0, 64)
    assert list(probes.nuisances(0)) == []
    assert list(probes.defects(0)) == []
    drawn = list(probes.defects(1))
    assert [number for number, _ in drawn] == list(range(len(probes.series)))
    assert drawn[0][1].shape == (64, 64, 3)


def test_photographs_of_one_burst_count_as_one() -> None:
    rng = np.random.default_rng(0)
    part = make_part(1)
    burst = [np.clip(part + rng.normal(0, 3, part.shape), 0, 255).astype(np.uint8) for _ in range(4)]
    assert distinct_images(burst) == 1
    assert distinct_images([*burst, make_part(2)]) == 2


def test_the_smallest_defect_is_told_in_one_way() -> None:
    assert defect_share((1000, 1000), min_defect_px=10) == pytest.approx(0.01)
    assert defect_share((1000, 1000), min_defect_mm=0.5, mm_per_px=0.05) == pytest.approx(0.01)
    with pytest.raises(SupportSetError, match="expected one of"):
        defect_share((1000, 1000), min_defect=0.01, min_defect_px=10)
    with pytest.raises(SupportSetError, match="mm_per_px together"):
        defect_share((1000, 1000), min_defect_mm=0.5)
    with pytest.raises(SupportSetError, match="got 900 pixels"):
        defect_share((1000, 1000), min_defect_px=900)
