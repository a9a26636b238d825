"""Run a plan: skip what is on record, hand the rest to a runner, append what comes back."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import multiprocessing.connection
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import torch

from fewshot_ad.arguments import flag
from fewshot_ad.arrays import Progress
from fewshot_ad.benchmark import record as ledger
from fewshot_ad.benchmark.continual import run_continual
from fewshot_ad.benchmark.job import Outcome, failure, run_single_fit
from fewshot_ad.benchmark.machine import forget_peak
from fewshot_ad.benchmark.missing_weights import missing_weights
from fewshot_ad.benchmark.partial_copies import partial_copies, too_few_images, without_positions
from fewshot_ad.benchmark.plan import Job, Plan
from fewshot_ad.benchmark.record import Record
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.host.cores import pin_to
from fewshot_ad.storage import check_output, write_atomically, write_failure
from fewshot_ad.zoo.components.curves import Curves
from fewshot_ad.zoo.method import FROM_TIMM, cards

logger = logging.getLogger(__name__)
Runner: TypeAlias = Callable[[Sequence[Job]], Iterator[tuple[Job, list[Outcome]]]]
# Called as `observe(job, stage, done, total)` while a job runs.
Observer: TypeAlias = Callable[[Job, str, int, int], None]
# Between two reports of a job in a process of its own.
REPORT_INTERVAL_S = 0.5


@dataclass(frozen=True)
class RunState:
    """How far a run has come.

    Attributes:
        jobs: Jobs that ended, those on record before the run included.
        total: All jobs of the plan.
        failures: Jobs that failed, now or before.
        last: The job that ended last; None at the start.
        records: Its records.
    """

    jobs: int
    total: int
    failures: int
    last: Job | None
    records: tuple[Record, ...] = ()


def run_plan(
    plan: Plan,
    out: Path,
    runner: Runner,
    retry_failed: bool = False,
    note: Callable[[str], None] = logger.warning,
    allow_download: bool = False,
    device: str = "cpu",
) -> Iterator[RunState]:
    """Do what a plan asks for and what is not on record yet.

    Stopped at any point, by a kill too, and started again, it goes on with the jobs that had not ended.

    Args:
        plan: What is to be measured.
        out: The record file (JSONL); pictures go into `overlays` beside it.
        runner: Where jobs run: `in_process`, `processes` or `ray_runner.on_ray`.
        retry_failed: Whether jobs on record as failed are tried again.
        note: Called with what is to be known of the record file, see `record.read`, and of copies of datasets that lack
            something, and of weights that are not there.
        allow_download: Whether timm may fetch weights from the internet, as the option `weights: timm` asks for.
        device: Where methods compute whose options do not say: `cpu`, `cuda` or `cuda:N`. Results of one device count
            as done for all; each record says its own.

    Yields:
        The state at the start and after each job.

    Raises:
        BenchmarkError: The plan makes no job, asks for weights that may not be fetched, or the record file cannot be
            read or written.
    """
    flag(retry_failed, "retry_failed", BenchmarkError)
    fetching = [method.name for method in plan.methods if method.options.get("weights") == FROM_TIMM]
    if fetching and not allow_download:
        raise BenchmarkError(
            f"{', '.join(fetching)}: expected permission to fetch weights from the internet, which `weights: "
            f"{FROM_TIMM}` asks for, got none. Give allow_download=True (--allow-download), or files of weights."
        )
    # Before there is a record file: a plan whose datasets cannot be read leaves none.
    jobs = [dataclasses.replace(job, device=device) for job in _jobs(plan)]
    with ledger.alone(out):
        known = {record.key: record for record in ledger.read(out, note)}
        left = [job for job in jobs if not _ended(job, known, retry_failed)]
        ended = len(jobs) - len(left)
        recorded = [job for job in jobs if _ended(job, known, retry_failed)]
        failures = sum(any(_status(job, c, known) == "failed" for c in job.categories) for job in recorded)
        for text in (*plan.idle(jobs), *lacking(left)):
            note(text)
        yield RunState(ended, len(jobs), failures, None)
        for job, outcomes in runner(left):
            for outcome in outcomes:
                _keep_pictures(outcome, out.parent)
                ledger.append(out, outcome.record)
            ended += 1
            records = tuple(outcome.record for outcome in outcomes)
            failures += any(record.status == "failed" for record in records)
            yield RunState(ended, len(jobs), failures, job, records)


def pending(
    plan: Plan, out: Path, retry_failed: bool = False, note: Callable[[str], None] = logger.warning
) -> list[Job]:
    """The jobs of a plan that are not on record yet; arguments as for `run_plan`."""
    known = {record.key: record for record in ledger.read(out, note)}
    jobs = _jobs(plan)
    left = [job for job in jobs if not _ended(job, known, retry_failed)]
    for text in (*plan.idle(jobs), *lacking(left)):
        note(text)
    return left


def lacking(jobs: Sequence[Job]) -> Iterator[str]:
    """Sentences on what jobs lack, for a user to read before any of them starts."""
    for look in (partial_copies, too_few_images, without_positions, missing_weights):
        yield from look(jobs)


def _jobs(plan: Plan) -> list[Job]:
    jobs = list(plan.jobs())
    if not jobs:
        raise BenchmarkError(
            f"{plan.name}: expected a plan that makes at least one job, got none. Name another dataset to transfer to, "
            "or check that the datasets' folders hold images of a category."
        )
    return jobs


def _keep_pictures(outcome: Outcome, folder: Path) -> None:
    for name, content in outcome.pictures.items():
        path = folder / name
        check_output(path, error=BenchmarkError)
        try:
            write_atomically(path, content, durable=False)
        except OSError as error:
            raise BenchmarkError(f"{write_failure(path, error)} Start the same plan again then.") from error


def _ended(job: Job, known: dict[str, Record], retry_failed: bool) -> bool:
    statuses = [_status(job, category, known) for category in job.categories]
    return all(s == "done" or (s == "failed" and not retry_failed) for s in statuses)


def _status(job: Job, category: str, known: dict[str, Record]) -> str:
    record = known.get(job.key(category))
    return record.status if record is not None else "pending"


def attempt(job: Job, curves: Curves | None = None, progress: Progress | None = None) -> list[Outcome]:
    """Do a job in the way of its setting; whatever goes wrong in it is its record, and never stops the others.

    Args:
        job: The job.
        curves: Where its training curves go; None = nowhere.
        progress: Called as `progress(stage, done, total)`.
    """
    forget_peak()
    try:
        drawn = curves is not None and cards()[job.method.baseline].trains
        with curves.drawn(str(job)) if curves is not None and drawn else contextlib.nullcontext():
            return run_continual(job, progress) if job.setting == "continual" else run_single_fit(job, progress)
    except Exception as error:
        logger.debug("%s failed:\n%s", job, traceback.format_exc())
        return failure(job, f"{type(error).__name__}: {error}")


def in_process(
    jobs: Sequence[Job], curves: Curves | None = None, observe: Observer | None = None
) -> Iterator[tuple[Job, list[Outcome]]]:
    """One after the other in this process; memory is that of all jobs so far.

    Args:
        jobs: What is to be done.
        curves: Where training curves go; None = nowhere.
        observe: See `Observer`.
    """
    for job in jobs:
        yield job, attempt(job, curves, functools.partial(observe, job) if observe is not None else None)


def processes(
    workers: int, limit_s: float | None = None, curves: Curves | None = None, observe: Observer | None = None
) -> Runner:
    """A runner with a process of its own for each job, so that a crash or too much memory takes that job alone.

    Each of the workers keeps to its share of the processors, where the system can do that.

    Args:
        workers: Jobs at one time.
        limit_s: Seconds after which a job is stopped and recorded as failed; None = no limit.
        curves: Where training curves go; None = nowhere.
        observe: See `Observer`.
    """
    if workers < 1:
        raise BenchmarkError(f"expected at least one worker, got {workers}.")
    context = multiprocessing.get_context("spawn")

    def runner(jobs: Sequence[Job]) -> Iterator[tuple[Job, list[Outcome]]]:
        waiting = list(reversed(jobs))
        free = shares(workers)
        running: dict[Any, _Running] = {}
        try:
            while waiting or running:
                while waiting and free:
                    job, cpus = waiting.pop(), free.pop()
                    receiver, sender = context.Pipe(duplex=False)
                    process = context.Process(target=_work, args=(job, len(cpus), sender, curves), daemon=True)
                    with pin_to(cpus):
                        process.start()
                    sender.close()
                    running[receiver] = _Running(job, cpus, process, time.monotonic())
                ready = multiprocessing.connection.wait(list(running), timeout=1.0)
                for receiver, one in list(running.items()):
                    outcomes = _received(one, receiver, observe) if receiver in ready else None
                    if outcomes is None and limit_s is not None and time.monotonic() - one.started > limit_s:
                        one.process.terminate()
                        outcomes = failure(one.job, f"stopped after the limit of {limit_s:g} s.")
                    if outcomes is not None:
                        _end(one.process, receiver)
                        del running[receiver]
                        free.append(one.cpus)
                        yield one.job, outcomes
        finally:
            for one in running.values():
                one.process.terminate()

    return runner


@dataclass(frozen=True)
class _Running:
    job: Job
    cpus: tuple[int, ...]
    process: Any
    started: float


def shares(workers: int) -> list[tuple[int, ...]]:
    """The processors of this machine in equal shares; at least one per worker, shared where there are too few."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    size = max(1, len(cpus) // workers)
    return [tuple(cpus[(i * size + k) % len(cpus)] for k in range(size)) for i in range(workers)]


def _work(job: Job, threads: int, sender: Any, curves: Curves | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit_threads(threads)
    try:
        sender.send(attempt(job, curves, now_and_then(lambda *message: sender.send(message))))
    except BrokenPipeError:
        # The run was stopped meanwhile; the job counts as not done.
        return


def now_and_then(send: Progress) -> Progress:
    """The progress of a job, sent to the run now and then; the last step of a stage always."""
    last = 0.0

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last >= REPORT_INTERVAL_S:
            last = time.monotonic()
            send(stage, done, total)

    return report


def _end_with_parent() -> None:
    """A worker whose run was killed must not go on beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def limit_threads(threads: int) -> None:
    """Keep OpenCV and torch to so many CPU threads in this process."""
    cv2.setNumThreads(threads)
    torch.set_num_threads(threads)


def _received(one: _Running, receiver: Any, observe: Observer | None) -> list[Outcome] | None:
    """What a job sent: its outcomes, or how far it is, which is passed on."""
    try:
        message: list[Outcome] | tuple[str, int, int] = receiver.recv()
    except (EOFError, OSError, pickle.UnpicklingError):
        # Nothing came, or it was cut short.
        one.process.join()
        code = one.process.exitcode
        why = f"signal {-code}, perhaps out of memory" if code is not None and code < 0 else f"exit code {code}"
        return failure(one.job, f"its process died ({why}).")
    if isinstance(message, list):
        return message
    if observe is not None:
        observe(one.job, *message)
    return None


def _end(process: Any, receiver: Any) -> None:
    receiver.close()
    process.join(10)
    if process.is_alive():
        process.kill()
        process.join()
