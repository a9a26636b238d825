"""The shell commands of benchmarks: run a plan, report what is on record, write support lists."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from fewshot_ad.cli.options import (
    CurvesOption,
    DownloadOption,
    ForceOption,
    JsonOption,
    MonitorOption,
    ZooDeviceOption,
    training_curves,
)
from fewshot_ad.cli.outputs import check_text
from fewshot_ad.cli.terminal import EXIT_ERROR, EXIT_GOOD, print_json, progress_bar, reported_errors, say, say_note
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.storage import write_atomically, write_failure

if TYPE_CHECKING:
    from fewshot_ad.arrays import Progress
    from fewshot_ad.benchmark.plan import Job
    from fewshot_ad.benchmark.record import Record
    from fewshot_ad.benchmark.run import Observer, Runner, RunState
    from fewshot_ad.zoo.components.curves import Curves

RunnerName: TypeAlias = Literal["in-process", "processes", "ray"]
SchemaName: TypeAlias = Literal["plan", "record", "support-lists", "recipe", "distillation"]
# Options that one runner alone understands.
RUNNER_OPTIONS: Mapping[str, RunnerName] = {
    **dict.fromkeys(("workers", "limit"), "processes"),
    **dict.fromkeys(("ray_address", "cpus", "memory", "gpus", "retries"), "ray"),
}

# A backslash before each bracket that opens a word: it would be a tag of rich's markup, and not be shown.
commands = typer.Typer(
    no_args_is_help=True,
    help=r"""Measure methods of the zoo under one protocol (extra 'zoo').

A plan in YAML says which methods, datasets, shots, draws and settings:

  methods:
    ours: {baseline: fewshot_ad}
    patchcore: {options: {image_size: 256}}
    as published: {baseline: anomalib_patchcore, configuration: published, options: {weights: wrn50.safetensors}}
  datasets:
    mvtec: {root: /data/mvtec, categories: \[bottle, cable]}
  shots: [1, 2, 4, 8, full]
  draws: 3
  settings: \[few-shot, unified, {noisy: {noise: 0.1}}, {continual: {replay: 2}}]
  protocol: {test_limit: 60, pixel_side: 256}
""",
)


@commands.command("run")
def run(
    context: typer.Context,
    plan: Annotated[Path, typer.Argument(help="The plan, a YAML file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The record, one line of JSON per job; it is added to.")],
    *,
    runner: Annotated[
        RunnerName,
        typer.Option(help="in-process: one job after the other; processes: each in its own; ray: on a Ray cluster."),
    ] = "processes",
    workers: Annotated[int, typer.Option(min=1, help="Jobs at a time, for processes.")] = 1,
    limit: Annotated[float | None, typer.Option(help="Most seconds per job, for processes. Default: no limit.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster: auto, or ray://host:10001. Default: a local one.")
    ] = None,
    cpus: Annotated[int, typer.Option(min=1, help="Processors per job, for ray.")] = 1,
    memory: Annotated[int | None, typer.Option(min=1, help="Memory per job in megabytes, for ray.")] = None,
    gpus: Annotated[float, typer.Option(min=0, help="Graphics processors per job, for ray.")] = 0.0,
    retries: Annotated[int, typer.Option(min=0, help="Tries after a worker is lost, for ray.")] = 3,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what is on record as failed.")
    ] = False,
    device: ZooDeviceOption = None,
    monitor: MonitorOption = None,
    curves: CurvesOption = None,
    allow_download: DownloadOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the jobs that are left, and do none.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Do what a plan asks for and what is not on record yet; start it again after any interruption."""
    with reported_errors(as_json):
        # First, since the module of the runs needs the baselines' libraries, and this names the extra that has them.
        importlib.import_module("fewshot_ad.zoo")
        from fewshot_ad.benchmark.plan_file import read_plan
        from fewshot_ad.benchmark.run import pending, run_plan
        from fewshot_ad.zoo.placement import check_device

        _check_runner(context, runner, limit)
        # On other computers there may be no such folder.
        drawn = training_curves(monitor, curves, out, by_default=runner != "ray")
        benchmark_plan = read_plan(plan)
        if device is not None and runner != "ray":
            check_device(device)
        if dry_run:
            for job in pending(benchmark_plan, out, retry_failed, say_note):
                print_json("benchmark-job", {"job": str(job)}) if as_json else say(str(job))
            return
        ray_options = {"address": ray_address, "cpus": cpus, "memory_mb": memory, "gpus": gpus, "retries": retries}
        with progress_bar(as_json) as progress:
            shown = _JobProgress(progress) if progress is not None else None
            used = _runner(runner, workers, limit, ray_options, drawn, shown)
            states = run_plan(benchmark_plan, out, used, retry_failed, say_note, allow_download, device=device or "cpu")
            failures = _follow(states, as_json, shown)
    raise typer.Exit(EXIT_ERROR if failures else EXIT_GOOD)


def _check_runner(context: typer.Context, name: RunnerName, limit: float | None) -> None:
    """Refuse options that the runner would ignore.

    Raises:
        BenchmarkError: There is one, or the limit is no time.
    """
    for option, only in RUNNER_OPTIONS.items():
        source = context.get_parameter_source(option)
        if name != only and source is not None and source.name == "COMMANDLINE":
            flag = f"--{option.replace('_', '-')}"
            raise BenchmarkError(f"expected {flag} with --runner {only} only, got it with {name}. Leave it out.")
    if limit is not None and not 0 < limit < float("inf"):
        raise BenchmarkError(f"--limit: expected seconds above 0, got {limit:g}.")


def _runner(
    name: RunnerName,
    workers: int,
    limit: float | None,
    ray_options: dict[str, Any],
    curves: Curves | None,
    observe: Observer | None,
) -> Runner:
    from fewshot_ad.benchmark.run import in_process, processes

    if name == "ray":
        from fewshot_ad.benchmark.ray_runner import on_ray

        return on_ray(**ray_options, curves=curves, observe=observe)
    if name == "in-process":
        return partial(in_process, curves=curves, observe=observe)
    return processes(workers, limit, curves, observe)


class _JobProgress:
    """Shows how far the run is, and each running job.

    Args:
        progress: Called as `progress(what, done, total)`.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._running: dict[str, tuple[str, int]] = {}

    def __call__(self, job: Job, stage: str, done: int, total: int) -> None:
        """How far a job is; see `run.Observer`."""
        what = f"{job}: {stage}"
        self._running[str(job)] = what, total
        self._progress(what, done, total)

    def ended(self, state: RunState) -> None:
        """How far the run is; a job that ended, even in the middle of something, is shown no longer."""
        if state.last is not None and str(state.last) in self._running:
            what, total = self._running.pop(str(state.last))
            self._progress(what, total, total)
        self._progress("jobs", state.jobs, state.total)


def _follow(states: Iterator[RunState], as_json: bool, shown: _JobProgress | None) -> int:
    """Show how a run goes on, to its end; returns how many jobs failed, now or before."""
    failures = 0
    for state in states:
        failures = state.failures
        if shown is not None:
            shown.ended(state)
        _print_state(state, as_json)
    return failures


def _print_state(state: RunState, as_json: bool) -> None:
    if as_json:
        records = [dataclasses.asdict(record) for record in state.records]
        counts = {"jobs": state.jobs, "total": state.total, "failures": state.failures}
        print_json("benchmark-run", {**counts, "records": records})
    elif state.last is None:
        say(f"{state.jobs} of {state.total} jobs are on record, {state.failures} of them failed")
    else:
        for record in state.records:
            outcome = _figures(record) if record.status == "done" else record.reason
            say(f"{state.jobs}/{state.total} {record.status}  {state.last} {record.category}: {outcome}")


def _figures(record: Record) -> str:
    from fewshot_ad.benchmark.departures import means_nothing

    names = [name for name in ("image_auroc", "pixel_auroc", "au_pro") if name in record.figures]
    figures = ", ".join(f"{name} {record.figures[name]:.3f}" for name in names)
    random = ", RANDOM WEIGHTS: the figures mean nothing" if means_nothing(record.differs) else ""
    return f"{figures}, fit {record.fit_s:.1f} s, {record.ms:.1f} ms{random}"


@commands.command("report")
def report(
    record: Annotated[list[Path], typer.Argument(help="Record files.")],
    html: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV table.")] = None,
    by_category: Annotated[
        bool,
        typer.Option("--by-category", help="In CSV and JSON, add rows for each category after the averages."),
    ] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown tables. Default: print them.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Write LaTeX tables.")] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Benchmark",
    plan: Annotated[
        Path | None, typer.Option(help="Report only what this plan asks for. Default: all that is on record.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write or print tables of what is on record: a page, CSV, Markdown, LaTeX."""
    with reported_errors(as_json):
        from fewshot_ad.benchmark import tables
        from fewshot_ad.benchmark.published import published
        from fewshot_ad.benchmark.report import write_report

        if by_category and csv is None and not as_json:
            raise BenchmarkError("expected --by-category with --csv FILE or --json, got it alone: it is for these.")
        written = _checked_outputs(html, csv, markdown, latex, inputs=[*record, *([plan] if plan else [])], force=force)
        records = _records(record, plan)
        if html is not None:
            folders = [path.parent for path in record]
            write_report(records, html, title=title, published=published(), overlays_folder=folders)
        if csv is not None:
            _write(csv, tables.csv(records, by_category))
        if markdown is not None:
            _write(markdown, tables.markdown(records, published=published()))
        if latex is not None:
            _write(latex, tables.latex(records))
    if as_json:
        rows = tables.plain(records, by_category)
        print_json("benchmark-report", {"records": len(records), "rows": rows, "written": written})
    elif written:
        say(f"{len(records)} records -> {', '.join(written)}")
    else:
        for line in tables.markdown(records, published=published()).splitlines():
            say(line)


def _checked_outputs(
    html: Path | None,
    csv: Path | None,
    markdown: Path | None,
    latex: Path | None,
    *,
    inputs: list[Path],
    force: bool,
) -> list[str]:
    """The files to write, in this order.

    Raises:
        BenchmarkError: One would replace what must stay, or another one of them.
    """
    from fewshot_ad.benchmark import tables
    from fewshot_ad.benchmark.report import check_page

    written = [path for path in (html, csv, markdown, latex) if path is not None]
    if len({path.resolve() for path in written}) < len(written):
        raise BenchmarkError("expected a file of its own for each output, got one twice. Choose another name.")
    if html is not None:
        check_page(html, inputs)
    check_text(csv, tables.CSV_START, inputs, force=force, error=BenchmarkError)
    check_text(markdown, tables.MARKDOWN_START, inputs, force=force, error=BenchmarkError)
    check_text(latex, tables.LATEX_START, inputs, force=force, error=BenchmarkError)
    return [str(path) for path in written]


def _records(files: list[Path], plan: Path | None) -> list[Record]:
    """What is on record, or what of it a plan asks for.

    Raises:
        BenchmarkError: A file is missing, nothing is left, or the records were not measured alike.
    """
    from fewshot_ad.benchmark import record as ledger
    from fewshot_ad.benchmark.plan_file import read_plan

    for path in files:
        if not os.path.isfile(path):
            kind = "a folder" if os.path.isdir(path) else "a pipe or a device" if os.path.exists(path) else "nothing"
            raise BenchmarkError(f"expected a record file at {path}, got {kind}. `benchmark run` writes them.")
    records = [record for path in files for record in ledger.read(path, say_note)]
    if plan is not None:
        keys = read_plan(plan).keys()
        records = [record for record in records if record.key in keys]
    if not records:
        raise BenchmarkError(f"expected records in {files[0]}, found none that count. `benchmark run` writes them.")
    ledger.comparable(records)
    return records


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise BenchmarkError(write_failure(path, error)) from error


@commands.command("lists")
def lists(
    layout: Annotated[str, typer.Argument(help="Layout of the dataset, see `fewshot-ad datasets`.")],
    root: Annotated[Path, typer.Argument(help="Folder of the local copy.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The text file to write.")],
    draws: Annotated[int, typer.Option(min=1, help="Number of support draws.")] = 3,
    shots: Annotated[int, typer.Option(min=1, help="File names per draw; K shots are the first K of them.")] = 8,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the support lists that follow from a dataset's file names, to fix them or to change them by hand."""
    with reported_errors(as_json):
        from fewshot_ad.benchmark.material import good_names
        from fewshot_ad.benchmark.support import HEADING, check_unchanged, lists_text, support_names

        check_text(out, HEADING, [], force=force, error=BenchmarkError)
        categories = good_names(layout, root)
        drawn = {
            (category, draw): tuple(support_names(names, category, min(shots, len(names)), draw, None))
            for category, names in categories.items()
            for draw in range(draws)
        }
        if not force:
            check_unchanged(out, drawn)
        _write(out, lists_text(drawn))
    if as_json:
        print_json("benchmark-lists", {"file": str(out), "categories": sorted(categories), "draws": draws})
    else:
        say(f"{len(categories)} categories, {draws} draws -> {out}")


@commands.command("schema")
def schema(kind: Annotated[SchemaName, typer.Argument(help="Which file.")] = "plan") -> None:
    """Print the JSON Schema of a plan, a line of a record, support lists, or a recipe (extra 'export')."""
    with reported_errors(False):
        from fewshot_ad.benchmark.schemas import schema as describe

        try:
            described = describe(kind)
        except ModuleNotFoundError as error:
            raise BenchmarkError(
                f"the schema of a recipe needs the extra 'export' (no module {error.name}): "
                "pip install 'fewshot-ad[export]'."
            ) from error
    say(json.dumps(described, allow_nan=False))
