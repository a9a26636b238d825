"""The shared board: accuracy of few-shot enrollment on real products, next to anomalib's PatchCore.

For each product, number of shots and fixed support draw (support_lists.json): image AUROC, F1, false-reject and
escape rate at the shipped threshold, pixel AUROC and AU-PRO@0.3 where masks exist (both at 256 x 256), milliseconds a
image. At most 60 good and 60 defective images a product, fixed too. Results are appended to a JSONL file as
they come; what is there already is not computed again. The table shows means and standard deviations over the draws.

    python benchmarks/shared_board.py --data ../shared/data                 # ours
    python benchmarks/shared_board.py --data ../shared/data --peer          # anomalib's PatchCore (extra `bench`)
    python benchmarks/shared_board.py --report                              # the table alone
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewshot_ad import Inspector, ScoringConfig, load_encoder
from fewshot_ad.encoder import DEFAULT_ENCODER
from fewshot_ad.images import SUFFIXES, read_image
from fewshot_ad.metrics import at_threshold, au_pro, auroc

HERE = Path(__file__).parent
LISTS = HERE / "support_lists.json"
BOARD = ("bottle", "magnetic_tile", "cookie", "elpv_mono", "alien_toy", "casting")
SHOTS, DRAWS, MAX_TEST, SIDE = (2, 4, 8), 3, 60, 256
FIGURES = ("image_auroc", "pixel_auroc", "au_pro", "f1", "false_reject_rate", "escape_rate", "ms", "enroll_s")

Verdict = tuple[float, "bool | None", "np.ndarray[Any, Any]"]
Predict = Callable[[Path], Verdict]


def write_lists(data: Path) -> None:
    """Draw the support and test lists once; they are committed, so that everybody measures the same."""
    lists: dict[str, Any] = {}
    for product in sorted(p for p in data.iterdir() if (p / "test").is_dir()):
        train = _images(product / "train" / "good")
        good = _images(product / "test" / "good")
        kinds = [p for p in sorted((product / "test").iterdir()) if p.name != "good"]
        bad = sorted(p for kind in kinds for p in _images(kind))
        rng = np.random.default_rng(0)
        tests = [good[i] for i in sorted(rng.permutation(len(good))[:MAX_TEST])]
        tests += [bad[i] for i in sorted(rng.permutation(len(bad))[:MAX_TEST])]
        lists[product.name] = {
            "support": [
                [train[i].name for i in np.random.default_rng(100 + draw).permutation(len(train))[: max(SHOTS)]]
                for draw in range(DRAWS)
            ],
            "test": [str(p.relative_to(product / "test")) for p in tests],
        }
    LISTS.write_text(json.dumps(lists, indent=1) + "\n")


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def ours(support: list[Path], settings: dict[str, Any], encoder: Any) -> tuple[Predict, dict[str, Any]]:
    """Enroll with this package."""
    options = dict(settings)
    scoring = ScoringConfig(**options.pop("scoring", {}))
    inspector = Inspector.from_support(support, encoder=encoder, scoring=scoring, **options)

    def predict(path: Path) -> Verdict:
        result = inspector.inspect(path)
        return result.score, result.is_anomalous, result.anomaly_map

    chosen = {
        "image_size": inspector.enrollment.settings.image_size,
        "views": [str(v) for v in inspector.enrollment.settings.views],
        "bank": sum(len(b) for b in inspector.banks),
        "precision": inspector.encoder.spec.precision,
    }
    return predict, chosen


def anomalib_patchcore(support: list[Path], settings: dict[str, Any], _: Any) -> tuple[Predict, dict[str, Any]]:
    """Anomalib's PatchCore on the same features: 256 x 256, coreset ratio 0.1, 9 neighbors, no views."""
    import torch
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    from torchvision.transforms.v2.functional import resize

    from fewshot_ad.encoder.pyramid import lite0_weights_file, read_state_dict

    model = PatchcoreModel(layers=["blocks.2", "blocks.4"], backbone="tf_efficientnet_lite0", pre_trained=False)
    extractor = model.feature_extractor.feature_extractor
    ours_first = read_state_dict(lite0_weights_file())
    names = list(extractor.state_dict())
    import timm

    reference = list(timm.create_model("tf_efficientnet_lite0").state_dict())
    state = dict(zip(reference, ours_first.values(), strict=True))
    extractor.load_state_dict({name: state[name] for name in names})

    def load(path: Path) -> torch.Tensor:
        pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None].float() / 255
        return (resize(pixels, [SIDE, SIDE], antialias=True) - 0.5) / 0.5

    torch.manual_seed(0)
    model.train()
    model.feature_extractor.eval()
    for path in support:
        model(load(path))
    model.subsample_embedding(0.1)
    model.eval()

    def predict(path: Path) -> Verdict:
        with torch.inference_mode():
            out = model(load(path))
        return float(out.pred_score), None, out.anomaly_map[0, 0].numpy()

    return predict, {"bank": len(model.memory_bank)}


def evaluate(product: Path, lists: dict[str, Any], shots: int, draw: int, fit: Any) -> dict[str, Any]:
    """One job: enroll from one draw, predict the product's test list, compute the figures."""
    support = [product / "train" / "good" / name for name in lists["support"][draw][:shots]]
    start = time.perf_counter()
    predict, chosen = fit(support)
    enroll_s = time.perf_counter() - start
    labels, scores, said, maps, masks, times = [], [], [], [], [], []
    for name in lists["test"]:
        path = product / "test" / name
        start = time.perf_counter()
        score, is_anomalous, heat = predict(path)
        times.append((time.perf_counter() - start) * 1e3)
        labels.append(not name.startswith("good/"))
        scores.append(score)
        said.append(is_anomalous)
        mask = _mask(product, name)
        if mask is not None:
            maps.append(cv2.resize(heat, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            masks.append(mask)
    figures: dict[str, Any] = {"image_auroc": auroc(labels, scores)}
    if any(mask.any() for mask in masks):
        figures["pixel_auroc"] = auroc(np.stack(masks), np.stack(maps))
        figures["au_pro"] = au_pro(maps, masks)
    if None not in said:
        decided = at_threshold(labels, said)
        figures |= {
            "f1": decided.f1,
            "false_reject_rate": decided.false_reject_rate,
            "escape_rate": decided.escape_rate,
        }
    return {**figures, "ms": float(np.median(times)), "enroll_s": enroll_s, **chosen}


def _mask(product: Path, name: str) -> np.ndarray[Any, Any] | None:
    """(256, 256) bool: empty for a good image, None for a defective one without a mask."""
    if name.startswith("good/"):
        return np.zeros((SIDE, SIDE), bool)
    path = product / "ground_truth" / Path(name).parent / f"{Path(name).stem}_mask.png"
    if not path.exists():
        return None
    return cv2.resize(cv2.imread(str(path), 0), (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 127


def run(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    lists = json.loads(LISTS.read_text())
    done = {_key(record) for record in read_records(args.out)}
    encoder = None if args.peer else load_encoder(args.encoder, **args.encoder_options)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.products or [p for p in lists if (args.data / p).is_dir()]:
        for shots in args.shots:
            for draw in range(args.draws):
                if len(lists[name]["support"][draw]) < shots:
                    continue
                record: dict[str, Any] = {"method": args.name, "product": name, "shots": shots, "draw": draw}
                if _key(record) in done:
                    continue
                method = anomalib_patchcore if args.peer else ours
                figures = evaluate(
                    args.data / name,
                    lists[name],
                    shots,
                    draw,
                    lambda support: method(support, settings, encoder),  # noqa: B023 - called at once
                )
                record |= figures
                with args.out.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                shown = {k: round(v, 3) for k, v in figures.items() if isinstance(v, float)}
                print(name, f"K={shots} draw={draw}", shown, flush=True)


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["method"], record["product"], record["shots"], record["draw"]


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records so far; a last line cut short by a kill is dropped."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def report(records: Iterable[dict[str, Any]]) -> str:
    """A Markdown table: mean ± standard deviation over the draws, and the mean of the six products of the board."""
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["method"], record["shots"], record["product"]].append(record)
    lines = ["| method | K | product | " + " | ".join(FIGURES) + " |", "|" + "---|" * (3 + len(FIGURES))]
    for method in sorted({m for m, _, _ in groups}):
        for shots in sorted({s for m, s, _ in groups if m == method}):
            rows = {p: g for (m, s, p), g in groups.items() if m == method and s == shots}
            for product, group in rows.items():
                lines.append(
                    f"| {method} | {shots} | {product} | " + " | ".join(_cell(group, f) for f in FIGURES) + " |"
                )
            if all(product in rows for product in BOARD):
                cells = []
                for figure in FIGURES:
                    means = [_mean(rows[p], figure) for p in BOARD]
                    known = [m for m in means if m is not None]
                    cells.append(f"**{np.mean(known):.3f}**" if known else "")
                lines.append(f"| **{method}** | **{shots}** | **mean of six** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(group: list[dict[str, Any]], figure: str) -> float | None:
    values = [r[figure] for r in group if r.get(figure) is not None]
    return float(np.mean(values)) if values else None


def _cell(group: list[dict[str, Any]], figure: str) -> str:
    values = [r[figure] for r in group if r.get(figure) is not None]
    if not values:
        return ""
    digits = 1 if figure in ("ms", "enroll_s") else 3
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "shared_board.jsonl")
    parser.add_argument("--name", help="name of the method in the table")
    parser.add_argument("--products", nargs="*", help="default: all of the lists that are there")
    parser.add_argument("--shots", type=int, nargs="*", default=SHOTS)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)
    parser.add_argument("--encoder-options", type=json.loads, default={}, help="JSON for load_encoder")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON for Inspector.from_support")
    parser.add_argument("--peer", action="store_true", help="anomalib's PatchCore instead of this package")
    parser.add_argument("--report", action="store_true", help="print the table of what is recorded, compute nothing")
    parser.add_argument("--write-lists", action="store_true", help="draw the lists anew (they are committed)")
    args = parser.parse_args()
    args.name = args.name or ("anomalib PatchCore" if args.peer else "fewshot_ad")
    if args.write_lists:
        write_lists(args.data)
    elif not args.report:
        run(args, args.settings)
    print(report(read_records(args.out)))


if __name__ == "__main__":
    main()
