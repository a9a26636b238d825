"""Child processes for the tests: Python code with a small product at hand, run to its end or killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

PRELUDE = """
import os, sys, threading, time
import numpy as np
from fewshot_ad import Inspector, ScoringConfig

def part(seed, height=96, width=96):
    return np.random.default_rng(seed).integers(90, 110, (height, width, 3), dtype=np.uint8)

def product(**options):
    options = {"product": "p", "views": "none", "image_size": 64, **options}
    return Inspector.from_support([part(seed) for seed in range(3)], **options)

def forked(work, seconds=120):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            code = 1
        os._exit(code)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    print("the child hangs", flush=True)
"""


def run(
    code: str, *arguments: object, folder: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run code after `PRELUDE`, from a file, which the process methods of Python need."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", **variables}
    command: list[Any] = [sys.executable]
    if folder is None:
        command += ["-c", PRELUDE + code]
    else:
        script = folder / "script.py"
        script.write_text(PRELUDE + code)
        command.append(script)
    return subprocess.run(
        [*map(str, command), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=420,
    )


def output(code: str, *arguments: object, folder: Path | None = None, **variables: str) -> list[str]:
    """What that prints, line by line; it must end well."""
    done = run(code, *arguments, folder=folder, **variables)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.splitlines()
