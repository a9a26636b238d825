"""Watch a folder that a camera writes into; move each image to good/ or reject/ (unreadable/ if broken).

python examples/watch_folder.py bracket.fsad incoming/ --output sorted/
"""

import argparse
import shutil
import time
from pathlib import Path

from fewshot_ad import ImageError, Inspector, list_images


def waiting(folder: Path) -> list[Path]:
    """The images in a folder, in the order of their names; none if it is empty."""
    try:
        return list_images(folder)
    except ImageError:
        return []


def settled(path: Path, looks: dict[Path, tuple[int, int]]) -> bool:
    """Whether a file has stopped growing: a camera may still be writing it. An empty one is given ten looks."""
    size = path.stat().st_size
    last_size, count = looks.get(path, (-1, 0))
    looks[path] = (size, count + 1)
    return size == last_size and (size > 0 or count > 10)


def move(path: Path, folder: Path) -> None:
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
    if not args.incoming.is_dir():
        parser.error(f"expected a folder at {args.incoming}, there is none")

    inspector = Inspector.load(args.artifact)
    folders = {name: args.output / name for name in ("good", "reject", "unreadable")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    looks: dict[Path, tuple[int, int]] = {}
    last = time.monotonic()
    while args.idle is None or time.monotonic() - last < args.idle:
        for path in waiting(args.incoming):
            try:
                if not settled(path, looks):
                    continue
                try:
                    result = inspector.inspect(path)
                    verdict = "reject" if result.is_anomalous else "good"
                    print(f"{path.name}: {verdict}, severity {result.severity_text}", flush=True)
                except ImageError as error:
                    verdict = "unreadable"
                    print(error, flush=True)
                move(path, folders[verdict])
                del looks[path]
                last = time.monotonic()
            except OSError as error:  # still open elsewhere, or gone: look again next time
                print(f"{path.name}: {error}", flush=True)
        time.sleep(args.interval)


if __name__ == "__main__":
    main()
