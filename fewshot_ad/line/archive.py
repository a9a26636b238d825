"""An archive of images, inspected again with a product as it is now: resumable, on one computer or a Ray cluster."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from fewshot_ad.arrays import Progress
from fewshot_ad.artifact import read_artifact
from fewshot_ad.errors import ArgumentError, ImageError
from fewshot_ad.failures import explanation
from fewshot_ad.host.cluster import Lost, RayPool
from fewshot_ad.host.cores import pin_apart
from fewshot_ad.images import SUFFIXES
from fewshot_ad.inspector import Inspector
from fewshot_ad.storage import lock, write_failure

SCHEMA = "fewshot-ad/reinspection/1"
# Images of one piece of work: large enough that loading the product does not count, small enough to be done again.
CHUNK = 500


class Reinspected(NamedTuple):
    """What became of an archive.

    Attributes:
        images: Images in it.
        before: Those that had their verdict before.
        counts: How many have each verdict now, `unreadable` among them.
        unreadable: Names of those that cannot be read, as the record has them.
        lost: Images whose worker was lost; the same call does them again.
        reasons: Why, for each piece of work that was lost.
    """

    images: int
    before: int
    counts: dict[str, int]
    unreadable: tuple[str, ...]
    lost: int
    reasons: tuple[str, ...]


def reinspect(
    product: Path,
    archive: Path,
    record: Path,
    *,
    pool: RayPool | None = None,
    chunk: int = CHUNK,
    progress: Progress | None = None,
) -> Reinspected:
    """Inspect every image of a folder and its sub-folders, and write each verdict down.

    The record is a file of JSON lines: first what was inspected with what, then a line for each image. A call that was
    interrupted goes on where it was; on another product, or another archive, it is refused.

    Args:
        product: Its `.fsad` file. On a cluster it must lie at the same path on all nodes, as must the archive.
        archive: The folder.
        record: The file of verdicts.
        pool: Where the work is done; None does it in this process.
        chunk: Images of one piece of work.
        progress: Called as `progress("reinspect", done, total)`.

    Raises:
        ArgumentError: The archive holds no image, the record is of something else, or it cannot be written.
        ArtifactError: The product's file is damaged.
    """
    names = _images(archive)
    if not names:
        raise ArgumentError(f"expected images in {archive}, got none. Check the path.")
    head = {"schema": SCHEMA, "product": read_artifact(product)[1]["sha256"], "archive": str(archive.resolve())}
    try:
        is_new = not record.exists()
        # Made if there is none; one that is there stays as it is, its time too.
        record.open("ab").close()
        with lock(record, wait=False), record.open("r+b") as file:
            known = _known(file, record, head)
            left = [name for name in names if name not in known]
            try:
                lost, reasons = _rest(file, product, archive, left, known, pool, chunk, progress, len(names))
            except BaseException:
                if is_new and not known:
                    # Windows keeps what is open: an empty record, which the next call goes on with.
                    with contextlib.suppress(OSError):
                        record.unlink()
                raise
    except BlockingIOError:
        raise ArgumentError(f"{record}: expected a record that nobody writes, got one that is written now.") from None
    except OSError as error:
        raise ArgumentError(write_failure(record, error)) from error
    verdicts = {name: known[name] for name in names if name in known}
    unreadable = tuple(name for name, verdict in verdicts.items() if verdict == "unreadable")
    return Reinspected(
        len(names), len(names) - len(left), dict(Counter(verdicts.values())), unreadable, lost, tuple(reasons)
    )


def _rest(
    file: Any,
    product: Path,
    archive: Path,
    left: list[str],
    known: dict[str, str],
    pool: RayPool | None,
    chunk: int,
    progress: Progress | None,
    total: int,
) -> tuple[int, list[str]]:
    """Do what is left, and write it down piece by piece; how many images were lost, and why."""
    lost, reasons = 0, []
    chunks = [tuple(left[start : start + chunk]) for start in range(0, len(left), chunk)]
    work = functools.partial(_inspect, product, archive.resolve(), None if pool is None else 1)
    results: Iterator[tuple[tuple[str, ...], list[dict[str, Any]] | Lost]]
    results = ((names, work(names)) for names in chunks) if pool is None else pool.each(work, chunks)
    for names, lines in results:
        if isinstance(lines, Lost):
            lost += len(names)
            reasons.append(lines.reason)
            continue
        file.write("".join(f"{json.dumps(line)}\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())
        known |= {line["file"]: line["verdict"] for line in lines}
        if progress is not None:
            progress("reinspect", len(known), total)
    return lost, reasons


def _inspect(product: Path, archive: Path, cpus: int | None, names: Sequence[str]) -> list[dict[str, Any]]:
    """A line for each image."""
    with contextlib.ExitStack() as stack:
        if cpus is not None:
            cv2.setNumThreads(cpus)
            stack.enter_context(pin_apart(cpus))
        inspector = Inspector.load(product, threads=cpus)
        results = inspector.inspect_batch([archive / name for name in names], errors="return")
        return [_line(name, result) for name, result in zip(names, results, strict=True)]


def _line(name: str, result: Any) -> dict[str, Any]:
    if isinstance(result, ImageError):
        return {"file": name, "verdict": "unreadable", "reason": explanation(result)}
    return {
        "file": name,
        "verdict": result.verdict,
        "reason": result.reason,
        "score": result.score,
        "threshold": result.threshold,
        "severity": result.severity,
        "regions": [region.as_dict() for region in result.regions],
    }


def _images(archive: Path) -> list[str]:
    """Names of the images of a folder and its sub-folders, as seen from it, sorted; hidden ones and links are none."""
    if not archive.is_dir():
        raise ArgumentError(f"expected a folder of images at {archive}, got none. Check the path.")
    found, closed = [], list[OSError]()
    for folder, folders, files in os.walk(archive, onerror=closed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in files if not name.startswith(".")]
    if closed:
        raise ArgumentError(
            f"expected folders that can be read, got {closed[0].filename} ({closed[0].strerror}). Change its "
            "permissions, or move it out of the archive."
        )
    named = (path for path in found if path.suffix.casefold() in SUFFIXES)
    return sorted(path.relative_to(archive).as_posix() for path in named)


def _known(file: Any, record: Path, head: dict[str, str]) -> dict[str, str]:
    """The verdicts that are written down, by image; a last line that was cut is removed."""
    known: dict[str, str] = {}
    first = file.readline()
    if not first.endswith(b"\n"):
        # One that was cut while it was written is none yet.
        if not json.dumps(head).encode().startswith(first):
            raise ArgumentError(f"{record}: expected a record of this archive or no file, got another one.")
        file.seek(0)
        file.truncate()
        file.write(f"{json.dumps(head)}\n".encode())
        return known
    written = _parsed(first)
    if not isinstance(written, dict) or written.get("schema") != SCHEMA:
        raise ArgumentError(f"{record}: expected a record of this archive or no file, got another file.")
    if written != head:
        others = [
            f"another {what} ({written.get(what)})"
            for what in ("product", "archive")
            if written.get(what) != head[what]
        ]
        raise ArgumentError(
            f"{record}: expected a record of this product and this archive, got one of {' and '.join(others)}. Choose "
            "another name, or remove that file to begin anew."
        )
    end = file.tell()
    for line in file:
        entry = _parsed(line) if line.endswith(b"\n") else None
        if not isinstance(entry, dict) or "file" not in entry:
            if file.read(1):
                raise ArgumentError(
                    f"{record}: expected verdicts, got something else in line {len(known) + 2}, before others. Remove "
                    "that line, or choose another name."
                )
            break
        known[entry["file"]] = entry["verdict"]
        end += len(line)
    file.seek(end)
    file.truncate()
    return known


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
