"""How time and memory grow: with the bank, the image size, the support set and the threads; tables, plots and slopes.

Each point is a process of its own, so that the peak memory is that of the point alone. A slope is that of log(value)
over log(size): 1 is in proportion. Images are 1024 x 1024, cut from scikit-image's `brick`;
support sets of more than 8 images are files.

    python benchmarks/scaling.py                      # all; about ten minutes
    python benchmarks/scaling.py --axes bank threads
    python benchmarks/scaling.py --record             # and put the figures on record
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

import measured_tables
import measurements
import numpy as np
from latency import images, stream, timed
from measured_tables import SCALING, slope

from fewshot_ad.benchmark.machine import peak_megabytes

HERE = Path(__file__).parent
AXES: dict[str, list[int]] = {
    "bank": [500, 1000, 2000, 4000, 8000, 16000, 32000, 100_000],
    "image": [128, 192, 256, 384, 512, 768, 1024],
    "support": [1, 2, 4, 8, 32, 128, 500],
    "threads": [1, 2],
}
FLIPS = "hflip,vflip,rotate=180"


def measure(axis: str, value: int) -> dict[str, float]:
    """One point, in this process."""
    from fewshot_ad import Inspector
    from fewshot_ad.product import Product
    from fewshot_ad.search.memory_bank import MemoryBank, Origin
    from fewshot_ad.search.one_pass import OnePass

    sources = images(9)
    query = sources[8]
    if axis == "support":
        with tempfile.TemporaryDirectory() as name:
            files = write(value, Path(name)) if value > 8 else sources[:value]
            start = time.perf_counter()
            inspector = Inspector.from_support(files, views=FLIPS, image_size=256)
            enroll = time.perf_counter() - start
        return {"enroll_s": enroll, **inspection_figures(inspector, query)}
    size = value if axis == "image" else 256
    threads = value if axis == "threads" else None
    start = time.perf_counter()
    inspector = Inspector.from_support(sources[:8], views=FLIPS, image_size=size, threads=threads)
    enroll = time.perf_counter() - start
    if axis == "bank":
        # Vectors beside those of the coreset: as long to search as a coreset of that size, and sooner there.
        (bank,) = inspector.banks
        rng = np.random.default_rng(0)
        picked = rng.integers(0, len(bank), value)
        vectors = bank.vectors[picked] + rng.normal(0, 0.01, (value, bank.vectors.shape[1])).astype(np.float32)
        origin = Origin(bank.origin.image[picked], bank.origin.view[picked], bank.origin.xy[picked])
        banks = (MemoryBank(vectors, origin, bank.metric),)
        (scale,) = inspector.model.scales
        scale = dataclasses.replace(scale, banks=banks, one_pass=OnePass(inspector.encoder, banks))
        model = dataclasses.replace(inspector.model, scales=(scale,))
        product = Product(model, inspector.calibration, inspector.enrollment, ())
        inspector = Inspector(inspector.encoder, product)
        return inspection_figures(inspector, query)
    return {"enroll_s": enroll, **inspection_figures(inspector, query)}


def inspection_figures(inspector: Any, query: np.ndarray[Any, Any]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "product.fsad"
        inspector.save(path)
        megabytes = path.stat().st_size / 1e6
    repeats = 20 if max(inspector.enrollment.settings.image_sizes) > 512 else 60
    figures = timed(lambda: inspector.inspect(query).anomaly_map, repeats)
    return {
        "inspect_ms": figures["p50"],
        "p95_ms": figures["p95"],
        "peak_mb": peak_megabytes() or float("nan"),
        "file_mb": megabytes,
    }


def write(count: int, folder: Path) -> list[str]:
    import cv2

    files = []
    for number, image in enumerate(stream(count)):
        files.append(str(folder / f"{number:04}.png"))
        cv2.imwrite(files[-1], image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return files


def plot(axis: str, points: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    names = [name for name in ("inspect_ms", "enroll_s", "peak_mb") if name in points[0]]
    sizes = [point["size"] for point in points]
    for number, name in enumerate(names, 1):
        values = [point[name] for point in points]
        axes = figure.add_subplot(1, len(names), number)
        axes.loglog(sizes, values, "o-")
        axes.set(xlabel=SCALING[axis], title=f"{name}, slope {slope(sizes, values):.2f}")
        axes.grid(True, which="both", alpha=0.3)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="*", choices=AXES, default=list(AXES))
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "results" / "plots", help="for the plots")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    measurements.add_record_option(parser)
    args = parser.parse_args()
    if args.point:
        print(json.dumps(measure(args.point[0], int(args.point[1]))))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for axis in args.axes:
        points = []
        for value in AXES[axis]:
            command = [sys.executable, __file__, "--point", axis, str(value)]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            points.append({"size": value, **json.loads(run.stdout.splitlines()[-1])})
        measured_tables.finish(f"scaling_{axis}", points, args.record)
        plot(axis, points, args.out / f"scaling_{axis}.png")


if __name__ == "__main__":
    main()
