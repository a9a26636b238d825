"""Start-up and size: import, a cold inspection in the shell, loading, memory, file. Each in processes of its own.

python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
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
picture = cv2.imread(sys.argv[2])
def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
at = {}
for i, _ in enumerate(inspector.inspect_batch([picture] * int(sys.argv[3]), color="bgr"), 1):
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
    count = parser.parse_args().batch
    from fewshot_ad import Inspector

    with tempfile.TemporaryDirectory() as name:
        product, image = Path(name) / "product.fsad", Path(name) / "image.png"
        pictures = images(9)
        cv2.imwrite(str(image), pictures[8])
        Inspector.from_support(pictures[:8], views="hflip,vflip,rotate=180", image_size=256).save(product)
        size = product.stat().st_size / 1e6
        imported = min(python(IMPORT)[0] for _ in range(REPEATS))
        cold = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            command = [sys.executable, "-m", "fewshot_ad", "inspect", str(product), str(image)]
            subprocess.run(command, capture_output=True, check=False)
            cold.append(time.perf_counter() - start)
        load, load_all = python(LOAD, str(product))
        memory = python(MEMORY, str(product), str(image))[0] if Path("/proc/self/statm").exists() else float("nan")
        batch = python(BATCH, str(product), str(image), str(count)) if memory == memory else []
    print("| what | measured | goal |\n|---|---|---|")
    print(f"| `import fewshot_ad` (s) | {imported:.3f} | 0.25 |")
    print(f"| `fewshot-ad inspect` of one image, cold, best of {REPEATS} (s) | {min(cold):.2f} | 1.0 |")
    print(f"| loading a product, encoder at hand (ms) | {load * 1e3:.0f} | 50 |")
    print(f"| loading a product and its encoder (ms) | {load_all * 1e3:.0f} | |")
    print(f"| resident memory of an inspecting process (MB) | {memory:.0f} | 300 |")
    if batch:
        told = " -> ".join(f"{value:.0f}" for value in batch)
        print(f"| resident memory of a batch after 1,000 and {count:,} images (MB) | {told} | constant |")
    print(f"| .fsad of 8 images, 2,000 vectors (MB) | {size:.2f} | 3 |")


if __name__ == "__main__":
    main()
