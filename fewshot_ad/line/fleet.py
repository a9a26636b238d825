"""Products for many stations: by hash from a folder or an object store, fetched whole, checked, never over a change."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import fsspec

from fewshot_ad.artifact import read_artifact
from fewshot_ad.catalog import Catalog
from fewshot_ad.errors import FewshotADError, StationError
from fewshot_ad.line.record import utc_now
from fewshot_ad.line.sources.source import SourceState
from fewshot_ad.storage import lock, write_atomically, write_failure

logger = logging.getLogger(__name__)

SCHEMA = "fewshot-ad/store/1"
# In the store: what is there under the hash of its bytes, and which of it each product is.
OBJECTS, PRODUCTS = "objects", "products"
# In the catalog: the hash of each product as it was fetched last. Where its file has another, it was changed here.
FETCHED = ".fetched.json"
# Larger than any product is.
MAX_BYTES = 1_000_000_000

PushStatus: TypeAlias = Literal["pushed", "there", "changed there", "failed"]
PullStatus: TypeAlias = Literal["new", "updated", "there", "changed here", "deleted here", "failed"]


class Pushed(NamedTuple):
    """What became of a product that was to be put into a store.

    Attributes:
        name: Of the product.
        status: `pushed`; `there`: the store has it already; `changed there`: it was left alone, since another one came
            into the store that this catalog has never had; `failed`.
        message: Why it failed, or was left alone.
    """

    name: str
    status: PushStatus
    message: str = ""


class Pulled(NamedTuple):
    """What became of a product that was to be fetched from a store.

    Attributes:
        name: Of the product.
        status: `new`; `updated`; `there`: it was the same already; `changed here`: it was left alone, since it was
            changed since it was fetched, or never was; `deleted here`: it was fetched once, and deleted; `failed`.
        message: Why it failed.
    """

    name: str
    status: PullStatus
    message: str = ""


def push(catalog: Catalog, store: str, names: Sequence[str] | None = None, *, force: bool = False) -> Iterator[Pushed]:
    """Put products into a store.

    Args:
        catalog: Where they are.
        store: A folder, or a URL that fsspec knows, such as `s3://bucket/parts` (extra `s3`).
        names: Which; None takes all.
        force: Whether one is replaced that another station has put there.

    Yields:
        What became of each; one that fails stops no other.

    Raises:
        StationError: The store cannot be reached.
    """
    files = _Store(store)
    files.expect_place(catalog)
    for name in catalog.names if names is None else names:
        try:
            yield _push(catalog, files, name, force)
        except (FewshotADError, OSError) as error:
            yield Pushed(name, "failed", str(error))


def pull(store: str, catalog: Catalog, names: Sequence[str] | None = None, *, force: bool = False) -> Iterator[Pulled]:
    """Fetch products from a store; those of the catalog that the store does not have stay.

    Args:
        store: A folder, or a URL that fsspec knows.
        catalog: Where they go.
        names: Which; None takes all of the store.
        force: Whether a product that was changed here is replaced.

    Yields:
        What became of each; one that fails stops no other, and leaves what was there.

    Raises:
        StationError: The store cannot be reached.
    """
    files = _Store(store)
    files.expect_other(catalog)
    for name in files.names() if names is None else names:
        try:
            yield _pull(files, catalog, name, force)
        except (FewshotADError, OSError) as error:
            yield Pulled(name, "failed", str(error))


class Puller:
    """Fetches products from a store now and then, on a thread of its own, for as long as a station runs.

    Args:
        store: See `pull`.
        catalog: Where they go.
        every_s: Seconds between two looks.
    """

    name = "store"

    def __init__(self, store: str, catalog: Catalog, every_s: float) -> None:
        self._store, self._catalog, self._every = store, catalog, every_s
        self._stop = threading.Event()
        self._error, self._fetched_count = "", 0
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="fewshot-ad-store", daemon=True)

    @property
    def state(self) -> SourceState:
        """How it is doing now; what it has seen are products that were new."""
        return SourceState(self.name, self._thread.is_alive(), self._error, self._fetched_count)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, wait_s: float = 5.0) -> None:
        """End, after what is being fetched."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._error = self._look()
            except Exception as error:  # whatever the client of an object store raises: it is tried again
                self._error = str(error) or type(error).__name__
            self._stop.wait(self._every)

    def _look(self) -> str:
        failures = []
        for one in pull(self._store, self._catalog):
            if self._stop.is_set():
                break
            if one.status in ("new", "updated"):
                self._fetched_count += 1
                logger.info("%s: %s from the store", one.name, one.status)
            elif one.status == "failed":
                failures.append(f"{one.name}: {one.message}")
            elif one.status == "changed here" and one.name not in self._told:
                self._told.add(one.name)
                logger.warning("%s: the store has another one; %s", one.name, one.message)
        return "; ".join(failures)


class _Store:
    """The files of a store.

    Raises:
        StationError: It cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        # Not C:/ of Windows. As a folder it would be made without a word.
        if re.match("[A-Za-z][A-Za-z0-9+.-]+:/?[^/]", url):
            raise StationError(f"expected a folder, or a URL with two slashes such as s3://bucket/parts, got {url!r}.")
        scheme, slashes, rest = url.partition("://")
        try:
            self._files, root = fsspec.core.url_to_fs(f"{scheme.lower()}://{rest}" if slashes else url)
        except (ImportError, ValueError) as error:
            raise StationError(
                f"expected a folder, or a URL whose package is installed (for s3:// pip install 'fewshot-ad[s3]'), got "
                f"{url!r}: {error}"
            ) from error
        self._root = root.rstrip("/")

    def expect_other(self, catalog: Catalog) -> None:
        """Refuse a store that is the folder of the products itself."""
        if "file" in _protocols(self._files) and Path(self._root).resolve() == catalog.folder.resolve():
            raise StationError(f"expected a store besides the folder of the products, got {self._url} for both.")

    def expect_place(self, catalog: Catalog) -> None:
        """Refuse a folder in no folder: a share that is not mounted must not become a folder of this computer."""
        self.expect_other(catalog)
        parent = Path(self._root).absolute().parent
        if "file" in _protocols(self._files) and not parent.is_dir():
            raise StationError(f"expected a folder at {parent} to keep the store in, got none. Mount or create it.")

    def names(self) -> list[str]:
        """The products that the store has."""
        try:
            # What was listed before may have changed since.
            self._files.invalidate_cache()
            found = self._files.ls(f"{self._root}/{PRODUCTS}", detail=False)
        except FileNotFoundError:
            raise StationError(
                f"expected a store of products at {self._url}, got none. Check its name, or push some first."
            ) from None
        except Exception as error:  # whatever the client of an object store raises
            raise self._failure("the store cannot be reached", error) from error
        ends = (path.rsplit("/", 1)[-1] for path in found)
        return sorted(end.removesuffix(".json") for end in ends if end.endswith(".json"))

    def pointer(self, name: str) -> dict[str, Any] | None:
        """What the store says of a product; None where it has none of that name."""
        data = self._read(f"{PRODUCTS}/{name}.json", 100_000)
        if data is None:
            return None
        try:
            pointer = json.loads(data)
        except ValueError:
            pointer = None
        digest = pointer.get("sha256") if isinstance(pointer, dict) and pointer.get("schema") == SCHEMA else None
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise StationError(
                f"{self._url}: expected the entry of a product for {name!r}, got something else. Push it anew with "
                "--force."
            )
        return dict(pointer)

    def get(self, digest: str) -> bytes:
        """The bytes of a hash.

        Raises:
            StationError: They are not there, or others.
        """
        data = self._read(f"{OBJECTS}/{digest}.fsad", MAX_BYTES)
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            got = "none" if data is None else "other bytes"
            raise StationError(
                f"{self._url}: expected the product with the hash {digest[:12]}, got {got}. Push it anew with --force."
            )
        return data

    def put(self, name: str, data: bytes) -> None:
        """Write a product: first what it is, then that it is it."""
        digest = hashlib.sha256(data).hexdigest()
        pointer = {"schema": SCHEMA, "sha256": digest, "bytes": len(data), "time": utc_now().isoformat()}
        self._write(f"{OBJECTS}/{digest}.fsad", data)
        self._write(f"{PRODUCTS}/{name}.json", json.dumps(pointer).encode())

    def _read(self, name: str, most: int) -> bytes | None:
        try:
            with self._files.open(f"{self._root}/{name}", "rb") as file:
                data: bytes = file.read(most + 1)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._failure(f"{name} cannot be read", error) from error
        if len(data) > most:
            raise StationError(f"{self._url}: {name}: expected at most {most:,} bytes, got more.")
        return data

    def _write(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        if "file" in _protocols(self._files):
            # An object store writes whole or not at all; a folder needs help with that.
            try:
                write_atomically(Path(path), data)
            except OSError as error:
                raise StationError(write_failure(path, error, len(data))) from error
            return
        try:
            self._files.pipe_file(path, data)
        except Exception as error:
            raise self._failure(f"{name} cannot be written", error) from error

    def _failure(self, what: str, error: Exception) -> StationError:
        """What to say of whatever the client of an object store raises."""
        advice = "Check it"
        if isinstance(error, FileNotFoundError):
            advice = "Check the name of the bucket, and that it exists"
        elif isinstance(error, PermissionError):
            advice = "Check the credentials, and what they may do there"
        return StationError(f"{self._url}: {what} ({str(error) or type(error).__name__}). {advice}.")


def _protocols(files: Any) -> Sequence[str]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _push(catalog: Catalog, files: _Store, name: str, force: bool) -> Pushed:
    path = catalog.path(name)
    # Not a damaged one.
    read_artifact(path)
    data = path.read_bytes()
    # Whatever is damaged there, force writes it anew.
    pointer, digest = None if force else files.pointer(name), hashlib.sha256(data).hexdigest()
    status: PushStatus = "there"
    if pointer is None or pointer["sha256"] != digest:
        if pointer is not None and pointer["sha256"] != _fetched(catalog).get(name):
            message = "another station has put a newer one there; fetch that first, or --force replaces it"
            return Pushed(name, "changed there", message)
        files.put(name, data)
        status = "pushed"
    # From here on the two are the same: whatever comes into the store later is newer than this.
    _remember(catalog, name, digest)
    return Pushed(name, status)


def _pull(files: _Store, catalog: Catalog, name: str, force: bool) -> Pulled:
    path = catalog.path(name)
    pointer = files.pointer(name)
    if pointer is None:
        raise StationError(f"expected a product of the store, got {name!r}.")
    digest = pointer["sha256"]
    refusal = _refusal(path, name, digest, catalog, force)
    if refusal is not None:
        return refusal
    data = files.get(digest)
    probe = path.with_name(f".{path.name}.fetched")
    try:
        write_atomically(probe, data)
        read_artifact(probe)
        # While it was fetched, somebody may have corrected the product here.
        with lock(path):
            refusal = _refusal(path, name, digest, catalog, force)
            if refusal is not None:
                return refusal
            status: PullStatus = "updated" if path.exists() else "new"
            write_atomically(path, data)
    except OSError as error:
        raise StationError(write_failure(path, error, len(data))) from error
    finally:
        probe.unlink(missing_ok=True)
    _remember(catalog, name, digest)
    return Pulled(name, status)


def _refusal(path: Path, name: str, digest: str, catalog: Catalog, force: bool) -> Pulled | None:
    """Why a product is not fetched; None if it is."""
    mine, before = (
        (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None),
        _fetched(catalog).get(name),
    )
    if mine == digest:
        _remember(catalog, name, digest)
        return Pulled(name, "there")
    if mine is None and before is not None and not force:
        return Pulled(name, "deleted here", "it was deleted here since it was fetched; --force fetches it again")
    if mine is not None and mine != before and not force:
        return Pulled(name, "changed here", "it was changed here since it was fetched; --force replaces it")
    return None


def _remember(catalog: Catalog, name: str, digest: str) -> None:
    fetched = _fetched(catalog)
    if fetched.get(name) != digest:
        try:
            write_atomically(catalog.folder / FETCHED, json.dumps({**fetched, name: digest}).encode())
        except OSError as error:
            raise StationError(write_failure(catalog.folder / FETCHED, error)) from error


def _fetched(catalog: Catalog) -> dict[str, str]:
    try:
        known = json.loads((catalog.folder / FETCHED).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
