"""The product's main job, written down number by number: what is enrolled and inspected, and what is kept of it.

Only public names and the command line are used, so that the record holds across any change of what lies behind them.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewshot_ad import Inspector, ScoringConfig

HERE = Path(__file__).parent
SIDE = 128
SHARED_PRODUCTS = ("bottle", "casting", "cookie")
PRESETS: dict[str, dict[str, Any]] = {
    # bf16 is a case of its own: whether `auto` takes it is a matter of how fast this machine is at the moment.
    "fast": {"preset": "fast", "precision": "f32"},
    "fast_bf16": {"preset": "fast", "precision": "bf16"},
    "balanced": {"preset": "balanced"},
    "accurate": {"preset": "accurate"},
}


def crops(name: str) -> list[np.ndarray]:
    """16 crops of a photograph that ships with scikit-image, (128, 128, 3) uint8, none overlapping another."""
    import skimage.data

    photograph = cv2.cvtColor(getattr(skimage.data, name)(), cv2.COLOR_GRAY2RGB)
    starts = [(SIDE * y, SIDE * x) for y in range(4) for x in range(4)]
    order = np.random.default_rng(7).permutation(len(starts))
    return [np.ascontiguousarray(photograph[y : y + SIDE, x : x + SIDE]) for y, x in (starts[i] for i in order)]


def defective(photograph: np.ndarray) -> list[np.ndarray]:
    """The photograph with a dark stain, a bright scratch and a speck."""
    stain, scratch, speck = (photograph.copy() for _ in range(3))
    cv2.circle(stain, (80, 50), 11, (25, 25, 30), -1, cv2.LINE_AA)
    cv2.line(scratch, (20, 100), (90, 70), (235, 235, 225), 2, cv2.LINE_AA)
    cv2.circle(speck, (40, 40), 2, (250, 60, 60), -1, cv2.LINE_AA)
    return [stain, scratch, speck]


def inspected(name: str) -> list[np.ndarray]:
    """Three good crops, three defective ones, and one of another size."""
    rest = crops(name)[8:]
    return [*rest[:3], *defective(rest[3]), cv2.resize(rest[4], (190, 120), interpolation=cv2.INTER_LINEAR)]


def describe(inspector: Inspector, photographs: list[Any]) -> dict[str, Any]:
    """Everything a user can see of a product and of its verdicts."""
    info = inspector.info()
    for volatile in ("versions", "created"):
        del info[volatile]
    info["history"] = [{**change, "time": "TIME"} for change in info["history"]]
    info["reasons"] = [re.sub(r"^\d{4}-\S+:", "TIME:", reason) for reason in info["reasons"]]
    verdicts = []
    for result in inspector.inspect_batch(photographs):
        verdict = result.as_dict()
        del verdict["timings_ms"]
        verdict["map"] = figures(result.anomaly_map)
        verdict["working_map"] = figures(result.working_map)
        verdict["overlay"] = figures(result.overlay().astype(np.float32))
        verdicts.append(verdict)
    return {"info": info, "vectors": [figures(bank.vectors) for bank in inspector.banks], "verdicts": verdicts}


def figures(array: np.ndarray) -> list[float]:
    """Shape, mean, largest value, and a weighted sum that notices values that changed places."""
    flat = array.astype(np.float64).ravel()
    weighted = float(flat @ np.cos(np.arange(len(flat)) * 0.37) / len(flat))
    return [*array.shape, float(flat.mean()), float(flat.max()), weighted]


def shipped_cases() -> Iterator[tuple[str, Any]]:
    """Name and maker of each case on photographs that are always there."""
    for name, options in PRESETS.items():
        yield (
            f"brick_{name}",
            lambda options=options: describe(
                Inspector.from_support(crops("brick")[:8], product="brick", **options), inspected("brick")
            ),
        )
    yield (
        "grass_separate",
        lambda: describe(
            Inspector.from_support(
                crops("grass")[:4], product="grass", encoder="efficientnet_lite0", fusion="separate", seed=3
            ),
            inspected("grass"),
        ),
    )
    yield (
        "gravel_reweighted",
        lambda: describe(
            Inspector.from_support(
                crops("gravel")[:5],
                product="gravel",
                views={"hflip": [0], "rotate": [90, 20], "brightness": [0.9], "translate_x": [0.1]},
                image_size=160,
                budget=300,
                scoring=ScoringConfig(metric="cosine", image_score="reweighted", sigma=2.0),
            ),
            inspected("gravel"),
        ),
    )
    yield (
        "brick_one_photograph",
        lambda: describe(Inspector.from_support(crops("brick")[:1], product="brick"), inspected("brick")),
    )
    yield (
        "grass_onnxruntime",
        lambda: describe(
            Inspector.from_support(
                crops("grass")[:3], product="grass", engine="onnxruntime", views="hflip", image_size=128
            ),
            inspected("grass"),
        ),
    )
    yield "brick_added", added
    yield "shell", shell


def added() -> dict[str, Any]:
    """A product that grows while it inspects, with its threshold moved by hand before and after."""
    support = crops("brick")
    inspector = Inspector.from_support(support[:4], product="brick", preset="fast", precision="f32")
    notes = inspector.add([*support[4:6], support[0]])
    grown = describe(inspector, inspected("brick"))
    inspector.threshold = inspector.threshold * 1.25
    inspector.add(support[6])
    return {"notes": list(notes), "grown": grown, "by_hand": describe(inspector, inspected("brick"))}


def shared_cases(folder: Path) -> Iterator[tuple[str, Any]]:
    """Name and maker of each case on real products in MVTec layout."""
    for product in SHARED_PRODUCTS:
        good = sorted((folder / product / "train" / "good").iterdir())[:4]
        photographs: list[Path] = []
        for kind in sorted(p for p in (folder / product / "test").iterdir() if p.is_dir()):
            photographs += sorted(kind.iterdir())[:3]
        for name, options in PRESETS.items():
            if name != "fast_bf16":
                yield (
                    f"{product}_{name}",
                    lambda good=good, product=product, photographs=photographs, options=options: describe(
                        Inspector.from_support(good, product=product, **options), photographs
                    ),
                )


def stored(path: Path) -> dict[str, Any]:
    """A product that is loaded from a file."""
    return describe(Inspector.load(path), inspected("brick"))


def shell() -> dict[str, Any]:
    """What the commands print, return and write."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for kind, photographs in (
            ("good", crops("brick")[:4]),
            ("line", inspected("brick")),
            ("late", crops("brick")[4:5]),
        ):
            (root / kind).mkdir()
            for i, photograph in enumerate(photographs):
                cv2.imwrite(str(root / kind / f"{i}.png"), cv2.cvtColor(photograph, cv2.COLOR_RGB2BGR))
        (root / "line" / "broken.png").write_bytes(b"no picture")
        commands = [
            ["enroll", "good", "-o", "brick.fsad"],
            ["enroll", "good", "-o", "fast.fsad", "--preset", "fast", "--precision", "f32", "--json"],
            ["inspect", "brick.fsad", "good"],
            ["inspect", "brick.fsad", "line", "--csv", "verdicts.csv", "--heatmaps", "heat"],
            ["inspect", "fast.fsad", "line/3.png", "--json"],
            ["inspect", "fast.fsad", "line/3.png", "--threshold", "100"],
            ["info", "brick.fsad"],
            ["info", "brick.fsad", "--json"],
            ["add", "fast.fsad", "late"],
            ["inspect", "missing.fsad", "line"],
            ["inspect", "missing.fsad", "line", "--json"],
            ["enroll", "nowhere", "-o", "nothing.fsad"],
        ]
        # The package under test, wherever its tests are started from.
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "COLUMNS": "120"}
        runs = []
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", "fewshot_ad", *command],
                cwd=root,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            lines = [_line(line, root) for line in (done.stdout + done.stderr).splitlines()]
            shown = [line for line in lines if line is not None]
            runs.append({"command": " ".join(command), "exit": done.returncode, "output": shown})
        with (root / "verdicts.csv").open() as file:
            rows = [{k: v for k, v in row.items() if k != "ms"} for row in csv.DictReader(file)]
        return {"runs": runs, "csv": rows, "files": sorted(str(p.relative_to(root)) for p in root.rglob("*.*"))}


def _line(line: str, root: Path) -> Any:
    """A line of output without what differs from run to run; None for lines that are nothing else."""
    line = line.replace(str(root.resolve()), "ROOT").replace(str(root), "ROOT")
    if line.startswith("{"):
        record = json.loads(line)
        for volatile in ("versions", "created", "timings_ms"):
            record.pop(volatile, None)
        for change in record.get("history", ()):
            change["time"] = "TIME"
        return record
    if re.match(r"^(created:|versions:|  [\w-]+: '?\d+\.\d+\.\d+)", line):
        return None
    # On a slow machine, how far long work is.
    if re.search(r": \d+ of \d+(, about .+ left)?$", line):
        return None
    line = re.sub(r"^  time: '\S+'$", "  time: TIME", line)
    return re.sub(r", \d+\.\d s,", ", # s,", re.sub(r"\(\d+ ms\)", "(# ms)", line))
