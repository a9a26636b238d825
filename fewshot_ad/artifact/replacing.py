"""Whether a product may be written to a file, and what stands in its way."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from fewshot_ad.artifact.file import KEY, MAX_HEADER_BYTES, read_artifact, write_artifact
from fewshot_ad.artifact.schema import set_by_hand
from fewshot_ad.errors import ArtifactError
from fewshot_ad.storage import check_output, lock, write_failure

SUFFIX = ".fsad"
# By which words a reason says that images came to a product.
_TAKEN = (": added ", ": accepted ")


def check_product_file(path: str | os.PathLike[str], *, replace: bool = True, protected: bool = False) -> None:
    """Make sure that a product can be written to a file without a loss; nothing is changed on disk.

    Args:
        path: The file.
        replace: Whether an older product there may be replaced; what is no product never is.
        protected: Whether it may be replaced though its file is read-only.

    Raises:
        ArtifactError: Its name does not end in `.fsad`, or something is there that must stay.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        if path.name.lower() == SUFFIX:
            raise ArtifactError(
                f"expected the name of a product's file, such as product{SUFFIX}, got {path}, an ending alone. "
                f"Name it {path.with_name('product' + SUFFIX)}."
            )
        raise ArtifactError(
            f"expected the name of a product's file, which ends in {SUFFIX}, got {path}. Name it "
            f"{path.with_suffix(SUFFIX) if path.name else 'product' + SUFFIX}."
        )

    def obstacle(path: Path) -> str | None:
        if stored_hash(path) is None:
            return "expected an older product to replace, or no file, got something else. Choose another name."
        if not replace:
            return f"{_standing(path)} is there. Choose another name, or give --force to replace it."
        if not protected and not stat.S_IMODE(path.stat().st_mode) & 0o222:
            return (
                "expected a file that may be changed, got one that is read-only. Make it writable (chmod u+w), or save "
                "under another name."
            )
        return None

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
        force: Whether to replace what has another hash, is of another product, or holds work that no enrollment brings
            back: images added, accepted or rejected later, a threshold set by hand, or a calibration on further images.

    Raises:
        ArtifactError: It cannot be written, or something is there that must stay.
    """
    check_product_file(path, protected=force)
    place = os.path.realpath(path)
    try:
        with lock(place):
            if not force:
                _check_nothing_is_lost(place, record, known.get(place))
            known[place] = write_artifact(path, tensors, record)
    except OSError as error:
        raise ArtifactError(write_failure(path, error)) from error


def _check_nothing_is_lost(path: str, record: dict[str, Any], known: str | None) -> None:
    """Refuse to replace a product that neither this object has left there nor a script that is run again would write.

    Args:
        path: The file.
        record: Description of the product that is to come.
        known: The hash that the file bore when this object read or wrote it last; None if it never has.

    Raises:
        ArtifactError: The product there must stay.
    """
    there = stored_hash(path)
    if there is None or there == known:
        return
    advice = "save it under another name, or with force=True"
    if known is not None:
        raise ArtifactError(
            f"{path}: expected the product as it was last read or written here, got one that others have changed "
            f"meanwhile, whose additions would be lost. Load it again and repeat the change, {advice}."
        )
    name, lost = record["enrollment"]["product_name"], _lost(path, record)
    if lost:
        raise ArtifactError(
            f"{path}: expected an older product {name!r} as enrolled, or no file, got {_standing(Path(path))} {lost}. "
            f"Load it and add to it, {advice}."
        )


def _lost(path: str, record: dict[str, Any]) -> str:
    """What of a product no enrollment brings back, in words; empty if nothing."""
    try:
        there = read_artifact(path)[1]
    except ArtifactError:
        return "whose content cannot be told"
    enrollment = there["enrollment"]
    if enrollment["product_name"] != record["enrollment"]["product_name"]:
        return "another one"
    if _added_images([name for name, _ in enrollment["support"]], enrollment["reasons"]):
        return "whose images added since would be lost"
    if set_by_hand(there):
        return "whose threshold, set by hand, would be lost"
    if there["calibration"].get("further_scores"):
        return "whose calibration on further images would be lost"
    if there.get("history"):
        return "whose changes since, such as images accepted and rejected, would be lost"
    return ""


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
    """How many of the support images `add` and `accept` have brought, the last of them; each has left a reason."""
    first = len(names)
    for reason in reversed(reasons):
        _, marker, listed = next((p for of in _TAKEN if (p := reason.partition(of))[1]), ("", "", ""))
        if marker:
            # A name may hold a comma, so the names are compared, not counted.
            first = next((n for n in range(first) if f"{', '.join(names[n:first])}." == listed), first)
    return len(names) - first
