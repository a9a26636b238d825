"""Size on disk of the base install and of what an extra adds, each in a fresh virtual environment.

python benchmarks/install_size.py            # base
python benchmarks/install_size.py torch      # base, and what the extra `torch` adds (several GB with CUDA)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

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
    base = installed_megabytes(str(ROOT))
    print(f"base: {base:.0f} MB")
    for extra in sys.argv[1:]:
        print(f"extra {extra}: {installed_megabytes(f'{ROOT}[{extra}]') - base:.0f} MB more")


if __name__ == "__main__":
    main()
