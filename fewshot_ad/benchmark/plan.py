"""The plan of a benchmark: methods x datasets x categories x shots x draws, and the jobs that follow from it."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from fewshot_ad.benchmark.record import Shots
from fewshot_ad.benchmark.support import Lists, read_lists, shipped_lists
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.printable import printable

Setting: TypeAlias = Literal[
    "few-shot", "full-shot", "zero-shot", "unified", "noisy", "continual", "transfer", "one-category", "few-abnormal"
]
SETTINGS: tuple[Setting, ...] = get_args(Setting)


@dataclass(frozen=True)
class MethodPlan:
    """One method of the plan: a baseline of the zoo with some of its hyper-parameters set."""

    name: str
    baseline: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetPlan:
    """One dataset of the plan.

    Attributes:
        name: In the tables.
        layout: Name of its reader, see `fewshot-ad datasets`.
        root: Folder of the local copy.
        categories: Those that take part; empty = all of the local copy.
        support: Text file of fixed support lists, see `support.read_lists`; each category on it needs a list of
            every draw, as long as the most shots. None takes the shipped lists of that layout, and draws by hash where
            none ship.
    """

    name: str
    layout: str
    root: Path
    categories: tuple[str, ...] = ()
    support: Path | None = None


@dataclass(frozen=True)
class Protocol:
    """How every method is measured; part of each job's identity.

    Attributes:
        test_limit: The most good and the most defective test images per category, picked by hash of their names;
            None = all.
        pixel_side: Side in pixels of the square to which maps and masks are scaled for the pixel figures; None = the
            image's own size.
        bootstrap: Resamples for the 95% intervals; 0 = none.
        overlays: Pictures of single results per category.
    """

    test_limit: int | None = None
    pixel_side: int | None = 256
    bootstrap: int = 1000
    overlays: int = 4

    def identity(self) -> dict[str, Any]:
        """The fields that the figures depend on: all but the number of pictures."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "overlays"}


@dataclass(frozen=True)
class Job:
    """One fit and the predictions that follow from it.

    Attributes:
        method: The method to fit.
        dataset: The dataset to fit it on.
        categories: Products it is tested on: one, or all of the dataset where one model serves all.
        setting: `few-shot` and `full-shot`: fitted on each product's own images. `unified`: one model on those of
            all categories. `noisy`: a share `noise` of the support images is defective, and out of the test.
            `continual`: the categories one after the other, each fit on the newest with `replay` images of each
            earlier one, see `continual.run_continual`. `transfer`: fitted on `source` and on `shots` of the product.
            `zero-shot`: on nothing. `one-category`: on the images of `fitted_on` alone, and tested on all.
            `few-abnormal`: methods that learn from labeled defects get `abnormal` of them, the same for all methods
            and out of the test of all.
        shots: Good images per category, or `full`; 0 only in `transfer` and `zero-shot`.
        draw: Number of the support draw.
        seed: Of everything random.
        protocol: How it is measured.
        noise: Share of defective support images.
        replay: Images of each earlier category that are in the support set again.
        source: The dataset that a transferred model comes from.
        fitted_on: The category of a model of one category that is tested on all.
        listed: The support images of each category, where they are on a fixed list; of a shipped list, which is
            the start of the draw by hash, there may be fewer than the shots.
        reserve: Whether the images that supervised methods learn from are left out of the test.
        abnormal: Labeled defective images of each category; 0 where the setting does not say.
        abnormal_type: Their type of defect; empty = any.
        set_aside: How many defective images are left out of the test for it, the labeled ones among them: as many as
            the plan's largest number for this type, so that all of them are tested on the same images.
        device: Where the method computes, unless its options say; no part of the job's identity.
    """

    method: MethodPlan
    dataset: DatasetPlan
    categories: tuple[str, ...]
    setting: Setting
    shots: Shots
    draw: int
    seed: int
    protocol: Protocol
    noise: float = 0.0
    replay: int = 0
    source: DatasetPlan | None = None
    fitted_on: str = ""
    listed: tuple[tuple[str, ...] | None, ...] = ()
    reserve: bool = False
    abnormal: int = 0
    abnormal_type: str = ""
    set_aside: int = 0
    device: str = "cpu"

    @property
    def setting_name(self) -> str:
        """The setting with its value, as it stands on record."""
        if self.setting == "noisy":
            return f"noisy {100 * self.noise:g}%"
        if self.setting == "continual":
            return f"continual, replay {self.replay}"
        if self.abnormal:
            return f"{self.abnormal} abnormal" + (f" of {self.abnormal_type}" if self.abnormal_type else "")
        if self.fitted_on:
            return f"fitted on {self.fitted_on}"
        return f"transfer from {self.source.name}" if self.source is not None else self.setting

    def key(self, category: str) -> str:
        """Identity of the job's result for one category: the same question has the same key on every machine."""
        identity: dict[str, Any] = {
            "baseline": self.method.baseline,
            "options": dict(self.method.options),
            "method": self.method.name,
            "dataset": [self.dataset.name, self.dataset.layout],
            "categories": list(self.categories),
            "category": category,
            "setting": [self.setting, self.noise, self.replay],
            "source": [self.source.name, self.source.layout, list(self.source.categories)] if self.source else None,
            "shots": self.shots,
            "draw": self.draw,
            "seed": self.seed,
            "protocol": self.protocol.identity(),
            "listed": [list(names) if names else None for names in self.listed],
            "reserve": self.reserve,
        }
        if self.fitted_on:
            # Left out elsewhere: records from before there was this setting keep their keys.
            identity["fitted_on"] = self.fitted_on
        if self.abnormal:
            identity["abnormal"] = [self.abnormal, self.abnormal_type]
            if self.set_aside > self.abnormal:
                identity["set_aside"] = self.set_aside
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        what = self.categories[0] if len(self.categories) == 1 else f"{len(self.categories)} categories"
        shots = self.shots if self.shots == "full" else f"K={self.shots}"
        return f"{self.method.name} {self.dataset.name}/{what} {self.setting_name} {shots} draw {self.draw}"


@dataclass(frozen=True)
class Plan:
    """All that one benchmark measures.

    Attributes:
        name: Title of the report.
        methods: See `MethodPlan`.
        datasets: See `DatasetPlan`.
        shots: Numbers of good images, and `full`.
        draws: Support draws; for `full`, which has nothing to draw, as many seeds.
        settings: Which settings, each with its options.
        seed: Of everything random; the draw's number is added to it.
        protocol: How every method is measured.
    """

    name: str
    methods: tuple[MethodPlan, ...]
    datasets: tuple[DatasetPlan, ...]
    shots: tuple[Shots, ...]
    draws: int
    settings: tuple[tuple[Setting, Mapping[str, Any]], ...]
    seed: int
    protocol: Protocol

    def jobs(self) -> Iterator[Job]:
        """All jobs, the categories of one method and draw together; reads the datasets' folders.

        A category is not transferred to itself, a model of one category is tested where there are several, noise that
        comes to no image of a support set, or to all, is left out, and so are 0 images where a method needs some.

        Raises:
            BenchmarkError: A category or support list is absent, a list of the user's is too short, or noise leaves
                nothing to do.
        """
        from fewshot_ad.datasets import open_dataset
        from fewshot_ad.zoo import cards

        reserve = any(cards()[method.baseline].supervision == "labeled defects" for method in self.methods)
        for dataset in self.datasets:
            lists = shipped_lists(dataset.layout) if dataset.support is None else read_lists(dataset.support)
            present = open_dataset(dataset.layout, dataset.root).categories
            categories = dataset.categories or tuple(present)
            absent = sorted(set(categories) - set(present))
            if absent:
                raise BenchmarkError(
                    f"{dataset.name}: expected categories among {sorted(present)}, got {absent}. Check the plan."
                )
            for setting, options in self.settings:
                tested = _untransferred(dataset, categories, options.get("source"))
                together = setting in ("unified", "continual", "one-category")
                groups = ([tested] if tested else []) if together else [(c,) for c in tested]
                # A model of one category comes from each of them in turn.
                origins = tested if setting == "one-category" else ("",)
                if setting == "one-category" and len(tested) < 2:
                    continue
                for shots in _with_noise(self.shots, options):
                    for method in self.methods:
                        if not can_run(setting, shots, cards()[method.baseline].zero_shot):
                            continue
                        for draw in range(self.draws):
                            for group, origin in itertools.product(groups, origins):
                                listed = tuple(self._listed(dataset, lists, c, shots, draw) for c in group)
                                job = self._job(method, dataset, group, setting, options, shots, draw, listed, reserve)
                                yield dataclasses.replace(job, fitted_on=origin) if origin else job

    def idle(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Notes on settings of which the plan's jobs have none."""
        reasons = {
            "transfer": "nothing but itself is there to transfer to",
            "one-category": "a model of one category needs others to be tested on",
            "noisy": "the noise comes to no image of any support set, or to all",
        }
        for setting, options in self.settings:
            if not any(_is_of(job, setting, options) for job in jobs):
                reason = reasons.get(setting, "no method takes these shots")
                yield f"{self.name}: the setting {setting} makes no job: {reason}. The others run."

    def keys(self) -> set[str]:
        """The keys of all records that the plan asks for."""
        return {job.key(category) for job in self.jobs() for category in job.categories}

    def _listed(
        self, dataset: DatasetPlan, lists: Lists, category: str, shots: Shots, draw: int
    ) -> tuple[str, ...] | None:
        if shots == "full":
            return None
        names = lists.get((printable(category), draw))
        if dataset.support is not None and any(printable(category) == listed for listed, _ in lists):
            count = 0 if names is None else len(names)
            if count < shots:
                most = max(s for s in self.shots if s != "full")
                raise BenchmarkError(
                    f"{dataset.support}: expected at least {shots} names of {category}, draw {draw}, got {count}. Add "
                    f"them, or write whole lists with `fewshot-ad benchmark lists {dataset.layout} {dataset.root} "
                    f"--shots {most} --draws {self.draws} -o FILE`."
                )
        return None if names is None else names[:shots]

    def _job(
        self,
        method: MethodPlan,
        dataset: DatasetPlan,
        categories: tuple[str, ...],
        setting: Setting,
        options: Mapping[str, Any],
        shots: Shots,
        draw: int,
        listed: tuple[tuple[str, ...] | None, ...],
        reserve: bool,
    ) -> Job:
        if setting == "few-shot":
            setting = "full-shot" if shots == "full" else "zero-shot" if shots == 0 else setting
        return Job(
            method,
            dataset,
            categories,
            setting,
            shots,
            draw,
            self.seed + draw,
            self.protocol,
            noise=float(options.get("noise", 0.0)),
            replay=int(options.get("replay", 0)),
            source=options.get("source"),
            listed=listed,
            reserve=reserve and setting != "few-abnormal",
            abnormal=int(options.get("count", 0)),
            abnormal_type=str(options.get("defect_type") or ""),
            set_aside=self._set_aside(options),
        )

    def _set_aside(self, options: Mapping[str, Any]) -> int:
        """The largest number of labeled images of a setting's type of defect, over all settings `few-abnormal`."""
        kind = options.get("defect_type")
        return max(
            (int(o["count"]) for _, o in self.settings if "count" in o and o.get("defect_type") == kind), default=0
        )


def _is_of(job: Job, setting: Setting, options: Mapping[str, Any]) -> bool:
    """Whether a job is of a setting of its plan."""
    settings = ("few-shot", "full-shot", "zero-shot") if setting == "few-shot" else (setting,)
    own = (job.source, job.noise, job.replay, job.abnormal, job.abnormal_type)
    asked = (options.get("source"), float(options.get("noise", 0.0)), int(options.get("replay", 0)))
    return job.setting in settings and own == (
        *asked,
        int(options.get("count", 0)),
        str(options.get("defect_type") or ""),
    )


def can_run(setting: Setting, shots: Shots, zero_shot: bool) -> bool:
    """Whether a method can be measured with so many images in a setting: 0 are none to learn from.

    Args:
        setting: The setting.
        shots: Good images per category, or `full`.
        zero_shot: Whether the method judges without having seen any image.
    """
    return shots != 0 or setting == "transfer" or (setting == "few-shot" and zero_shot)


def _untransferred(dataset: DatasetPlan, categories: tuple[str, ...], source: DatasetPlan | None) -> tuple[str, ...]:
    """The categories of a dataset that are none of those that a model is transferred from."""
    if source is None or (source.layout, source.root) != (dataset.layout, dataset.root):
        return categories
    return tuple(c for c in categories if source.categories and c not in source.categories)


def _with_noise(all_shots: tuple[Shots, ...], options: Mapping[str, Any]) -> list[Shots]:
    """The shots of which a share of noise is at least one image, and not all."""
    noise = float(options.get("noise", 0.0))
    some = [s for s in all_shots if noise == 0 or s == "full" or 0 < round(noise * s) < s]
    if not some:
        raise BenchmarkError(
            f"settings: noisy: {100 * noise:g}% of {list(all_shots)} images are none, or all. Take other shots, "
            "or another noise."
        )
    return some
