"""Which images of a dataset a job is fitted on and tested on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.benchmark.plan import DatasetPlan, Job
from fewshot_ad.benchmark.record import COPY
from fewshot_ad.benchmark.support import by_hash, support_names
from fewshot_ad.datasets import open_dataset
from fewshot_ad.datasets.points import read_points
from fewshot_ad.datasets.sample import Sample
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.images import read_image


class Images(Sequence[Uint8Array]):
    """Images read from disk when they are asked for, (H, W, 3) uint8 RGB each; with `points`, see `with_points`."""

    def __init__(self, samples: Sequence[Sample], points: bool = False) -> None:
        self._samples = samples
        self._points = points

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Images(self._samples[index], self._points)
        sample = self._samples[index]
        image = read_image(sample.path)
        return with_points(image, sample) if self._points else image


def with_points(image: Uint8Array, sample: Sample) -> Float32Array:
    """The image (H, W, 3) of a sample with the position of each pixel, (H, W, 6) float32, see `colored_points`.

    Raises:
        BenchmarkError: The sample has no positions.
        DatasetError: They are damaged.
    """
    from fewshot_ad.zoo.components.colored_points import colored_points

    if sample.points is None:
        raise BenchmarkError(
            f"{sample.path}: expected the position of each pixel beside the image, as mvtec_3d and eyecandies have it, "
            "got none. Leave this method out, or get the file from the publisher."
        )
    return colored_points(image, read_points(sample.points, image.shape[:2]))


@dataclass(frozen=True)
class Material:
    """The images of one category for one job.

    Attributes:
        support: Images to fit on.
        test: Images to predict.
        labeled: Defective ones for supervised methods, none of which is tested.
        copy: Number of images of the category in the local copy, as `copy_{split}_{good or defective}`, used by the
            job or not; the four usual ones always, others where the copy has such images.
    """

    support: tuple[Sample, ...]
    test: tuple[Sample, ...]
    labeled: tuple[Sample, ...] = ()
    copy: Mapping[str, int] = field(default_factory=dict)


def material(job: Job) -> dict[str, Material]:
    """The images of each of a job's categories, fixed by their names.

    Where a plan has a supervised method, half of the defective images with masks are reserved, by hash, or half of all
    where none has a mask: that method learns from them, and no method of the plan is tested on them. In the setting
    `few-abnormal` they are as many as it says, those with masks first.

    Raises:
        BenchmarkError: There are not enough images.
    """
    grouped: dict[str, list[Sample]] = {category: [] for category in job.categories}
    # Listed once: a large dataset takes seconds.
    for sample in open_dataset(job.dataset.layout, job.dataset.root).samples():
        if sample.category in grouped:
            grouped[sample.category].append(sample)
    listed = job.listed or (None,) * len(job.categories)
    return {
        category: _material(job, category, samples, names)
        for (category, samples), names in zip(grouped.items(), listed, strict=True)
    }


def _material(job: Job, category: str, samples: Sequence[Sample], listed: Sequence[str] | None) -> Material:
    def name(sample: Sample) -> str:
        return sample_name(sample, job.dataset.root)

    good = _by_name(samples, job.dataset.root)
    if job.shots == "full":
        support = list(good.values())
    else:
        support = [good[n] for n in support_names(list(good), category, job.shots, job.draw, listed)]
    test = [sample for sample in samples if sample.split == "test"]
    healthy = by_hash([s for s in test if s.label == 0], name, f"{category}/test")
    defective = by_hash([s for s in test if s.label == 1], name, f"{category}/test")
    labeled: list[Sample] = []
    if job.reserve:
        labeled = ([s for s in defective if s.has_mask] or defective)[::2]
    kept_out = labeled
    if job.abnormal:
        kept_out = _abnormal(job, category, defective, name)
        labeled = kept_out[: job.abnormal]
    # What is known of one type of defects is tested on the others.
    defective = [
        s for s in _without(defective, kept_out) if not job.abnormal_type or s.defect_type != job.abnormal_type
    ]
    if job.noise > 0:
        count = round(job.noise * len(support))
        drawn = by_hash(defective, name, f"{category}/noise/{job.draw}")[:count]
        if len(drawn) < count or count == 0:
            raise BenchmarkError(
                f"{category}: expected at least one defective image for the support set, of which there are "
                f"{len(defective)}; {100 * job.noise:g}% of {len(support)} are {count}."
            )
        support[-count:] = drawn
        defective = _without(defective, drawn)
    limit = job.protocol.test_limit
    from fewshot_ad.zoo import cards

    card = cards()[job.method.baseline]
    if card.supervision != "labeled defects":
        labeled = []
    if card.needs_masks and not all(sample.has_mask for sample in labeled):
        raise BenchmarkError(
            f"{category}: expected a mask of each defective image that {card.name} learns from, got images without. "
            "Leave this method out, or add masks."
        )
    return Material(tuple(support), (*healthy[:limit], *defective[:limit]), tuple(labeled), _copy(samples))


def _abnormal(job: Job, category: str, defective: Sequence[Sample], name: Callable[[Sample], str]) -> list[Sample]:
    """The defects that the setting `few-abnormal` sets aside, the labeled ones first: by hash, anew for every draw.

    Raises:
        BenchmarkError: There are not so many, or none would be left for the test.
    """
    kind = [s for s in defective if job.abnormal_type in ("", s.defect_type)]
    drawn = by_hash(kind, name, f"{category}/abnormal/{job.draw}")
    count = max(job.abnormal, job.set_aside)
    aside = sorted(drawn, key=lambda sample: not sample.has_mask)[:count]
    others = len(defective) - (len(kind) if job.abnormal_type else count)
    if len(aside) < count or not others:
        types = ", ".join(sorted({s.defect_type for s in defective}))
        aside_too = f" ({count} set aside, for the plan's largest number)" if count > job.abnormal else ""
        shown = f" that show {job.abnormal_type}" if job.abnormal_type else ""
        raise BenchmarkError(
            f"{category}: expected more than {count} defective images, {job.abnormal} to learn from{shown}{aside_too} "
            f"and others to test, got {len(kind)} and {len(defective) - len(kind)} others. Its types of defects: "
            f"{types}."
        )
    return aside


def _copy(samples: Sequence[Sample]) -> dict[str, int]:
    counts = Counter(f"copy_{s.split}_{'defective' if s.label else 'good'}" for s in samples)
    return {**dict.fromkeys(COPY, 0), **counts}


def _without(samples: Sequence[Sample], excluded: Sequence[Sample]) -> list[Sample]:
    paths = {sample.path for sample in excluded}
    return [sample for sample in samples if sample.path not in paths]


def source_samples(plan: DatasetPlan) -> list[Sample]:
    """All good training images of a dataset's categories."""
    dataset = open_dataset(plan.layout, plan.root)
    categories = set(plan.categories or dataset.categories)
    return [s for s in dataset.samples(split="train") if s.label == 0 and s.category in categories]


def good_names(layout: str, root: Path) -> dict[str, list[str]]:
    """The names of all good training images, by category, as support lists have them."""
    grouped: dict[str, list[Sample]] = {}
    for sample in open_dataset(layout, root).samples(split="train"):
        grouped.setdefault(sample.category, []).append(sample)
    return {category: list(_by_name(samples, root)) for category, samples in grouped.items()}


def _by_name(samples: Sequence[Sample], root: Path) -> dict[str, Sample]:
    good = [sample for sample in samples if sample.split == "train" and sample.label == 0]
    # Most datasets have all good images of a category in one folder; lists then have bare file names.
    bare = {sample.path.name: sample for sample in good}
    whole = {sample_name(sample, root): sample for sample in good}
    return dict(sorted((bare if len(bare) == len(good) else whole).items()))


def sample_name(sample: Sample, root: Path) -> str:
    """Path of an image below its dataset's folder, with forward slashes."""
    return sample.path.relative_to(root).as_posix()
