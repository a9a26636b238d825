"""The encoders side by side on the shared board: what training brought, product by product.

Each encoder enrolls the same fixed support draws (support_lists.json) and is judged on the same test images.
Encoders that ship were never trained on a product of the board. Besides accuracy: milliseconds and CPU seconds a
image, joules where the machine tells them (RAPL), and the size of the file. Appended to a JSONL file as they
come; what is there already is not computed again.

    python benchmarks/encoder_board.py                                     # all that ship
    python benchmarks/encoder_board.py --encoders efficientnet_lite0 run/mine.json --shots 4
    python benchmarks/encoder_board.py --report
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from shared_board import BOARD, HERE, LISTS, SHOTS, evaluate, ours, read_records

from fewshot_ad.encoder import load_encoder
from fewshot_ad.encoder.weights import WeightsCard, shipped_encoders, weights_folder

RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
FIGURES = ("image_auroc", "pixel_auroc", "au_pro", "ms", "cpu_s", "joules")
FIXED = {"image_size": 256, "views": "hflip,vflip,rotate=180"}


def joules() -> float | None:
    """The machine's energy counter, if it has one that may be read."""
    try:
        return int(RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None


def run(args: argparse.Namespace) -> None:
    lists = json.loads(LISTS.read_text())
    done = {tuple(r[k] for k in ("encoder", "settings", "product", "shots", "draw")) for r in read_records(args.out)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.encoders or shipped_encoders():
        # A precision can only be chosen where the encoder is loaded by name.
        by_name = not args.encoder_options and not {"preset", "precision"}.isdisjoint(args.settings)
        encoder = name if by_name else load_encoder(name, **args.encoder_options)
        label = args.name or Path(name).stem
        for product in args.products:
            for shots in args.shots:
                for draw in range(args.draws):
                    key = (label, args.label, product, shots, draw)
                    if key in done:
                        continue
                    start, before = time.process_time(), joules()
                    figures = evaluate(
                        args.data / product,
                        lists[product],
                        shots,
                        draw,
                        lambda support: ours(support, args.settings, encoder),  # noqa: B023 - called at once
                    )
                    count, after = len(lists[product]["test"]), joules()
                    figures["cpu_s"] = (time.process_time() - start) / count
                    figures["joules"] = None if before is None or after is None else (after - before) / count
                    record = dict(zip(("encoder", "settings", "product", "shots", "draw"), key, strict=True)) | figures
                    with args.out.open("a") as file:
                        file.write(json.dumps(record) + "\n")
                    shown = {k: round(figures[k], 3) for k in FIGURES if figures.get(k) is not None}
                    print(label, product, f"K={shots} draw={draw}", shown, flush=True)


def report(records: list[dict[str, Any]], baseline: str) -> str:
    """Markdown: means of the board an encoder and K, then the image AUROC of each product against the baseline."""
    groups: dict[tuple[str, str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["encoder"], record["settings"], record["shots"], record["product"]].append(record)
    rows = sorted({key[:3] for key in groups})
    lines = [
        "Mean of the six products, ± standard deviation over the draws of that mean.",
        "",
        "| encoder | settings | K | image AUROC | pixel AUROC | AU-PRO | ms | CPU s | joules | MB |",
        "|" + "---|" * 10,
    ]
    for encoder, views, shots in rows:
        if any((encoder, views, shots, p) not in groups for p in BOARD):
            continue
        cells = [_over_draws([groups[encoder, views, shots, p] for p in BOARD], figure) for figure in FIGURES]
        lines.append(f"| {encoder} | {views} | {shots} | " + " | ".join(cells) + f" | {_megabytes(encoder)} |")
    lines += ["", f"Image AUROC, in brackets AU-PRO where masks exist; change against {baseline}, in points.", ""]
    lines += ["| encoder | settings | K | " + " | ".join(BOARD) + " |", "|" + "---|" * (3 + len(BOARD))]
    for encoder, views, shots in rows:
        cells = []
        for product in BOARD:
            group, base = (groups.get((e, views, shots, product), []) for e in (encoder, baseline))
            parts = []
            for figure in ("image_auroc", "au_pro"):
                got, wanted = _mean(group, figure), _mean(base, figure)
                if got is not None:
                    change = "" if encoder == baseline or wanted is None else f" {100 * (got - wanted):+.1f}"
                    parts.append(f"{got:.3f}{change}")
            cells.append(parts[0] + (f" ({parts[1]})" if len(parts) > 1 else "") if parts else "")
        lines.append(f"| {encoder} | {views} | {shots} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(group: list[dict[str, Any]], figure: str) -> float | None:
    values = [r[figure] for r in group if r.get(figure) is not None]
    return float(np.mean(values)) if values else None


def _over_draws(groups: list[list[dict[str, Any]]], figure: str) -> str:
    by_draw: dict[int, list[float]] = defaultdict(list)
    for group in groups:
        for record in group:
            if record.get(figure) is not None:
                by_draw[record["draw"]].append(record[figure])
    means = [np.mean(values) for values in by_draw.values()]
    if not means:
        return ""
    digits = 1 if figure == "ms" else 3
    return f"{np.mean(means):.{digits}f} ± {np.std(means):.{digits}f}"


def _megabytes(encoder: str) -> str:
    card: WeightsCard | None = shipped_encoders().get(encoder)
    return f"{(weights_folder() / card.file).stat().st_size / 1e6:.1f}" if card else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "encoder_board.jsonl")
    parser.add_argument("--encoders", nargs="*", help="names or cards; default: all that ship")
    parser.add_argument("--name", help="what to call the encoder in the table, if one with options is given")
    parser.add_argument("--encoder-options", type=json.loads, default={}, help="JSON for load_encoder")
    parser.add_argument("--settings", type=json.loads, default=FIXED, help="JSON for Inspector.from_support")
    parser.add_argument("--label", default="256 px, flips", help="what to call the settings in the table")
    parser.add_argument("--products", nargs="*", default=BOARD)
    parser.add_argument("--shots", type=int, nargs="*", default=SHOTS)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--baseline", default="efficientnet_lite0")
    parser.add_argument("--report", action="store_true", help="print the tables of what is recorded, compute nothing")
    args = parser.parse_args()
    if not args.report:
        run(args)
    print(report(read_records(args.out), args.baseline))


if __name__ == "__main__":
    main()
