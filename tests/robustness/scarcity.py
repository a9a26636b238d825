"""Commands on a full disk, a read-only one, with few file handles and with little memory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fewshot_ad import Inspector
from tests.robustness.scene import ROOT, Scene

LIMITED = """
import resource, runpy, sys
kind, value = getattr(resource, sys.argv[1]), int(sys.argv[2])
resource.setrlimit(kind, (value, value))
sys.argv = ["fewshot-ad", *sys.argv[3:]]
runpy.run_module("fewshot_ad", run_name="__main__")
"""


def can_mount() -> bool:
    """Whether this process may mount a small file system of its own."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(OSError):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
        if done.returncode == 0:
            subprocess.run(["umount", folder], capture_output=True, check=True)
            return True
    return False


def rows(
    built: Scene, free_kib: Sequence[int], handles: Sequence[int], memory_mb: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """One outcome per condition and command; disks only where `can_mount`.

    Args:
        built: Copied for each.
        free_kib: Full disks: so many KiB are free before the command begins. A read-only disk comes with them.
        handles: Most files that may be open at once.
        memory_mb: Most address space.
    """
    if can_mount():
        for free in free_kib:
            yield from _on_disk(built, f"{free} KiB free", free)
        yield from _on_disk(built, "read-only", None)
    for name, value in (*(("RLIMIT_NOFILE", n) for n in handles), *(("RLIMIT_AS", n << 20) for n in memory_mb)):
        with tempfile.TemporaryDirectory() as folder:
            scene = _copy(built, Path(folder) / "scene")
            what = f"{value} file handles" if name == "RLIMIT_NOFILE" else f"{value >> 20} MB of address space"
            for command, arguments in _commands(scene).items():
                yield _outcome(scene, what, command, [sys.executable, "-c", LIMITED, name, str(value), *arguments])


def _on_disk(built: Scene, what: str, free_kib: int | None) -> Iterator[dict[str, Any]]:
    """On a file system of that much free space; None = read-only."""
    for command in _commands(built):
        with _mounted() as folder:
            scene = _copy(built, folder / "scene")
            if free_kib is None:
                subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            else:
                _fill(folder, free_kib << 10)
            arguments = [sys.executable, "-m", "fewshot_ad", *_commands(scene)[command]]
            yield _outcome(scene, what, command, arguments)


@contextlib.contextmanager
def _mounted() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def _fill(folder: Path, free: int) -> None:
    """Leave so many bytes free."""
    status = os.statvfs(folder)
    with (folder / "filler").open("wb") as file:
        file.write(bytes(max(0, status.f_bavail * status.f_frsize - free)))


def _copy(built: Scene, folder: Path) -> Scene:
    shutil.copytree(built.folder, folder)
    return Scene(folder, folder / "good", folder / "line", folder / "p.fsad", folder / "plan.yaml")


def _commands(scene: Scene) -> dict[str, list[str]]:
    table = ["inspect", str(scene.product), str(scene.line), "--csv", str(scene.folder / "verdicts.csv")]
    overlays = ["inspect", str(scene.product), str(scene.line), "--heatmaps", str(scene.folder / "heat")]
    return {**scene.commands(), "inspect --csv": table, "inspect --heatmaps": overlays}


def _outcome(scene: Scene, what: str, command: str, arguments: list[str]) -> dict[str, Any]:
    """Run it; a fault is a crash, a traceback, exit 1 without an anomaly, an error without a word, or a loss."""
    before = _digest(scene)
    run = subprocess.run(
        arguments,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=300,
    )
    errors, output = (text.decode("utf-8", "replace") for text in (run.stderr, run.stdout))
    faults = []
    if run.returncode not in (0, 1, 2):
        faults.append(f"exit {run.returncode}")
    if "Traceback" in errors:
        faults.append("traceback")
    if run.returncode == 1 and "ANOMALOUS" not in output:
        faults.append("exit 1 without an anomaly")
    if run.returncode == 2 and "error" not in errors:
        faults.append("no message")
    if run.returncode == 2 and _digest(scene) != before:
        faults.append("an error, and yet the product changed")
    try:
        Inspector.load(scene.product)
    except Exception as error:
        faults.append(f"the product is lost: {error}")
    return {"what": what, "command": command, "exit": run.returncode, "faults": faults, "message": errors[-200:]}


def _digest(scene: Scene) -> str:
    return hashlib.sha256(scene.product.read_bytes()).hexdigest()
