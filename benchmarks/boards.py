"""What the board scripts share: run plans through the benchmark engine, one job at a time, and print their tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fewshot_ad.benchmark import record, tables
from fewshot_ad.benchmark.plan_file import read_plan
from fewshot_ad.benchmark.published import published
from fewshot_ad.benchmark.report import write_report
from fewshot_ad.benchmark.run import processes, run_plan

HERE = Path(__file__).parent
DECISIONS = ("image_auroc", "pixel_auroc", "au_pro", "f1", "false_reject_rate", "escape_rate", "fit_s", "ms")


def board_script(
    description: str | None, name: str, plans: Sequence[str], figures: Sequence[str] = tables.MAIN
) -> None:
    """The whole of a board script: run its plans, then print one table for each dataset and number of shots.

    Args:
        description: The script's docstring.
        name: Stem of the record file in `benchmarks/out`.
        plans: File names of the plans, beside this file.
        figures: Columns of the tables.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=Path, nargs="*", default=[HERE / plan for plan in plans])
    parser.add_argument("--out", type=Path, default=HERE / "out" / f"{name}.jsonl", help="record file, added to")
    parser.add_argument("--report", action="store_true", help="print the tables of what is recorded, compute nothing")
    parser.add_argument("--html", type=Path, help="write the report page")
    args = parser.parse_args()
    read_plans = [read_plan(path) for path in args.plans]
    for plan in () if args.report else read_plans:
        for state in run_plan(plan, args.out, processes(1)):
            print(f"{state.jobs}/{state.total} jobs, {state.failures} failed: {state.last or 'start'}", flush=True)
    keys = {key for plan in read_plans for key in plan.keys()}  # noqa: SIM118 - of a plan, not of a dictionary
    records = [one for one in record.read(args.out) if one.key in keys]
    print(tables.markdown(records, figures))
    if args.html:
        write_report(records, args.html, read_plans[0].name, published(), [args.out.parent])
