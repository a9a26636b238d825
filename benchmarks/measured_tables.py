"""Tables of times, sizes and memory, from the rows that a timing script measures or has put on record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import measurements
import numpy as np

Rows = Sequence[dict[str, Any]]
NONE = "\N{EN DASH}"
# What follows `coreset` in the latency rows, the same for both sides.
PATCHES = ", 62016 patches to 4000"
# Levers that were tried and left out, by the start of their names; the others were kept.
LEFT_OUT = ("search over principal axes", "index of the nearest", "encoder in int8")
SCALING = {
    "bank": "bank vectors",
    "image": "image size, pixels",
    "support": "support images, 4 views each",
    "threads": "threads",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of text cells, without a newline at its end."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def number(value: float | None, digits: int = 2) -> str:
    """A figure with so many decimals; a dash where it was not measured."""
    return NONE if value is None else f"{value:.{digits}f}"


def latency(rows: Rows) -> str:
    """Times of one inspection and its stages, of enrollment, throughput and memory."""
    return table(
        ["method", "what", "p50 or value", "p95"],
        (
            [row["method"], f"{row['what']} ({row['unit']})", number(row.get("value")), number(row.get("p95"))]
            for row in rows
        ),
    )


def latency_ratios(rows: Rows) -> str:
    """How the times of `latency` compare with the bare encoder's and with anomalib's."""
    ours, peer = "fewshot_ad", "anomalib PatchCore"
    figures = {(row["method"], row["what"].removesuffix(PATCHES)): row["value"] for row in rows}
    lines = [["inspect / bare encoder", f"{figures[ours, 'inspect'] / figures[ours, 'bare encoder, OpenVINO']:.2f}"]]
    if (peer, "inspect") in figures:
        lines += [
            [f"anomalib PatchCore / {what}", f"{figures[peer, 'inspect'] / figures[ours, what]:.1f}"]
            for what in ("inspect", "inspect, bank 4000", "inspect, preset fast")
        ]
        coresets = [figures[method, "coreset"] for method in (peer, ours)]
        lines.append(["anomalib KCenterGreedy / coreset", f"{coresets[0] / coresets[1]:.0f}"])
    return table(["ratio of p50 or value", "times"], lines)


def peers_latency(rows: Rows) -> str:
    """Peers against ours; what latency.py measures against PatchCore is left to its own table."""
    reference = rows[0]["p50"]
    return table(
        ["method", "p50, ms", "p95, ms", "p50 / ours", "peak memory, MB"],
        (
            [
                row["method"],
                number(row["p50"], 1),
                number(row["p95"], 1),
                number(row["p50"] / reference, 1),
                number(row["megabytes"], 0),
            ]
            for row in rows
            if row is rows[0] or not row["method"].startswith(("fewshot_ad", "anomalib PatchCore"))
        ),
    )


def _levers(rows: Rows) -> str:
    return table(
        ["lever", "before, ms", "after, ms", "times faster", "error"],
        (
            [
                row["lever"],
                f"{row['before']} {row['before_ms']:.2f}",
                f"{row['after']} {row['after_ms']:.2f}",
                number(row["times"]),
                row["error"],
            ]
            for row in rows
        ),
    )


def levers(rows: Rows) -> str:
    """The levers that were kept."""
    return _levers([row for row in rows if not row["lever"].startswith(LEFT_OUT)])


def levers_left_out(rows: Rows) -> str:
    """The levers that were tried and left out."""
    return _levers([row for row in rows if row["lever"].startswith(LEFT_OUT)])


def encoder_ms(rows: Rows) -> str:
    """Each encoder alone."""
    return table(
        ["encoder", "median, ms", "p95, ms"],
        ([f"`{row['encoder']}`", number(row["p50"], 1), number(row.get("p95"), 1)] for row in rows),
    )


def startup(rows: Rows) -> str:
    """Start-up, loading, memory and file size, each beside its goal."""
    return table(["what", "measured", "goal"], ([r["what"], r["measured"], r.get("goal", NONE)] for r in rows))


def ray_resume(rows: Rows) -> str:
    """A run on Ray that was killed and started again, by plan."""
    figures = ("jobs", "killed", "end", "doubled", "missing", "failed")
    heads = ["plan", "jobs", "on record when killed", "in the end", "doubled", "missing", "failed"]
    return table(heads, ([row["plan"], *(str(row[figure]) for figure in figures)] for row in rows))


def install_size(rows: Rows) -> str:
    """What an installation takes on disk."""
    return table(["what", "MB"], ([row["what"], f"{row['megabytes']:,.0f}"] for row in rows))


def float16_bank(rows: Rows) -> str:
    """Decisions and scores with the bank stored as float16 against float32."""
    return table(
        ["product", "images", "flipped decisions", "largest relative difference of scores"],
        ([row["product"], str(row["images"]), str(row["flipped"]), f"{row['largest']:.1e}"] for row in rows),
    )


def energy(rows: Rows) -> str:
    """What one inspection takes of the processor, and of energy where the machine counts it."""
    reference = rows[0]["cpu_s"]
    return table(
        ["encoder", "CPU seconds per image", "times the first", "joules per image", "ms"],
        (
            [
                f"`{row['encoder']}`",
                number(row["cpu_s"], 4),
                number(row["cpu_s"] / reference, 1),
                number(row.get("joules")),
                number(row["ms"], 1),
            ]
            for row in rows
        ),
    )


def train_step(rows: Rows) -> str:
    """How long a step of the recipe `siamese` takes."""
    return table(
        ["backbone", "million parameters", "seconds per step", "minutes for all 272 steps"],
        (
            [row["backbone"], number(row["parameters"], 1), number(row["step_s"], 1), number(row["minutes"], 0)]
            for row in rows
        ),
    )


def pdn_step(rows: Rows) -> str:
    """Where the time of a step of distilling EfficientAD's teacher goes."""
    heads = [
        "PDN",
        "precision",
        "drawing crops, s",
        "target, s",
        "forward, s",
        "backward, s",
        "optimizer, s",
        "step, s",
    ]
    return table(
        [
            *heads,
            "GFLOP of the PDN",
            "GFLOP/s of it",
            "GFLOP/s of a matrix product",
            "days for the published 60,000 steps",
        ],
        (
            [
                row["size"],
                row["precision"],
                *(number(row[part]) for part in ("crops", "target", "forward", "backward", "optimizer", "step_s")),
                *(number(row[figure], 0) for figure in ("gflop", "gflops", "peak", "published_days")),
            ]
            for row in rows
        ),
    )


def simsiam(rows: Rows) -> str:
    """SimSiam's loss and collapse monitor, one line per backbone, rate and other setting."""
    return table(
        [
            "backbone",
            "learning rate",
            "other settings",
            "steps",
            "loss, first epoch",
            "loss, last epoch",
            "spread",
            "content",
            "ended by",
        ],
        (
            [
                row["backbone"],
                f"{row['rate']:g}",
                row["change"] or "as published",
                str(row["steps"]),
                f"{row['loss'][0]:.3f}",
                f"{row['loss'][-1]:.3f}",
                f"{row['spread'][-1]:.2f}",
                number(row["content"][-1] if "content" in row else None),
                row["ended"] or "its end",
            ]
            for row in sorted(rows, key=lambda row: (row["backbone"], bool(row["change"]), row["rate"]))
        ),
    )


def registration(rows: Rows) -> str:
    """How far spatial transformers follow a part that is turned, enlarged or moved."""
    names = ("rotation", "scale", "translation", "moved", "simsiam", "spread")
    return table(
        ["mode", "left of rotation", "of scale", "of translation", *names[3:]],
        ([row["mode"], *(number(row[name], 3) for name in names)] for row in rows),
    )


def pose(rows: Rows) -> str:
    """How far the pose network follows a part that is turned, enlarged or moved; how far it moves parts in a jig."""
    names = ("rotation", "scale", "translation", "moved", "enrolled")
    head = ["left of rotation", "of scale", "of translation", "moved", "moved, enrolled"]
    return table(
        ["products", "number", "turn is told", *head],
        (
            [row["products"], str(row["number"]), str(row["told"]), *(number(row[name], 2) for name in names)]
            for row in rows
        ),
    )


def scaling(axis: str) -> Callable[[Rows], str]:
    """The table of one axis, with slopes as its last row."""

    def render(rows: Rows) -> str:
        names = [name for name in rows[0] if name != "size"]
        sizes = [row["size"] for row in rows]
        slopes = [slope(sizes, [row[name] for row in rows]) for name in names]
        return table(
            [SCALING[axis], *names],
            [
                *([str(row["size"]), *(number(row[name]) for name in names)] for row in rows),
                ["slope", *(number(value) for value in slopes)],
            ],
        )

    return render


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log(value) over log(size) in the upper half of the points, where constant costs matter least."""
    half = len(sizes) // 2 if len(sizes) > 3 else 0
    return float(np.polyfit(np.log(sizes[half:]), np.log(values[half:]), 1)[0])


def large_images(rows: Rows) -> str:
    """Memory and time at each working scale, in tiles and in one pass."""
    names = ("inspect_peak_mb", "cpu_ms", "enroll_peak_mb")
    return table(
        ["working scale", "way", "inspect, peak MB", "processor time, ms", "enroll, peak MB", "score / threshold"],
        (
            [str(row["size"]), row["way"], *(number(row.get(name), 0) for name in names), number(row["severity"], 4)]
            for row in rows
        ),
    )


def halo(rows: Rows) -> str:
    """How far embeddings at a halo differ from those of one pass."""
    reaches = [name for name in rows[0] if name != "encoder"]
    return table(
        ["encoder", *(f"{reach} pixels" for reach in reaches)],
        ([f"`{row['encoder']}`", *(f"{100 * row[reach]:.2f}%" for reach in reaches)] for row in rows),
    )


def robustness(rows: Rows) -> str:
    """What `robustness.py` tried, how often, and what did not hold."""
    return table(
        ["what", "cases", "faults", "of them"],
        (
            [
                row["what"],
                f"{row['count']:,}",
                ", ".join(f"{count:,} {fault}" for fault, count in row["faults"].items()) or "0",
                row["note"] or NONE,
            ]
            for row in rows
        ),
    )


# By name of the table: the measurement it is of, and how it is printed.
TABLES: dict[str, tuple[str, Callable[[Rows], str]]] = {
    "latency": ("latency", latency),
    "latency-ratios": ("latency", latency_ratios),
    "peers-latency": ("peers_latency", peers_latency),
    "levers": ("levers", levers),
    "levers-left-out": ("levers", levers_left_out),
    "encoder-ms": ("encoder_ms", encoder_ms),
    "startup": ("startup", startup),
    "ray-resume": ("ray_resume", ray_resume),
    "install-size": ("install_size", install_size),
    "float16-bank": ("float16_bank", float16_bank),
    "registration": ("registration", registration),
    "registration-equivariant": ("registration_equivariant", registration),
    "pose": ("pose", pose),
    "energy": ("energy", energy),
    "train-step": ("train_step", train_step),
    "pdn-step": ("pdn_step", pdn_step),
    "large-images": ("large_images", large_images),
    "halo": ("halo", halo),
    "robustness": ("robustness", robustness),
    **{f"scaling-{axis}": (f"scaling_{axis}", scaling(axis)) for axis in SCALING},
}


def finish(measurement: str, rows: Rows, record: bool) -> None:
    """Print all tables of what a script has measured, and put its rows on record where it was asked to."""
    print("\n\n".join(render(rows) for name, render in TABLES.values() if name == measurement), flush=True)
    if record:
        measurements.append(measurement, rows)
