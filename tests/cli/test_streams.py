"""What the shell says beside the verdicts: a GPU that is not there, images of several sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector


@pytest.fixture
def folder(tmp_path: Path, inspector: Inspector, parts: list[np.ndarray]) -> Path:
    inspector.save(tmp_path / "p.fsad")
    (tmp_path / "line").mkdir()
    for number, part in enumerate(parts[:3]):
        cv2.imwrite(str(tmp_path / "line" / f"{number}.png"), part[: 128 - 40 * number])
    return tmp_path


def shell(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fewshot_ad", "inspect", "p.fsad", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_without_a_gpu_one_note_says_so(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    if torch.cuda.is_available():
        pytest.skip("THERE IS A GPU")
    done = shell(folder, "line/0.png", "--device", "cuda", "--json")
    assert done.stderr.count("note: device='cuda'") == 1
    assert "Going on with the CPU" in done.stderr
    assert json.loads(done.stdout)["device"] == "cpu"


def test_several_sizes_are_said_once_and_warm_up_avoids_it(folder: Path) -> None:
    done = shell(folder, "line")
    assert done.stderr.count("note: images of several sizes") == 1
    assert "--warm-up" in done.stderr
    sizes = [f"--warm-up=128x{128 - 40 * number}" for number in range(3)]
    assert shell(folder, "line", *sizes).stderr == ""
    wrong = shell(folder, "line", "--warm-up", "128")
    assert wrong.returncode == 2
    assert "WIDTHxHEIGHT" in wrong.stderr
