"""Is a local copy whole: counts against the published ones, every file readable, every defect with its mask."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_ad.arrays import Progress
from fewshot_ad.datasets.card import DatasetCard
from fewshot_ad.datasets.opening import Dataset, open_dataset
from fewshot_ad.datasets.sample import Sample, read_mask
from fewshot_ad.errors import DatasetError, ImageError
from fewshot_ad.images import read_image


@dataclass
class CheckReport:
    """What a check of a local copy found.

    Attributes:
        name: Of the dataset.
        root: Of the copy.
        counts: Images that are there, by category, then by split and label, such as `train_good`.
        differences: Counts other than the published ones.
        missing: Images that are listed and not there, and categories that are not there at all.
        unreadable: Files that are there and cannot be read.
        unpaired: Defective images without mask, masks without image, and masks of another size.
        notes: What is odd and no fault of the copy.
    """

    name: str
    root: str
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unpaired: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is wrong with the copy."""
        return not (self.differences or self.missing or self.unreadable or self.unpaired)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"complete": self.complete, **dataclasses.asdict(self)}


def check(
    name: str,
    root: Path | str,
    progress: Progress | None = None,
    *,
    category: str | None = None,
    decode: bool = True,
) -> CheckReport:
    """Check a local copy; a bad file is reported and never stops the rest.

    Args:
        name: A name in `dataset_cards()`.
        root: Folder of the copy.
        progress: Called as `progress("check", done, total)`.
        category: Check only this one.
        decode: Decode every image and mask; otherwise only see that they are there.

    Raises:
        DatasetError: The folder is not laid out like the dataset at all, or has no such category.
    """
    dataset = open_dataset(name, root)
    report = CheckReport(name, str(root))
    samples = list(_listed(dataset, category, report))
    if category is not None and not samples:
        known = ", ".join(dict.fromkeys(s.category for s in _listed(dataset, None, report)))
        raise DatasetError(f"{root}: expected a category among {known}, got {category!r}.")
    all_listed = not report.unreadable
    for done, sample in enumerate(samples):
        if progress is not None:
            progress("check", done, len(samples))
        _check_sample(sample, dataset.card, decode, report)
    if progress is not None:
        progress("check", len(samples), len(samples))
    if all_listed:
        _find_lone_masks(dataset, samples, category, report)
    _compare(dataset.card, category, report)
    return report


def _listed(dataset: Dataset, category: str | None, report: CheckReport) -> Iterator[Sample]:
    try:
        for sample in dataset.reader(dataset.root):
            if category in (None, sample.category):
                yield sample
    except DatasetError as error:
        report.unreadable.append(str(error))


def _check_sample(sample: Sample, card: DatasetCard, decode: bool, report: CheckReport) -> None:
    if not sample.path.is_file():
        report.missing.append(str(sample.path))
        return
    cell = f"{sample.split}_{'defective' if sample.label else 'good'}"
    cells = report.counts.setdefault(sample.category, {})
    cells[cell] = cells.get(cell, 0) + 1
    if card.masks != "none" and not sample.has_mask:
        report.unpaired.append(f"{sample.path}: defective, and no mask is there")
    masks = [path for path in sample.mask_paths if path.is_file()]
    for path in sample.mask_paths:
        if path not in masks:
            report.unpaired.append(f"{sample.path}: its mask {path} is not there")
    if not decode:
        return
    try:
        height, width, _ = read_image(sample.path).shape
    except ImageError as error:
        report.unreadable.append(str(error))
        return
    for path in masks:
        try:
            mask = read_mask(path)
        except DatasetError as error:
            report.unreadable.append(str(error))
            continue
        if mask.shape != (height, width):
            got = f"{mask.shape[1]} x {mask.shape[0]}"
            report.unpaired.append(f"{path}: {got} pixels, but its image has {width} x {height}")
        elif not mask.any():
            report.notes.append(f"{path}: marks no pixel, though its image is called defective")
    if sample.boxes:
        try:
            sample.mask((height, width))
        except DatasetError as error:
            report.unpaired.append(str(error))


def _find_lone_masks(dataset: Dataset, samples: list[Sample], category: str | None, report: CheckReport) -> None:
    if dataset.card.mask_of is None:
        return
    pattern, replacement = re.compile(dataset.card.mask_of[0]), dataset.card.mask_of[1]
    known = {sample.path.relative_to(dataset.root).with_suffix("").as_posix() for sample in samples}
    for path in sorted(dataset.root.rglob("*")):
        relative = path.relative_to(dataset.root)
        found = pattern.fullmatch(relative.as_posix())
        of_others = category is not None and category not in relative.parts
        if found and not of_others and not path.name.startswith(".") and found.expand(replacement) not in known:
            report.unpaired.append(f"{path}: a mask without image")


def _compare(card: DatasetCard, category: str | None, report: CheckReport) -> None:
    for name, published in card.counts.items():
        if category not in (None, name):
            continue
        if name not in report.counts:
            report.missing.append(f"category {name}")
            continue
        for cell, expected in published._asdict().items():
            got = report.counts[name].get(cell, 0)
            if expected is not None and got != expected:
                report.differences.append(f"{name}, {cell}: expected {expected}, got {got}")
    for name in report.counts:
        if card.categories and name not in card.categories:
            report.notes.append(f"category {name}: not among the published ones, so its counts are not compared")
    if category is None and card.images is not None:
        got = sum(n for name, cells in report.counts.items() if name in card.categories for n in cells.values())
        if got != card.images and not report.differences and not report.missing:
            report.differences.append(f"images in all: expected {card.images}, got {got}")
    if category is None and not card.counts:
        report.missing.extend(f"category {name}" for name in card.categories if name not in report.counts)
