from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fewshot_ad.cli import app
from fewshot_ad.encoder import DEFAULT_ENCODER
from tests.conftest import make_part

runner = CliRunner()


def run(*args: object) -> tuple[int, str, str]:
    result = runner.invoke(app, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def artifact(part_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "washer.fsad"
    code, out, _ = run("enroll", part_folder, "-o", path, "--views", "hflip", "--image-size", 128)
    assert code == 0
    assert "provisional" in out
    assert "enrolled washer from 5 image(s)" in out
    return path


@pytest.fixture
def line(tmp_path: Path, parts: list[np.ndarray], broken_part: np.ndarray) -> Path:
    folder = tmp_path / "line"
    folder.mkdir()
    for i, part in enumerate([parts[0], broken_part, parts[1]]):
        cv2.imwrite(str(folder / f"{i}.png"), cv2.cvtColor(part, cv2.COLOR_RGB2BGR))
    return folder


def test_inspect_prints_a_verdict_each_and_exits_by_them(artifact: Path, line: Path, tmp_path: Path) -> None:
    heat, table = tmp_path / "heat", tmp_path / "out" / "verdicts.csv"
    code, out, _ = run("inspect", artifact, line, "--heatmaps", heat, "--csv", table)
    assert code == 1
    lines = out.splitlines()
    assert lines[0].startswith("good")
    assert lines[1].startswith("ANOMALOUS")
    assert "at x" in lines[1]
    assert lines[-1].startswith("2 good, 1 anomalous, 0 not readable")
    assert sorted(p.name for p in heat.iterdir()) == ["0_overlay.png", "1_overlay.png", "2_overlay.png"]
    # Three times as large, so that the bar below it can be read.
    height, width, _ = cv2.imread(str(heat / "1_overlay.png")).shape
    assert width == 3 * 128
    assert height > 3 * 128
    rows = list(csv.DictReader(table.open()))
    assert [row["verdict"] for row in rows] == ["GOOD", "ANOMALOUS", "GOOD"]
    assert float(rows[1]["severity"]) > 1
    assert run("inspect", artifact, line / "0.png")[0] == 0


def test_json_is_one_object_a_line(artifact: Path, line: Path) -> None:
    code, out, _ = run("inspect", artifact, str(line / "*.png"), "--json")
    records = [json.loads(text) for text in out.splitlines()]
    assert code == 1
    assert [r["is_anomalous"] for r in records] == [False, True, False]
    assert records[1]["file"].endswith("1.png")


def test_a_file_that_cannot_be_read_is_reported_and_the_rest_inspected(artifact: Path, line: Path) -> None:
    (line / "0b.png").write_text("oops")
    code, out, err = run("inspect", artifact, line, line / "gone.png")
    assert code == 2
    assert "0b.png" in err
    assert "gone.png" in err
    assert out.splitlines()[-1] == "2 good, 1 anomalous, 1 not readable, 1 not found"


def test_threshold_can_be_given(artifact: Path, line: Path) -> None:
    assert run("inspect", artifact, line, "--threshold", 1000)[0] == 0
    assert run("inspect", artifact, line, "--threshold", -1)[0] == 2


def test_overlays_of_equal_names_do_not_overwrite_each_other(artifact: Path, line: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "0.png").write_bytes((line / "0.png").read_bytes())
    heat = tmp_path / "heat"
    run("inspect", artifact, line / "0.png", other / "0.png", "--heatmaps", heat)
    assert len(list(heat.iterdir())) == 2


def test_heatmaps_never_replace_images(artifact: Path, line: Path) -> None:
    before = {p.name: p.read_bytes() for p in line.iterdir()}
    run("inspect", artifact, line, "--heatmaps", line)
    assert {name: (line / name).read_bytes() for name in before} == before


def test_exit_1_means_an_anomaly_and_nothing_else(artifact: Path, line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the driver is on fire")

    monkeypatch.setattr("fewshot_ad.inspector.Inspector.load", broken)
    code, _, err = run("inspect", artifact, line)
    assert code == 2
    assert "the driver is on fire" in err


def test_odd_names_are_no_obstacle(part_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "out[/old]" / "p[x].fsad"
    code, out, _ = run("enroll", part_folder, "-o", path, "--product", "x[/y]", "--views", "none", "--image-size", 64)
    assert code == 0
    assert str(path) in out.splitlines()[-1]


def test_errors_are_one_message_and_exit_2(tmp_path: Path, part_folder: Path) -> None:
    code, _, err = run("inspect", tmp_path / "none.fsad", part_folder)
    assert code == 2
    assert "Enroll it first" in err
    code, out, _ = run("info", tmp_path / "none.fsad", "--json")
    assert code == 2
    assert "Enroll it first" in json.loads(out)["error"]
    for wrong in (["--encoder", "resnet18"], ["--views", "sideways"], ["--image-size", 3], ["--engine", "abacus"]):
        code, _, err = run("enroll", part_folder, "-o", tmp_path / "x.fsad", *wrong)
        assert code == 2, wrong
        assert err
    assert not (tmp_path / "x.fsad").exists()


def test_unwritable_outputs_are_clear(artifact: Path, line: Path, tmp_path: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.write_text("")
    for option in ("--heatmaps", "--csv"):
        code, _, err = run("inspect", artifact, line, option, blocker / "x")
        assert code == 2
        assert "cannot be written" in err


def test_info_shows_the_product(artifact: Path) -> None:
    code, out, _ = run("info", artifact)
    assert code == 0
    assert "product: washer" in out
    assert json.loads(run("info", artifact, "--json")[1])["calibration"]["n"] == 5


def test_doctor_finds_this_installation_well() -> None:
    code, out, _ = run("doctor", "--json")
    report = json.loads(out)
    assert code == 0, report["problems"]
    assert report["ok"] is True
    assert report["engines"]["openvino"] == "ok"
    assert set(report["weights"].values()) == {"ok"}
    assert DEFAULT_ENCODER in report["weights"]
    assert report["smoke_test"]["inspect_ms"]["total"] > 0


def test_add_bench_and_export(artifact: Path, tmp_path: Path, broken_part: np.ndarray) -> None:
    path = tmp_path / "further.png"
    cv2.imwrite(str(path), make_part(70)[..., ::-1])
    code, out, _ = run("add", artifact, path)
    assert code == 0
    assert "6 images now" in out
    before = artifact.read_bytes()
    code, _, err = run("add", artifact, path)
    assert (code, artifact.read_bytes()) == (2, before)
    assert "identical to further.png" in err

    code, out, _ = run("bench", artifact)
    assert code == 0
    assert "p95" in out
    report = json.loads(run("bench", artifact, "--images", path, "--threads", 1, "--json")[1])
    assert report["photograph"] == [128, 128, 3]
    assert report["threads"] == 1

    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    code, out, _ = run("export", artifact, tmp_path / "out", "--size", "200x160")
    assert code == 0
    assert "no decision flips" in out
    report = json.loads(run("export", artifact, tmp_path / "ov", "--target", "openvino", "--json")[1])
    assert "product.xml" in report["files"]
    assert report["parity"]["decision_flips"] == 0
    assert run("export", artifact, tmp_path / "no", "--size", "large")[0] == 2
