from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, *args: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *(str(a) for a in args)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


def write(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def test_every_example_is_short_and_tested() -> None:
    scripts = sorted(p.name for p in EXAMPLES.glob("*.py"))
    assert scripts == ["camera_loop.py", "compare_methods.py", "enroll_and_inspect.py", "watch_folder.py"]
    assert all(len((EXAMPLES / s).read_text().splitlines()) <= 80 for s in scripts)


def test_enroll_and_inspect(part_folder: Path, tmp_path: Path, broken_part: np.ndarray) -> None:
    line = tmp_path / "line"
    line.mkdir()
    write(line / "bad.png", broken_part)
    (line / "torn.png").write_text("x")
    out = run("enroll_and_inspect.py", part_folder, line, "--output", tmp_path / "overlays")
    assert "bad.png: ANOMALOUS" in out
    assert "not readable" in out
    assert (tmp_path / "overlays" / "bad_overlay.png").exists()
    assert (tmp_path / "overlays" / "washer.fsad").exists()


def test_watch_folder_sorts(
    tmp_path: Path, inspector: Inspector, parts: list[np.ndarray], broken_part: np.ndarray
) -> None:
    inspector.save(tmp_path / "p.fsad")
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    write(incoming / "a.png", parts[0])
    write(incoming / "b.png", broken_part)
    (incoming / "c.png").write_text("x")
    run("watch_folder.py", tmp_path / "p.fsad", incoming, "--output", tmp_path / "sorted", "--idle", 2)
    found = {p.parent.name: p.name for p in (tmp_path / "sorted").rglob("*.png")}
    assert found == {"good": "a.png", "reject": "b.png", "unreadable": "c.png"}
    assert not list(incoming.iterdir())


def test_camera_loop_on_a_video(
    tmp_path: Path, inspector: Inspector, parts: list[np.ndarray], broken_part: np.ndarray
) -> None:
    inspector.save(tmp_path / "p.fsad")
    video = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 128))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write a video")
    for part in (parts[0], broken_part, parts[1]):
        writer.write(cv2.cvtColor(part, cv2.COLOR_RGB2BGR))
    writer.release()
    out = run("camera_loop.py", tmp_path / "p.fsad", video, "--output", tmp_path / "rejects").splitlines()
    assert len(out) == 3
    assert "ANOMALOUS" in out[1]
    assert (tmp_path / "rejects" / "frame_000001.png").exists()
    shutil.rmtree(tmp_path / "rejects")


def test_compare_methods(part_folder: Path, parts: list[np.ndarray], broken_part: np.ndarray, tmp_path: Path) -> None:
    for name, picture in (("fine", parts[0]), ("broken", broken_part)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "0.png", picture)
    out = run("compare_methods.py", part_folder, tmp_path / "fine", tmp_path / "broken", "fewshot_ad", "spade")
    assert [line.split()[0] for line in out.splitlines()] == ["fewshot_ad", "spade"]
    assert all("image AUROC 1.000" in line for line in out.splitlines())
