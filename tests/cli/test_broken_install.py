"""Where a library is missing or broken the program says so and exits with 2, as `python -m` and as a script."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = re.findall(r'^fewshot-ad = "(.*):(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)


def program(tmp_path: Path, broken: str, *arguments: str, limit: str = "") -> subprocess.CompletedProcess[str]:
    """Run the console script with a library whose import fails."""
    (tmp_path / f"{broken}.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')\n")
    [(module, function)] = SCRIPT
    return subprocess.run(
        [sys.executable, "-c", f"{limit}from {module} import {function} as main; main()", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_script_is_what_the_module_runs() -> None:
    [(module, function)] = SCRIPT
    assert module == "fewshot_ad.__main__"
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize(
    ("broken", "arguments"), [("typer", ["--version"]), ("typer", ["doctor"]), ("cv2", ["inspect", "p.fsad", "a.png"])]
)
def test_a_broken_library_is_one_message(broken: str, arguments: list[str], tmp_path: Path) -> None:
    done = program(tmp_path, broken, *arguments)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: expected an installation that is whole")
    assert "libGL.so.1" in line
    assert "Reinstall it: pip install" in line
    assert done.stdout == ""


@pytest.mark.parametrize("broken", ["typer", "cv2"])
def test_with_json_it_is_one_object(broken: str, tmp_path: Path) -> None:
    done = program(tmp_path, broken, "inspect", "p.fsad", "a.png", "--json")
    assert done.returncode == 2
    fields = json.loads(done.stdout)
    assert fields["schema"] == "fewshot-ad/error/1"
    assert "libGL.so.1" in fields["error"]
    assert done.stderr == ""


@pytest.mark.parametrize("library", ["cv2", "faiss", "openvino", "yaml"])
def test_doctor_names_the_library_that_is_broken(library: str, tmp_path: Path) -> None:
    done = program(tmp_path, library, "doctor", "--json")
    assert done.returncode == 2
    report = json.loads(done.stdout)
    [problem] = report["problems"]
    assert "libGL.so.1" in problem
    assert report["base"][library].startswith("broken or missing")


def test_little_memory_is_one_message(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux limits the address space")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (150 << 20, 150 << 20)); "
    done = program(tmp_path, "unused", "info", "p.fsad", limit=limit)
    assert done.returncode == 2
    assert "expected enough memory" in done.stderr
    assert "Traceback" not in done.stderr
