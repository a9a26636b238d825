"""Files beside the verdicts, the table and the overlays: what they may replace, and how they are written."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_ad.cli.terminal import explained, report_failure
from fewshot_ad.errors import ArgumentError, FewshotADError
from fewshot_ad.inspection.verdict import format_severity
from fewshot_ad.printable import no_formula, printable
from fewshot_ad.storage import check_name, check_output, lock, sweep, write_atomically, write_failure

if TYPE_CHECKING:
    from fewshot_ad.inspection.result import Inspection

COLUMNS = (
    *("file", "verdict", "score", "threshold", "severity", "x", "y", "width", "height", "ms", "error"),
    *("regions", "schema", "reason", "parts"),
)
TABLE_SCHEMA = "fewshot-ad/inspect-csv/1"

# Keeps an overlay from taking the place of an image in the same folder.
OVERLAY = "_overlay.png"
# What the file says of itself, see `demo.png`: it is no image of a part.
MARK = "overlay"
# Of the anomaly map of an image; folders of images leave it out.
MAP = "_map.tiff"
# What all common file systems take.
LONGEST_NAME = 255
# How the record of a benchmark begins, which hours of measuring have filled.
RECORD_START = '{"key": "'


class Outputs:
    """Files beside the verdicts: one that cannot be written is reported once and then left, and the verdicts go on.

    Args:
        as_json: Whether the command was asked for JSON.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._failed: set[str] = set()

    @property
    def complete(self) -> bool:
        """Whether everything was written so far."""
        return not self._failed

    def write(self, output: str, write: Callable[[], object]) -> bool:
        """Write something, unless this output has failed before.

        Args:
            output: Name of the output.
            write: Writes it; its `FewshotADError` and `OSError` are reported.

        Returns:
            Whether it is written.
        """
        if output in self._failed:
            return False
        try:
            write()
        except (FewshotADError, OSError) as error:
            self._failed.add(output)
            report_failure(explained(error), self._as_json)
        return output not in self._failed


def check_table(path: Path | None, inputs: Iterable[Path], force: bool, columns: Sequence[str] = COLUMNS) -> None:
    """Make sure that a table of these columns replaces nothing but an older one of its kind, see `check_text`."""
    check_text(path, ",".join(columns[:3]), inputs, force=force, error=FewshotADError)


def check_text(
    path: Path | None, start: str, inputs: Iterable[Path], *, force: bool, error: type[FewshotADError]
) -> None:
    """Make sure that a text replaces nothing but an older one of its kind.

    Args:
        path: The file to write; None for none.
        start: How all texts of its kind begin, as a regular expression.
        inputs: Files that the command reads.
        force: Whether another text may be replaced; what is no text, and the record of a benchmark, never is.
        error: Class of the errors.

    Raises:
        FewshotADError: Something is there that must stay. Of the class `error`.
    """
    if path is None:
        return
    if str(path) == "-":
        raise error(
            "expected the name of a file, got -. What this command reports stands on standard output already: with "
            "--json for programs, one object per line."
        )

    def obstacle(path: Path) -> str | None:
        with path.open("rb") as file:
            head = file.read(4096).decode("utf-8", "replace")
        if re.match(start, head):
            return None
        expected = "expected an older output of this kind to replace, or no file, got"
        if "\0" in head or head.startswith(RECORD_START):
            return f"{expected} something else. Choose another name."
        return None if force else f"{expected} another text. Choose another name, or give --force to replace it."

    check_output(path, inputs=inputs, obstacle=obstacle, error=error)


def check_overlays(overlays: Iterable[Path], table: Path | None, inputs: Iterable[Path], *, force: bool) -> None:
    """Make sure that the overlays can be written, and replace nothing but older overlays.

    Args:
        overlays: The files to write.
        table: The table of verdicts; None for none.
        inputs: Files that the command reads, none of which may be replaced.
        force: Whether PNG files may be replaced that are no overlays.

    Raises:
        FewshotADError: The folder cannot be made, or an overlay has the place of something that must stay.
    """
    from fewshot_ad.demo import check_png

    _check_drawn(overlays, "overlay", table, inputs, partial(check_png, mark=MARK, force=force))


def _check_drawn(
    files: Iterable[Path], what: str, table: Path | None, inputs: Iterable[Path], check: Callable[..., None]
) -> None:
    """Make the folders of files that are drawn of images, and see that each file may be written.

    Args:
        files: The files to write.
        what: What one is called in messages.
        table: The table of verdicts; None for none.
        inputs: Files that the command reads.
        check: Called as `check(file, inputs=...)` with the input that has its place, or none.

    Raises:
        FewshotADError: A folder cannot be made, or a file has the place of something that must stay.
    """
    files = list(files)
    for folder in {file.parent for file in files}:
        check_name(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FewshotADError(write_failure(folder, error)) from error
        sweep(folder)
    # Under whatever names and links: there may be thousands of either.
    read = {_identity(path): path for path in inputs} if files else {}
    for file in files:
        if table is not None and _identity(file) == _identity(table):
            raise FewshotADError(f"--csv: expected a name that no {what} has, got {table}. Choose another name.")
        source = read.get(_identity(file))
        check(file, inputs=[] if source is None else [source])


def _identity(path: Path) -> tuple[int, int] | str:
    """What two names of one file have in common."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


@contextmanager
def verdict_table(
    path: Path | None, outputs: Outputs, columns: Sequence[str] = COLUMNS
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Open a CSV file for rows of verdicts; it grows row by row, so that others can read it meanwhile.

    Args:
        path: The file; None for no table.
        outputs: Reports a row that cannot be written.
        columns: Its heading.

    Yields:
        The function that writes one row; without a file it does nothing.

    Raises:
        FewshotADError: The file cannot be opened, or another process writes it.
    """
    if path is None:
        yield lambda cells: None
        return
    with ExitStack() as stack:
        file = _opened(path, stack)

        def write(cells: dict[str, Any]) -> None:
            line = io.StringIO(newline="")
            csv.DictWriter(line, columns).writerow(cells)
            data = line.getvalue().encode("utf-8", "backslashreplace")
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError as error:
                raise FewshotADError(write_failure(path, error)) from error

        def write_or_report(cells: dict[str, Any]) -> None:
            outputs.write("table", lambda: write(cells))

        write_or_report(dict(zip(columns, columns, strict=True)))
        yield write_or_report


def _opened(path: Path, stack: ExitStack) -> FileIO:
    """The file of a table, empty, and locked until the stack ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What is not there cannot be locked, and what is there must not be emptied before it is.
        path.open("ab").close()
        stack.enter_context(lock(path, wait=False))
        # Unbuffered: what a full disk has refused must not come up again when the file is closed.
        return stack.enter_context(path.open("wb", buffering=0))
    except BlockingIOError as error:
        raise FewshotADError(
            f"{path}: expected a table that nobody else writes, got one that another inspection is writing. Choose "
            "another name, or wait until it is done."
        ) from error
    except OSError as error:
        raise FewshotADError(write_failure(path, error)) from error


def overlay_names(paths: list[Path], suffix: str = OVERLAY) -> list[str]:
    """File names for the overlays of images, in their order, or for other files that end in `suffix`.

    Each is the stem of the image; where two images share one, all are led by the names of their folders.
    """
    names = [path.stem for path in paths]
    depth = 1
    while len(set(names)) < len(set(paths)) and depth < 32:
        depth += 1
        names = ["_".join([*path.parts[-depth:-1], path.stem]).replace("/", "") for path in paths]
        if all(depth > len(path.parts) for path in paths):
            names = [f"{i:05d}_{path.stem}" for i, path in enumerate(paths)]
    return [_short(name, path, suffix) + suffix for name, path in zip(names, paths, strict=True)]


def _short(name: str, path: Path, suffix: str) -> str:
    """A name cut to what a file system takes, still another one for each image."""
    encoded, room = os.fsencode(name), LONGEST_NAME - len(suffix)
    if len(encoded) <= room:
        return name
    told_by = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    # Half a character at the cut is left out, and so is what is no text at all.
    return f"{encoded[: room - 13].decode('utf-8', 'ignore')}-{told_by}"


def check_picture(
    path: Path | None, option: str, mark: str, images: Sequence[Path], others: Sequence[Path], *, force: bool
) -> None:
    """Make sure that a picture for people replaces nothing else, and will not be taken for an image of a part.

    Args:
        path: The file; None for none.
        option: The option that names it.
        mark: See `demo.png`.
        images: Images of parts that the command reads.
        others: Other files that it reads or writes.
        force: Whether another PNG may be replaced.

    Raises:
        FewshotADError: The picture has the place of something that must stay.
        ArgumentError: It would lie among the images.
    """
    from fewshot_ad.demo import check_png

    if path is None:
        return
    check_png(path, mark, inputs=[*images, *others], force=force)
    if os.path.realpath(path.parent) in {os.path.realpath(image.parent) for image in images}:
        raise ArgumentError(
            f"expected {option} in a folder without images of parts, got {path}: it would be taken for one. Choose "
            "another folder."
        )


def write_overlay(path: Path, result: Inspection, *, force: bool) -> None:
    """Write the overlay of an inspection as PNG.

    Raises:
        FewshotADError: The file cannot be written, or something is there that must stay.
    """
    from fewshot_ad.demo import write_png

    write_png(path, result.overlay(bar=True), MARK, force=force)


def check_maps(maps: Iterable[Path], table: Path | None, inputs: Iterable[Path], *, force: bool) -> None:
    """Make sure that anomaly maps can be written, and replace nothing but older maps.

    Args:
        maps: The files to write.
        table: The table of verdicts; None for none.
        inputs: Files that the command reads, none of which may be replaced.
        force: Whether TIFF files may be replaced that are no maps.

    Raises:
        FewshotADError: The folder cannot be made, or a map has the place of something that must stay.
    """
    _check_drawn(maps, "map", table, inputs, partial(check_output, obstacle=partial(_map_obstacle, force=force)))


def _map_obstacle(path: Path, force: bool) -> str | None:
    from fewshot_ad.images.listing import is_map
    from fewshot_ad.images.signatures import format_of

    with path.open("rb") as file:
        is_tiff = format_of(file.read(4096)) == "TIFF"
    if is_map(path) or (force and is_tiff):
        return None
    advice = " Choose another folder, or give --force to replace it." if is_tiff else " Choose another folder."
    return f"expected an older map of fewshot-ad to replace, or no file, got another file.{advice}"


def write_map(path: Path, result: Inspection, *, force: bool) -> None:
    """Write the anomaly map of an inspection, (H, W) float32, as TIFF.

    Raises:
        FewshotADError: The file cannot be written, or something is there that must stay.
    """
    from PIL import Image

    from fewshot_ad.images.listing import MAP_MARK

    check_output(path, obstacle=partial(_map_obstacle, force=force))
    content = io.BytesIO()
    Image.fromarray(result.anomaly_map).save(content, "TIFF", description=MAP_MARK)
    try:
        write_atomically(path, content.getvalue(), durable=False)
    except OSError as error:
        raise FewshotADError(write_failure(path, error, content.tell())) from error


def remove_older(path: Path) -> None:
    """Remove the overlay or map that an earlier inspection left of an image that cannot be inspected now.

    Raises:
        FewshotADError: It cannot be removed.
    """
    from fewshot_ad.demo import bears_mark
    from fewshot_ad.images.listing import is_map

    if not (bears_mark(path, MARK) or is_map(path)):
        return
    try:
        path.unlink()
    except OSError as error:
        raise FewshotADError(
            f"{path}: expected to remove an older file, whose image cannot be read now, but it stays "
            f"({error.strerror}). Remove it, or do not take it for this inspection's."
        ) from error


def verdict_row(path: Path, result: Inspection) -> dict[str, Any]:
    """A row of the table of verdicts, by the names in `COLUMNS`; x to height are the box of the worst region."""
    cells: dict[str, Any] = {
        "file": str(path),
        "verdict": result.verdict.upper(),
        "score": f"{result.score:.6g}",
        "threshold": f"{result.threshold:.6g}",
        "severity": format_severity(result.severity, result.is_anomalous, digits=4),
        "ms": f"{result.timings_ms['total']:.1f}",
        "regions": json.dumps([region.as_dict() for region in result.regions], allow_nan=False),
        "reason": result.reason,
        "parts": result.parts_finding,
    }
    if result.regions:
        cells |= dict(zip(("x", "y", "width", "height"), result.regions[0].box, strict=True))
    return table_row(cells, TABLE_SCHEMA)


def failure_row(file: str | Path, message: str) -> dict[str, Any]:
    """The row of an image that could not be inspected."""
    return table_row({"file": str(file), "verdict": "ERROR", "error": message}, TABLE_SCHEMA)


def table_row(cells: dict[str, Any], schema: str) -> dict[str, Any]:
    """Cells made harmless for whatever reads the table, and the schema of their row."""
    # A file's name is not ours to trust, nor is a message that holds it.
    safe = {name: no_formula(printable(cell)) if isinstance(cell, str) else cell for name, cell in cells.items()}
    return {**safe, "schema": schema}
