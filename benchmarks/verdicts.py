"""Verdicts on record: what the shipped threshold promises and what it does, next to other rules.

    python benchmarks/verdicts.py --data DIR            # enroll, score the test images; resumable
    python benchmarks/verdicts.py --report              # the tables of what is recorded
    python benchmarks/verdicts.py --fit                 # what `enrollment.prediction.POPULATION` is

Every enrollment is recorded with its held-out scores, nuisances and drawn defects per working scale, and the scores of
the test images. The rules are applied to the records afterwards. Whatever a rule has learned of products
(`Population`) is fitted anew for each product from the records of the others, so nothing of a product's own test images
can reach its threshold: `judged` takes the fit and the product's records apart.

The records hold scores and no images. Products of real photographs come from DIR (layout of MVTec AD); generated
parts from `fewshot_ad.training.parts`, whose good parts alone take part in the fit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewshot_ad.encoder import Encoder, load_encoder
from fewshot_ad.enrollment.banks import EnrolledScale, enroll_scale
from fewshot_ad.enrollment.calibration import calibrate
from fewshot_ad.enrollment.drawing import probes_on
from fewshot_ad.enrollment.embedding import embed_image, embed_support, scale_image
from fewshot_ad.enrollment.hygiene import check_support
from fewshot_ad.enrollment.prediction import (
    Evidence,
    Population,
    Prediction,
    ScoredDefect,
    least_cost,
    location,
    reference_scores,
)
from fewshot_ad.enrollment.presets import BASE_SIZES, EnrollmentSettings, enrollment_settings
from fewshot_ad.enrollment.probes import Probes, distinct_images, shrunk
from fewshot_ad.enrollment.selection import cheapest, choose_views
from fewshot_ad.enrollment.support import SupportImage
from fewshot_ad.images import read_image
from fewshot_ad.metrics.distributions import student_t_quantile
from fewshot_ad.scoring import measure
from fewshot_ad.training.parts import CATEGORIES, render

HERE = Path(__file__).parent
OUT = HERE / "out" / "verdicts.jsonl"
PRODUCTS = [
    "bottle",
    "casting",
    "cookie",
    "elpv_mono",
    "alien_toy",
    "magnetic_tile",
    "leather",
    "hazelnut",
    "transistor",
]
SHOTS = (2, 4, 8, 16)
DRAWS = 10
# Test images of each kind, evenly chosen, and generated good parts.
MAX_TEST, GENERATED_TEST, GENERATED_SIDE = 60, 20, 512
# A burst: so many photographs of one part, which differ by noise alone.
BURST = 8
# Fewer test images say nothing about the spread.
MIN_SPREAD_IMAGES = 8
# What the fit chooses from: see `Population`.
WEIGHTS, DEFECT_SPREADS = (20, 8, 50), (0.7, 0.5, 0.9)
GENERATED = "generated "
# Halvings of the test images for the yardstick `labels of half`.
HALVINGS = 10

Record = dict[str, Any]


def main() -> None:
    """Collect, fit or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of products in the layout of MVTec AD")
    parser.add_argument("--out", type=Path, default=OUT, help="record file, added to")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--shots", type=int, nargs="*", default=list(SHOTS))
    parser.add_argument("--products", nargs="*", default=[*PRODUCTS, *(GENERATED + name for name in CATEGORIES)])
    parser.add_argument("--encoder", default="lite0_parts", help="needs a record file of its own (--out)")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--report", action="store_true", help="print the tables of what is recorded")
    parser.add_argument("--fit", action="store_true", help="print the population of all recorded products")
    args = parser.parse_args()
    if args.data is not None:
        collect(args)
    records = read_records(args.out)
    if args.fit:
        print(fit(records))
    if args.report:
        print(report(records))


def read_records(path: Path) -> list[Record]:
    """The recorded enrollments."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def collect(args: argparse.Namespace) -> None:
    """Enroll what is not recorded yet, and score its test images."""
    known = {(r["product"], r["shots"], r["draw"]) for r in read_records(args.out)}
    encoder = load_encoder(args.encoder, threads=args.threads)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for product in args.products:
        generated = product.startswith(GENERATED)
        if not generated and not (args.data / product).is_dir():
            print(f"{product}: not in {args.data}, left out", flush=True)
            continue
        draws = 1 if generated else args.draws
        todo = [(k, d) for d in range(draws) for k in args.shots if (product, k, d) not in known]
        if not todo:
            continue
        pool, good, bad = (generated_images if generated else real_images)(product, args.data)
        tests = {size: [_levels(image, size, encoder) for image in (*good, *bad)] for size in BASE_SIZES}
        for shots, draw in todo:
            support = pick(pool, shots, draw)
            if support is None:
                continue
            record = enroll(support, tests, len(good), encoder)
            record |= {"product": product, "shots": shots, "draw": draw, "generated": generated}
            with args.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(f"{product}: {shots} shots, draw {draw}", flush=True)


def pick(pool: Sequence[Callable[[], np.ndarray]], shots: int, draw: int) -> list[np.ndarray] | None:
    """A support set; of 1 shot for an even draw, and for an odd one a burst of noisy copies of one image."""
    order = np.random.default_rng([77, draw]).permutation(len(pool))[: max(1, shots)]
    if len(order) < shots:
        return None
    images = [pool[at]() for at in order]
    if shots == 1 and draw % 2:
        rng = np.random.default_rng([78, draw])
        return [
            np.clip(np.rint(images[0] + rng.normal(0, 2, images[0].shape)), 0, 255).astype(np.uint8)
            for _ in range(BURST)
        ]
    return images


def real_images(product: str, data: Path) -> tuple[list[Callable[[], np.ndarray]], list[np.ndarray], list[np.ndarray]]:
    """Readers of the training images; good and defective test images."""

    def read(path: Path) -> np.ndarray:
        return shrunk(read_image(path), 2 * max(BASE_SIZES))

    test = data / product / "test"
    bad = [path for kind in test.iterdir() if kind.name != "good" for path in kind.iterdir()]
    pool = [lambda path=path: read(path) for path in sorted((data / product / "train" / "good").iterdir())]
    return pool, *([read(path) for path in _evenly(paths)] for paths in ((test / "good").iterdir(), bad))  # type: ignore[return-value]


def _evenly(paths: Iterator[Path] | list[Path]) -> list[Path]:
    ordered = sorted(paths)
    return [
        ordered[at]
        for at in np.unique(np.linspace(0, len(ordered) - 1, min(MAX_TEST, len(ordered))).round().astype(int))
    ]


def generated_images(
    product: str, _: Path
) -> tuple[list[Callable[[], np.ndarray]], list[np.ndarray], list[np.ndarray]]:
    """The same of generated parts, none of them defective."""
    category = product.removeprefix(GENERATED)
    pool = [lambda seed=seed: render(category, seed, GENERATED_SIDE) for seed in range(max(SHOTS))]
    return pool, [render(category, 1000 + seed, GENERATED_SIDE) for seed in range(GENERATED_TEST)], []


def _levels(image: np.ndarray, size: int, encoder: Encoder) -> tuple[Any, Any]:
    scaled = scale_image(image, size, encoder)
    return [level.astype(np.float16) for level in embed_image(scaled, encoder).levels], scaled.geometry


def enroll(support: list[np.ndarray], tests: dict[int, list[Any]], good: int, encoder: Encoder) -> Record:
    """What `product.enroll` measures at each candidate scale, and the scores of the test images there."""
    images = [
        SupportImage(name=str(at), sha256=f"{zlib.crc32(image.tobytes()):064x}", loaded=image, source=None)
        for at, image in enumerate(support)
    ]
    settings, reasons, _ = choose_views(images, enrollment_settings(), encoder)
    scales, probes = _scales(images, settings, encoder)
    check = check_support(scales, images, settings, probes.series)
    if check.outliers:
        images = [image for at, image in enumerate(images) if at not in check.outliers]
        scales, probes = _scales(images, settings, encoder)
    scores = [_test_scores(scale, tests[scale.image_size], settings) for scale in scales]
    return {
        "views": len(settings.views),
        "reasons": reasons,
        "left_out": len(check.outliers),
        "distinct": distinct_images([image.pixels for image in images]),
        "views_only": len(images) == 1,
        "sizes": list(BASE_SIZES),
        "held_out": [_rounded([m.score for m in scale.good]) for scale in scales],
        "nuisances": [_rounded(scale.nuisances) for scale in scales],
        "defects": [_rounded(scale.defects) for scale in scales],
        "series": [[d.image, d.kind, d.size, d.seed] for d in probes.series],
        "good": [_rounded(one[:good]) for one in scores],
        "bad": [_rounded(one[good:]) for one in scores],
    }


def _scales(
    images: Sequence[SupportImage], settings: EnrollmentSettings, encoder: Encoder
) -> tuple[list[EnrolledScale], Probes]:
    """The support set at each candidate scale, and what was drawn on it."""
    embedded = [embed_support(images, settings, size, encoder) for size in BASE_SIZES]
    probes = probes_on(images, embedded[0], settings, max(BASE_SIZES), encoder)
    return [
        enroll_scale(one, settings, size, encoder, probes) for one, size in zip(embedded, BASE_SIZES, strict=True)
    ], probes


def _test_scores(scale: EnrolledScale, tests: list[Any], settings: EnrollmentSettings) -> list[float]:
    return [
        measure(
            [level.astype(np.float32) for level in levels], scale.banks, scale.level_scale, geometry, settings.scoring
        ).score
        for levels, geometry in tests
    ]


def _rounded(scores: Sequence[float]) -> list[float]:
    return [round(float(score), 5) for score in scores]


def evidence_of(record: Record, sizes: Sequence[int]) -> tuple[Evidence, np.ndarray, np.ndarray]:
    """What a threshold may rest on with some working scales, and the scores of good and defective test images."""
    at = [record["sizes"].index(size) for size in sizes]
    divisors = [np.median(record["held_out"][i]) if len(at) > 1 else 1.0 for i in at]

    def joined(name: str) -> np.ndarray:
        return np.max([np.asarray(record[name][i]) / divisor for i, divisor in zip(at, divisors, strict=True)], axis=0)

    held_out = joined("held_out")
    series = zip(record["series"], joined("defects"), strict=True)
    evidence = Evidence(
        scores=tuple(held_out),
        map_peaks=tuple(held_out),
        median_good=float(np.median(held_out)),
        nuisances=tuple(joined("nuisances")),
        defects=tuple(ScoredDefect(*defect, score=float(score)) for defect, score in series),
        distinct=min(record["distinct"], len(held_out)),
        views_only=record["views_only"],
    )
    return evidence, joined("good"), joined("bad")


def chosen_sizes(record: Record, settings: EnrollmentSettings, population: Population) -> tuple[int, ...]:
    """The working scales that `selection.choose_scales` chooses."""
    options = [tuple(record["sizes"][:count]) for count in range(1, len(record["sizes"]) + 1)]
    caught = []
    for option in options:
        evidence = evidence_of(record, option)[0]
        threshold = calibrate(evidence, settings, population).threshold
        caught.append(float(np.mean([d.score > threshold for d in evidence.defects if d.size == settings.min_defect])))
    return options[cheapest(caught)]


def fit(records: Sequence[Record], without: str | None = None, sizes: Sequence[int] = BASE_SIZES) -> Population:
    """What products teach about scores, all but one of them.

    Args:
        records: The recorded enrollments.
        without: The product that must not take part.
        sizes: The working scales.
    """
    taught = [
        record
        for record in records
        if record["product"] != without and not record["generated"] and record["distinct"] > 1
    ]
    cells = [
        [r for r in taught if (r["product"], r["shots"]) == key]
        for key in sorted({(r["product"], r["shots"]) for r in taught})
    ]
    rows, errors, spreads, defects = [], [], {}, {}
    for cell in cells:
        for record in cell:
            evidence, good, bad = evidence_of(record, sizes)
            logs = np.log(good)
            center = predicted_location(evidence)
            rows.append((1 / len(cell), 1 / evidence.distinct, logs.mean() - center))
            if len(good) > MIN_SPREAD_IMAGES:
                spreads.setdefault(record["product"], []).append(logs.var(ddof=1))
            if len(bad) and record["shots"] >= 4:
                drawn = reference_scores(evidence.defects)
                above = max(0.0, float(np.median(np.log(drawn)) - logs.mean()))
                defects.setdefault(record["product"], []).append((above, float(np.median(np.log(bad)) - logs.mean())))
    weight, inverse, offset = (np.asarray(column) for column in zip(*rows, strict=True))
    design = np.stack([np.ones_like(inverse), inverse], axis=1) * np.sqrt(weight)[:, None]
    bias = np.linalg.lstsq(design, offset * np.sqrt(weight), rcond=None)[0]
    errors = offset - bias[0] - bias[1] * inverse
    spread_of_bias = math.sqrt(np.average(errors**2 / inverse, weights=weight))
    x, y = np.asarray([np.mean(pairs, axis=0) for pairs in defects.values()]).T
    # Errors are a factor, and there are few products: on a grid, by the squared logarithm.
    lines = [(base, slope) for base in np.arange(0.02, 0.3, 0.01) for slope in np.arange(0.5, 2.01, 0.05)]
    base, slope = min(lines, key=lambda line: float(((np.log(line[0] + line[1] * x) - np.log(y)) ** 2).sum()))
    fitted = Population(
        bias=(float(bias[0]), float(bias[1])),
        spread_of_bias=spread_of_bias,
        spread=math.exp(np.mean([0.5 * math.log(np.mean(one)) for one in spreads.values()])),
        spread_weight=WEIGHTS[0],
        defect=(float(base), float(slope)),
        defect_spread=DEFECT_SPREADS[0],
    )
    # Two numbers have no formula: those with the smallest gap on the products that teach.
    grid = [
        dataclasses.replace(fitted, spread_weight=weight, defect_spread=spread)
        for weight in WEIGHTS
        for spread in DEFECT_SPREADS
    ]
    real = [(evidence_of(record, sizes), record["product"]) for record in taught if record["bad"][0]]
    return min(grid, key=lambda population: _mean_gap(real, population))


def _mean_gap(judged: Sequence[tuple[tuple[Evidence, np.ndarray, np.ndarray], str]], population: Population) -> float:
    gaps: dict[str, list[float]] = {}
    for (evidence, good, bad), product in judged:
        limit = least_cost(Prediction.of(evidence, population), evidence, population, 1.0)
        gaps.setdefault(product, []).append(gap(good, bad, math.exp(limit)))
    return float(np.mean([np.mean(one) for one in gaps.values()]))


def predicted_location(evidence: Evidence) -> float:
    """Where `prediction.Prediction` puts the next good score before the bias that is fitted here."""
    center = location(np.log(evidence.scores))
    varied = location(np.log(evidence.nuisances)) - center if evidence.nuisances else 0.0
    return center + max(0.0, varied)


def gap(good: np.ndarray, bad: np.ndarray, threshold: float) -> float:
    """How far the balanced accuracy at a threshold is behind that of the best threshold, 0..1."""
    return best_balanced_accuracy(good, bad) - (1 - (np.mean(good > threshold) + np.mean(bad <= threshold)) / 2)


def best_balanced_accuracy(good: np.ndarray, bad: np.ndarray) -> float:
    """The largest balanced accuracy that a threshold could have, chosen with the test images."""
    return float(_balanced_accuracies(good, bad)[1].max())


def best_threshold(good: np.ndarray, bad: np.ndarray) -> float:
    """The threshold of that balanced accuracy: half-way to the next score."""
    thresholds, accuracies = _balanced_accuracies(good, bad)
    at = int(accuracies.argmax())
    return float(thresholds[at : at + 2].mean())


def _balanced_accuracies(good: np.ndarray, bad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every threshold that makes a difference, ascending, and what each reaches."""
    thresholds = np.unique(np.concatenate([good, bad, [0.0]]))
    rejected = 1 - np.searchsorted(np.sort(good), thresholds, "right") / len(good)
    escaped = np.searchsorted(np.sort(bad), thresholds, "right") / len(bad)
    return thresholds, 1 - (rejected + escaped) / 2


class Judged(NamedTuple):
    """What a rule did on one enrollment: the promise and its bound are NaN where it makes none."""

    rejected: float
    promised: float
    bound: float
    escaped: float
    gap: float


def rule_of_version_01(evidence: Evidence) -> float:
    """The rule until version 0.1: a Student-t prediction limit at 1 / (n + 1) on log scores, above the largest."""
    logs, n = np.log(evidence.scores), len(evidence.scores)
    t = student_t_quantile(1 - 1 / (n + 1), n - 1)
    return float(max(np.exp(logs.mean() + t * logs.std(ddof=1) * math.sqrt(1 + 1 / n)), max(evidence.scores)))


def adaptive(evidence: Evidence) -> float:
    """The adaptive threshold of anomalib: the largest F1 score, here of held-out against drawn images."""
    good, bad = np.asarray(evidence.scores), np.asarray([d.score for d in evidence.defects])
    thresholds = np.unique(np.concatenate([good, bad]))
    hits = np.asarray([(bad >= t).sum() for t in thresholds])
    alarms = np.asarray([(good >= t).sum() for t in thresholds])
    # The decision here is "above".
    return float(np.nextafter(thresholds[np.argmax(2 * hits / (hits + alarms + len(bad)))], 0))


PEERS: dict[str, Callable[[Evidence], float]] = {
    "until 0.1": rule_of_version_01,
    "largest good": lambda evidence: max(evidence.scores),
    "mean + 3 sd": lambda evidence: float(np.mean(evidence.scores) + 3 * np.std(evidence.scores, ddof=1)),
    "adaptive (anomalib)": adaptive,
}


def judged(record: Record, population: Population, settings: EnrollmentSettings) -> dict[str, Judged]:
    """What each rule does on one enrollment.

    Args:
        record: The enrollment.
        population: What products other than this one taught.
        settings: Those of an enrollment by default.
    """
    evidence, good, bad = evidence_of(record, chosen_sizes(record, settings, population))
    calibration = calibrate(evidence, settings, population)
    thresholds = {name: (rule(evidence), math.nan, math.nan) for name, rule in PEERS.items()}
    n = len(evidence.scores)
    thresholds["until 0.1"] = (thresholds["until 0.1"][0], 1 / (n + 1), math.nan)
    bound = calibration.false_reject_bound
    thresholds = {"shipped": (calibration.threshold, calibration.false_reject_rate, bound or math.nan), **thresholds}
    by_rule = {
        name: Judged(float(np.mean(good > t)), promised, limit, float(np.mean(bad <= t)), gap(good, bad, t))
        for name, (t, promised, limit) in thresholds.items()
    }
    return by_rule | {"labels of half": labels_of_half(good, bad)}


def labels_of_half(good: np.ndarray, bad: np.ndarray) -> Judged:
    """A yardstick, no rule of a peer: the best threshold of half the labeled test images, judged on the other half."""
    rng = np.random.default_rng(79)
    halvings = []
    for _ in range(HALVINGS):
        (seen, left), (seen_bad, left_bad) = (
            np.array_split(rng.permutation(one), [len(one) // 2]) for one in (good, bad)
        )
        t = best_threshold(seen, seen_bad)
        rates = float(np.mean(left > t)), float(np.mean(left_bad <= t))
        halvings.append(Judged(rates[0], math.nan, math.nan, rates[1], gap(left, left_bad, t)))
    return Judged(*np.mean(halvings, axis=0).tolist())


def report(records: Sequence[Record]) -> str:
    """The tables, in Markdown."""
    settings = enrollment_settings()
    real = [record for record in records if not record["generated"] and record["shots"] > 1]
    fits = {product: fit(records, without=product) for product in {record["product"] for record in real}}
    rows = [(record, judged(record, fits[record["product"]], settings)) for record in real]
    lines = [
        "| shots | rule | false rejects | promised | within the 95% bound | escapes | behind the best threshold | "
        "worst product |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for shots in sorted({record["shots"] for record in real}):
        for name in rows[0][1]:
            lines.append(_row(f"{shots} | {name}", [(r, by_rule[name]) for r, by_rule in rows if r["shots"] == shots]))
    lines += ["", "By product, the shipped rule:", "", lines[0].replace("| rule", "| product"), lines[1]]
    for shots in sorted({record["shots"] for record in real}):
        for product in sorted({record["product"] for record in real}):
            chosen = [(r, by_rule["shipped"]) for r, by_rule in rows if (r["shots"], r["product"]) == (shots, product)]
            if chosen:
                lines.append(_row(f"{shots} | {product}", chosen))
    return "\n".join(lines)


def _row(name: str, judged_records: Sequence[tuple[Record, Judged]]) -> str:
    """Means of products' means; how many draws are within the bound counts each draw."""
    by_product: dict[str, list[Judged]] = {}
    for record, one in judged_records:
        by_product.setdefault(record["product"], []).append(one)
    means = {product: np.mean(values, axis=0) for product, values in by_product.items()}
    rejected, promised, bound, escaped, behind = np.mean(list(means.values()), axis=0)
    within = [one.rejected <= one.bound for _, one in judged_records]
    covered = "" if math.isnan(bound) else f"{np.mean(within):.1%} of {len(within)} (bound {bound:.0%})"
    worst = max(means, key=lambda product: means[product][4])
    promise = "" if math.isnan(promised) else f"{promised:.1%}"
    return (
        f"| {name} | {rejected:.1%} | {promise} | {covered} | {escaped:.1%} | {100 * behind:.1f} | "
        f"{worst} {100 * means[worst][4]:.1f} |"
    )


if __name__ == "__main__":
    main()
