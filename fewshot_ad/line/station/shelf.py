"""The files of a station's products: their names, put in place, deleted, and had back."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fewshot_ad import arguments
from fewshot_ad.artifact import describe, read_artifact
from fewshot_ad.catalog import Catalog
from fewshot_ad.catalog.catalog import SUFFIX
from fewshot_ad.errors import ArgumentError, ArtifactError, NotEnrolledError, StationError
from fewshot_ad.inspector import Inspector
from fewshot_ad.line.journal import Journal
from fewshot_ad.line.record import new_id
from fewshot_ad.line.station.baselines import StationBaseline
from fewshot_ad.product import MAX_NAME
from fewshot_ad.storage import lock, rename_to_free, write_failure

# Deleted products lie beside the catalog's files, where it does not look.
DELETED = ".deleted"
# Names that file systems everywhere take.
_NAME = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|.][^\x00-\x1f\x7f/\\:*?\"<>|]*")
# Windows has no files of these names, whatever follows.
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_DELETED_ID = re.compile(r"([0-9a-f]{32})-(.+)")


class Deleted(NamedTuple):
    """A product that was deleted and can be had back.

    Attributes:
        id: By which it is restored.
        product: Its name.
    """

    id: str
    product: str


class ConflictError(StationError):
    """What is asked for contradicts what is there."""


class Shelf:
    """The files of the products of a catalog. It may be used on several threads.

    Args:
        catalog: Whose they are.
        journal: That says what was done.
        baselines: The fitted baselines that judge products, too, by their names; nothing of these is changed.
    """

    def __init__(self, catalog: Catalog, journal: Journal, baselines: Mapping[str, StationBaseline]) -> None:
        self._catalog, self._journal, self._baselines = catalog, journal, baselines
        self._folder = catalog.folder / DELETED
        # What is known of a product, by name and stamp of its file.
        self._described: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}

    def describe(self, name: str) -> dict[str, Any]:
        """All that is known of a product, docs/reference/schemas/product.json, its name here and its file's hash.

        Of a fitted baseline it is what `fit --json` says, and `facts`, the same in words.

        Raises:
            NotEnrolledError: There is no such product.
            ArtifactError: Its file is damaged.
        """
        baseline = self._baselines.get(name)
        if baseline is not None:
            judge = baseline.judge
            return {"name": name, "sha256": judge.artifact, **judge.info(), "facts": judge.facts()}
        path = self.path(name)
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns)
        known = self._described.get(name)
        if known is None or known[0] != stamp:
            tensors, record = read_artifact(path)
            known = (stamp, {"sha256": record["sha256"], **describe(tensors, record)})
            self._described[name] = known
        return {"name": name, **known[1]}

    def delete(self, name: str) -> Deleted:
        """Take a product out of the catalog; `restore` brings it back.

        Raises:
            NotEnrolledError: There is no such product.
            ArtifactError: It cannot be moved.
        """
        path = self.path(name)
        deleted = Deleted(new_id(), name)
        try:
            self._folder.mkdir(exist_ok=True)
            os.replace(path, self._folder / f"{deleted.id}-{name}{SUFFIX}")
        except OSError as error:
            raise ArtifactError(write_failure(path, error)) from error
        self._described.pop(name, None)
        self._journal.note("product", f"{name} was deleted; restore {deleted.id} brings it back")
        return deleted

    def deleted(self) -> list[Deleted]:
        """The products that can be had back, the one deleted last first."""
        if not self._folder.is_dir():
            return []
        matches = [_DELETED_ID.fullmatch(path.stem) for path in self._folder.glob(f"*{SUFFIX}")]
        return sorted((Deleted(match[1], match[2]) for match in matches if match), reverse=True)

    def restore(self, deleted_id: str) -> str:
        """Bring a deleted product back.

        Returns:
            Its name.

        Raises:
            NotEnrolledError: There is none of that id.
            ConflictError: There is a new one of its name.
            ArtifactError: It cannot be moved.
        """
        found = next((one for one in self.deleted() if one.id == deleted_id), None)
        if found is None:
            raise NotEnrolledError(f"expected the id of a deleted product, got {deleted_id!r}.")
        path, kept = self.new_path(found.product), self._folder / f"{found.id}-{found.product}{SUFFIX}"
        self.refuse_taken(found.product, path, False)
        try:
            rename_to_free(kept, path)
        except FileExistsError:
            self.refuse_taken(found.product, path, False)
        except OSError as error:
            raise ArtifactError(write_failure(path, error)) from error
        self._journal.note("product", f"{found.product} was restored")
        return found.product

    def put(self, name: str, inspector: Inspector, replace: bool) -> None:
        """Save a product under its name. One that makes way stays until the new one is whole, and can be restored."""
        path = self.new_path(name)
        try:
            self._folder.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=self._folder) as scratch:
                fresh = Path(scratch, f"new{SUFFIX}")
                inspector.save(fresh)
                with locked(path):
                    self.refuse_taken(name, path, replace)
                    if path.exists():
                        shutil.copy2(path, self._folder / f"{new_id()}-{name}{SUFFIX}")
                    os.replace(fresh, path)
        except OSError as error:
            raise ArtifactError(write_failure(path, error)) from error
        self._described.pop(name, None)

    def path(self, name: str) -> Path:
        """The file of a product that is there.

        Raises:
            ConflictError: It is judged by a fitted baseline, and has none.
            NotEnrolledError: There is no such product.
        """
        if name in self._baselines:
            raise ConflictError(
                f"expected a product that was enrolled, got {name!r}, which a fitted baseline judges "
                f"({self._baselines[name].judge.name}): it does not learn from single images, and stays until the "
                "station is started without it. `fewshot-ad calibrate` sets its threshold, `fewshot-ad fit` all else."
            )
        path = self._catalog.path(name)
        if not path.is_file():
            count = len({*self._catalog.names, *self._baselines})
            raise NotEnrolledError(f"expected one of the {count} products, got {name!r}.")
        return path

    def new_path(self, name: str) -> Path:
        """Where a new product goes.

        Raises:
            ArgumentError: Not every file system has files of such a name.
        """
        arguments.text(name, "name", MAX_NAME)
        fits = len(os.fsencode(f"{new_id()}-{name}{SUFFIX}")) <= 255
        tidy = name == name.strip() and not name.endswith(".")
        if not (_NAME.fullmatch(name) and tidy and fits) or _DEVICES.fullmatch(name):
            raise ArgumentError(
                f"expected a name that every file system takes (letters, digits, spaces, - and _, no name of a device, "
                f"some 200 characters at most), got {name!r}. Choose another one."
            )
        return self._catalog.path(name)

    def refuse_taken(self, name: str, path: Path, replace: bool) -> None:
        """Make sure that a name is free, or may be taken.

        Raises:
            ConflictError: There is a product of that name, and it is not to make way.
        """
        if name in self._baselines:
            raise ConflictError(
                f"expected a name that is free, got {name!r}, which a fitted baseline judges. Choose another one."
            )
        if path.exists() and not replace:
            raise ConflictError(
                f"expected a name that is free, got {name!r}, which is taught already. Choose another one, or replace "
                "it."
            )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep others, the command line too, from changing a product meanwhile."""
    try:
        with lock(path):
            yield
    except OSError as error:
        raise ArtifactError(write_failure(path, error)) from error
