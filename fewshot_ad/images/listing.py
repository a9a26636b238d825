"""A folder, a glob or a file name -> the paths of images."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.errors import ImageError
from fewshot_ad.images.signatures import PNG, format_of

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".pbm", ".pgm", ".ppm", ".pnm", ".gif")
)
# Images of kinds that are not read: that they are left out is told.
OTHER_SUFFIXES = frozenset(
    (
        *(
            ".jp2",
            ".j2k",
            ".jpf",
            ".jpx",
            ".jxl",
            ".jxr",
            ".avif",
            ".heic",
            ".heif",
            ".exr",
            ".hdr",
            ".pfm",
            ".pam",
            ".psd",
        ),
        *(
            ".dng",
            ".raw",
            ".cr2",
            ".cr3",
            ".nef",
            ".arw",
            ".orf",
            ".rw2",
            ".raf",
            ".svg",
            ".tga",
            ".ras",
            ".dds",
            ".qoi",
        ),
    )
)
OVERLAY_SUFFIX = "_overlay.png"
# What an overlay that this package drew holds right behind its header of 25 bytes: a PNG chunk of text.
OVERLAY_MARK = b"tEXtfewshot-ad\0overlay"
OVERLAY_MARK_AT = len(PNG) + 25 + 4
MAP_SUFFIX = "_map.tiff"
# What an anomaly map that this package wrote says of itself, within the first bytes of the file.
MAP_MARK = "fewshot-ad anomaly map"
HEAD_BYTES = 256
NAMED = 5
RECURSIVE = "**"

logger = logging.getLogger(__name__)


def list_images(source: str | os.PathLike[str]) -> list[Path]:
    """Expand a folder, a glob or a file name into image paths, in sorted order.

    What looks like an image but is left out of a folder is logged. So are overlays of earlier inspections, which are no
    images of parts; they are listed only where they are named one by one.

    Args:
        source: A folder (its images, not its subfolders), a glob such as `good/*.png`, or one file. Folders that exist
            are taken literally: `line [A]/*.png` lists the folder `line [A]`. `**` stands for any number of folders,
            without those that are links; a file that is found by two ways is listed once.

    Raises:
        ImageError: Nothing matches, the folder holds no image, or the name is empty.
    """
    if not os.fspath(source):
        # It would be the working folder.
        raise ImageError("expected the name of a folder, a file or a glob, got an empty text. Name the images.")
    path = Path(source)
    try:
        if path.is_dir():
            return _images_in(path)
        if path.exists() or path.is_symlink():
            return [path]
        matches = _matches(path)
        images = _without_overlays(matches, path)
    except OSError as error:
        raise ImageError(f"{path}: cannot be listed ({error.strerror}). Check the path and the permissions.") from error
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"expected a path, but no file can have {str(source)!r} ({error}). Check it.") from error
    if not matches:
        raise ImageError(
            f"expected a folder, a file or a glob of files, but nothing matches {str(source)!r}. {advice_on_path(path)}"
        )
    if not images:
        raise ImageError(
            f"expected images, but {str(source)!r} matches only overlays or maps of earlier inspections. Name images."
        )
    return images


def is_overlay(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an overlay that this package drew, by its mark; False if it cannot be read."""
    try:
        return _head(Path(path)).startswith(OVERLAY_MARK, OVERLAY_MARK_AT)
    except OSError:
        return False


def is_map(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an anomaly map that this package wrote, by its mark; False if it cannot be read."""
    try:
        return MAP_MARK.encode() in _head(Path(path))
    except OSError:
        return False


def advice_on_path(path: Path) -> str:
    """How a path becomes one that names a file."""
    first = str(path).replace("\\", "/").partition("/")[0]
    if first.startswith("~"):
        return "Only a shell replaces ~, and not within quotes; in Python use os.path.expanduser(path)."
    if re.fullmatch(r"[a-z][a-z0-9+]+:", first, re.IGNORECASE):
        return "Addresses are not fetched: download the file first."
    return "Check the path."


def _images_in(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ImageError(f"{folder}: the folder cannot be listed ({error.strerror}). Check the permissions.") from error
    # macOS and copying programs leave hidden files behind, whose names begin with a dot.
    files = [p for p in entries if not p.name.startswith(".") and not p.is_dir()]
    # A link that leads nowhere stays: reading it says so.
    images = _without_overlays([p for p in files if p.suffix.lower() in SUFFIXES], folder)
    left_out = [p.name for p in files if _is_image_of_other_name(p)]
    if not images:
        names = [p.name for p in entries][:NAMED]
        raise ImageError(
            f"expected images ({', '.join(sorted(SUFFIXES))}) in {folder}, found none"
            f"{' but ' + ', '.join(names) if names else ' (the folder is empty)'}. Name the folder that "
            "holds the images themselves."
        )
    if left_out:
        count = "1 image" if len(left_out) == 1 else f"{len(left_out)} images"
        logger.info("%s: %s left out, of a kind or name that is not read: %s.", folder, count, _few(left_out))
    return images


def _is_image_of_other_name(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix:
        return suffix in OTHER_SUFFIXES
    try:
        return path.is_file() and format_of(_head(path)) is not None
    except OSError:
        return False


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _without_overlays(paths: list[Path], source: Path) -> list[Path]:
    overlays = {path for path in paths if path.name.endswith(OVERLAY_SUFFIX) and path.is_file() and is_overlay(path)}
    maps = {path for path in paths if path.name.endswith(MAP_SUFFIX) and path.is_file() and is_map(path)}
    for kind, found in (("overlay", overlays), ("map", maps)):
        if found:
            count = f"1 {kind}" if len(found) == 1 else f"{len(found)} {kind}s"
            logger.info("%s: %s of earlier inspections left out.", source, count)
    return [path for path in paths if path not in overlays | maps]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _matches(path: Path) -> list[Path]:
    """The files that a glob matches; those leading parts of it that exist are taken as they are written."""
    folder = Path(path.anchor)
    parts = path.parts[1:] if path.anchor else path.parts
    while parts and (folder / parts[0]).exists():
        folder, parts = folder / parts[0], parts[1:]
    if not folder.is_dir():
        return []
    matches = sorted(match for match in _below(folder, parts) if not match.is_dir())
    if RECURSIVE not in parts:
        return matches
    # Several links may lead to one file.
    first: dict[str, Path] = {}
    for match in matches:
        first.setdefault(os.path.realpath(match), match)
    return list(first.values())


def _below(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == RECURSIVE:
        if rest[:1] == (RECURSIVE,):
            yield from _below(folder, rest)
            return
        yield from _below(folder, rest or ("*",))
        for child in _children(folder, "*"):
            # A link may lead back to a folder above it.
            if child.is_dir(follow_symlinks=False):
                yield from _below(folder / child.name, parts)
    elif glob.has_magic(part):
        for child in _children(folder, part):
            if not rest or child.is_dir():
                yield from _below(folder / child.name, rest)
    elif os.path.lexists(folder / part):
        yield from _below(folder / part, rest)


def _children(folder: Path, pattern: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        hidden = pattern.startswith(".")
        return [e for e in entries if fnmatch.fnmatch(e.name, pattern) and (hidden or not e.name.startswith("."))]
