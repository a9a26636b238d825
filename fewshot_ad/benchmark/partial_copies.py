"""Local copies that lack something or are too small: told once, before any job starts, and not by each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from fewshot_ad.benchmark.plan import DatasetPlan, Job
from fewshot_ad.datasets import DatasetCard, Sample, open_dataset
from fewshot_ad.datasets.checking import categories_without_masks
from fewshot_ad.zoo import cards

NAMED = 3


def partial_copies(jobs: Sequence[Job]) -> Iterator[str]:
    """A sentence for each dataset whose copy lacks images or masks, or has fewer images than were published.

    Args:
        jobs: Whose datasets and categories are looked at; files are not opened.

    Raises:
        DatasetError: A folder does not have its dataset's layout.
    """
    datasets: dict[tuple[str, Path], tuple[DatasetPlan, set[str]]] = {}
    for job in jobs:
        _, categories = datasets.setdefault((job.dataset.layout, job.dataset.root), (job.dataset, set()))
        categories.update(job.categories)
        if job.source is not None:
            _, categories = datasets.setdefault((job.source.layout, job.source.root), (job.source, set()))
            categories.update(job.source.categories or open_dataset(job.source.layout, job.source.root).categories)
    for dataset, categories in datasets.values():
        opened = open_dataset(dataset.layout, dataset.root)
        samples = [sample for sample in opened.samples() if sample.category in categories]
        said = [
            f"{len(found)} {what} ({'; '.join(found[:NAMED])}{'; ...' if len(found) > NAMED else ''})"
            for found, what in (
                ([str(sample.path) for sample in samples if not sample.path.is_file()], "images are missing"),
                (_without_masks(samples, opened.card), "masks are missing"),
                (_fewer(samples, opened.card), "categories have fewer images than published, if they are those"),
            )
            if found
        ]
        if said:
            yield (
                f"{dataset.name}: a partial copy in {dataset.root}: {', '.join(said)}. Its figures do not compare with "
                f"published ones. `fewshot-ad datasets check {dataset.layout} {dataset.root}` lists everything."
            )


def without_positions(jobs: Sequence[Job]) -> Iterator[str]:
    """A sentence for each method that needs the position of each pixel, and dataset that lacks some.

    Args:
        jobs: Whose datasets and categories are looked at; files are not opened.

    Raises:
        DatasetError: A folder does not have its dataset's layout.
    """
    asking: dict[tuple[str, str, Path], tuple[str, set[str]]] = {}
    for job in jobs:
        if cards()[job.method.baseline].needs_points:
            key = job.method.name, job.dataset.layout, job.dataset.root
            asking.setdefault(key, (job.dataset.name, set()))[1].update(job.categories)
    for (method, layout, root), (dataset, categories) in asking.items():
        samples = [one for one in open_dataset(layout, root).samples() if one.category in categories]
        lacking = [str(one.path) for one in samples if one.points is None]
        if lacking:
            yield (
                f"{method}: expected the position of each pixel, which {len(lacking)} of {len(samples)} images of "
                f"{dataset} do not have ({lacking[0]}): jobs with them will fail."
            )


def too_few_images(jobs: Sequence[Job]) -> Iterator[str]:
    """A sentence for each dataset with categories that have fewer images to learn from than jobs ask for.

    Args:
        jobs: Whose datasets and categories are looked at; files are not opened.

    Raises:
        DatasetError: A folder does not have its dataset's layout.
    """
    by_dataset: dict[tuple[str, Path], list[Job]] = {}
    for job in jobs:
        by_dataset.setdefault((job.dataset.layout, job.dataset.root), []).append(job)
    for (layout, root), asking in by_dataset.items():
        samples = tuple(open_dataset(layout, root).samples())
        for what, short in (
            ("good training images", _too_few_good(asking, samples)),
            ("defective images", _too_few_defective(asking, samples)),
        ):
            if short:
                yield (
                    f"{asking[0].dataset.name}: fewer {what} than jobs ask for, which will fail: "
                    f"{'; '.join(short[:NAMED])}{'; ...' if len(short) > NAMED else ''}."
                )


def _too_few_good(jobs: Sequence[Job], samples: Sequence[Sample]) -> list[str]:
    own = Counter(sample.category for sample in samples if sample.split == "train" and not sample.label)
    most: Counter[str] = Counter()
    for job in jobs:
        # Of noisy ones a part is no good image.
        if isinstance(job.shots, int) and not job.noise:
            most |= Counter(dict.fromkeys((job.fitted_on,) if job.fitted_on else job.categories, job.shots))
    return [f"{name} has {own[name]}, K = {shots}" for name, shots in most.items() if own[name] < shots]


def _too_few_defective(jobs: Sequence[Job], samples: Sequence[Sample]) -> list[str]:
    """Categories without as many labeled defects as are asked for, and others to test."""
    most: Counter[tuple[str, str]] = Counter()
    for job in jobs:
        if job.abnormal:
            count = max(job.abnormal, job.set_aside)
            most |= Counter({(category, job.abnormal_type): count for category in job.categories})
    short = []
    for (category, kind), count in most.items():
        defective = [s for s in samples if s.split == "test" and s.label == 1 and s.category == category]
        own = sum(kind in ("", s.defect_type) for s in defective)
        others = len(defective) - (own if kind else count)
        if own < count or others < 1:
            of_type = f" that show {kind}" if kind else ""
            short.append(f"{category} has {own}{of_type}, {count} are to be learned from and others tested")
    return short


def _without_masks(samples: Sequence[Sample], card: DatasetCard) -> list[str]:
    if card.masks == "none":
        return []
    undrawn = categories_without_masks(samples, card)
    return [
        str(sample.path)
        for sample in samples
        if sample.label
        and sample.category not in undrawn
        and not (sample.has_mask and all(path.is_file() for path in sample.mask_paths))
    ]


def _fewer(samples: Sequence[Sample], card: DatasetCard) -> list[str]:
    found = []
    for category, published in card.counts.items():
        own = [sample for sample in samples if sample.category == category]
        expected = sum(count or 0 for count in published)
        if own and len(own) < expected:
            found.append(f"{category}: {len(own)} of {expected}")
    return found
