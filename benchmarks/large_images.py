"""Large images: memory and time of an inspection in tiles and in one pass, and how far a halo must reach.

Images of 4096 x 3000 pixels are made and written as PNG files. A product is enrolled from two of them in one process,
and a third with a defect is inspected in another, so that each peak memory is of that alone. `cpu_ms` is the time of
all threads, which other programs on the machine change less than `inspect_ms`.

    python benchmarks/large_images.py                 # both tables; some minutes
    python benchmarks/large_images.py --only halo
    python benchmarks/large_images.py --record        # and put the figures on record
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import measured_tables
import measurements
import numpy as np

from fewshot_ad.benchmark.machine import peak_megabytes

HEIGHT, WIDTH = 3000, 4096
SIZES = (512, 1024, 2048, 3500)
WAYS = ("tiles", "one pass")
HALOS = (32, 64, 96, 128, 160, 192)
ENCODERS = ("lite0_parts", "efficientnet_lite0", "resnet18_parts", "convnext_atto_parts")
REPEATS = 3


def surface(seed: int, defect: bool = False) -> np.ndarray[Any, Any]:
    """A textured plate with a hole, (HEIGHT, WIDTH, 3) uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    image = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    cv2.circle(image, (WIDTH // 2, HEIGHT // 2), 700, (40, 40, 45), -1, cv2.LINE_AA)
    if defect:
        cv2.circle(image, (WIDTH // 4, HEIGHT // 4), 24, (230, 220, 40), -1, cv2.LINE_AA)
    return image


def enroll(folder: Path, size: int) -> dict[str, float]:
    """Enroll from the files of a folder, in this process."""
    from fewshot_ad import Inspector

    start = time.perf_counter()
    inspector = Inspector.from_support(folder / "good", product="plate", views="hflip", image_size=size)
    figures = {"enroll_s": time.perf_counter() - start, "enroll_peak_mb": peak_megabytes() or float("nan")}
    inspector.save(folder / "plate.fsad", force=True)
    return figures


def inspect(folder: Path, way: str) -> dict[str, float]:
    """Inspect the file with the defect, in this process."""
    from fewshot_ad import Inspector
    from fewshot_ad.encoder.tiling import Tiling

    if way == "one pass":
        Tiling.fit = classmethod(lambda cls, *arguments: None)  # type: ignore[method-assign, assignment]
    inspector = Inspector.load(folder / "plate.fsad")
    image = folder / "broken.png"
    severity = inspector.inspect(image).severity
    walls, cpus = [], []
    for _ in range(REPEATS):
        start, used = time.perf_counter(), time.process_time()
        inspector.inspect(image)
        walls.append(time.perf_counter() - start)
        cpus.append(time.process_time() - used)
    return {
        "inspect_peak_mb": peak_megabytes() or float("nan"),
        "inspect_ms": float(np.median(walls)) * 1e3,
        "cpu_ms": float(np.median(cpus)) * 1e3,
        "severity": severity,
    }


def in_process(*arguments: str) -> dict[str, float]:
    run = subprocess.run([sys.executable, __file__, "--point", *arguments], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return figures


def memory() -> list[dict[str, Any]]:
    """One row per working scale and way."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "good").mkdir()
        for seed in range(2):
            cv2.imwrite(str(folder / "good" / f"{seed}.png"), surface(seed))
        cv2.imwrite(str(folder / "broken.png"), surface(9, defect=True))
        for size in SIZES:
            enrolled = in_process("enroll", name, str(size))
            for way in WAYS:
                rows.append({"size": size, "way": way, **in_process("inspect", name, way), **enrolled})
                enrolled = {}
    return rows


def halo() -> list[dict[str, Any]]:
    """Per encoder and halo, the largest difference of an embedding from that of a larger input, as a share of it."""
    from fewshot_ad import load_encoder

    inputs = [cv2.resize(surface(seed)[:1792, 1200:2992], (896, 896), interpolation=cv2.INTER_AREA) for seed in (0, 1)]
    rows = []
    for name in ENCODERS:
        encoder = load_encoder(name)
        row: dict[str, Any] = {"encoder": name}
        for reach in HALOS:
            row[str(reach)] = max(_difference(encoder, image, reach) for image in inputs)
        rows.append(row)
    return rows


def _difference(encoder: Any, image: np.ndarray[Any, Any], reach: int, first: int = 384, side: int = 128) -> float:
    (whole,) = encoder.encode(image)
    low, high = first - reach, first + side + reach
    (part,) = encoder.encode(np.ascontiguousarray(image[low:high, low:high]))
    stride = image.shape[0] // whole.shape[0]
    inner, outer = (slice(at // stride, (at + side) // stride) for at in (reach, first))
    expected, got = whole[outer, outer], part[inner, inner]
    return float((np.linalg.norm(got - expected, axis=2) / np.linalg.norm(expected, axis=2)).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("memory", "halo"))
    parser.add_argument("--point", nargs=3, help=argparse.SUPPRESS)
    measurements.add_record_option(parser)
    args = parser.parse_args()
    if args.point:
        what, folder, value = args.point
        print(json.dumps(enroll(Path(folder), int(value)) if what == "enroll" else inspect(Path(folder), value)))
        return
    if args.only != "halo":
        measured_tables.finish("large_images", memory(), args.record)
    if args.only != "memory":
        measured_tables.finish("halo", halo(), args.record)


if __name__ == "__main__":
    main()
