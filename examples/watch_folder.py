"""Watch a folder that a camera writes into; move each photograph to good/ or reject/ (unreadable/ if broken).

python examples/watch_folder.py bracket.fsad incoming/ --output sorted/
"""

import argparse
import time
from pathlib import Path

from fewshot_ad import Inspector
from fewshot_ad.errors import ImageError
from fewshot_ad.images import SUFFIXES


def settled(path: Path, sizes: dict[Path, int]) -> bool:
    """Whether a file has stopped growing since the last look: a camera may still be writing it."""
    size = path.stat().st_size
    known = sizes.get(path)
    sizes[path] = size
    return size > 0 and size == known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artefact", type=Path, help="the product's .fsad file")
    parser.add_argument("incoming", type=Path, help="folder to watch")
    parser.add_argument("--output", type=Path, default=Path("sorted"))
    parser.add_argument("--interval", type=float, default=0.2, help="seconds between looks")
    parser.add_argument("--idle", type=float, help="stop after this many seconds without a new photograph")
    args = parser.parse_args()

    inspector = Inspector.load(args.artefact)
    folders = {name: args.output / name for name in ("good", "reject", "unreadable")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[Path, int] = {}
    last = time.monotonic()
    while args.idle is None or time.monotonic() - last < args.idle:
        for path in sorted(p for p in args.incoming.iterdir() if p.suffix.lower() in SUFFIXES):
            if not settled(path, sizes):
                last = time.monotonic()
                continue
            try:
                result = inspector.inspect(path)
                where = "reject" if result.is_anomalous else "good"
                print(f"{path.name}: {where}, severity {result.severity:.2f}", flush=True)
            except ImageError as error:
                where = "unreadable"
                print(error, flush=True)
            path.rename(folders[where] / path.name)
            del sizes[path]
            last = time.monotonic()
        time.sleep(args.interval)


if __name__ == "__main__":
    main()
