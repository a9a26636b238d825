"""The folder of pictures that belong to a journal, within a quota: the oldest of good parts make room first."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from fewshot_ad.images import format_of
from fewshot_ad.line.journal.database import JournalError
from fewshot_ad.line.journal.entries import Picture
from fewshot_ad.line.journal.journal import Journal
from fewshot_ad.storage import sweep, write_atomically, write_failure

logger = logging.getLogger(__name__)

# Where the quota is exceeded, so much of it is freed at once.
FREED = 0.05
# Pictures that are dropped in one transaction.
BATCH = 100
# Of each format: how its files end, and what it is over HTTP.
_KINDS = {
    "PNG": (".png", "image/png"),
    "JPEG": (".jpg", "image/jpeg"),
    "BMP": (".bmp", "image/bmp"),
    "TIFF": (".tif", "image/tiff"),
    "WebP": (".webp", "image/webp"),
    "GIF": (".gif", "image/gif"),
}
_OTHER = (".bin", "application/octet-stream")


def media_type(data: bytes) -> str:
    """What an encoded image is over HTTP, by its content."""
    return _KINDS.get(format_of(data) or "", _OTHER)[1]


class PictureFolder:
    """Pictures by name, on disk. It may be used on several threads.

    Args:
        folder: Where they lie; it is made if there is none.
        journal: That says which there are.
        quota: Bytes that they may take.

    Attributes:
        folder: As given.
        trouble: Why the last one was not kept; empty if it was.

    Raises:
        JournalError: The folder cannot be made.
    """

    def __init__(self, folder: Path, journal: Journal, quota: int) -> None:
        self.folder, self._journal, self._quota = folder, journal, quota
        self._lock = threading.Lock()
        self.trouble = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(write_failure(folder, error)) from error
        # What a killed station has left half written lies where it wrote last.
        for latest in sorted(path for path in folder.iterdir() if path.is_dir())[-2:]:
            sweep(latest)
        self._held = journal.picture_bytes()

    @property
    def nbytes(self) -> int:
        """What they take."""
        return self._held

    def store(self, record_id: str, data: bytes, mark: str = "") -> Picture | None:
        """Write a picture.

        Args:
            record_id: Of the inspection that it belongs to.
            data: An encoded image, or what was sent as one.
            mark: What is appended to its name: `overlay`.

        Returns:
            The picture; None where the disk takes no more, which a warning says: a verdict must not wait for it.
        """
        suffix = _KINDS.get(format_of(data) or "", _OTHER)[0]
        # A folder for each 2**24 ms, five hours, so that none of them has too many.
        name = f"{record_id[:6]}/{record_id}{f'-{mark}' if mark else ''}{suffix}"
        if len(data) > self._quota:
            return None
        self._make_room(len(data))
        for last in (False, True):
            try:
                self._write(name, data)
                break
            except OSError as error:
                if last or error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self.free(len(data)):
                    self.trouble = f"no picture is kept: {write_failure(self.folder / name, error, len(data))}"
                    logger.warning("%s", self.trouble)
                    return None
        self.trouble = ""
        with self._lock:
            self._held += len(data)
        return Picture(name, len(data))

    def read(self, name: str) -> bytes | None:
        """A picture; None where it is not there any more.

        Raises:
            JournalError: It cannot be read.
        """
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise JournalError(f"{name}: cannot be read ({error.strerror}). Check the folder of pictures.") from error

    def free(self, nbytes: int) -> bool:
        """Remove the oldest pictures on a full disk, 5% of the quota at least; whether there were any.

        Raises:
            JournalError: The journal cannot be written.
        """
        return self._drop(max(nbytes, int(FREED * self._quota)))

    def discard(self, pictures: Iterable[Picture]) -> None:
        """Remove pictures that no entry of the journal came to name."""
        for picture in pictures:
            with contextlib.suppress(OSError):
                os.unlink(self.path(picture.name))
            with self._lock:
                self._held = max(0, self._held - picture.nbytes)

    def path(self, name: str) -> Path:
        """Where a picture lies.

        Raises:
            JournalError: It leads out of the folder.
        """
        path = self.folder / name
        if ".." in path.parts or not path.is_relative_to(self.folder):
            raise JournalError(f"expected the name of a picture, got {name!r}: it leads elsewhere.")
        return path

    def _write(self, name: str, data: bytes) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data, crowded=True)

    def _make_room(self, nbytes: int) -> None:
        if self._held + nbytes > self._quota:
            self._drop(int(self._held + nbytes - self._quota + FREED * self._quota))

    def _drop(self, nbytes: int) -> bool:
        """Remove pictures until so many bytes are free; whether there were any."""
        freed, good, others = 0, 0, 0
        with self._lock:
            while freed < nbytes:
                oldest = self._journal.oldest_pictures(BATCH)
                gone = []
                for picture, is_good in oldest:
                    # One that cannot be removed is forgotten all the same: the quota is of what is known.
                    with contextlib.suppress(OSError):
                        os.unlink(self.path(picture.name))
                    gone.append(picture.name)
                    freed += picture.nbytes
                    good, others = good + is_good, others + (not is_good)
                    if freed >= nbytes:
                        break
                if not gone:
                    break
                self._journal.forget_pictures(gone)
            self._held = max(0, self._held - freed)
        if good or others:
            more = f", and {others} of others, since no more of good ones were left" if others else ""
            self._journal.note("dropped", f"{good} picture(s) of good parts made room for new ones{more}")
        return bool(good or others)
