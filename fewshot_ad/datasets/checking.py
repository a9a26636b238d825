"""Checks that a local copy is complete: published counts, readable files, a mask for every defect."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_ad.arguments import flag
from fewshot_ad.arrays import Progress
from fewshot_ad.datasets.card import Counts, DatasetCard
from fewshot_ad.datasets.opening import Dataset, open_dataset
from fewshot_ad.datasets.sample import Sample, read_mask
from fewshot_ad.errors import DatasetError, ImageError
from fewshot_ad.images import SUFFIXES, read_image


@dataclass
class CheckReport:
    """The result of checking a local copy.

    Attributes:
        name: Name of the dataset.
        root: Folder of the copy.
        counts: Number of existing images, by category, then by split and label, such as `train_good`.
        differences: Counts that differ from the published ones.
        missing: Images that a list names but that do not exist, and categories without any image.
        unreadable: Files that exist but cannot be read.
        unpaired: Defective images without mask, masks without image, and masks of another size than their image.
        notes: Oddities that are not the copy's fault.
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
        """Whether the copy is free of differences and of missing, unreadable or unpaired files."""
        return not (self.differences or self.missing or self.unreadable or self.unpaired)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return {"complete": self.complete, **dataclasses.asdict(self)}


def check(
    name: str,
    root: Path | str,
    progress: Progress | None = None,
    *,
    category: str | None = None,
    decode: bool = True,
) -> CheckReport:
    """Check a local copy; a bad file is reported and does not stop the check.

    Args:
        name: A name in `dataset_cards()`.
        root: Folder of the copy.
        progress: Called as `progress("check", done, total)`.
        category: Check only this category; None = all.
        decode: Decode every image and mask; otherwise only check that the files exist.

    Raises:
        DatasetError: The folder does not have the dataset's layout, or has no such category.
    """
    flag(decode, "decode", DatasetError)
    dataset = open_dataset(name, root)
    report = CheckReport(name, str(root))
    samples = list(_list_samples(dataset, category, report))
    if category is not None and not samples:
        categories = ", ".join(dict.fromkeys(sample.category for sample in _list_samples(dataset, None, report)))
        raise DatasetError(f"{root}: expected a category among {categories}, got {category!r}.")
    all_listed = not report.unreadable
    undrawn = categories_without_masks(samples, dataset.card)
    report.notes += [f"category {name}: no image has a mask, so nothing can be said of maps" for name in undrawn]
    for done, sample in enumerate(samples):
        if progress is not None:
            progress("check", done, len(samples))
        _check_sample(sample, dataset.card.masks != "none" and sample.category not in undrawn, decode, report)
    if progress is not None:
        progress("check", len(samples), len(samples))
    if all_listed:
        _find_lone_masks(dataset, samples, category, report)
        _find_nested(dataset, samples, report)
    _compare_counts(dataset.card, category, report)
    return report


def categories_without_masks(samples: Iterable[Sample], card: DatasetCard) -> list[str]:
    """Categories of one's own, none of whose defective images has a mask: nobody drew any, so none is missing.

    A mask that a list names is one that somebody drew, also where its file is gone.
    """
    own = [one for one in samples if one.label and one.category not in card.categories]
    by_place = card.mask_of is not None
    drawn = {one.category for one in own if one.has_mask and not (by_place and _lacks(one))}
    return [] if card.masks == "none" else list(dict.fromkeys(one.category for one in own if one.category not in drawn))


def _lacks(sample: Sample) -> bool:
    return bool(sample.mask_paths) and not any(path.is_file() for path in sample.mask_paths)


def _list_samples(dataset: Dataset, category: str | None, report: CheckReport) -> Iterator[Sample]:
    try:
        for sample in dataset.reader(dataset.root):
            if category in (None, sample.category):
                yield sample
    except DatasetError as error:
        report.unreadable.append(str(error))


def _check_sample(sample: Sample, needs_mask: bool, decode: bool, report: CheckReport) -> None:
    if not sample.path.is_file():
        report.missing.append(str(sample.path))
        return
    cell = f"{sample.split}_{'defective' if sample.label else 'good'}"
    cells = report.counts.setdefault(sample.category, {})
    cells[cell] = cells.get(cell, 0) + 1
    missing_masks = [path for path in sample.mask_paths if not path.is_file()]
    if needs_mask and not sample.has_mask:
        report.unpaired.append(f"{sample.path}: defective, but has no mask")
    if needs_mask:
        report.unpaired.extend(f"{sample.path}: its mask {path} does not exist" for path in missing_masks)
    if decode:
        _decode_sample(sample, [path for path in sample.mask_paths if path not in missing_masks], report)


def _decode_sample(sample: Sample, masks: list[Path], report: CheckReport) -> None:
    try:
        height, width, _ = read_image(sample.path).shape
    except ImageError as error:
        report.unreadable.append(str(error))
        return
    for path in masks:
        _decode_mask(path, (height, width), report)
    if sample.boxes or sample.box_shares or sample.runs:
        try:
            sample.mask((height, width))
        except DatasetError as error:
            report.unpaired.append(str(error))


def _decode_mask(path: Path, image_hw: tuple[int, int], report: CheckReport) -> None:
    try:
        mask = read_mask(path)
    except DatasetError as error:
        report.unreadable.append(str(error))
        return
    if mask.shape != image_hw:
        size = f"{mask.shape[1]} x {mask.shape[0]}"
        report.unpaired.append(f"{path}: {size} pixels, but its image has {image_hw[1]} x {image_hw[0]}")
    elif not mask.any():
        report.notes.append(f"{path}: marks no pixel, though its image is labeled defective")


def _find_lone_masks(dataset: Dataset, samples: list[Sample], category: str | None, report: CheckReport) -> None:
    """Report the masks that belong to none of the samples."""
    if dataset.card.mask_of is None:
        return
    pattern, replacement = re.compile(dataset.card.mask_of[0]), dataset.card.mask_of[1]
    images = {sample.path.relative_to(dataset.root).with_suffix("").as_posix() for sample in samples}
    for path in sorted(dataset.root.rglob("*")):
        relative = path.relative_to(dataset.root)
        match = pattern.fullmatch(relative.as_posix())
        in_category = category is None or category in relative.parts
        if match and in_category and not path.name.startswith(".") and match.expand(replacement) not in images:
            report.unpaired.append(f"{path}: a mask without image")


def _find_nested(dataset: Dataset, samples: list[Sample], report: CheckReport) -> None:
    """Note the folders of images that lie in a folder whose images are read, and are not read themselves."""
    reads = {sample.path.parent for sample in samples}
    known = reads | {mask.parent for sample in samples for mask in sample.mask_paths}
    for folder in sorted(path for path in dataset.root.rglob("*") if path.is_dir()):
        if folder in known or not reads & set(folder.parents) or folder.name.startswith("."):
            continue
        count = sum(path.suffix.casefold() in SUFFIXES and path.is_file() for path in folder.iterdir())
        if count:
            what = f"{count} images in a folder of a folder of images, which are"
            if count == 1:
                what = "1 image in a folder of a folder of images, which is"
            report.notes.append(f"{folder}: {what} not read")


def _compare_counts(card: DatasetCard, category: str | None, report: CheckReport) -> None:
    """Report where the counts differ from the published ones; the totals only if all categories were checked."""
    for name, published in card.counts.items():
        if category in (None, name):
            _compare_category(name, published, report)
    for name in report.counts:
        if card.categories and name not in card.categories:
            report.notes.append(f"category {name}: not among the published ones, so its counts are not compared")
    if category is None:
        _compare_totals(card, report)


def _compare_category(name: str, published: Counts, report: CheckReport) -> None:
    if name not in report.counts:
        report.missing.append(f"category {name}")
        return
    for cell, expected in published._asdict().items():
        count = report.counts[name].get(cell, 0)
        if expected is not None and count != expected:
            report.differences.append(f"{name}, {cell}: expected {expected}, got {count}")


def _compare_totals(card: DatasetCard, report: CheckReport) -> None:
    in_cells = sum(cell or 0 for counts in card.counts.values() for cell in counts)
    # Where all published images are in cells that are known, the other cells hold one's own, beside the dataset.
    if card.images is not None and card.images != in_cells:
        total = sum(n for name, cells in report.counts.items() if name in card.categories for n in cells.values())
        if total != card.images and not report.differences and not report.missing:
            report.differences.append(f"images in all: expected {card.images}, got {total}")
    if not card.counts:
        report.missing.extend(f"category {name}" for name in card.categories if name not in report.counts)
