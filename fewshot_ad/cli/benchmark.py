"""Shell commands around benchmarks: run a plan, report what is on record, fix support lists."""

from __future__ import annotations

import dataclasses
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_ad.cli.options import JsonOption
from fewshot_ad.cli.terminal import EXIT_ERROR, EXIT_GOOD, print_json, progress_bar, reported_errors, say
from fewshot_ad.errors import BenchmarkError

if TYPE_CHECKING:
    from fewshot_ad.benchmark.run import Runner, RunState

benchmark_app = typer.Typer(
    no_args_is_help=True,
    help="""Measure methods of the zoo under one protocol (extra 'zoo').

A plan in YAML says which methods, datasets, shots, draws and settings:

  methods: {ours: {baseline: fewshot_ad}, patchcore: {options: {image_size: 256}}}

  datasets: {mvtec: {root: /data/mvtec, categories: [bottle, cable]}}

  shots: [1, 2, 4, 8, full]

  draws: 3

  settings: [few-shot, unified, {noisy: {noise: 0.1}}, {continual: {replay: 2}}]

  protocol: {test_limit: 60, pixel_side: 256}""",
)


class RunnerOption(str, Enum):
    """Runners by name."""

    in_process = "in-process"
    processes = "processes"
    ray = "ray"


@benchmark_app.command("run")
def run(
    plan: Annotated[Path, typer.Argument(help="The plan, a YAML file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The record, one line of JSON a job; added to.")],
    runner: Annotated[
        RunnerOption,
        typer.Option(help="in-process: one job after the other; processes: each in its own; ray: on a Ray cluster."),
    ] = RunnerOption.processes,
    workers: Annotated[int, typer.Option(min=1, help="Jobs at a time, for processes.")] = 1,
    limit: Annotated[float | None, typer.Option(help="Seconds a job may take, for processes.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster: auto, or ray://host:10001. Default: a local one.")
    ] = None,
    cpus: Annotated[int, typer.Option(min=1, help="Processors a job, for ray.")] = 1,
    memory: Annotated[int | None, typer.Option(help="Memory a job in megabytes, for ray.")] = None,
    gpus: Annotated[float, typer.Option(min=0, help="Graphics processors a job, for ray.")] = 0.0,
    retries: Annotated[int, typer.Option(min=0, help="Tries after a worker is lost, for ray.")] = 3,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what is on record as failed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the jobs that are left, and do none.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Do what a plan asks for and what is not on record yet; start it again after any interruption."""
    with reported_errors(as_json):
        from fewshot_ad.benchmark.plan_file import read_plan
        from fewshot_ad.benchmark.run import pending, run_plan

        made = read_plan(plan)
        if dry_run:
            for job in pending(made, out, retry_failed):
                print_json({"job": str(job)}) if as_json else say(str(job))
            return
        with progress_bar(as_json) as progress:
            state = None
            on_ray = {"address": ray_address, "cpus": cpus, "memory_mb": memory, "gpus": gpus, "retries": retries}
            chosen = _runner(runner, workers, limit, on_ray)
            for state in run_plan(made, out, chosen, retry_failed):
                if progress is not None:
                    progress("jobs", state.jobs, state.total)
                _tell(state, as_json)
    if state is not None and state.failures:
        raise typer.Exit(EXIT_ERROR)
    raise typer.Exit(EXIT_GOOD)


def _runner(name: RunnerOption, workers: int, limit: float | None, ray_options: dict[str, Any]) -> Runner:
    from fewshot_ad.benchmark.run import in_process, processes

    if limit is not None and name != RunnerOption.processes:
        raise BenchmarkError(f"expected --limit with --runner processes only, got {name.value}: it cannot stop a job.")
    if name == RunnerOption.ray:
        from fewshot_ad.benchmark.ray_runner import on_ray

        return on_ray(**ray_options)
    return in_process if name == RunnerOption.in_process else processes(workers, limit)


def _tell(state: RunState, as_json: bool) -> None:
    if as_json:
        records = [dataclasses.asdict(record) for record in state.records]
        print_json({"jobs": state.jobs, "total": state.total, "failures": state.failures, "records": records})
    elif state.last is None:
        say(f"{state.jobs} of {state.total} jobs are on record, {state.failures} of them failed")
    else:
        for record in state.records:
            shown = record.reason
            if record.status == "done":
                names = ("image_auroc", "pixel_auroc", "au_pro")
                shown = ", ".join(f"{n} {record.figures[n]:.3f}" for n in names if n in record.figures)
                shown += f", fit {record.fit_s:.1f} s, {record.ms:.1f} ms"
            say(f"{state.jobs}/{state.total} {record.status}  {state.last} {record.category}: {shown}")


@benchmark_app.command("report")
def report(
    record: Annotated[list[Path], typer.Argument(help="Record files.")],
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV table.")] = None,
    by_category: Annotated[
        bool, typer.Option("--by-category", help="In the CSV table, lines of each category after the averages.")
    ] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown tables. Default: print them.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Write LaTeX tables.")] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Benchmark",
    plan: Annotated[Path | None, typer.Option(help="Only what this plan asks for. Default: all that is there.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Tables of what is on record: a page, CSV, Markdown, LaTeX."""
    with reported_errors(as_json):
        from fewshot_ad.benchmark import record as ledger
        from fewshot_ad.benchmark import tables
        from fewshot_ad.benchmark.plan_file import read_plan
        from fewshot_ad.benchmark.published import published
        from fewshot_ad.benchmark.report import write_report

        if by_category and csv is None:
            raise BenchmarkError("expected --by-category with --csv FILE, got it alone: it is for that table.")
        missing = [str(path) for path in record if not path.is_file()]
        if missing:
            raise BenchmarkError(f"expected a record file at {missing[0]}, found none. `benchmark run` writes them.")
        records = [one for path in record for one in ledger.read(path)]
        if plan is not None:
            keys = read_plan(plan).keys()
            records = [one for one in records if one.key in keys]
        if not records:
            raise BenchmarkError(
                f"expected records in {record[0]}, found none that count. `benchmark run` writes them."
            )
        ledger.comparable(records)
        if html is not None:
            folders = [path.parent for path in record]
            write_report(records, html, title=title, published=published(), overlays_folder=folders)
        if csv is not None:
            _write(csv, tables.csv(records, by_category))
        if markdown is not None:
            _write(markdown, tables.markdown(records, published=published()))
        if latex is not None:
            _write(latex, tables.latex(records))
        written = [str(path) for path in (html, csv, markdown, latex) if path is not None]
    if as_json:
        print_json({"records": len(records), "written": written})
    elif written:
        say(f"{len(records)} records -> {', '.join(written)}")
    else:
        say(tables.markdown(records, published=published()))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be written ({error.strerror}). Choose another place.") from error


@benchmark_app.command("lists")
def lists(
    layout: Annotated[str, typer.Argument(help="Layout of the dataset, see `fewshot-ad datasets`.")],
    root: Annotated[Path, typer.Argument(help="Folder of the local copy.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The text file to write.")],
    draws: Annotated[int, typer.Option(min=1, help="Support draws.")] = 3,
    shots: Annotated[int, typer.Option(min=1, help="File names a draw; K shots are the first K of them.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Write the support lists that a dataset's file names give, to fix them or to change them by hand."""
    with reported_errors(as_json):
        from fewshot_ad.benchmark.material import good_names
        from fewshot_ad.benchmark.support import support_names

        names = good_names(layout, root)
        lines = [
            "\t".join([category, str(draw), *support_names(there, category, min(shots, len(there)), draw, None)])
            for category, there in names.items()
            for draw in range(draws)
        ]
        _write(out, "\n".join(["# category, draw, file names", *lines]) + "\n")
    if as_json:
        print_json({"file": str(out), "categories": sorted(names), "draws": draws})
    else:
        say(f"{len(names)} categories, {draws} draws -> {out}")
