"""Print the tables that stand in README.md and docs/, from the committed records in benchmarks/records.

A page holds a table between `<!-- table: NAME -->` and `<!-- end -->`.

    python benchmarks/tables.py latency     # one table
    python benchmarks/tables.py --list      # the names of all
    python benchmarks/tables.py --write     # print every table anew into README.md and the pages of docs/
    python benchmarks/tables.py --check     # say which pages differ; exit code 1 if one does
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import board_tables
import measured_tables
import measurements
import verdict_tables

ROOT = Path(__file__).resolve().parents[1]
FROM_RECORDS = {**board_tables.TABLES, **verdict_tables.TABLES}
BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """The README and all pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def names() -> list[str]:
    """The names of all tables."""
    return sorted([*FROM_RECORDS, *measured_tables.TABLES])


def render(name: str) -> str:
    """A table in Markdown, without a newline at its end.

    Raises:
        KeyError: There is none of that name.
    """
    if name in FROM_RECORDS:
        return FROM_RECORDS[name]()
    if name not in measured_tables.TABLES:
        raise KeyError(f"expected a table among {names()}, got {name!r}.")
    measurement, print_rows = measured_tables.TABLES[name]
    return print_rows(measurements.read(measurement).rows)


def with_tables(page: str) -> str:
    """A page with the tables between its markers printed anew."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{render(block[2])}\n\n{block[3]}", page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("name", nargs="?", choices=names(), metavar="NAME")
    group.add_argument("--list", action="store_true")
    group.add_argument("--write", action="store_true")
    group.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.list:
        print("\n".join(names()))
    if args.name:
        print(render(args.name))
    status = 0
    for path in pages() if args.write or args.check else ():
        page = path.read_text(encoding="utf-8")
        if with_tables(page) == page:
            continue
        if args.write:
            path.write_text(with_tables(page), encoding="utf-8")
        status = int(args.check)
        print(f"{path.relative_to(ROOT)} {'written' if args.write else 'differs: --write prints it anew'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
