"""An archive inspected again on Ray, killed in the middle and gone on with; prints how fast, and what was counted.

python benchmarks/reinspect.py                     # 100,000 images of 320 x 320 pixels
python benchmarks/reinspect.py --images 5000

The archive is made of 500 different photographs, each under many names (hard links), so that it needs 20 MB of disk.
First a part of it is done without Ray, in one process with all processors; then all of it with Ray, one process per
processor. The process is killed (kill -9) when a third is done, and the same command goes on. In the end every image
has one verdict, and those of both ways are compared. From the rate the time of the archives of 1,000 lines is worked
out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
from soak import part

from fewshot_ad import Inspector

DIFFERENT, FOLDERS, SIDE = 500, 100, 320
LINES, DAY = 1000, 86_400


def fill(archive: Path, count: int) -> None:
    """An archive of `count` images in sub-folders."""
    for number in range(min(FOLDERS, count)):
        (archive / f"day-{number:03}").mkdir(parents=True)
    originals = archive.parent / "originals"
    originals.mkdir()
    for seed in range(DIFFERENT):
        cv2.imwrite(str(originals / f"{seed}.jpg"), part(100 + seed, seed % 20 == 0, SIDE)[..., ::-1])
    for number in range(count):
        os.link(originals / f"{number % DIFFERENT}.jpg", archive / f"day-{number % FOLDERS:03}" / f"{number}.jpg")


def verdicts(record: Path) -> list[dict[str, object]]:
    """The lines of a record; a last one that is being written is none."""
    lines = record.read_bytes().split(b"\n")[1:-1] if record.exists() else []
    return [json.loads(line) for line in lines]


def run(product: Path, archive: Path, record: Path, *options: str) -> subprocess.Popen[bytes]:
    """The command, in a group of processes of its own."""
    command = [sys.executable, "-m", "fewshot_ad", "reinspect", str(product), str(archive), "-o", str(record)]
    return subprocess.Popen([*command, *options], start_new_session=True, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--without-ray", type=int, default=5000, help="images that are done without Ray as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fewshot-ad-archive-") as scratch:
        compare(Path(scratch), args.images, min(args.without_ray, args.images))


def compare(folder: Path, count: int, plain_count: int) -> None:
    product, archive, few = folder / "washer.fsad", folder / "archive", folder / "few"
    support = [part(seed, False, SIDE) for seed in range(8)]
    Inspector.from_support(support, product="washer", preset="fast").save(product)
    fill(archive, count)
    few.mkdir()
    for number in range(plain_count):
        os.link(folder / "originals" / f"{number % DIFFERENT}.jpg", few / f"{number}.jpg")

    began = time.perf_counter()
    run(product, few, folder / "few.jsonl").wait()
    plain_s = time.perf_counter() - began
    print(f"without Ray: {plain_count} images in {plain_s:.0f} s, {plain_count / plain_s:.0f} images/s", flush=True)

    record = folder / "all.jsonl"
    began = time.perf_counter()
    first = run(product, archive, record, "--ray")
    while first.poll() is None and len(verdicts(record)) < count / 3:
        time.sleep(1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = len(verdicts(record))
    print(f"killed after {before} images and {time.perf_counter() - began:.0f} s", flush=True)
    again = time.perf_counter()
    code = run(product, archive, record, "--ray").wait()
    again_s = time.perf_counter() - again
    rate = (count - before) / again_s
    print(f"gone on with: {count - before} images in {again_s:.0f} s, {rate:.0f} images/s, exit code {code}")
    print(f"on Ray as fast as without, {os.cpu_count()} processors: times {rate / (plain_count / plain_s):.2f}")

    lines = verdicts(record)
    once = Counter(str(line["file"]) for line in lines)
    print(f"record: {len(lines)} lines, {len(once)} images of {count}, {sum(n > 1 for n in once.values())} twice")
    print(f"verdicts: {dict(Counter(str(line['verdict']) for line in lines))}, {record.stat().st_size / 1e6:.0f} MB")
    plain = {str(line["file"]): line for line in verdicts(folder / "few.jsonl")}
    number = {str(line["file"]).split("/")[-1]: line for line in lines}
    differ = [n for n in plain if abs(float(str(plain[n]["score"])) - float(str(number[n]["score"]))) > 1e-3]
    print(f"scores with and without Ray: {len(plain) - len(differ)} of {len(plain)} are the same to a thousandth")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"memory of the largest process: {memory:.0f} MB")
    per_core = rate / (os.cpu_count() or 1)
    cores = LINES * DAY / per_core / DAY
    print(
        f"on paper, {LINES} lines at 1 image/s: a day's archive has {LINES * DAY / 1e6:.0f} million images, "
        f"{LINES * DAY / per_core / 3600:,.0f} hours of one such processor; {cores:.0f} processors do a day in a day"
    )


if __name__ == "__main__":
    main()
