"""Where the time of one step of distilling EfficientAD's teacher goes, beside a plain matrix product in the same run.

python benchmarks/pdn_step.py              # S and M at 256 pixels, 4 pictures a step
python benchmarks/pdn_step.py --record     # and put the figures on record
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import measured_tables
import measurements
import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from fewshot_ad.zoo.components.pdn import BATCH, GRAY_SHARE, PDN, RATE, STAGES, WEIGHT_DECAY, Pictures, targets
from fewshot_ad.zoo.components.tensors import Backbone

SIDE, PICTURES, PRODUCT, PUBLISHED_STEPS = 256, 8, 3072, 60_000
PARTS = ("crops", "target", "forward", "backward", "optimizer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4, help="pictures per step")
    parser.add_argument("--steps", type=int, default=3, help="steps, after one to warm up")
    measurements.add_record_option(parser)
    args = parser.parse_args()
    pictures, backbone = Pictures.generated(PICTURES, SIDE, seed=0), Backbone("resnet18", STAGES)
    rows = []
    for precision in ("f32", "bf16"):
        peak = product_gflops(precision)
        for size in ("S", "M"):
            rows.append(measured(size, precision, pictures, backbone, args.batch, args.steps) | {"peak": peak})
            print(rows[-1], flush=True)
    measured_tables.finish("pdn_step", rows, args.record)


def product_gflops(precision: str) -> float:
    """Billions of operations per second of a product of two square matrices."""
    a = torch.randn(PRODUCT, PRODUCT, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    seconds = []
    for _ in range(4):
        start = perf_counter()
        a @ a
        seconds.append(perf_counter() - start)
    return 2 * PRODUCT**3 / float(np.median(seconds[1:])) / 1e9


def measured(
    size: str, precision: str, pictures: Pictures, backbone: Backbone, batch: int, steps: int
) -> dict[str, float | str]:
    """Median seconds of each part of a step, and the operations of the PDN."""
    seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        start = perf_counter()
        yield
        seconds[part].append(perf_counter() - start)

    rng = np.random.default_rng(0)
    pdn = PDN(size)
    optimizer = torch.optim.Adam(pdn.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    operations = 0
    for step in range(steps + 1):
        with timed("crops"):
            crops = pictures.crops(batch, GRAY_SHARE, rng)
        with timed("target"), torch.no_grad(), cast:
            target = targets(backbone, crops).float()
        counter = FlopCounterMode(display=False)
        with counter if step == 0 else cast:
            with timed("forward"), cast:
                loss = F.mse_loss(pdn(crops, padded=True).float(), target)
            optimizer.zero_grad()
            with timed("backward"):
                loss.backward()
        operations = operations or counter.get_total_flops()
        with timed("optimizer"):
            optimizer.step()
    parts = {part: float(np.median(seconds[part][1:])) for part in PARTS}
    whole = sum(parts.values())
    return {
        "size": size,
        "precision": precision,
        "batch": batch,
        **parts,
        "step_s": whole,
        "gflop": operations / 1e9,
        "gflops": operations / 1e9 / (parts["forward"] + parts["backward"]),
        "published_days": whole * BATCH / batch * PUBLISHED_STEPS / 86_400,
    }


if __name__ == "__main__":
    main()
