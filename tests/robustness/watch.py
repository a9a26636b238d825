"""Runs numbered cases in a child process, which may crash, hang or grow, and goes on after each fault.

A module of cases has a function `case(seed, number) -> Outcome fields`; it is run as

    python -m tests.robustness.watch MODULE SEED START STOP RESULTS

by `watched`, which starts a new child after a crash. Results are one line of JSON per case, so that a run can go on
where it was broken off.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SLOW_S = 5.0
LARGE_BYTES = 1.5e9
# After this long a case hangs, and its child is killed.
HANG_S = 60.0


def watched(
    module: str, seed: int, count: int, results: Path, environment: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The outcomes of the cases 0 to `count` - 1, in order.

    Args:
        module: Name of the module of cases, below `tests.robustness`.
        seed: Of all cases.
        count: Number of cases.
        results: File of outcomes; those it has already are not run again.
        environment: Further variables of the child's environment.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    while (done := len(outcomes(results))) < count:
        command = [sys.executable, "-m", __spec__.name, module, str(seed), str(done), str(count), str(results)]
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        hung = _wait(child, results)
        if child.returncode == 1:
            raise RuntimeError(f"the cases of {module} themselves fail: {' '.join(command)}")
        done = len(outcomes(results))
        if done < count:
            fault = {"number": done, "outcome": "hang" if hung else "crash", "detail": f"exit {child.returncode}"}
            _append(results, fault)
    return outcomes(results)[:count]


def outcomes(results: Path) -> list[dict[str, Any]]:
    """What stands in a file of outcomes; a line that a kill cut short is dropped from it."""
    if not results.exists():
        return []
    text = results.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        results.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def _wait(child: subprocess.Popen[bytes], results: Path) -> bool:
    """Wait for the child; whether it had to be killed because a case did not end."""
    size, since = -1, time.monotonic()
    while child.poll() is None:
        time.sleep(0.05)
        now = results.stat().st_size if results.exists() else 0
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > HANG_S:
            child.kill()
            child.wait()
            return True
    return False


def _append(results: Path, outcome: Mapping[str, Any]) -> None:
    with results.open("a") as file:
        file.write(json.dumps(outcome) + "\n")


def _peak_bytes() -> int:
    """Peak resident memory since the last `_forget_peak`; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def main() -> None:
    module, seed, start, stop, results = sys.argv[1:]
    case = importlib.import_module(f"tests.robustness.{module}").case
    case(int(seed), 0)  # so that loading libraries and compiling the encoder is in no case's time
    for number in range(int(start), int(stop)):
        _forget_peak()
        # Of the processor: a busy machine makes no case slow, and one that waits for ever is a hang.
        begin = time.process_time()
        outcome = case(int(seed), number)
        seconds, peak = time.process_time() - begin, _peak_bytes()
        if seconds > SLOW_S:
            outcome["slow"] = round(seconds, 1)
        if peak > LARGE_BYTES:
            outcome["large"] = peak
        _append(Path(results), {"number": number, **outcome})


if __name__ == "__main__":
    main()
