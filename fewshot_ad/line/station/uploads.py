"""Images that were sent, as files for as long as they are worked with."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fewshot_ad.errors import FewshotADError, StationError
from fewshot_ad.storage import write_failure

# Longest name of an uploaded image that is kept.
MAX_FILE_NAME = 120


class Upload(NamedTuple):
    """An image that was sent along.

    Attributes:
        name: What the sender calls it.
        data: The encoded image.
    """

    name: str
    data: bytes


@contextmanager
def files_of(images: Sequence[Upload], place: Path) -> Iterator[list[str]]:
    """Images as files, by the names that they were sent with: those stand in messages, and in the product.

    Args:
        images: What was sent.
        place: Folder that the files are made in; it is made if there is none.

    Yields:
        Their paths. An error of this package that is raised in the block does not name the folder.

    Raises:
        StationError: They cannot be written.
    """
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fewshot-ad-", dir=place) as folder:
        paths: list[str] = []
        taken: set[str] = set()
        for number, image in enumerate(images, 1):
            name = _file_name(image.name) or f"image {number}"
            name = name if name.casefold() not in taken else f"{number} {name}"
            taken.add(name.casefold())
            path = Path(folder, name)
            try:
                path.write_bytes(image.data)
            except OSError as error:
                raise StationError(write_failure(path, error, len(image.data))) from error
            paths.append(str(path))
        try:
            yield paths
        except FewshotADError as error:
            # Whoever sent them knows them by name, and nothing of this folder.
            said = str(error).replace(f"{folder}{os.sep}", "").replace(f"{Path(folder).name}/", "")
            raise type(error)(said) from error


def _file_name(name: str) -> str:
    """The last part of a name, without what no file system takes; empty if nothing is left."""
    last = re.split(r"[/\\]", name)[-1]
    kept = re.sub(r"[\x00-\x1f\x7f:*?\"<>|]", "_", last).strip(". ")
    # In bytes, as file systems count, and the end of it, where the suffix stands.
    return kept.encode("utf-8", "replace")[-MAX_FILE_NAME:].decode("utf-8", "ignore").lstrip(". ")
