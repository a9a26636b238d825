"""Images of one's own, listed in a CSV file."""

from __future__ import annotations

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
manifest.csv (a table with the columns)
  path         of the image, relative to the manifest and below its folder
  label        good, ok or 0; bad, defective, ng or 1
  split        train, validation or test (at will; without it the last fifth of the good images of a category
               in the order of their paths and all bad ones are for the test)
  category     (at will; without it the name of the folder)
  defect_type  (at will; without it `bad`)
  mask         relative as well, several joined by `;` (at will)""",
        marks=(FILE,),
    )
)
def manifest(root: Path) -> Iterator[Sample]:
    """Samples of a manifest, in its order."""
    table = root / FILE
    rows = read_table(table, ("path", "label"), ("split", "category", "defect_type", "mask"))
    samples: list[Sample] = []
    problems: list[str] = []
    seen: set[Path] = set()
    for line, row in rows:
        try:
            sample = _sample(root, row, f"{table}, line {line}")
        except DatasetError as error:
            problems.append(str(error))
            continue
        if sample.path in seen:
            problems.append(f"{table}, line {line}: {row['path']} is listed twice. Remove one of the lines.")
        seen.add(sample.path)
        samples.append(sample)
    if problems:
        more = f" And {len(problems) - 3} more." if len(problems) > 3 else ""
        raise DatasetError(" ".join(problems[:3]) + more)
    split_given = bool(rows) and "split" in rows[0][1]
    yield from samples if split_given else _split(samples)


def _sample(root: Path, row: dict[str, str], where: str) -> Sample:
    label = LABELS.get(row["label"].lower())
    if label is None:
        raise DatasetError(f"{where}: expected a label among {', '.join(LABELS)}, got {row['label']!r}. Mend the line.")
    split = row.get("split", "test")
    if split not in ("train", "validation", "test"):
        raise DatasetError(f"{where}: expected split train, validation or test, got {split!r}. Mend the line.")
    kind = row.get("defect_type") or (GOOD if label == 0 else "bad")
    if (kind == GOOD) != (label == 0):
        raise DatasetError(
            f"{where}: expected the defect type {GOOD!r} of good images and another of bad ones, got {kind!r} "
            f"with the label {row['label']!r}. Mend the line."
        )
    names = [name.strip() for name in row.get("mask", "").split(";") if name.strip()]
    if names and label == 0:
        raise DatasetError(f"{where}: expected no mask of a good image, got {row['mask']!r}. Mend the line.")
    masks = tuple(inside(root, name, where) for name in names)
    category = row.get("category") or root.resolve().name
    return Sample(inside(root, row["path"], where), category, split, label, kind, masks)  # type: ignore[arg-type]


def _split(samples: list[Sample]) -> Iterator[Sample]:
    good: dict[str, list[str]] = {}
    for sample in samples:
        if sample.label == 0:
            good.setdefault(sample.category, []).append(sample.path.as_posix())
    for_test = {path for paths in good.values() for path in held_out(paths)}
    for sample in samples:
        tested = sample.label == 1 or sample.path.as_posix() in for_test
        yield Sample(
            sample.path,
            sample.category,
            "test" if tested else "train",
            sample.label,
            sample.defect_type,
            sample.mask_paths,
        )
