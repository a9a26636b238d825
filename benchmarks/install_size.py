"""Size on disk of the base install and of what an extra adds, each in a fresh virtual environment.

python benchmarks/install_size.py            # base
python benchmarks/install_size.py torch      # base, and what the extra `torch` adds (several GB with CUDA)
python benchmarks/install_size.py --record   # and put the figures on record
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import measured_tables
import measurements

ROOT = Path(__file__).resolve().parents[1]


def installed_megabytes(requirement: str) -> float:
    """Megabytes that `pip install requirement` adds to an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        before = size(Path(folder))
        python = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", requirement], check=True)
        return (size(Path(folder)) - before) / 1e6


def size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", help="extras whose addition to the base is measured")
    measurements.add_record_option(parser)
    args = parser.parse_args()
    base = installed_megabytes(str(ROOT))
    rows = [{"what": "base", "megabytes": base}]
    for extra in args.extras:
        more = installed_megabytes(f"{ROOT}[{extra}]") - base
        rows.append({"what": f"extra `{extra}`, in addition", "megabytes": more})
    measured_tables.finish("install_size", rows, args.record)


if __name__ == "__main__":
    main()
