"""Does storing the bank as float16 change a decision? Scores of the shared board with float16 and float32 banks.

python benchmarks/float16_bank.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.search import memory_bank

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--shots", type=int, default=4)
    args = parser.parse_args()
    lists = json.loads((HERE / "support_lists.json").read_text())
    encoder = load_encoder()
    print("| product | images | flipped decisions | largest relative difference of scores |\n|---|---|---|---|")
    limit = memory_bank.FLOAT16_MAX
    for name in (n for n in lists if (args.data / n).is_dir()):
        product = args.data / name
        support = [product / "train" / "good" / f for f in lists[name]["support"][0][: args.shots]]
        results = []
        for memory_bank.FLOAT16_MAX in (limit, 0.0):
            inspector = Inspector.from_support(support, encoder=encoder, views="hflip,vflip,rotate=180", image_size=256)
            results.append(list(inspector.inspect_batch([product / "test" / f for f in lists[name]["test"]])))
        flips = sum(a.is_anomalous != b.is_anomalous for a, b in zip(*results, strict=True))
        largest = max(abs(a.score / b.score - 1) for a, b in zip(*results, strict=True))
        print(f"| {name} | {len(results[0])} | {flips} | {largest:.1e} |", flush=True)


if __name__ == "__main__":
    main()
