"""Tables of accuracy on the boards, from committed records of the benchmark engine."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Callable, Sequence

import measurements
import numpy as np
from measured_tables import NONE, number, simsiam, table

from fewshot_ad.benchmark import record, tables
from fewshot_ad.benchmark.averages import Row, aggregate, figure
from fewshot_ad.benchmark.departures import in_short
from fewshot_ad.benchmark.record import Record, Shots
from fewshot_ad.zoo.survey import survey

OURS, FROZEN, PEER = "fewshot_ad", "fewshot_ad, frozen encoder", "anomalib_patchcore"
PRODUCTS = ("bottle", "magnetic_tile", "cookie", "elpv_mono", "alien_toy", "casting")
ACCURACY = ("image_auroc", "pixel_auroc", "au_pro")
RATES = ("false_reject_rate", "escape_rate")
DECISIONS = (*ACCURACY, "f1", *RATES)
FLIPS = "256 px, flips"
SHIPPED = ("lite0_parts", "lite0_tuned", "resnet18_parts", "convnext_atto_parts")
SIAMESE = ("resnet18_siamese", "convnext_siamese")
TRAINED = (
    "E, margin alone",
    "E, margin and anchor 0.05",
    "lite0_parts, keep 0.3",
    "lite0_parts",
    "lite0 trained on images of other products",
    "resnet18, distilled on research-only images",
    "resnet18, distilled on generated images",
    "resnet18_parts",
    "convnext_atto_distilled",
    "convnext_atto_parts",
    "efficientnet_lite0",
)
RECIPE = (
    *("published recipe, 4 epochs, stages and E", "published recipe, 4 epochs, E"),
    *("published recipe, 50 epochs, E", "published recipe, 50 epochs, registered stages"),
)
MODES = (
    *("affine", "rotation", "rotation + scale", "rotation + translation", "rotation + translation + scale"),
    *("scale", "shear", "translation", "translation + scale"),
)
VIEWS = (
    *("none", "gray", "hflip,vflip", "translate", "rotate", "brightness", "contrast", "scale", "hue"),
    *("gray,hflip,vflip,translate,rotate", "all", "every kind"),
)
# What the plan calls all of them was so before there were scale and hue.
LABELS = {"all": "all but scale and hue", "every kind": "all"}
# Support draws of the plan few_shot.yaml.
DRAWS = 3
COSTS = ("fit_s", "ms", "model_mb")
# Of the plans that train longest.
TWO = ("bottle", "casting")
# Image AUROC up to which a row is marked as near chance.
NEAR_CHANCE = 0.6
# Of the board with labeled defects, those whose defects have masks, of which boxes can be made.
MASKED = ("bottle", "magnetic_tile")
BANKS = ("E and both stages joined", "E and both stages, one bank each")


@functools.cache
def read(name: str) -> tuple[Record, ...]:
    """The committed records of one board."""
    return tuple(record.read(measurements.RECORDS / f"{name}.jsonl"))


def rows(
    name: str,
    methods: Sequence[str] = (),
    dataset: str = "",
    shots: Sequence[int] = (),
    by_category: bool = False,
) -> list[Row]:
    """Averages of the records that are chosen, in the order of the methods; empty = all."""
    picked = [
        one
        for one in read(name)
        if (not methods or one.method in methods)
        and (not dataset or one.dataset == dataset)
        and (not shots or one.shots in shots)
    ]
    averages = aggregate(picked, by_category)
    return sorted(averages, key=lambda row: methods.index(row.method)) if methods else averages


def text(row: Row, name: str) -> str:
    """A figure in percent with its deviation over the draws; a dash where there is none."""
    cell = row.cells.get(name)
    return NONE if cell is None else figure(name).text(cell.mean, cell.sd) + row.marks(name)


def labels(names: Sequence[str]) -> list[str]:
    """Heads of the columns."""
    return [f"{figure(name).label} ({figure(name).unit})" for name in names]


def by_shots(averages: Sequence[Row], names: Sequence[str], suffix: str = "") -> str:
    """One row for each number of shots and method, whose name is shown without the suffix."""
    ordered = sorted(averages, key=lambda row: row.shots)
    return table(
        ["K", "method", *labels(names)],
        ([str(row.shots), row.method.removesuffix(suffix), *(text(row, name) for name in names)] for row in ordered),
    )


def board_today() -> str:
    """This package with today's defaults and anomalib's PatchCore on the six products."""
    return by_shots(rows("shared_board_8", (OURS, PEER), "board"), DECISIONS)


def board() -> str:
    """This package, its frozen encoder and anomalib's PatchCore on the six products."""
    return by_shots(rows("shared_board", (OURS, FROZEN, PEER), "board"), DECISIONS)


def board_short() -> str:
    """The table of the README: this package with the peer's figure beside each of its own."""
    averages = {(row.method, row.shots): row for row in rows("shared_board_8", (OURS, PEER), "board")}

    def percent(method: str, shots: Shots, name: str) -> str:
        return f"{100 * averages[method, shots].cells[name].mean:.1f}"

    lines = []
    for shots in sorted({shots for _, shots in averages}):
        pairs = [percent(method, shots, name) for name in ("image_auroc", "au_pro") for method in (OURS, PEER)]
        lines.append([str(shots), *pairs, *(percent(OURS, shots, name) for name in RATES)])
    heading = ["K", "Image AUROC (%)", "PatchCore", "AU-PRO (%)", "PatchCore", *labels(RATES)]
    return table(heading, lines)


def board_gains() -> str:
    """What this package gains or loses against anomalib's PatchCore and its own frozen encoder, in points."""
    averages = {(row.method, row.shots): row for row in rows("shared_board", dataset="board")}
    lines = []
    for other in (PEER, FROZEN):
        for shots in sorted({shots for _, shots in averages}):
            ours, theirs = averages[OURS, shots], averages[other, shots]
            lines.append([other, str(shots), *(_points(ours, theirs, name) for name in ACCURACY)])
    return table(["against", "K", *(figure(name).label for name in ACCURACY)], lines)


def _points(row: Row, other: Row, name: str) -> str:
    # Adding zero turns -0.0 into 0.0.
    return f"{round(100 * (row.cells[name].mean - other.cells[name].mean), 1) + 0.0:+.1f}"


def by_product(dataset: str, name: str = "shared_board") -> Callable[[], str]:
    """Every product of a dataset, with mean and deviation over the draws."""

    def render() -> str:
        averages = rows(name, (OURS, FROZEN, PEER), dataset, by_category=True)
        averages.sort(key=lambda row: (row.shots, row.category))
        return table(
            ["K", "product", "method", *labels(DECISIONS)],
            ([str(row.shots), row.category, row.method, *(text(row, name) for name in DECISIONS)] for row in averages),
        )

    return render


def presets() -> str:
    """The presets' accuracy, the scales they took, and milliseconds from the latency run."""
    names = ("fast", "balanced", "accurate")
    times = {row["what"]: row for row in measurements.read("latency").rows if row["method"] == OURS}
    lines = []
    for name, row in zip(names, rows("encoder_board", [f"preset {name}" for name in names]), strict=True):
        scales = Counter(one.counts["image_size"] for one in read("encoder_board") if one.method == row.method)
        sizes = ", ".join(f"{size} px in {count}" for size, count in sorted(scales.items()))
        ms = times["inspect" if name == "balanced" else f"inspect, preset {name}"]["value"]
        lines.append([f"`{name}`", sizes, *(text(row, figure_name) for figure_name in ACCURACY), number(ms, 1)])
    return table(["preset", "scale, enrollments", *labels(ACCURACY), "p50, ms"], lines)


def encoders_by_product() -> str:
    """Image AUROC and AU-PRO by product, and the change against the default's frozen backbone in the same settings."""
    base = "efficientnet_lite0"
    lines = []
    for encoder in (*SHIPPED, *SIAMESE):
        found = rows("siamese_board", (encoder, base), "board", by_category=True)
        averages = {(row.method, row.shots, row.category): row for row in found}
        for shots in (2, 4, 8):
            cells = [
                _change(averages.get((encoder, shots, product)), averages.get((base, shots, product)))
                for product in PRODUCTS
            ]
            lines.append([encoder, str(shots), *cells])
    return table(["encoder", "K", *PRODUCTS], lines)


def _change(row: Row | None, base: Row | None) -> str:
    if row is None or base is None:
        return NONE
    cells = [
        f"{figure(name).text(row.cells[name].mean)} {_points(row, base, name)}"
        for name in ("image_auroc", "au_pro")
        if name in row.cells
    ]
    return cells[0] if len(cells) == 1 else f"{cells[0]} ({cells[1]})"


def defaults() -> str:
    """Scoring settings, each changed alone."""
    methods = [
        *("defaults", "norm_power 0 (plain L2)", "norm_power 0.5", "metric cosine"),
        *("image score reweighted (eq. 7)", "edge weight 1"),
    ]
    return by_shots(rows("ablations", methods), (*ACCURACY, "f1"))


def trained() -> str:
    """Every encoder that was trained or distilled, at K = 4 with 4,000 vectors."""
    suffix = f", {FLIPS}, 4,000 vectors"
    return by_shots(rows("encoder_board", [name + suffix for name in TRAINED], shots=[4]), ACCURACY, suffix)


def kept_initialization() -> str:
    """How much of the initialization E keeps: 0.3 against the 0.5 that ships, with views and scale `auto`."""
    methods = ("lite0_parts, keep 0.3, auto, 4,000 vectors", "lite0_parts, auto, 4,000 vectors")
    return by_shots(rows("encoder_board", methods), ACCURACY)


def published_recipe() -> str:
    """The published recipe against its own initialization."""
    methods = [f"{name}, {FLIPS}, {vectors} vectors" for name in RECIPE for vectors in ("4,000", "2,000")]
    methods += [f"resnet18, distilled on generated images, {FLIPS}, {n} vectors" for n in ("2,000", "4,000")]
    return by_shots(rows("encoder_board", methods), ACCURACY)


def registration_board() -> str:
    """What the memory bank holds after spatial transformers of each mode, and without any."""
    suffix = f", {FLIPS}, 2,000 vectors"
    methods = [f"registered stages, {mode}{suffix}" for mode in MODES]
    methods.append(f"efficientnet_lite0, {FLIPS}, 4,000 vectors")
    return by_shots(rows("encoder_board", methods, shots=[2]), ACCURACY, suffix)


def views() -> str:
    """Kinds of views, each alone."""
    methods = [f"lite0_parts, views {kind}, 4,000 vectors" for kind in VIEWS]
    products = rows("views_board", methods, by_category=True)
    auroc = {(row.method, row.category): f"{100 * row.cells['image_auroc'].mean:.1f}" for row in products}
    lines = [
        [
            LABELS.get(kind, kind),
            *(text(row, name) for name in ACCURACY),
            *(auroc[row.method, product] for product in PRODUCTS),
        ]
        for kind, row in zip(VIEWS, rows("views_board", methods), strict=True)
    ]
    return table(["views", *labels(ACCURACY), *(f"{product}, image AUROC" for product in PRODUCTS)], lines)


def worst(name: str, figure_name: str, methods: Sequence[str], shots: Shots) -> dict[str, str]:
    """By method, the product with the lowest mean of a figure, and that mean in percent."""
    lowest: dict[str, tuple[float, str]] = {}
    for row in rows(name, methods, by_category=True):
        if row.shots != shots:
            continue
        cell = row.cells.get(figure_name)
        if cell is not None:
            lowest[row.method] = min(lowest.get(row.method, (2.0, "")), (cell.mean, row.category))
    return {method: f"{100 * mean:.1f} ({category})" for method, (mean, category) in lowest.items()}


def of_today(name: str) -> Callable[[], str]:
    """A board with what decides and what is worst, by number of images and method."""

    def print_it() -> str:
        averages = sorted(rows(name, dataset="board"), key=lambda row: row.shots)
        lines = []
        for row in averages:
            lowest = worst(name, "image_auroc", [row.method], row.shots)[row.method]
            lines.append(
                [str(row.shots), row.method, *(text(row, figure_name) for figure_name in (*ACCURACY, *RATES)), lowest]
            )
        return table(["K", "method", *labels((*ACCURACY, *RATES)), "worst product, image AUROC"], lines)

    return print_it


def simsiam_rates() -> str:
    """The rates at which SimSiam falls."""
    lines = (measurements.RECORDS / "simsiam.jsonl").read_text().splitlines()
    return simsiam([json.loads(line) for line in lines])


def bank_contents() -> str:
    """E alone, the stages alone, and both."""
    suffix = f", {FLIPS}, 4,000 vectors"
    names = ["lite0_parts", "efficientnet_lite0", *(f"lite0_parts, {contents}" for contents in BANKS)]
    return by_shots(rows("encoder_board", [name + suffix for name in names], shots=[4]), ACCURACY, suffix)


def bank_sizes() -> str:
    """Sizes of the memory bank."""
    fixed = [f"lite0_parts, {FLIPS}, {vectors} vectors" for vectors in ("4,000", "2,000", "1,000")]
    auto = [f"lite0_parts, auto, {vectors} vectors" for vectors in ("4,000", "1,000")]
    averages = [
        *rows("encoder_board", fixed, shots=[4]),
        *rows("encoder_board", auto, shots=[8]),
        *rows("shared_board", [OURS], "board", shots=[8]),
    ]
    return by_shots(averages, ACCURACY)


def alignment() -> str:
    """Parts at any angle: image AUROC, in brackets AU-PRO, in percent."""
    ways = (
        *("flips", "flips + rotations", "auto", "registered (pixels)", "registered (features)"),
        "auto, before poses",
    )
    averages = {(row.category, row.method): row for row in rows("alignment", ways, by_category=True)}
    lines = []
    for product in sorted({category for category, _ in averages}):
        cells = []
        for way in ways:
            row = averages[product, way]
            shown = [f"{100 * row.cells[name].mean:.1f}" for name in ("image_auroc", "au_pro") if name in row.cells]
            cells.append(shown[0] if len(shown) == 1 else f"{shown[0]} ({shown[1]})")
        lines.append([product, *cells])
    return table(["product", *ways], lines)


def pose_board() -> str:
    """Rotated views, registration, and both: image AUROC, in brackets AU-PRO, in percent; last the mean."""
    ways = ("flips", "flips + rotations", "flips, registered", "flips + rotations, registered")
    averages = {(row.category, row.method): row.cells for row in rows("pose_board", ways, by_category=True)}
    products = sorted({category for category, _ in averages})
    lines = []
    for name, of in [*((product, [product]) for product in products), ("mean", products)]:
        cells = []
        for way in ways:
            means = [
                np.mean([averages[p, way][f].mean for p in of if f in averages[p, way]] or [np.nan])
                for f in ("image_auroc", "au_pro")
            ]
            shown = [f"{100 * mean:.1f}" for mean in means if not np.isnan(mean)]
            cells.append(shown[0] if len(shown) == 1 else f"{shown[0]} ({shown[1]})")
        lines.append([name, *cells])
    return table(["product", *ways], lines)


def zoo() -> str:
    """Means over the six products, K = 4, K = 8 and all images."""
    return tables.markdown(read("zoo_board")).rstrip()


def few_shot() -> str:
    """Two, four and eight images, against the methods of the source; what is not finished is left out."""
    done = [row for row in rows("few_shot") if row.done == len(PRODUCTS) * DRAWS]
    done.sort(key=lambda row: (row.shots, -row.cells["image_auroc"].mean))
    lines = [
        [str(row.shots), row.method, text(row, "image_auroc"), text(row, "au_pro"),
         worst("few_shot", "image_auroc", [row.method], row.shots)[row.method], in_short(row.departed)]
        for row in done
    ]  # fmt: skip
    return table(
        ["K", "method", *labels(("image_auroc", "au_pro")), "worst product, image AUROC", "as published"], lines
    )


def few_shot_times() -> str:
    """Seconds to enroll and milliseconds to inspect beside RegAD, product by product; one draw on a quiet machine."""
    methods = ("fewshot_ad", "fewshot_ad fast", "regad")
    found = {(row.category, row.shots, row.method): row for row in rows("few_shot_times", methods, by_category=True)}
    lines = [
        [product, str(shots), *(text(found[product, shots, m], name) for name in ("fit_s", "ms") for m in methods)]
        for product in PRODUCTS
        for shots in (2, 4, 8)
    ]
    heads = [f"{method}, {what}" for what in ("seconds to enroll", "ms an image") for method in methods]
    return table(["product", "K", *heads], lines)


def survey_board() -> str:
    """The survey's methods beside this package and PatchCore; what is not finished is left out."""
    names = ("image_auroc", "au_pro", *COSTS)
    done = [("zoo_survey", row) for row in rows("zoo_survey")]
    done += [("few_shot", row) for row in rows("few_shot", ("fewshot_ad", "patchcore"), shots=(4, 8))]
    done = [(name, row) for name, row in done if row.done == len(PRODUCTS) * DRAWS]
    done.sort(key=lambda one: (one[1].shots, -one[1].cells["image_auroc"].mean))
    lines = [
        [str(row.shots), row.method, *(text(row, figure) for figure in names),
         worst(name, "image_auroc", [row.method], row.shots)[row.method], in_short(row.departed)]
        for name, row in done
    ]  # fmt: skip
    return table(["K", "method", *labels(names), "worst product, image AUROC", "as published"], lines)


def survey_trained() -> str:
    """The survey's methods on the two products on which all of them ran, beside this package and PatchCore."""
    picked = [one for one in read("zoo_survey") if one.category in TWO]
    picked += [
        dataclasses.replace(one, method=f"{one.baseline} {one.method}")
        for one in read("efficientad_cdo")
        if one.method in ("S", "M")
    ]
    peers = ("fewshot_ad", "patchcore")
    picked += [one for one in read("few_shot") if one.method in peers and one.category in TWO and one.shots in (4, 8)]
    found = {(row.shots, row.method, row.category): row for row in aggregate(picked, by_category=True)}
    whole = [row for row in aggregate(picked) if row.done == len(TWO) * DRAWS]
    whole.sort(key=lambda row: (row.shots, -row.cells["image_auroc"].mean))
    lines = []
    for row in whole:
        bottle, casting = (found[row.shots, row.method, product] for product in TWO)
        cells = [text(bottle, "image_auroc"), text(bottle, "au_pro"), text(casting, "image_auroc")]
        costs = [text(row, name) for name in COSTS]
        lines.append([str(row.shots), _marked(row.method, bottle, casting), *cells, *costs, in_short(row.departed)])
    heads = [f"{product}, {figure(name).label} (%)" for product, name in
             (("bottle", "image_auroc"), ("bottle", "au_pro"), ("casting", "image_auroc"))]  # fmt: skip
    return table(["K", "method", *heads, *labels(COSTS), "as published"], lines)


def _marked(method: str, *products: Row) -> str:
    """The name of a method, with a mark where it is near chance on one of the products."""
    lowest = min(row.cells["image_auroc"].mean for row in products)
    return f"{method} †" if lowest <= NEAR_CHANCE else method


def noisy() -> str:
    """With one defective image among eight, and what the same methods reach from good ones alone."""
    methods = ("fewshot_ad", "softpatch", "patchcore, trimmed", "patchcore", "padim, trimmed", "padim")
    clean = {
        row.method: row
        for name in ("few_shot", "zoo_survey")
        for row in rows(name, methods, shots=(8,))
        if row.done == len(PRODUCTS) * DRAWS
    }
    names = ("image_auroc", "au_pro")
    low = worst("zoo_noisy", "image_auroc", methods, 8)
    lines = []
    for row in rows("zoo_noisy", methods):
        good = clean.get(row.method)
        pairs = [(text(row, name), NONE if good is None else text(good, name)) for name in (*names, *RATES)]
        lines.append([row.method, *(cell for pair in pairs for cell in pair), low[row.method]])
    heads = [head for label in labels((*names, *RATES)) for head in (label, "from good ones")]
    return table(["method", *heads, "worst product, image AUROC"], lines)


def labeled() -> str:
    """Methods that learn from ten labeled defects beside those that see good images alone, on the same test."""
    names = ("image_auroc", "au_pro", *COSTS)
    done = [row for row in rows("zoo_labeled") if row.done == len(PRODUCTS) * DRAWS]
    done.sort(key=lambda row: (row.shots, -row.cells["image_auroc"].mean))
    lines = [
        [str(row.shots), row.method, *(text(row, name) for name in names),
         worst("zoo_labeled", "image_auroc", [row.method], row.shots)[row.method], in_short(row.departed)]
        for row in done
    ]  # fmt: skip
    return table(["K", "method", *labels(names), "worst product, image AUROC", "as published"], lines)


def detectors() -> str:
    """Detectors beside the other methods of few labeled defects, on the two products whose defects have masks."""
    names = ("image_auroc", "au_pro")
    picked = [one for one in read("zoo_labeled") if one.category in MASKED]
    found = {(row.shots, row.method, row.category): row for row in aggregate(picked, by_category=True)}
    whole = [row for row in aggregate(picked) if row.done == len(MASKED) * DRAWS]
    whole.sort(key=lambda row: (row.shots, -row.cells["image_auroc"].mean))
    lines = [
        [str(row.shots), _marked(row.method, *(found[row.shots, row.method, product] for product in MASKED)),
         *(text(found[row.shots, row.method, product], name) for product in MASKED for name in names),
         *(text(row, name) for name in COSTS), in_short(row.departed)]
        for row in whole
    ]  # fmt: skip
    heads = [f"{product}, {label}" for product in MASKED for label in labels(names)]
    return table(["K", "method", *heads, *labels(COSTS), "as published"], lines)


def rgbd() -> str:
    """Color and depth on generated parts."""
    found = {(row.method, row.category): row for row in rows("rgbd_parts", by_category=True)}
    products = sorted({category for _, category in found})
    lines = []
    for row in sorted(rows("rgbd_parts"), key=lambda row: -row.cells["image_auroc"].mean):
        cells = [text(found[row.method, product], name) for product in products for name in ("image_auroc", "au_pro")]
        lines.append([row.method, *cells, *(text(row, name) for name in COSTS), in_short(row.departed)])
    heads = [f"{product}, {label}" for product in products for label in labels(("image_auroc", "au_pro"))]
    return table(["method", *heads, *labels(COSTS), "as published"], lines)


def foreground() -> str:
    """The part alone, by product; a product without a plain background has no row of `part`."""
    methods = ("all of the image", "the part where it helps", "the part alone")
    names = ("off", "auto", "part")
    averages = rows("foreground", methods, by_category=True)
    averages.sort(key=lambda row: (row.category, methods.index(row.method)))
    lines = [
        [row.category, f"`{names[methods.index(row.method)]}`", *(text(row, name) for name in ("image_auroc", *RATES))]
        for row in averages
    ]
    return table(["product", "`foreground`", *labels(("image_auroc", *RATES))], lines)


def transfer() -> str:
    """An encoder that was trained on the other products, beside those that ship; by product."""
    methods = ("trained on the other products", "lite0_parts", "efficientnet_lite0")
    averages = rows("leave_out", methods, by_category=True)
    averages.sort(key=lambda row: (row.category, row.shots, methods.index(row.method)))
    found = {(row.category, row.shots, row.method): row for row in averages}
    lines = [
        [category, str(shots), *(text(found[category, shots, method], "image_auroc") for method in methods)]
        for category, shots in sorted({(row.category, row.shots) for row in averages})
    ]
    return table(["product", "K", *methods], lines)


def zoo_by_product() -> str:
    """Image AUROC of each product."""
    averages = rows("zoo_board", by_category=True)
    cells = {(row.shots, row.method, row.category): text(row, "image_auroc") for row in averages}
    means = {(row.shots, row.method): row.cells["image_auroc"].mean for row in rows("zoo_board")}
    order = sorted(means, key=lambda key: (key[0] == "full", str(key[0]), -means[key]))
    return table(
        ["K", "method", *PRODUCTS],
        (["all" if shots == "full" else str(shots), method, *(cells[shots, method, p] for p in PRODUCTS)]
         for shots, method in order),
    )  # fmt: skip


def surveyed() -> str:
    """The methods of a survey that the zoo has, by group, and how many it lacks."""
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for method in survey():
        here, missing = groups.setdefault(method.group, ([], []))
        name = f"{method.name} {method.year}"
        if method.baseline:
            here.append(f"{name} (`{method.baseline}`{f', {method.note}' if method.note else ''})")
        else:
            missing.append(name)
    lines = [[group, "; ".join(here) or NONE, str(len(missing))] for group, (here, missing) in groups.items()]
    return table(["group", "in the zoo", "missing"], lines)


def survey_missing() -> str:
    """The methods of a survey that the zoo lacks: what each has that no baseline does, and which comes nearest."""
    lines = [
        [method.group, f"{method.name} {method.year}", method.missing, f"`{method.nearest}`"]
        for method in survey()
        if not method.baseline
    ]
    return table(["group", "method", "what it takes, or has, that no baseline here does", "nearest here"], lines)


TABLES: dict[str, Callable[[], str]] = {
    "board": board,
    "board-today": board_today,
    "board-today-by-product": by_product("board", "shared_board_8"),
    "board-short": board_short,
    "board-gains": board_gains,
    "board-by-product": by_product("board"),
    "board-small": by_product("small"),
    "presets": presets,
    "foreground": foreground,
    "transfer": transfer,
    "encoders": of_today("siamese_board"),
    "encoders-by-product": encoders_by_product,
    "defaults": defaults,
    "trained": trained,
    "kept-initialization": kept_initialization,
    "published-recipe": published_recipe,
    "registration-board": registration_board,
    "simsiam": simsiam_rates,
    "dinov2": of_today("dinov2_board"),
    "objective": of_today("objective"),
    "teachers": of_today("teachers"),
    "gpu-training": of_today("gpu_training"),
    "views": views,
    "bank-contents": bank_contents,
    "bank-sizes": bank_sizes,
    "alignment": alignment,
    "pose-board": pose_board,
    "zoo": zoo,
    "survey": surveyed,
    "survey-missing": survey_missing,
    "few-shot": few_shot,
    "few-shot-times": few_shot_times,
    "survey-board": survey_board,
    "survey-trained": survey_trained,
    "noisy": noisy,
    "labeled": labeled,
    "zoo-by-product": zoo_by_product,
    "detectors": detectors,
    "rgbd": rgbd,
}
