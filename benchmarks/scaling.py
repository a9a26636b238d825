"""How time and memory grow: with the bank, the image size, the support set and the threads; tables, plots and slopes.

Each point is a process of its own, so that peak memory is the point's. A slope is that of log(value) over log(size):
1 is in proportion. Images are 1024 x 1024, cut from scikit-image's `brick`; supports of more than 8 are files.

    python benchmarks/scaling.py                      # all; about ten minutes
    python benchmarks/scaling.py --axes bank threads
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from latency import images, peak_megabytes, stream, timed

HERE = Path(__file__).parent
AXES: dict[str, list[int]] = {
    "bank": [500, 1000, 2000, 4000, 8000, 16000, 32000, 100_000],
    "image": [128, 192, 256, 384, 512, 768, 1024],
    "support": [1, 2, 4, 8, 32, 128, 500],
    "threads": [1, 2],
}
LABELS = {
    "bank": "bank vectors",
    "image": "image size, pixels",
    "support": "support images, 4 views each",
    "threads": "threads",
}
FLIPS = "hflip,vflip,rotate=180"


def measure(axis: str, value: int) -> dict[str, float]:
    """One point, in this process."""
    from fewshot_ad import Inspector
    from fewshot_ad.product import Product
    from fewshot_ad.search.memory_bank import MemoryBank, Origin
    from fewshot_ad.search.one_pass import OnePass

    pictures = images(9)
    query = pictures[8]
    if axis == "support":
        with tempfile.TemporaryDirectory() as name:
            files = write(value, Path(name)) if value > 8 else pictures[:value]
            start = time.perf_counter()
            inspector = Inspector.from_support(files, views=FLIPS, image_size=256)
            enroll = time.perf_counter() - start
        return {"enroll_s": enroll, **inspected(inspector, query)}
    size = value if axis == "image" else 256
    threads = value if axis == "threads" else None
    start = time.perf_counter()
    inspector = Inspector.from_support(pictures[:8], views=FLIPS, image_size=size, threads=threads)
    enroll = time.perf_counter() - start
    if axis == "bank":
        # Vectors beside those of the coreset: as long to search as a coreset of that size, and sooner made.
        (bank,) = inspector.banks
        rng = np.random.default_rng(0)
        picked = rng.integers(0, len(bank), value)
        vectors = bank.vectors[picked] + rng.normal(0, 0.01, (value, bank.vectors.shape[1])).astype(np.float32)
        origin = Origin(bank.origin.image[picked], bank.origin.view[picked], bank.origin.xy[picked])
        banks = (MemoryBank(vectors, origin, bank.metric),)
        model = dataclasses.replace(inspector.model, banks=banks, one_pass=OnePass(inspector.encoder, banks))
        product = Product(model, inspector.calibration, inspector.enrollment, ())
        inspector = Inspector(inspector.encoder, product)
        return inspected(inspector, query)
    return {"enroll_s": enroll, **inspected(inspector, query)}


def inspected(inspector: Any, query: np.ndarray[Any, Any]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "product.fsad"
        inspector.save(path)
        megabytes = path.stat().st_size / 1e6
    repeats = 20 if inspector.enrollment.settings.image_size > 512 else 60
    figures = timed(lambda: inspector.inspect(query).anomaly_map, repeats)
    return {"inspect_ms": figures["p50"], "p95_ms": figures["p95"], "peak_mb": peak_megabytes(), "file_mb": megabytes}


def write(count: int, folder: Path) -> list[str]:
    import cv2

    files = []
    for at, picture in enumerate(stream(count)):
        files.append(str(folder / f"{at:04}.png"))
        cv2.imwrite(files[-1], picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return files


def slope(sizes: list[int], values: list[float]) -> float:
    """Of the second half of the points, where the constant costs matter least."""
    half = len(sizes) // 2 if len(sizes) > 3 else 0
    return float(np.polyfit(np.log(sizes[half:]), np.log(values[half:]), 1)[0])


def plot(axis: str, points: dict[int, dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    names = [n for n in ("inspect_ms", "enroll_s", "peak_mb") if n in next(iter(points.values()))]
    for at, name in enumerate(names, 1):
        values = [p[name] for p in points.values()]
        axes = figure.add_subplot(1, len(names), at)
        axes.loglog(list(points), values, "o-")
        axes.set(xlabel=LABELS[axis], title=f"{name}, slope {slope(list(points), values):.2f}")
        axes.grid(True, which="both", alpha=0.3)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="*", choices=AXES, default=list(AXES))
    parser.add_argument("--out", type=Path, default=HERE / "plots")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point:
        print(json.dumps(measure(args.point[0], int(args.point[1]))))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for axis in args.axes:
        points: dict[int, dict[str, float]] = {}
        for value in AXES[axis]:
            command = [sys.executable, __file__, "--point", axis, str(value)]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            points[value] = json.loads(run.stdout.splitlines()[-1])
            if value == AXES[axis][0]:
                print(
                    f"\n| {LABELS[axis]} | "
                    + " | ".join(points[value])
                    + " |\n"
                    + "|---" * (1 + len(points[value]))
                    + "|"
                )
            print(f"| {value} | " + " | ".join(f"{v:.2f}" for v in points[value].values()) + " |", flush=True)
        slopes = [slope(list(points), [p[name] for p in points.values()]) for name in points[AXES[axis][0]]]
        print("| slope | " + " | ".join(f"{s:.2f}" for s in slopes) + " |", flush=True)
        plot(axis, points, args.out / f"scaling_{axis}.png")


if __name__ == "__main__":
    main()
