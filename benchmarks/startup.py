"""Start-up and size: import, a cold inspection in the shell, loading, memory, file. Each in processes of its own.

python benchmarks/startup.py
python benchmarks/startup.py --record    # and put the figures on record
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import measured_tables
import measurements
from latency import images

REPEATS = 5
IMPORT = "import time; t = time.perf_counter(); import fewshot_ad; print(time.perf_counter() - t)"
LOAD = """
import sys, time
from fewshot_ad import Inspector, load_encoder
encoder = load_encoder()
times = []
for _ in range(5):
    t = time.perf_counter()
    Inspector.load(sys.argv[1], encoder=encoder)
    times.append(time.perf_counter() - t)
t = time.perf_counter()
Inspector.load(sys.argv[1])
print(sorted(times)[2], time.perf_counter() - t)
"""
MEMORY = """
import sys
from pathlib import Path
from fewshot_ad import Inspector
inspector = Inspector.load(sys.argv[1])
for _ in range(20):
    inspector.inspect(sys.argv[2]).anomaly_map
print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
"""

BATCH = """
import sys
from pathlib import Path
import cv2
from fewshot_ad import Inspector
inspector = Inspector.load(sys.argv[1])
image = cv2.imread(sys.argv[2])
def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
at = {}
for i, _ in enumerate(inspector.inspect_batch([image] * int(sys.argv[3]), color="bgr"), 1):
    if i in (1000, int(sys.argv[3])):
        at[i] = megabytes()
print(*at.values())
"""


def python(code: str, *args: str) -> list[float]:
    run = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    return [float(v) for v in run.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=10_000, help="images of the batch whose memory is watched")
    measurements.add_record_option(parser)
    args = parser.parse_args()
    rows = measure(args.batch)
    measured_tables.finish("startup", rows, args.record)


def measure(count: int) -> list[dict[str, str]]:
    """The rows of the table; `count` images are in the batch whose memory is watched."""
    from fewshot_ad import Inspector

    with tempfile.TemporaryDirectory() as name:
        product, image = Path(name) / "product.fsad", Path(name) / "image.png"
        sources = images(9)
        cv2.imwrite(str(image), sources[8])
        Inspector.from_support(sources[:8], views="hflip,vflip,rotate=180", image_size=256).save(product)
        size = product.stat().st_size / 1e6
        imported = min(python(IMPORT)[0] for _ in range(REPEATS))
        cold = min(cold_inspection(product, image) for _ in range(REPEATS))
        load, load_all = python(LOAD, str(product))
        rows = [
            {"what": "`import fewshot_ad` (s)", "measured": f"{imported:.3f}", "goal": "0.25"},
            {
                "what": f"`fewshot-ad inspect` of one image, cold, best of {REPEATS} (s)",
                "measured": f"{cold:.2f}",
                "goal": "1.0",
            },
            {"what": "loading a product, encoder at hand (ms)", "measured": f"{load * 1e3:.0f}", "goal": "50"},
            {"what": "loading a product and its encoder (ms)", "measured": f"{load_all * 1e3:.0f}"},
        ]
        if Path("/proc/self/statm").exists():
            memory = python(MEMORY, str(product), str(image))[0]
            batch = " -> ".join(f"{value:.0f}" for value in python(BATCH, str(product), str(image), str(count)))
            rows += [
                {"what": "resident memory of an inspecting process (MB)", "measured": f"{memory:.0f}", "goal": "300"},
                {
                    "what": f"resident memory of a batch after 1,000 and {count:,} images (MB)",
                    "measured": batch,
                    "goal": "constant",
                },
            ]
    return [*rows, {"what": ".fsad of 8 images, 2,000 vectors (MB)", "measured": f"{size:.2f}", "goal": "3"}]


def cold_inspection(product: Path, image: Path) -> float:
    """Seconds of one inspection in the shell, the start of Python included."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "fewshot_ad", "inspect", str(product), str(image)]
    subprocess.run(command, capture_output=True, check=False)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
