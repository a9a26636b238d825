"""How fast the generator of training parts renders, in all and by category.

python benchmarks/parts.py
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from os import cpu_count

import cv2

from fewshot_ad.training.parts import CATEGORIES, render

SIZE, COUNT = 224, 6


def seconds(category: str) -> float:
    """Seconds to render one image, on one core."""
    cv2.setNumThreads(1)
    render(category, 0, SIZE)
    start = time.perf_counter()
    for seed in range(COUNT):
        render(category, seed, SIZE, variant=seed)
    return (time.perf_counter() - start) / COUNT


def main() -> None:
    with ProcessPoolExecutor(cpu_count()) as pool:
        list(pool.map(seconds, list(CATEGORIES)[:2]))  # warm up
        start = time.perf_counter()
        times = dict(zip(CATEGORIES, pool.map(seconds, CATEGORIES), strict=True))
        total = time.perf_counter() - start
    rate = len(CATEGORIES) * (COUNT + 1) / total
    print(f"{len(CATEGORIES)} categories, {SIZE} x {SIZE}, {cpu_count()} cores: {rate:.0f} images/s")
    for category, duration in sorted(times.items(), key=lambda item: -item[1]):
        print(f"  {category:18s} {duration * 1e3:6.1f} ms")


if __name__ == "__main__":
    main()
