"""Milliseconds of each encoder alone on one image, in turns, so that a slow minute hits all.

The shipped ones at 256 x 256; DINOv2-S (extra `dinov2`) at 448 x 448, beside the default at 512 x 512.

python benchmarks/encoder_ms.py
python benchmarks/encoder_ms.py --record    # and put the figures on record
"""

from __future__ import annotations

import argparse
import time

import measured_tables
import measurements
import numpy as np

from fewshot_ad.encoder import DEFAULT_ENCODER, load_encoder
from fewshot_ad.encoder.dinov2 import DINOV2
from fewshot_ad.encoder.engine import has_bf16
from fewshot_ad.encoder.weights import shipped_encoders

ROUNDS, WARM_UP = 60, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measurements.add_record_option(parser)
    args = parser.parse_args()
    encoders = {name: (load_encoder(name), 256) for name in shipped_encoders()}
    encoders[f"{DEFAULT_ENCODER}, 512 px"] = load_encoder(DEFAULT_ENCODER), 512
    encoders[f"{DINOV2}, 448 px"] = load_encoder(DINOV2), 448
    if has_bf16():
        encoders[f"{DINOV2}, 448 px, bf16"] = load_encoder(DINOV2, precision="bf16"), 448
    encoders[f"{DINOV2}, 448 px, torch"] = load_encoder(DINOV2, engine="torch"), 448
    rng = np.random.default_rng(0)
    images = {side: rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _, side in encoders.values()}
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for turn in range(WARM_UP + ROUNDS):
        for name, (encoder, side) in encoders.items():
            start = time.perf_counter()
            encoder.encode(images[side])
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - start) * 1e3)
    rows = [
        {"encoder": name, "p50": float(np.median(each)), "p95": float(np.percentile(each, 95))}
        for name, each in times.items()
    ]
    measured_tables.finish("encoder_ms", rows, args.record)


if __name__ == "__main__":
    main()
