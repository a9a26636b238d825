"""Watch a folder that a camera writes into; move each image to good/ or reject/ (unreadable/ if broken).

python examples/watch_folder.py bracket.fsad incoming/ --output sorted/
"""

import argparse
import shutil
import time
from pathlib import Path

from fewshot_ad import Inspector
from fewshot_ad.errors import ImageError
from fewshot_ad.images import SUFFIXES


def settled(path: Path, seen: dict[Path, tuple[int, int]]) -> bool:
    """Whether a file has stopped growing: a camera may still be writing it. An empty one is given ten looks."""
    size = path.stat().st_size
    known, looks = seen.get(path, (-1, 0))
    seen[path] = (size, looks + 1)
    return size == known and (size > 0 or looks > 10)


def put(path: Path, folder: Path) -> None:
    """Move a file into a folder under a name that is free there: cameras start counting anew."""
    target = folder / path.name
    number = 1
    while target.exists():
        target = folder / f"{path.stem}_{number}{path.suffix}"
        number += 1
    shutil.move(path, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="the product's .fsad file")
    parser.add_argument("incoming", type=Path, help="folder to watch")
    parser.add_argument("--output", type=Path, default=Path("sorted"))
    parser.add_argument("--interval", type=float, default=0.2, help="seconds between looks")
    parser.add_argument("--idle", type=float, help="stop after this many seconds without a new image")
    args = parser.parse_args()

    inspector = Inspector.load(args.artifact)
    folders = {name: args.output / name for name in ("good", "reject", "unreadable")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    seen: dict[Path, tuple[int, int]] = {}
    last = time.monotonic()
    while args.idle is None or time.monotonic() - last < args.idle:
        for path in sorted(p for p in args.incoming.iterdir() if p.suffix.lower() in SUFFIXES):
            try:
                if not settled(path, seen):
                    continue
                try:
                    result = inspector.inspect(path)
                    where = "reject" if result.is_anomalous else "good"
                    print(f"{path.name}: {where}, severity {result.severity:.2f}", flush=True)
                except ImageError as error:
                    where = "unreadable"
                    print(error, flush=True)
                put(path, folders[where])
                del seen[path]
                last = time.monotonic()
            except OSError as error:  # still open elsewhere, or taken away: look again next time
                print(f"{path.name}: {error}", flush=True)
        time.sleep(args.interval)


if __name__ == "__main__":
    main()
