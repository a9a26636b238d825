"""One's own images, listed in a CSV file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import DatasetCard, dataset
from fewshot_ad.datasets.files import inside, read_table
from fewshot_ad.datasets.sample import GOOD, Sample
from fewshot_ad.datasets.splits import held_out
from fewshot_ad.errors import DatasetError

FILE = "manifest.csv"
LABELS = {"good": 0, "ok": 0, "0": 0, "bad": 1, "defective": 1, "ng": 1, "1": 1}


@dataset(
    DatasetCard(
        name="manifest",
        title="A CSV manifest",
        categories=(),
        license="your own",
        source="your own",
        citation="none",
        images=None,
        masks="pixel",
        layout="""\
manifest.csv (a table with these columns)
  path         of the image, relative to the manifest and below its folder
  label        good, ok or 0; bad, defective, ng or 1
  split        train, validation or test (optional; without it, or where it is empty, the last fifth of the good
               images of a category in the order of their paths and all bad ones are for the test)
  category     (optional; without it the name of the folder)
  defect_type  (optional; without it `bad`)
  mask         relative as well, several joined by `;` (optional)""",
        marks=(FILE,),
    )
)
def manifest(root: Path) -> Iterator[Sample]:
    """Samples of a manifest, in the order of its lines."""
    table = root / FILE
    rows = read_table(table, ("path", "label"), ("split", "category", "defect_type", "mask"))
    samples: list[Sample] = []
    without_split: set[Path] = set()
    problems: list[str] = []
    paths: set[Path] = set()
    for line, row in rows:
        try:
            sample = _sample(root, row, f"{table}, line {line}")
        except DatasetError as error:
            problems.append(str(error))
            continue
        if sample.path in paths:
            problems.append(f"{table}, line {line}: {row['path']} is listed twice. Remove one of the lines.")
        paths.add(sample.path)
        samples.append(sample)
        if not row.get("split"):
            without_split.add(sample.path)
    if problems:
        rest = f" And {len(problems) - 3} more." if len(problems) > 3 else ""
        raise DatasetError(" ".join(problems[:3]) + rest)
    yield from _split(samples, without_split)


def _sample(root: Path, row: dict[str, str], where: str) -> Sample:
    label = LABELS.get(row["label"].lower())
    if label is None:
        raise DatasetError(
            f"{where}: expected a label among {', '.join(LABELS)}, got {row['label']!r}. Correct the line."
        )
    split = row.get("split") or "test"
    if split not in ("train", "validation", "test"):
        raise DatasetError(f"{where}: expected split train, validation or test, got {split!r}. Correct the line.")
    kind = row.get("defect_type") or (GOOD if label == 0 else "bad")
    if (kind == GOOD) != (label == 0):
        raise DatasetError(
            f"{where}: expected the defect type {GOOD!r} of good images and another of bad ones, got {kind!r} "
            f"with the label {row['label']!r}. Correct the line."
        )
    names = [name.strip() for name in row.get("mask", "").split(";") if name.strip()]
    if names and label == 0:
        raise DatasetError(f"{where}: expected no mask of a good image, got {row['mask']!r}. Correct the line.")
    masks = tuple(inside(root, name, where) for name in names)
    category = row.get("category") or root.resolve().name
    return Sample(inside(root, row["path"], where), category, split, label, kind, masks)  # type: ignore[arg-type]


def _split(samples: list[Sample], without: set[Path]) -> Iterator[Sample]:
    """The samples; of those without a split the last fifth of each category's good images and all bad ones for test."""
    good: dict[str, list[str]] = {}
    for sample in samples:
        if sample.label == 0 and sample.path in without:
            good.setdefault(sample.category, []).append(sample.path.as_posix())
    for_test = {path for paths in good.values() for path in held_out(paths)}
    for sample in samples:
        in_test = sample.label == 1 or sample.path.as_posix() in for_test
        own = sample.split if sample.path not in without else "test" if in_test else "train"
        yield dataclasses.replace(sample, split=own)
