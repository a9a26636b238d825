"""Whether a product may be written to a file, and what stands in its way."""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from fewshot_ad.artifact.file import KEY, MAX_HEADER_BYTES, read_artifact, write_artifact
from fewshot_ad.errors import ArtifactError
from fewshot_ad.storage import check_output, lock, write_failure

SUFFIX = ".fsad"


def check_product_file(path: str | os.PathLike[str], *, replace: bool = True) -> None:
    """Make sure that a product can be written to a file without a loss; nothing is changed on disk.

    Args:
        path: The file.
        replace: Whether an older product there may be replaced; what is no product never is.

    Raises:
        ArtifactError: Its name does not end in `.fsad`, or something is there that must stay.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise ArtifactError(
            f"expected the name of a product's file, which ends in {SUFFIX}, got {path}. Name it "
            f"{path.with_suffix(SUFFIX) if path.name else 'product' + SUFFIX}."
        )

    def obstacle(path: Path) -> str | None:
        if stored_hash(path) is None:
            return "expected an older product to replace, or no file, got something else. Choose another name."
        return None if replace else f"{_standing(path)} is there. Choose another name, or give --force to replace it."

    check_output(path, obstacle=obstacle, error=ArtifactError)


def replace_product(
    path: str | os.PathLike[str],
    tensors: dict[str, npt.NDArray[Any]],
    record: dict[str, Any],
    known: MutableMapping[str, str],
    *,
    force: bool,
) -> None:
    """Write a product without the loss of what others have written meanwhile.

    Args:
        path: The file.
        tensors: See `write_artifact`.
        record: Likewise.
        known: By path, the hash that a file bore when it was last read or written; that of this one is put down.
        force: Whether to replace what has another hash.

    Raises:
        ArtifactError: It cannot be written, or something is there that must stay.
    """
    check_product_file(path)
    place = os.path.realpath(path)
    try:
        with lock(place):
            there = stored_hash(place)
            if not force and there is not None and known.get(place, there) != there:
                raise ArtifactError(
                    f"{place}: expected the product as it was last read or written here, got one that others have "
                    "changed meanwhile, whose additions would be lost. Load it again and repeat the change, or save "
                    "with force=True."
                )
            known[place] = write_artifact(path, tensors, record)
    except OSError as error:
        raise ArtifactError(write_failure(path, error)) from error


def stored_hash(path: str | os.PathLike[str]) -> str | None:
    """The hash that a product's file bears, of which the head alone is read; None if it is no product."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            head = file.read(length) if length <= MAX_HEADER_BYTES else b""
        digest = json.loads(json.loads(head)["__metadata__"][KEY])["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return digest if isinstance(digest, str) else None


def _standing(path: Path) -> str:
    """What a product is that stands in the way: its name, when it was enrolled, and what came to it since."""
    try:
        enrollment = read_artifact(path)[1]["enrollment"]
        name, created = enrollment["product_name"], enrollment["created"]
        grown = _added_images([name for name, _ in enrollment["support"]], enrollment["reasons"])
        since = f" and grown by {grown} image(s) since" if grown else ""
        return f"the product {name!r}, enrolled {created} from {len(enrollment['support']) - grown} image(s){since},"
    except (ArtifactError, KeyError, TypeError, ValueError):
        return "a product that cannot be read (damaged, or of another version)"


def _added_images(names: list[str], reasons: list[str]) -> int:
    """How many of the support images `add` has brought, the last of them; each call has left a reason."""
    first = len(names)
    for reason in reversed(reasons):
        _, marker, listed = reason.partition(": added ")
        if marker:
            # A name may hold a comma, so the names are compared, not counted.
            first = next((n for n in range(first) if f"{', '.join(names[n:first])}." == listed), first)
    return len(names) - first
