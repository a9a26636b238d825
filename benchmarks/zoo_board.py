"""The zoo on the shared board: accuracy, time to fit, milliseconds an image and size of each method.

Runs the plans zoo_board.yaml (K = 8) and zoo_board_full.yaml (all images) through the benchmark engine, one job at
a time in a process of its own; stopped at any point it goes on where it was. Prints a table a number of shots: means
over the six products, then mean and standard deviation over the support draws.

    python benchmarks/zoo_board.py                     # needs the extra `zoo` and ../shared/data
    python benchmarks/zoo_board.py --report            # the tables of what is on record
    python benchmarks/zoo_board.py --html report.html  # and the page
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fewshot_ad.benchmark import record, tables
from fewshot_ad.benchmark.plan_file import read_plan
from fewshot_ad.benchmark.published import published
from fewshot_ad.benchmark.report import write_report
from fewshot_ad.benchmark.run import processes, run_plan

HERE = Path(__file__).parent
PLANS = (HERE / "zoo_board.yaml", HERE / "zoo_board_full.yaml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=Path, nargs="*", default=PLANS)
    parser.add_argument("--out", type=Path, default=HERE / "out" / "zoo_board.jsonl")
    parser.add_argument("--report", action="store_true", help="print the tables of what is recorded, compute nothing")
    parser.add_argument("--html", type=Path, help="write the report page")
    args = parser.parse_args()
    plans = [read_plan(path) for path in args.plans]
    for plan in () if args.report else plans:
        for state in run_plan(plan, args.out, processes(1)):
            print(f"{state.jobs}/{state.total} jobs, {state.failures} failed: {state.last or 'start'}", flush=True)
    keys = {key for plan in plans for key in plan.keys()}  # noqa: SIM118 - of a plan, not of a dictionary
    records = [one for one in record.read(args.out) if one.key in keys]
    print(tables.markdown(records))
    if args.html:
        write_report(records, args.html, "Zoo on the shared board", published(), [args.out.parent])


if __name__ == "__main__":
    main()
