"""Does storing the bank as float16 change a decision? Scores of the shared board with float16 and float32 banks.

Support and test images are those of shared_board.yaml's first draw; views and scale are flips at 256 pixels.

    python benchmarks/float16_bank.py
    python benchmarks/float16_bank.py --record    # and put the figures on record
"""

from __future__ import annotations

import argparse
from pathlib import Path

import measured_tables
import measurements

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.benchmark.material import material
from fewshot_ad.benchmark.plan_file import read_plan
from fewshot_ad.search import memory_bank

PLAN = Path(__file__).parent / "shared_board.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=4, choices=(2, 4, 8))
    measurements.add_record_option(parser)
    args = parser.parse_args()
    encoder = load_encoder()
    limit = memory_bank.FLOAT16_MAX
    rows = []
    for job in read_plan(PLAN).jobs():
        if (job.method.name, job.shots, job.draw) != ("fewshot_ad", args.shots, 0):
            continue
        ((product_name, part),) = material(job).items()
        support, test = ([sample.path for sample in samples] for samples in (part.support, part.test))
        results = []
        for memory_bank.FLOAT16_MAX in (limit, 0.0):
            inspector = Inspector.from_support(support, encoder=encoder, views="hflip,vflip,rotate=180", image_size=256)
            results.append(list(inspector.inspect_batch(test)))
        pairs = list(zip(*results, strict=True))
        rows.append(
            {
                "product": product_name,
                "images": len(pairs),
                "flipped": sum(a.is_anomalous != b.is_anomalous for a, b in pairs),
                "largest": max(abs(a.score / b.score - 1) for a, b in pairs),
            }
        )
    measured_tables.finish("float16_bank", rows, args.record)


if __name__ == "__main__":
    main()
