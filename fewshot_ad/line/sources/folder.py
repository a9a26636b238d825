"""A folder that images are put into: each is inspected once it has stopped growing, and moved to its verdict."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fewshot_ad.images.listing import OTHER_SUFFIXES, SUFFIXES
from fewshot_ad.line.record import Record, RecordVerdict
from fewshot_ad.line.settings import FolderEntry
from fewshot_ad.line.sources.source import BusyError, SourceState, Submit
from fewshot_ad.printable import printable

logger = logging.getLogger(__name__)

# Bytes of one file at most, unless told.
MAX_BYTES = 1_000_000_000
# Looks over which a file stays as it is before it is taken. An empty one may have been made to be filled in a moment.
LOOKS, EMPTY_LOOKS = 2, 10
# Seconds until a folder that is gone, or a station that gives no verdict, is tried again.
PAUSE_S = 1.0
# Files without a verdict after which a look ends: it is the station then, and not the files.
MAX_FAILURES = 3
# How programs call what they are still writing.
TEMPORARY = (".part", ".partial", ".filepart", ".tmp", ".temp", ".crdownload")
FOLDERS: Mapping[RecordVerdict, str] = {
    "good": "good",
    "review": "review",
    "anomalous": "reject",
    "not_inspectable": "not_inspectable",
    "unreadable": "unreadable",
}


class _File(NamedTuple):
    path: Path
    size: int
    mtime_ns: int


class FolderSource:
    """Inspects the images that are put into a folder, the oldest first, and moves each into the folder of its verdict.

    A file is taken when its size and time stay the same over two looks. What is no image by its name, what is hidden, a
    link, or named as programs name what they still write (.part, .tmp), is left where it is.

    A file that was inspected just before the station was killed is still there after the next start. It is then sent
    with the same key, so that it is not counted twice. The key is made of path, size, and the times of the last change
    of the content and of the entry in the folder; a file that is moved away and back is a new one.

    Args:
        entry: Which folder, and what of it.
        submit: What inspects.
        max_bytes: Of one file; a larger one is not read, and recorded as unreadable.
    """

    def __init__(self, entry: FolderEntry, submit: Submit, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = Path(entry.path)
        self._done = self._folder / "done" if entry.done is None else Path(entry.done)
        self._entry, self._submit, self._max_bytes = entry, submit, max_bytes
        self.name = f"folder:{printable(self._folder.name or str(self._folder))}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"fewshot-ad-{self.name}", daemon=True)
        self._looks: dict[_File, int] = {}
        # What has its verdict, but could not be moved yet.
        self._judged: dict[_File, Record] = {}
        self._problems: dict[str, str] = {}
        self._left: set[str] = set()
        self._error, self._seen = "", 0

    @property
    def state(self) -> SourceState:
        """How it is doing now."""
        running = self._thread.is_alive() and not self._stop.is_set()
        return SourceState(self.name, running, self._error, self._seen)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def stop(self, wait_s: float = 5.0) -> None:
        """End, once the image that is inspected has been moved.

        Args:
            wait_s: How long to wait for that.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def _run(self) -> None:
        wait = 0.0
        while not self._stop.wait(wait):
            problems: dict[str, str] = {}
            try:
                wait = self._look(problems)
            except Exception as error:  # nothing must end the thread while the station runs
                problems[""] = str(error) or type(error).__name__
                wait = max(PAUSE_S, self._entry.every_s)
            self._tell(problems)

    def _tell(self, problems: dict[str, str]) -> None:
        for name, problem in problems.items():
            if self._problems.get(name) != problem:
                logger.warning("%s: %s", self.name, problem)
        if self._problems and not problems:
            logger.info("%s: all is well again", self.name)
        self._problems = problems
        more = f" And {len(problems) - 1} more." if len(problems) > 1 else ""
        self._error = f"{next(iter(problems.values()))}{more}" if problems else ""

    def _look(self, problems: dict[str, str]) -> float:
        """Take what has settled.

        Args:
            problems: By file; what is found is added.

        Returns:
            Seconds until the next look.
        """
        try:
            files = self._list()
        except OSError as error:
            problems[""] = (
                f"expected a folder at {self._folder}, cannot list it ({error.strerror}). It is waited for: connect "
                "the share, or correct `path`."
            )
            return max(PAUSE_S, self._entry.every_s)
        self._looks = {file: self._looks.get(file, 0) + 1 for file in files}
        self._judged = {file: record for file, record in self._judged.items() if file in self._looks}
        failures = 0
        for file in files:
            if self._stop.is_set() or failures == MAX_FAILURES:
                break
            try:
                self._take(file)
            except BusyError:
                # Those behind it wait, too: they stay in order.
                break
            except OSError as error:
                problems[file.path.name] = (
                    f"expected to read {file.path} and to move it below {self._done}, cannot "
                    f"({error.strerror or error}). Check the rights and the disk; it is tried again."
                )
            except Exception as error:  # whatever a station raises: the file stays, and is tried again
                problems[file.path.name] = f"no verdict on {file.path.name}: {error}"
                failures += 1
        return max(PAUSE_S, self._entry.every_s) if failures else self._entry.every_s

    def _list(self) -> list[_File]:
        """The files that may be taken, in the order in which they were written."""
        files = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not self._is_taken(entry):
                    continue
                # One that is gone by now was taken away by somebody else.
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    files.append(_File(Path(entry.path), found.st_size, found.st_mtime_ns))
        return sorted(files, key=lambda file: (file.mtime_ns, file.path.name))

    def _is_taken(self, entry: os.DirEntry[str]) -> bool:
        name = entry.name.lower()
        if name.startswith(".") or name.endswith(TEMPORARY) or entry.is_dir(follow_symlinks=False):
            return False
        # A link may lead to any file of this computer, which a station must not move or show.
        taken = entry.is_file(follow_symlinks=False) and Path(name).suffix in SUFFIXES | OTHER_SUFFIXES
        if not taken and entry.name not in self._left and len(self._left) < 100:
            self._left.add(entry.name)
            logger.warning("%s: %s is left there: it is a link, or no image by its name", self.name, entry.name)
        return taken

    def _take(self, file: _File) -> None:
        record = self._judged.get(file)
        if record is None:
            if self._looks[file] < (LOOKS if file.size else EMPTY_LOOKS):
                return
            read = self._read(file)
            if read is None:
                return
            image, key = read
            record = self._inspect(file, image, key)
            self._judged[file] = record
            self._seen += 1
        found = file.path.lstat()
        if (found.st_size, found.st_mtime_ns) != (file.size, file.mtime_ns):
            # A camera that always writes the same name has put the next image there.
            return
        move(file.path, self._done / FOLDERS[record.verdict], record.id)
        del self._judged[file]

    def _inspect(self, file: _File, image: bytes, key: str) -> Record:
        name = printable(file.path.name)
        try:
            return self._submit(image, product=self._entry.product, source=self.name, name=name, key=key)
        except OSError as error:
            # It is the station's, and not this file's alone.
            raise RuntimeError(f"expected a verdict on {name}, got {type(error).__name__}: {error}") from error

    def _read(self, file: _File) -> tuple[bytes, str] | None:
        """Content and key of a file; None where it is not what was looked at any more."""
        with open(file.path, "rb", opener=_open_no_link) as opened:
            found = os.fstat(opened.fileno())
            if (found.st_size, found.st_mtime_ns) != (file.size, file.mtime_ns) or not stat.S_ISREG(found.st_mode):
                return None
            if file.size > self._max_bytes:
                logger.warning(
                    "%s: expected at most %d bytes, got %d in %s: it is not read, and recorded as unreadable",
                    self.name,
                    self._max_bytes,
                    file.size,
                    file.path.name,
                )
                image = b""
            else:
                image = opened.read(file.size)
        told = f"{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}".encode()
        digest = hashlib.sha256(os.fsencode(file.path.absolute()) + b"\0" + told).hexdigest()
        return image, f"folder:{digest[:32]}"


def move(path: Path, folder: Path, record_id: str) -> None:
    """Move a file into a folder, whole or not at all, under a name that is free there.

    Args:
        path: Of the file.
        folder: Where to; made if it is missing.
        record_id: Added to the name where that is taken: cameras start counting anew.

    Raises:
        OSError: It cannot be moved; it is where it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    if target.exists():
        target = folder / f"{path.stem}_{record_id}{path.suffix}"
    try:
        os.replace(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _move_across(path, target)


def _move_across(path: Path, target: Path) -> None:
    """Move a file to another file system; it is away from here only once it is safe there."""
    part = target.with_name(f".{target.name}.part")
    try:
        with open(path, "rb", opener=_open_no_link) as source, open(part, "wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        shutil.copystat(path, part, follow_symlinks=False)
        os.replace(part, target)
        try:
            path.unlink()
        except OSError:
            # Else there would be one more copy with each try.
            target.unlink()
            raise
    finally:
        part.unlink(missing_ok=True)


def _open_no_link(path: str, flags: int) -> int:
    # A link may have taken the file's place since the look, and where there is no such flag, few may make links.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
