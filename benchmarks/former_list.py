"""Today's default on the test images of the first boards, which older figures and goals were measured on.

The engine draws its own 60 good and 60 defective test images per product (`shared_board.py`); those of the first boards
are others, on which all methods score higher: former_list.json. K = 8, the three support draws of the board, maps
compared at 256 x 256.

    python benchmarks/former_list.py            # resumable; needs ../shared/data
    python benchmarks/former_list.py --report   # the table of what is recorded
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measured_tables import NONE, table

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.encoder import Encoder
from fewshot_ad.metrics import at_threshold, au_pro, auroc

HERE = Path(__file__).parent
LISTS, OUT = HERE / "former_list.json", HERE / "out" / "former_list.jsonl"
SHOTS, SIDE = 8, 256
FIGURES = ("image_auroc", "au_pro", "false_reject_rate", "escape_rate")


def judge(folder: Path, lists: dict[str, Any], draw: int, encoder: Encoder) -> dict[str, Any]:
    """One enrollment, held to the product's test list."""
    support = [folder / "train" / "good" / name for name in lists["support"][draw][:SHOTS]]
    inspector = Inspector.from_support(support, encoder=encoder)
    labels, scores, rejected, maps, masks = [], [], [], [], []
    for name in lists["test"]:
        result = inspector.inspect(folder / "test" / name)
        labels.append(not name.startswith("good/"))
        scores.append(result.score)
        rejected.append(result.is_anomalous)
        truth = mask(folder, name)
        if truth is not None:
            maps.append(cv2.resize(result.anomaly_map, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            masks.append(truth)
    decided = at_threshold(labels, rejected)
    return {
        "image_auroc": auroc(labels, scores),
        "au_pro": au_pro(maps, masks) if any(truth.any() for truth in masks) else None,
        "false_reject_rate": decided.false_reject_rate,
        "escape_rate": decided.escape_rate,
    }


def mask(folder: Path, name: str) -> np.ndarray[Any, Any] | None:
    """(SIDE, SIDE) bool: empty for a good image, None for a defective one without a mask."""
    if name.startswith("good/"):
        return np.zeros((SIDE, SIDE), bool)
    path = folder / "ground_truth" / Path(name).parent / f"{Path(name).stem}_mask.png"
    if not path.exists():
        return None
    return cv2.resize(cv2.imread(str(path), 0), (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 127


def report(rows: list[dict[str, Any]]) -> str:
    """Means over the draws by product, and over the products."""
    products = sorted({row["product"] for row in rows})
    means = {
        product: {
            figure: np.mean(
                [row[figure] for row in rows if row["product"] == product and row[figure] is not None] or np.nan
            )
            for figure in FIGURES
        }
        for product in products
    }
    means["mean"] = {figure: np.nanmean([means[product][figure] for product in products]) for figure in FIGURES}
    lines = [
        [name, *(NONE if np.isnan(of[figure]) else f"{of[figure]:.3f}" for figure in FIGURES)]
        for name, of in means.items()
    ]
    return table(["product", "image AUROC", "AU-PRO", "false rejects", "escapes"], lines)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The recorded enrollments."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Collect or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=OUT, help="record file, added to")
    parser.add_argument("--report", action="store_true", help="print the table of what is recorded, compute nothing")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    if not args.report:
        lists = json.loads(LISTS.read_text())
        done = {(row["product"], row["draw"]) for row in read_rows(args.out)}
        encoder = load_encoder(threads=args.threads)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for product, of in lists.items():
            for draw in range(len(of["support"])):
                if (product, draw) not in done:
                    figures = judge(args.data / product, of, draw, encoder)
                    with args.out.open("a") as file:
                        file.write(json.dumps({"product": product, "shots": SHOTS, "draw": draw, **figures}) + "\n")
    print(report(read_rows(args.out)))


if __name__ == "__main__":
    main()
