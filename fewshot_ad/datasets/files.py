"""Lists folders and reads text files and tables of a dataset, with errors that name the file."""

from __future__ import annotations

import csv
from pathlib import Path

from fewshot_ad.documents import reading
from fewshot_ad.errors import DatasetError
from fewshot_ad.images import SUFFIXES

# The lists of the largest public datasets take a tenth of that.
MAX_BYTES = 64_000_000
# Folders in folders, of which a link may make a circle.
MAX_DEPTH = 8


def entries(folder: Path) -> list[Path]:
    """The files and folders in a folder, sorted by name; empty if the folder does not exist.

    Raises:
        DatasetError: The folder cannot be listed.
    """
    try:
        # macOS and copying programs leave hidden files behind, whose names begin with a dot.
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be listed ({error.strerror}). Check the permissions.") from error


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name."""
    return [path for path in entries(folder) if path.is_dir()]


def images(folder: Path) -> list[Path]:
    """The image files in a folder, sorted by name."""
    return [path for path in entries(folder) if path.suffix.lower() in SUFFIXES]


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and in the folders in it, `MAX_DEPTH` deep, sorted by their paths."""
    found = images(folder)
    levels = [folder]
    for _ in range(MAX_DEPTH):
        levels = [below for one in levels for below in subfolders(one)]
        found += [path for one in levels for path in images(one)]
    return sorted(found)


def by_stem(folder: Path) -> dict[str, Path]:
    """The image files in a folder by their names without suffix."""
    return {path.stem: path for path in images(folder)}


def read_text(path: Path, what: str = "a list of the dataset") -> str:
    """The content of a text file in UTF-8, with or without byte order mark.

    Raises:
        DatasetError: The file is missing, too large, or is not text.
    """
    return reading.read_text(path, DatasetError, what, MAX_BYTES)


def read_table(path: Path, needed: tuple[str, ...], allowed: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and cells of a CSV file with a header.

    Args:
        path: The CSV file.
        needed: Columns that the table must have.
        allowed: Further columns that the table may have.

    Raises:
        DatasetError: A column is missing or unknown, or a line has too many or too few cells.
    """
    reader = csv.DictReader(read_text(path).splitlines(), skipinitialspace=True, strict=True)
    rows = []
    try:
        columns = [(column or "").strip() for column in reader.fieldnames or ()]
        if set(needed) - set(columns) or set(columns) - {*needed, *allowed} or len(set(columns)) != len(columns):
            optional = f", and optionally {', '.join(allowed)}" if allowed else ""
            raise DatasetError(
                f"{path}: expected a first line with the columns {', '.join(needed)}{optional}, got "
                f"{', '.join(columns) or 'nothing'}. Correct the first line."
            )
        reader.fieldnames = columns
        for row in reader:
            if None in row or None in row.values():
                raise DatasetError(
                    f"{path}, line {reader.line_num}: expected {len(columns)} cells, got another number. Correct the "
                    "line."
                )
            rows.append((reader.line_num, {column: cell.strip() for column, cell in row.items()}))
    except csv.Error as error:
        raise DatasetError(
            f"{path}, line {reader.line_num}: expected CSV, but the line cannot be parsed ({error}). Correct it."
        ) from error
    return rows


def inside(root: Path, relative: str, where: str) -> Path:
    """The path of a file that a list names relative to the root.

    Args:
        root: Folder of the dataset.
        relative: The path as it stands in the list.
        where: File and line in which it stands, for the error message.

    Raises:
        DatasetError: The path leads out of the root.
    """
    parts = relative.replace("\\", "/").split("/")
    if not relative or "\0" in relative or ".." in parts or Path(relative).is_absolute() or ":" in parts[0]:
        raise DatasetError(
            f"{where}: expected a path relative to {root} and below it, got {relative!r}. Correct it, or move the file."
        )
    return root.joinpath(*parts)
