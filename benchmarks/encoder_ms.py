"""Milliseconds of each shipped encoder alone, one 256 x 256 image, in turns so that the machine's pace hits all.

python benchmarks/encoder_ms.py
"""

from __future__ import annotations

import time

import numpy as np

from fewshot_ad.encoder import load_encoder
from fewshot_ad.encoder.weights import shipped_encoders

ROUNDS, WARM_UP = 60, 10


def main() -> None:
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    encoders = {name: load_encoder(name) for name in shipped_encoders()}
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for turn in range(WARM_UP + ROUNDS):
        for name, encoder in encoders.items():
            start = time.perf_counter()
            encoder.encode(image)
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - start) * 1e3)
    for name, each in times.items():
        print(f"{name:26s} median {np.median(each):5.2f} ms, 95th percentile {np.percentile(each, 95):5.2f} ms")


if __name__ == "__main__":
    main()
