from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fewshot_ad import Inspector
from fewshot_ad.cli import app
from fewshot_ad.demo import texture_product
from tests.conftest import make_part


def test_demo_runs_on_what_ships(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    result = CliRunner().invoke(app, ["demo", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "defects (scratch, stain, missing piece) are drawn" in result.stdout
    right, total = (int(v) for v in result.stdout.splitlines()[-2].split(" verdicts")[0].split(" of "))
    assert total == 30
    assert right >= 23
    assert cv2.imread(str(tmp_path / "contact_sheet.png")) is not None
    missed = [line for line in result.stdout.splitlines() if "wrong" in line and "missing" in line]
    assert not missed
    for name in ("brick", "grass", "gravel"):
        assert (tmp_path / f"{name}.fsad").exists()


def test_what_is_inspected_was_not_enrolled(brick: np.ndarray) -> None:
    product = texture_product("brick", 8, 0)

    def place(crop: np.ndarray) -> tuple[int, ...]:
        match = cv2.matchTemplate(brick, np.ascontiguousarray(crop[..., 0]), cv2.TM_SQDIFF)
        return tuple(int(v) for v in np.unravel_index(match.argmin(), match.shape))

    enrolled = {place(crop) for crop in product.support}
    inspected = {place(test.pixels) for test in product.tests if test.truth == "good"}
    assert len(enrolled) == 8
    assert not enrolled & inspected


def test_demo_on_ones_own_product(tmp_path: Path, bottle: Path) -> None:
    for part in ("train/good", "test/good", "test/broken_large"):
        (tmp_path / "mine" / part).mkdir(parents=True)
        for path in sorted((bottle / part).iterdir())[:6]:
            shutil.copy(path, tmp_path / "mine" / part)
    command = ["demo", "--data", str(tmp_path / "mine"), "-o", str(tmp_path / "out"), "--shots", "4", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["total"] == 12
    assert report["right"] >= 10


def test_a_demo_replaces_what_a_demo_has_left_and_nothing_else(tmp_path: Path) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    for part, seeds in (("train/good", (0, 1, 2)), ("test/good", (3,)), ("test/bad", (4,))):
        (mine / part).mkdir(parents=True)
        for seed in seeds:
            cv2.imwrite(str(mine / part / f"{seed}.png"), make_part(seed, defect=part == "test/bad"))
    command = ["demo", "--data", str(mine), "-o", str(out), "--shots", "3"]
    for _ in range(2):
        assert CliRunner().invoke(app, command).exit_code == 0
    assert (out / "bad_4.png").read_bytes()[37:56] == b"tEXtfewshot-ad\0demo"
    picture = cv2.imread(str(out / "good_3.png"))
    cv2.imwrite(str(out / "good_3.png"), picture)
    grown = Inspector.load(out / "mine.fsad")
    grown.threshold *= 2
    refused = CliRunner().invoke(app, command)
    assert (refused.exit_code, "good_3.png: expected an older demo picture" in refused.stderr) == (2, True)
    (out / "good_3.png").unlink()
    grown.save(out / "mine.fsad")
    refused = CliRunner().invoke(app, command)
    assert (refused.exit_code, "threshold, set by hand" in refused.stderr) == (2, True)
    assert Inspector.load(out / "mine.fsad").threshold == grown.threshold
    assert CliRunner().invoke(app, [*command, "--force"]).exit_code == 0


def test_a_folder_of_another_layout_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--data", str(tmp_path), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "MVTec layout" in result.stderr
