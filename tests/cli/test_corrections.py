from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from fewshot_ad import ArtifactError
from fewshot_ad.inspector import Inspector
from tests.cli.commands import run
from tests.cli.schemas import check as check_schema
from tests.conftest import make_part


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corrections")
    (root / "good").mkdir()
    for seed in range(4):
        cv2.imwrite(str(root / "good" / f"{seed}.png"), make_part(seed, 64)[..., ::-1])
    for seed in range(10, 16):
        cv2.imwrite(str(root / f"{seed}.png"), make_part(seed, 64)[..., ::-1])
    cv2.imwrite(str(root / "bad.png"), make_part(20, 64, defect=True)[..., ::-1])
    Inspector.from_support(root / "good", product="p", views="none", image_size=64).save(root / "p.fsad")
    return root


@pytest.fixture
def own(workplace: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(workplace / "p.fsad", tmp_path / "own.fsad"))


def test_a_morning_at_the_line_and_back(workplace: Path, own: Path) -> None:
    before = own.read_bytes()
    code, out, err = run("reject", own, workplace / "bad.png", "--region", "40,24,16,16")
    assert (code, err) == (0, "")
    assert "kept as evidence" in out or "passes" in out
    code, out, _ = run("accept", own, workplace / "10.png", "--force")
    assert code == 0
    assert f"p: threshold {Inspector.load(own).threshold:.4g}, 5 images, 1 known defect, 2 changes" in out
    code, out, _ = run("history", own)
    lines = out.splitlines()
    assert lines[0].endswith("rejected bad.png")
    assert lines[1].endswith("accepted 10.png")
    assert lines[2] == "known defect: bad.png at 40,24,16,16"
    code, out, _ = run("undo", own)
    assert (code, out.splitlines()[0].split(", of ")[0]) == (0, "note: taken back: accepted 10.png")
    assert run("undo", own, "--json")[0] == 0
    assert own.read_bytes() == before
    assert "as it was enrolled" in run("history", own)[1]
    code, _, err = run("undo", own)
    assert (code, "nothing to undo" in err) == (2, True)


def test_what_is_refused_leaves_the_file_alone(workplace: Path, own: Path) -> None:
    run("reject", own, workplace / "bad.png")
    before = own.read_bytes()
    code, out, err = run("accept", own, workplace / "bad.png")
    assert (code, out) == (2, "")
    assert "it was rejected as a defect. Nothing was changed" in err
    assert own.read_bytes() == before


def test_json_is_the_product(workplace: Path, own: Path) -> None:
    code, out, err = run("reject", own, workplace / "bad.png", "--json")
    assert (code, err) == (0, "")
    record = check_schema(out, "product")
    assert record["artifact"] == str(own)
    assert [change["kind"] for change in record["history"]] == ["reject"]
    assert record["known_defects"][0]["name"] == "bad.png"
    listed = json.loads(run("history", own, "--json")[1])
    assert listed["history"] == record["history"]


def test_an_enrollment_does_not_replace_what_was_corrected(workplace: Path, own: Path) -> None:
    run("reject", own, workplace / "bad.png")
    fresh = Inspector.from_support(workplace / "good", product="p", views="none", image_size=64)
    with pytest.raises(ArtifactError, match="accepted and rejected, would be lost"):
        fresh.save(own)


def test_two_processes_at_once_lose_nothing(workplace: Path, own: Path) -> None:
    calls = [["accept", own, workplace / f"{seed}.png", "--force"] for seed in (10, 11, 12)]
    calls += [["reject", own, workplace / "bad.png"]]
    program = [sys.executable, "-m", "fewshot_ad"]
    running = [subprocess.Popen([*program, *map(str, call)], stdout=subprocess.DEVNULL) for call in calls]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    product = Inspector.load(own)
    assert sorted(change.kind for change in product.history()) == ["accept", "accept", "accept", "reject"]
    assert {name for name, _ in product.enrollment.support} == {f"{n}.png" for n in (0, 1, 2, 3, 10, 11, 12)}
    while product.history():
        product.undo()
    product.save(own)
    assert own.read_bytes() == (workplace / "p.fsad").read_bytes()
