"""Exit 1 means an anomaly, ever: missing, closed and full streams under every kind of command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector
from tests.robustness.children import ROOT

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")

# Of a command that finds an anomaly, the code where its report arrives is 1.
COMMANDS = {
    "version": (["--version"], 0),
    "help": (["inspect", "--help"], 0),
    "info": (["info", "p.fsad"], 0),
    "info as JSON": (["info", "p.fsad", "--json"], 0),
    "good": (["inspect", "p.fsad", "good"], 0),
    "good as JSON": (["inspect", "p.fsad", "good", "--json"], 0),
    "anomaly": (["inspect", "p.fsad", "bad.png"], 1),
    "enroll": (["enroll", "good", "-o", "new.fsad", "--views", "none", "--image-size", "64"], 0),
    "no product": (["inspect", "gone.fsad", "good"], 2),
    "no product as JSON": (["info", "gone.fsad", "--json"], 2),
    "wrong option": (["info", "--nonsense"], 2),
    "list": (["datasets"], 0),
}
# The shell's redirection, and whether the command's report can still arrive.
STREAMS = {
    "full output": (">/dev/full", False),
    "full errors": ("2>/dev/full", True),
    "full both": (">/dev/full 2>&1", False),
    "closed output": (">&-", True),
    "closed errors": ("2>&-", True),
    "closed all": ("<&- >&- 2>&-", True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    (folder / "good").mkdir()
    rng = np.random.default_rng(0)
    good = [rng.integers(90, 110, (96, 96, 3), dtype=np.uint8) for _ in range(3)]
    for number, image in enumerate(good):
        cv2.imwrite(str(folder / "good" / f"{number}.png"), image)
    # A stain, and not more: what is unlike the good ones as a whole gets no verdict.
    cv2.imwrite(str(folder / "bad.png"), cv2.circle(good[0].copy(), (40, 50), 12, (150, 150, 150), -1))
    inspector = Inspector.from_support(folder / "good", views="none", image_size=64)
    inspector.threshold = 1.2 * max(inspector.inspect(image).score for image in good)
    inspector.save(folder / "p.fsad")
    return folder


def shell(folder: Path, arguments: list[str], redirection: str) -> subprocess.CompletedProcess[str]:
    (folder / "new.fsad").unlink(missing_ok=True)
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {redirection}', "bash", sys.executable, "-m", "fewshot_ad", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("command", COMMANDS)
def test_exit_codes_keep_their_meaning(command: str, stream: str, folder: Path) -> None:
    arguments, code = COMMANDS[command]
    redirection, arrives = STREAMS[stream]
    done = shell(folder, arguments, redirection)
    said_something_on_errors = code == 2 and "JSON" not in command and "errors" in stream
    expected = {code} if arrives and not said_something_on_errors else {2}
    assert done.returncode in expected, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception ignored" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["good", "good as JSON", "info", "anomaly"])
def test_a_reader_that_leaves_is_a_quiet_error(command: str, folder: Path) -> None:
    # The reader is gone before the first line is written.
    done = shell(folder, COMMANDS[command][0], "| true")
    assert done.returncode == 2
    assert done.stderr == ""


def test_a_full_disk_is_named(folder: Path) -> None:
    done = shell(folder, COMMANDS["info"][0], ">/dev/full")
    assert "standard output cannot be written (No space left on device)" in done.stderr
    done = shell(folder, COMMANDS["no product as JSON"][0], ">/dev/full")
    assert "gone.fsad" in done.stderr


def test_an_anomaly_that_was_reported_is_1(folder: Path) -> None:
    assert shell(folder, COMMANDS["anomaly"][0], "").returncode == 1


def test_the_library_needs_no_streams(folder: Path) -> None:
    code = (
        "import sys; sys.stdout = sys.stderr = None\n"
        "from fewshot_ad import Inspector\n"
        "i = Inspector.from_support('good', views='none', image_size=64)\n"
        "i.inspect('bad.png'); i.add('bad.png', force=True); i.save('streamless.fsad')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=120
    )
    assert done.returncode == 0
