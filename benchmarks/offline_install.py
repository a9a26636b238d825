"""A station on a computer without a network, from a wheelhouse to a verdict: how long it takes, and how large it is.

python benchmarks/offline_install.py                           # builds the wheelhouse first; that alone needs a network
python benchmarks/offline_install.py --wheelhouse wheelhouse   # takes one that is there
python benchmarks/offline_install.py --images good/            # other photographs of good parts, five or more

All but the wheelhouse happens in a network namespace of its own, where there is no interface but loopback (Linux, as
root or where users may make namespaces). What it writes is deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from install_size import size

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("FEWSHOT_AD_DATA", ROOT.parent / "shared" / "data"))
IMAGES = DATA / "bottle" / "train" / "good"
REQUIREMENT = "fewshot-ad[line]"
SHOTS = 4
# How long the station may take until it answers, and until it has ended.
PATIENCE_S = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheelhouse", type=Path, help="a wheelhouse that is there")
    parser.add_argument("--images", type=Path, default=IMAGES, help="photographs of good parts")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside is not None:
        without_a_network(args.inside, args.wheelhouse, args.images)
        return
    photographs = sorted(path for path in args.images.glob("*") if path.is_file())
    if len(photographs) <= SHOTS:
        parser.error(f"expected more than {SHOTS} photographs in {args.images}, got {len(photographs)}")
    with tempfile.TemporaryDirectory(prefix="offline-install-") as name:
        folder = Path(name)
        wheelhouse = args.wheelhouse
        if wheelhouse is None:
            wheelhouse = folder / "wheelhouse"
            with told("wheelhouse built"):
                run(sys.executable, "-m", "pip", "wheel", "-q", f"{ROOT}[line]", "-w", wheelhouse)
        wheels = list(wheelhouse.glob("*.whl"))
        print(f"wheelhouse: {len(wheels)} wheels, {size(wheelhouse) / 1e6:.0f} MB", flush=True)
        again = [sys.executable, __file__, "--inside", folder, "--wheelhouse", wheelhouse, "--images", args.images]
        with told("all that follows the wheelhouse"):
            run("unshare", "--map-root-user", "--net", *again, env=bare_environment(), quiet=False)


def bare_environment() -> dict[str, str]:
    """The environment without what leads pip or Python anywhere but to the wheelhouse."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    return kept | {"PIP_CONFIG_FILE": os.devnull}


def without_a_network(folder: Path, wheelhouse: Path, images: Path) -> None:
    """Install, enroll, serve and inspect, where nothing but this computer can be reached."""
    run("ip", "link", "set", "lo", "up")
    interfaces = [name for _, name in socket.if_nameindex()]
    if interfaces != ["lo"]:
        raise SystemExit(f"expected no interface but lo, got {', '.join(interfaces)}: this is no proof")
    environment = folder / "environment"
    with told("virtual environment"):
        venv.create(environment, with_pip=True)
    before = size(environment)
    programs = environment / "bin"
    with told("pip install --no-index"):
        run(programs / "pip", "install", "-q", "--no-index", "--find-links", wheelhouse, REQUIREMENT)
    print(f"installed: {(size(environment) - before) / 1e6:.0f} MB, beside Python and pip", flush=True)
    program = programs / "fewshot-ad"
    with told("fewshot-ad doctor"):
        run(program, "doctor")
    photographs = sorted(path for path in images.glob("*") if path.is_file())[: SHOTS + 1]
    (folder / "good").mkdir()
    (folder / "products").mkdir()
    for photograph in photographs[:SHOTS]:
        shutil.copy(photograph, folder / "good")
    with told(f"fewshot-ad enroll, {SHOTS} photographs"):
        run(program, "enroll", folder / "good", "-o", folder / "products" / "part.fsad")
    with station(program, folder) as (process, url):
        for which in ("first", "second"):
            with told(f"POST /api/inspect, the {which}"):
                record = ask(f"{url}api/inspect", photographs[SHOTS].read_bytes())
            print(f"  {record['verdict']}, severity {record['severity']:.2f}, {record['milliseconds']:.0f} ms of it")
        print(f"station: {peak_megabytes(process.pid):.0f} MB of memory at most", flush=True)


@contextmanager
def station(program: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`fewshot-ad serve` on loopback, with its address; ended as systemd would end it."""
    start = time.perf_counter()
    command = [program, "serve", "--port", "0", "--json"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        url = json.loads((process.stdout or sys.stdin).readline())["url"]
        while not answers(f"{url}healthz"):
            if process.poll() is not None or time.perf_counter() - start > PATIENCE_S:
                raise SystemExit("the station does not answer")
            time.sleep(0.05)
        say("fewshot-ad serve, until it answers", start)
        yield process, url
        with told("SIGTERM, until it has ended"):
            process.terminate()
            status = process.wait(PATIENCE_S)
        # A server that is told to end by a signal says so; systemd takes that for success, too.
        if status not in (0, -signal.SIGTERM):
            raise SystemExit(f"expected the station to end well, got status {status}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    try:
        return ask(url)["status"] == "ok"
    except urllib.error.URLError:
        return False


def ask(url: str, image: bytes | None = None) -> dict[str, Any]:
    """The JSON that the station answers with; of a POST where there is an image."""
    request = urllib.request.Request(url, image, {"Content-Type": "application/octet-stream"})  # noqa: S310
    # Whatever proxy the environment names: loopback is reached without one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE_S) as answer:
        content: dict[str, Any] = json.load(answer)
    return content


def peak_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


@contextmanager
def told(what: str) -> Iterator[None]:
    """Print how long the block takes."""
    start = time.perf_counter()
    yield
    say(what, start)


def say(what: str, start: float) -> None:
    print(f"{what}: {time.perf_counter() - start:.1f} s", flush=True)


def run(*command: object, env: dict[str, str] | None = None, quiet: bool = True) -> None:
    """Run a command to its end; what it says is only of interest where it fails."""
    words: Sequence[str] = [str(word) for word in command]
    result = subprocess.run(words, env=env, capture_output=quiet, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(words[:3])}: exit code {result.returncode}\n{result.stderr or ''}")


if __name__ == "__main__":
    main()
