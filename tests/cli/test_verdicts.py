from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import cv2
import pytest

from fewshot_ad.cli.verdicts import COLUMNS
from fewshot_ad.inspector import Inspector
from tests.cli.commands import run
from tests.cli.schemas import check as check_schema
from tests.conftest import make_part


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("check")
    for folder, seeds in {
        "enrolled": range(3),
        "good": range(5, 9),
        "bad": range(20, 22),
        "dent": range(30, 31),
    }.items():
        (root / folder).mkdir()
        for seed in seeds:
            cv2.imwrite(str(root / folder / f"{seed}.png"), make_part(seed, 64, defect=seed >= 20)[..., ::-1])
    Inspector.from_support(root / "enrolled", product="p", views="none", image_size=64).save(root / "p.fsad")
    return root


def test_the_table_the_mistakes_and_exit_code_0(workplace: Path, tmp_path: Path) -> None:
    before = (workplace / "p.fsad").read_bytes()
    sides = ["--good", workplace / "good", "--bad", workplace / "bad", "--bad", workplace / "dent"]
    code, out, err = run("check", workplace / "p.fsad", *sides, "--threshold", "1e-6")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "p: 7 images at threshold 1e-06"
    assert lines[3].split() == ["good", "0", "4"]
    assert lines[4].split() == ["bad", "0", "3"]
    assert "Rejected (good, judged anomalous)" in out
    assert "Suggested threshold" in out
    assert (workplace / "p.fsad").read_bytes() == before


def test_the_sheet_and_the_csv(workplace: Path, tmp_path: Path) -> None:
    sheet, table = tmp_path / "out" / "sheet.png", tmp_path / "table.csv"
    command = ["check", workplace / "p.fsad", "--good", workplace / "good", "--bad", workplace / "bad"]
    command += ["--sheet", sheet, "--csv", table]
    code, out, _ = run(*command)
    assert code == 0
    assert str(sheet) in out.splitlines()[-1]
    assert cv2.imread(str(sheet)).shape[1] == 6 * 248
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["truth"] for row in rows] == ["good"] * 4 + ["bad"] * 2
    assert {row["schema"] for row in rows} == {"fewshot-ad/check-csv/1"}
    assert Path(rows[0]["file"]) == workplace / "good" / "5.png"
    # Once more, and older outputs of this kind are replaced.
    assert run(*command)[0] == 0


def test_no_sheet_lies_among_the_images(workplace: Path) -> None:
    folder = workplace / "good"
    code, out, err = run("check", workplace / "p.fsad", "--good", folder, "--sheet", folder / "sheet.png")
    assert (code, out) == (2, "")
    assert "Choose another folder" in err
    assert not (folder / "sheet.png").exists()


def test_no_output_replaces_what_must_stay(workplace: Path, tmp_path: Path) -> None:
    image = workplace / "good" / "5.png"
    base = ["check", workplace / "p.fsad", "--good", workplace / "good"]
    for option in ("--sheet", "--csv"):
        code, out, err = run(*base, option, image)
        assert (code, out) == (2, "")
        assert "expected" in err
    (tmp_path / "photo.png").write_bytes(image.read_bytes())
    assert "--force" in run(*base, "--sheet", tmp_path / "photo.png")[2]
    assert run(*base, "--sheet", tmp_path / "photo.png", "--force")[0] == 0
    verdicts = tmp_path / "verdicts.csv"
    assert run("inspect", workplace / "p.fsad", image, "--csv", verdicts)[0] in (0, 1)
    assert run(*base, "--csv", verdicts)[0] == 2


def test_an_image_that_cannot_be_read_is_listed_and_ends_with_2(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("oops")
    base = ["check", workplace / "p.fsad", "--good", workplace / "good", "--good", tmp_path / "broken.png"]
    table = tmp_path / "table.csv"
    code, out, _ = run(*base, "--csv", table)
    assert code == 2
    assert "Not readable, and in no count:\n  broken.png (good): " in out
    assert table.read_text().splitlines()[-1].split(",")[1:3] == ["good", "ERROR"]
    code, out, err = run(*base, "--json")
    assert (code, err) == (2, "")
    fields = check_schema(out, "check")
    assert [image["name"] for image in fields["unreadable"]] == ["broken.png"]


def test_the_same_image_on_both_sides(workplace: Path) -> None:
    code, out, err = run("check", workplace / "p.fsad", "--good", workplace / "good", "--bad", workplace / "good")
    assert (code, out) == (2, "")
    assert "Take it out of one of them" in err


def test_json_with_and_without_bad_images(workplace: Path) -> None:
    base = ["check", workplace / "p.fsad", "--good", workplace / "good", "--json"]
    alone = check_schema(run(*base)[1], "check")
    assert (alone["escapes"], alone["suggestion"]) == (None, None)
    both = check_schema(run(*base, "--bad", workplace / "bad")[1], "check")
    assert both["suggestion"]["method"] == "labeled"
    assert (
        json.loads(json.dumps(both))
        == Inspector.load(workplace / "p.fsad").check(workplace / "good", workplace / "bad").as_dict()
    )


@pytest.fixture
def own(workplace: Path, tmp_path: Path) -> Path:
    """A product that may be changed."""
    copied = tmp_path / "own.fsad"
    copied.write_bytes((workplace / "p.fsad").read_bytes())
    return copied


def test_calibrate_says_before_and_after_and_changes_the_product(workplace: Path, own: Path) -> None:
    former = Inspector.load(own).threshold
    code, out, err = run("calibrate", own, "--good", workplace / "good", "--good", workplace / "enrolled")
    assert (code, err) == (0, "")
    now = Inspector.load(own)
    assert now.threshold != former
    assert out.startswith(f"p: calibrated on 4 good images (posterior-predictive): threshold {former:.6g} -> ")
    for part in ("note: left out of the calibration: 0.png (good): in the support set", "4 good images can promise"):
        assert part in out
    assert "drawn defects" in out
    assert now.enrollment.reasons[-1] in run("info", own)[1].replace("\n  ", " ")
    code, out, _ = run("calibrate", own, "--good", workplace / "good", "--bad", workplace / "bad", "--json")
    fields = check_schema(out, "product")
    assert (fields["calibration"]["method"], len(fields["calibration"]["bad_scores"])) == ("labeled", 2)
    assert fields["artifact"] == str(own)


def test_info_and_add_explain_the_threshold_in_force(workplace: Path, own: Path) -> None:
    by_hand = Inspector.load(own)
    by_hand.threshold = 7.25
    by_hand.save(own)
    for command in (["info", own], ["add", own, workplace / "good" / "5.png"]):
        text = " ".join(run(*command)[1].split())
        assert "threshold 7.25 (set by hand): expects " in text
        assert "The calibration, not in force: threshold " in text


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid"), reason="modes of files")
def test_calibrate_leaves_a_read_only_product(workplace: Path, own: Path) -> None:
    before = own.read_bytes()
    own.chmod(0o444)
    code, out, err = run("calibrate", own, "--good", workplace / "good")
    assert (code, out) == (2, "")
    assert "read-only" in err
    assert own.read_bytes() == before
