"""An archive inspected again: every image once, also after a kill, and the same on Ray as here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cv2
import pytest
from typer.testing import CliRunner

from fewshot_ad import Inspector
from fewshot_ad.cli import app
from fewshot_ad.errors import ArgumentError, ClusterError
from fewshot_ad.line import archive
from fewshot_ad.line.archive import reinspect
from tests.conftest import make_part


@pytest.fixture
def product(inspector: Inspector, tmp_path: Path) -> Path:
    inspector.save(tmp_path / "washer.fsad")
    return tmp_path / "washer.fsad"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    (folder / "may").mkdir(parents=True)
    for number in range(7):
        part = make_part(20 + number, defect=number == 3)
        cv2.imwrite(str(folder / ("may" if number % 2 else "") / f"{number}.png"), part[..., ::-1])
    (folder / "torn.png").write_text("torn")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    return folder


def lines_of(record: Path) -> list[dict]:
    return [json.loads(line) for line in record.read_text().splitlines()][1:]


def test_every_image_has_its_verdict(product: Path, images: Path, tmp_path: Path, inspector: Inspector) -> None:
    done = reinspect(product, images, tmp_path / "record.jsonl", chunk=3)
    assert (done.images, done.before, done.lost) == (8, 0, 0)
    assert done.counts == {"good": 6, "anomalous": 1, "unreadable": 1}
    assert done.unreadable == ("torn.png",)
    lines = lines_of(tmp_path / "record.jsonl")
    assert [line["file"] for line in lines] == sorted(line["file"] for line in lines)
    for line in lines:
        if line["verdict"] != "unreadable":
            assert line["score"] == pytest.approx(inspector.inspect(images / line["file"]).score, rel=1e-4)


def test_it_goes_on_where_it_was_cut(
    product: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, real, calls = tmp_path / "record.jsonl", archive._inspect, []

    def killed(*args: object) -> list[dict]:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(archive, "_inspect", killed)
        with pytest.raises(KeyboardInterrupt):
            reinspect(product, images, record, chunk=3)
    assert len(lines_of(record)) == 3
    # As a power cut in the middle of a line leaves it.
    with record.open("a") as file:
        file.write('{"file": "half')
    done = reinspect(product, images, record, chunk=3)
    assert (done.before, sum(done.counts.values())) == (3, 8)
    names = [line["file"] for line in lines_of(record)]
    assert len(names) == len(set(names)) == 8
    assert reinspect(product, images, record).before == 8


def test_another_product_and_another_file_are_refused(product: Path, images: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    reinspect(product, images, record)
    before = record.read_bytes()
    shutil.copytree(images, tmp_path / "other")
    changed = Inspector.load(product)
    changed.threshold = 1.0
    changed.save(tmp_path / "changed.fsad")
    for other, what in (
        ((tmp_path / "changed.fsad", images), r"got one of another product \([0-9a-f]{64}\)\."),
        ((product, tmp_path / "other"), r"got one of another archive \(.*archive\)\."),
    ):
        with pytest.raises(ArgumentError, match=what):
            reinspect(*other, record)
    assert record.read_bytes() == before
    for text in ("my notes", "my notes\n"):
        (tmp_path / "notes").write_text(text)
        with pytest.raises(ArgumentError, match="expected a record"):
            reinspect(product, images, tmp_path / "notes")
        assert (tmp_path / "notes").read_text() == text


def test_one_that_did_not_start_leaves_no_record(product: Path, images: Path, tmp_path: Path) -> None:
    class Absent:
        def each(self, work: object, pieces: object) -> list[object]:
            raise ClusterError("expected a Ray cluster")

    with pytest.raises(ClusterError):
        reinspect(product, images, tmp_path / "record.jsonl", pool=cast(Any, Absent()))
    assert not (tmp_path / "record.jsonl").exists()


def test_in_the_shell(product: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["reinspect", str(product), str(images), "-o", str(tmp_path / "record.jsonl"), "--json"]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 2
    assert json.loads(ended.stdout)["unreadable"] == ["torn.png"]
    assert "torn.png: cannot be read" in CliRunner().invoke(app, command[:-1]).stderr
    (images / "torn.png").unlink()
    (tmp_path / "record.jsonl").unlink()
    with monkeypatch.context() as patched:

        def interrupted(*args: object) -> None:
            print("from the depths of Ray")
            raise KeyboardInterrupt

        patched.setattr(archive, "_inspect", interrupted)
        ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 2
    assert json.loads(ended.stdout)["error"] == "interrupted; the same command goes on where it was"
    ended = CliRunner().invoke(app, command)
    assert (ended.exit_code, json.loads(ended.stdout)["before"]) == (0, 0)


def test_on_ray_it_is_the_same(product: Path, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="NO RAY: pip install 'fewshot-ad[ray]'")
    from fewshot_ad.host.cluster import RayPool

    reinspect(product, images, tmp_path / "here.jsonl")
    done = reinspect(product, images, tmp_path / "ray.jsonl", pool=RayPool(), chunk=4)
    assert done.lost == 0
    here, there = ({line["file"]: line for line in lines_of(tmp_path / name)} for name in ("here.jsonl", "ray.jsonl"))
    assert here.keys() == there.keys()
    for name, line in here.items():
        assert there[name]["verdict"] == line["verdict"]
        assert there[name].get("score", 0.0) == pytest.approx(line.get("score", 0.0), rel=1e-4)


def test_what_cannot_be_gone_on_with_is_told(
    product: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "record.jsonl"
    reinspect(product, images, record)
    head, *lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join([head, lines[0], "my notes\n", *lines[1:]]))
    before = record.read_bytes()
    with pytest.raises(ArgumentError, match="in line 3"):
        reinspect(product, images, record)
    assert record.read_bytes() == before
    # As a power cut at the very start leaves it.
    record.write_text(head[:20])
    assert reinspect(product, images, record).before == 0

    def closed(archive: Path, onerror: Callable[[OSError], None]) -> list[object]:
        onerror(PermissionError(13, "Permission denied", str(archive / "may")))
        return []

    monkeypatch.setattr("os.walk", closed)
    with pytest.raises(ArgumentError, match=r"folders that can be read, got .*may \(Permission denied\)"):
        reinspect(product, images, tmp_path / "other.jsonl")
