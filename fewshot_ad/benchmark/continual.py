"""The continual setting: categories come one after the other, and what is learned last may push out what came first."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from fewshot_ad import metrics
from fewshot_ad.arrays import Progress
from fewshot_ad.benchmark.job import Outcome, create_method, fit_method, measure
from fewshot_ad.benchmark.material import Material, material, sample_name
from fewshot_ad.benchmark.plan import Job
from fewshot_ad.datasets.sample import Sample
from fewshot_ad.zoo import Method


def run_continual(job: Job, progress: Progress | None = None) -> list[Outcome]:
    """Fit on each category in turn, each time with `replay` images of every earlier one, and test on all so far.

    The zoo's methods keep nothing from one fit to the next, so the replayed images alone carry over: no image is the
    worst case, all of them the unified model.

    Returns:
        One outcome per category: the figures after the last step, and as `forgetting` how much image AUROC the
        category had lost by then since its best step (Chaudhry et al. 2018).
    """
    parts = material(job)
    # accuracy[t][j]: image AUROC of category j after step t.
    accuracy: list[list[float]] = []
    outcomes: list[Outcome] = []
    for step, newest in enumerate(job.categories):
        earlier = job.categories[:step]
        support = [s for category in earlier for s in parts[category].support[: job.replay]]
        support += parts[newest].support
        method, seconds = _fit(job, support, parts[newest], progress)
        # Intervals and overlays are of the last step alone.
        last = step == len(job.categories) - 1
        quiet = dataclasses.replace(job.protocol, bootstrap=0, overlays=0)
        step_job = job if last else dataclasses.replace(job, protocol=quiet)
        names = [sample_name(sample, job.dataset.root) for sample in support]
        outcomes = [
            measure(step_job, category, method, parts[category], support, names, seconds, progress)
            for category in (*earlier, newest)
        ]
        accuracy.append([outcome.record.figures.get("image_auroc", float("nan")) for outcome in outcomes])
    return [*map(_with_forgetting, outcomes[:-1], metrics.forgetting_by_task(accuracy)), outcomes[-1]]


def _with_forgetting(outcome: Outcome, forgetting: float) -> Outcome:
    if np.isnan(forgetting):
        # A category without good or without defective test images has no AUROC to lose.
        return outcome
    record = dataclasses.replace(outcome.record, figures={**outcome.record.figures, "forgetting": forgetting})
    return dataclasses.replace(outcome, record=record)


def _fit(job: Job, support: list[Sample], newest: Material, progress: Progress | None) -> tuple[Method, float]:
    method = create_method(job)
    start = time.perf_counter()
    fit_method(job, method, support, newest.labeled, progress)
    return method, time.perf_counter() - start
