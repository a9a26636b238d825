"""A teacher is distilled once, and what is kept of it never passes for another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fewshot_ad.zoo import create
from tests.conftest import make_part

TINY: dict[str, Any] = {"image_size": 64, "steps": 2, "teacher_steps": 1, "teacher_batch": 2, "pictures": 2}
STAGE = "distilling the teacher"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_AD_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept/teachers"


def fit(**settings: Any) -> tuple[Any, list[str]]:
    stages: list[str] = []
    method = create("efficientad_cdo", **TINY | settings)
    method.fit([make_part(seed, 96) for seed in range(3)], progress=lambda stage, *_: stages.append(stage))
    return method, stages


def score(method: Any) -> float:
    return float(method.predict([make_part(9, 96)]).scores[0])


def test_the_second_fit_takes_the_teacher_of_the_first(folder: Path) -> None:
    (first, stages), (again, quiet) = fit(seed=1), fit(seed=1)
    assert STAGE in stages
    assert STAGE not in quiet
    assert score(first) == score(again)
    other, quiet = fit(seed=2)
    assert STAGE not in quiet
    assert score(other) != score(first)
    assert [path.name.partition("_")[0] for path in folder.iterdir()] == ["pdn"]


@pytest.mark.parametrize("changed", [{"teacher_steps": 2}, {"pictures": 3}, {"image_size": 96}, {"weights": "random"}])
def test_another_distillation_is_another_teacher(folder: Path, changed: dict[str, Any]) -> None:
    fit()
    _, stages = fit(**changed)
    assert STAGE in stages
    assert len(list(folder.iterdir())) == 2


def test_pictures_that_changed_make_another_teacher(tmp_path: Path) -> None:
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"{i}.png"), make_part(i, 80))
    fit(picture_folder=str(tmp_path))
    assert STAGE not in fit(picture_folder=str(tmp_path))[1]
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((90, 90, 3), np.uint8))
    assert STAGE in fit(picture_folder=str(tmp_path))[1]


def test_a_damaged_file_is_replaced(folder: Path) -> None:
    fit()
    (kept,) = folder.iterdir()
    content = kept.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for damaged in (content[:100], bytes(flipped)):
        kept.write_bytes(damaged)
        assert STAGE in fit()[1]
        assert kept.read_bytes() == content


def test_where_nothing_can_be_kept_the_fit_goes_on_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file in the place of the folder")
    with pytest.warns(UserWarning, match=r"will not be kept.*teacher=FILE"):
        method, _ = fit()
    assert np.isfinite(score(method))
