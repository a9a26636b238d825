"""Milliseconds of each shipped encoder alone on one image of 256 x 256, in turns, so that a slow minute hits all.

python benchmarks/encoder_ms.py
python benchmarks/encoder_ms.py --record    # and put the figures on record
"""

from __future__ import annotations

import argparse
import time

import measured_tables
import measurements
import numpy as np

from fewshot_ad.encoder import load_encoder
from fewshot_ad.encoder.weights import shipped_encoders

ROUNDS, WARM_UP = 60, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measurements.add_record_option(parser)
    args = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    encoders = {name: load_encoder(name) for name in shipped_encoders()}
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for turn in range(WARM_UP + ROUNDS):
        for name, encoder in encoders.items():
            start = time.perf_counter()
            encoder.encode(image)
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - start) * 1e3)
    rows = [
        {"encoder": name, "p50": float(np.median(each)), "p95": float(np.percentile(each, 95))}
        for name, each in times.items()
    ]
    measured_tables.finish("encoder_ms", rows, args.record)


if __name__ == "__main__":
    main()
