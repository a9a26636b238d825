"""Listing a dataset's folders."""

from __future__ import annotations

import csv
from pathlib import Path

from fewshot_ad.errors import DatasetError
from fewshot_ad.images import SUFFIXES


def entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name; nothing if the folder is absent.

    Raises:
        DatasetError: The folder cannot be listed.
    """
    try:
        # Names with a leading dot are what macOS and copying programs leave behind.
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be listed ({error.strerror}). Check the permissions.") from error


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name."""
    return [path for path in entries(folder) if path.is_dir()]


def images(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted by name."""
    return [path for path in entries(folder) if path.suffix.lower() in SUFFIXES]


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures in a folder by their names without suffix."""
    return {path.stem: path for path in images(folder)}


def read_text(path: Path) -> str:
    """The text of a list that comes with a dataset.

    Raises:
        DatasetError: The file is missing or no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}). Copy the dataset again.") from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: expected text in UTF-8, got other bytes ({error.reason}). Save it as UTF-8."
        ) from error


def read_table(path: Path, needed: tuple[str, ...], allowed: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and cells of a CSV file with a header.

    Args:
        path: Of the file.
        needed: Columns it must have.
        allowed: Columns it may have besides.

    Raises:
        DatasetError: A column is missing or unknown, or a line has too many or too few cells.
    """
    reader = csv.DictReader(read_text(path).splitlines(), skipinitialspace=True, strict=True)
    rows = []
    try:
        columns = [(column or "").strip() for column in reader.fieldnames or ()]
        if set(needed) - set(columns) or set(columns) - {*needed, *allowed} or len(set(columns)) != len(columns):
            more = f", and at will {', '.join(allowed)}" if allowed else ""
            raise DatasetError(
                f"{path}: expected a first line with the columns {', '.join(needed)}{more}, got "
                f"{', '.join(columns) or 'nothing'}. Mend the first line."
            )
        reader.fieldnames = columns
        for row in reader:
            if None in row or None in row.values():
                raise DatasetError(
                    f"{path}, line {reader.line_num}: expected {len(columns)} cells, got another number. Mend the line."
                )
            rows.append((reader.line_num, {column: cell.strip() for column, cell in row.items()}))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: no CSV ({error}). Mend the line.") from error
    return rows


def inside(root: Path, relative: str, where: str) -> Path:
    """A path that a list gives relative to the root.

    Args:
        root: Folder of the dataset.
        relative: As the list has it.
        where: File and line of it, for the message.

    Raises:
        DatasetError: It leads out of the root.
    """
    parts = relative.replace("\\", "/").split("/")
    if not relative or ".." in parts or Path(relative).is_absolute() or ":" in parts[0]:
        raise DatasetError(
            f"{where}: expected a path relative to {root} and below it, got {relative!r}. Mend it, or move the file."
        )
    return root.joinpath(*parts)
