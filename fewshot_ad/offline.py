"""Whether the package keeps to itself: a child process enrolls, inspects and exports, and is watched meanwhile.

Python's audit hooks see what Python code does. Where `strace` is installed (Linux), it sees what native libraries do.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot_ad.errors import FewshotADError

NETWORK_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.sendto", "socket.sendmsg")
PROCESS_EVENTS = ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.spawn", "os.exec", "os.system", "os.startfile")
SYSTEM_CALLS = "trace=network,fork,vfork,clone,clone3,execve"
TIMEOUT_S = 600


def examine_offline() -> dict[str, Any]:
    """Watch a child process at work, with an empty home folder.

    Returns:
        Plain JSON types: `ok`; `network`, `files` and `processes`, what was seen of each, empty if nothing; `work`,
        what it did; `watched_by`, the means.

    Raises:
        FewshotADError: The child failed at its work.
    """
    with tempfile.TemporaryDirectory(prefix="fewshot-ad-offline-", ignore_cleanup_errors=True) as scratch:
        home, folder = Path(scratch, "home"), Path(scratch, "work")
        home.mkdir()
        folder.mkdir()
        trace = folder / "strace.txt"
        traced = _can_trace()
        watcher = ["strace", "-f", "-qq", "-e", SYSTEM_CALLS, "-o", str(trace)] if traced else []
        try:
            done = subprocess.run(
                [*watcher, sys.executable, "-m", "fewshot_ad.offline", str(folder)],
                env=_environment(home),
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise FewshotADError(
                f"expected the self-check to end within {TIMEOUT_S} s in a child process, but it did not. Run "
                "`fewshot-ad doctor` to see what is broken."
            ) from None
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise FewshotADError(
                f"expected the self-check to run in a child process, but it ended with code {done.returncode} "
                f"({last}). Run `fewshot-ad doctor` to see what is broken."
            )
        seen = json.loads((folder / "seen.json").read_text())
        calls = trace.read_text(errors="replace").splitlines() if traced else []
        report = {
            "network": seen["network"] + network_calls(calls),
            "files": sorted(str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir()),
            "processes": seen["processes"] + process_calls(calls),
        }
    return {
        "ok": not any(report.values()),
        **report,
        "work": seen["work"],
        "watched_by": ["audit hook", "strace"] if traced else ["audit hook"],
    }


def conclusion(report: dict[str, Any]) -> str:
    """What `examine_offline` found, in one sentence."""
    kinds = {
        "network": "network attempt",
        "files": "file written in the home folder",
        "processes": "child process",
    }
    found = [f"{name}: {'; '.join(report[key])}" for key, name in kinds.items() if report[key]]
    return "; ".join(found) if found else ", ".join(f"no {name}" for name in kinds.values())


def _can_trace() -> bool:
    if not sys.platform.startswith("linux") or shutil.which("strace") is None:
        return False
    # Containers often forbid it.
    return subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0  # noqa: S607


def _environment(home: Path) -> dict[str, str]:
    homes = {name: str(home) for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    # The package that runs here, wherever the child is started from.
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, **homes, "PYTHONPATH": path}


def network_calls(calls: Sequence[str]) -> list[str]:
    """Lines of strace that reach for the network, or ask the name service on this machine for a host."""
    # Asked for a user's home folder instead, that service answers from a file.
    pattern = re.compile(r"\bconnect\(.*AF_INET|\bsend(to|msg|mmsg)\(.*(AF_INET|hosts)")
    return [call for call in calls if pattern.search(call)]


def process_calls(calls: Sequence[str]) -> list[str]:
    """Lines of strace that start a process; threads do not count, nor does the first line, the child itself."""
    pattern = re.compile(r"\b(fork|vfork|execve)\(|\bclone3?\((?!.*CLONE_THREAD)")
    return [call for call in calls[1:] if pattern.search(call)]


def _work(folder: Path) -> None:
    """What the child does."""
    seen: dict[str, list[str]] = {"network": [], "processes": [], "work": []}

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        for kind, events in (("network", NETWORK_EVENTS), ("processes", PROCESS_EVENTS)):
            if event.startswith(events):
                seen[kind].append(f"{event} {arguments!r:.200}")

    sys.addaudithook(watch)
    import numpy as np

    from fewshot_ad.inspector import Inspector

    rng = np.random.default_rng(0)
    good = [rng.integers(90, 110, (96, 96, 3), dtype=np.uint8) for _ in range(3)]
    product = folder / "product.fsad"
    Inspector.from_support(good, product="offline", views="none", image_size=64).save(product)
    seen["work"].append("enroll")
    # Not torch: it runs ldconfig when it is imported, to find libraries.
    for engine in ("openvino", "onnxruntime"):
        if importlib.util.find_spec(engine) is not None:
            Inspector.load(product, engine=engine).inspect(good[0])  # type: ignore[arg-type]
            seen["work"].append(f"inspect ({engine})")
    if importlib.util.find_spec("onnx") is not None:
        from fewshot_ad.export import export

        export(Inspector.load(product), folder / "exported", "openvino", images=good)
        seen["work"].append("export")
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
