"""The support set: the good images that a product is enrolled from, and what is noticed while reading them."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from fewshot_ad.arguments import choice, image_sources
from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ImageError, SupportSetError, sentence
from fewshot_ad.images import ColorOrder, ImageSource, expand_sources, image_name, read_image
from fewshot_ad.printable import printable

# Pixels of files that are kept between the passes over a support set; the files beyond are read once more each time.
KEPT_BYTES = 200_000_000


@dataclass(frozen=True)
class SupportImage:
    """One good image of the support set.

    Attributes:
        name: File name, with as much of its folder as tells it from the others; or `image[i]`.
        sha256: Hash of its pixels.
        loaded: (H, W, 3) uint8 RGB; None for a file of a large support set, which is read again each time.
        source: Where it is read from again.
    """

    name: str
    sha256: str
    loaded: Uint8Array | None
    source: Path | None = None

    @property
    def pixels(self) -> Uint8Array:
        """(H, W, 3) uint8 RGB.

        Raises:
            SupportSetError: The file is not what it was when the support set was read.
        """
        if self.loaded is not None:
            return self.loaded
        try:
            pixels = read_image(self.source)  # type: ignore[arg-type]
        except ImageError as error:
            raise SupportSetError(f"{self.name} could be read before and cannot be now: {error}") from error
        if pixel_hash(pixels) != self.sha256:
            raise SupportSetError(
                f"{self.name} was changed while it was being enrolled from. Leave the support set alone and enroll "
                "again."
            )
        return pixels


def pixel_hash(pixels: Uint8Array) -> str:
    """SHA-256 of an image's size and pixels, (H, W, 3) uint8 RGB: the same for every file that holds this image."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class SupportSet:
    """The good images that a product is enrolled from, and what was noticed while reading them."""

    images: tuple[SupportImage, ...]
    notes: tuple[str, ...]

    def without(self, images: Collection[int]) -> SupportSet:
        """The same without the images at these positions."""
        return SupportSet(tuple(image for i, image in enumerate(self.images) if i not in images), self.notes)


def read_support(
    images: ImageSource | Iterable[ImageSource],
    color: ColorOrder = "rgb",
    progress: Progress | None = None,
    taken: Collection[str] = (),
) -> SupportSet:
    """Read a support set. An image that cannot be read, and an exact duplicate, is left out and noted.

    Args:
        images: A folder, a glob, or images in any form `read_image` takes.
        color: Channel order of arrays.
        progress: Called as `progress("read", done, total)`.
        taken: Names that other images of the product have already.

    Raises:
        SupportSetError: Nothing usable was given.
    """
    choice(color, "color", get_args(ColorOrder), SupportSetError)
    try:
        sources = expand_sources(image_sources(images))
    except ImageError as error:
        raise SupportSetError(f"no support set: {error}") from error
    images_read: list[SupportImage] = []
    notes: list[str] = []
    name_of: dict[str, str] = {}
    thumbnails: list[Float32Array] = []
    dark: list[str] = []
    failures = kept_bytes = 0
    for index, (name, source) in enumerate(zip(distinct_names(sources, taken), sources, strict=True)):
        if progress is not None:
            progress("read", index, len(sources))
        try:
            pixels = read_image(source, color)
        except ImageError as error:
            failures += 1
            notes.append(f"left out, unreadable: {error}")
            continue
        sha256 = pixel_hash(pixels)
        if sha256 in name_of:
            notes.append(f"left out, identical to {name_of[sha256]}: {name}")
            continue
        name_of[sha256] = name
        path = Path(source) if isinstance(source, (str, os.PathLike)) else None
        kept_bytes += pixels.nbytes if path is not None else 0
        images_read.append(
            SupportImage(name, sha256, None if path is not None and kept_bytes > KEPT_BYTES else pixels, path)
        )
        thumbnails.append(_thumbnail(pixels))
        if int(pixels.max()) < 32:
            dark.append(name)
    if not images_read:
        reason = f"{failures} image(s) could not be read: {'; '.join(notes)}" if failures else "none was given"
        expected = "at least one further good image" if taken else "2 to 8 good images"
        raise SupportSetError(f"expected {expected}, got no usable one: {sentence(reason)} Give good images.")
    if progress is not None:
        progress("read", len(sources), len(sources))
    notes += _notes_on_content([image.name for image in images_read], thumbnails, dark)
    return SupportSet(tuple(images_read), tuple(notes))


def distinct_names(sources: Sequence[ImageSource], taken: Collection[str] = ()) -> list[str]:
    """Names of images for people to read: no two files share one, and none has one that is taken.

    Args:
        sources: Images in any form.
        taken: Names that others have.

    Returns:
        For a file its name, led by as many of its folders as tell it apart; for an image from memory `image[i]`, where
        i goes on after the numbers that are taken.
    """
    numbers = [int(match[1]) for name in taken if (match := re.fullmatch(r"image\[(\d+)\]", name))]
    first = max(numbers, default=-1) + 1
    parts = {
        index: Path(os.path.abspath(source)).parts
        for index, source in enumerate(sources)
        if isinstance(source, (str, os.PathLike))
    }
    names = {index: image_name(source, first + index) for index, source in enumerate(sources) if index not in parts}
    longest = max(map(len, parts.values()), default=0)
    for depth in range(1, longest + 1):
        # A file that is listed twice is one file.
        shared = Counter(path[-depth:] for path in set(parts.values()))
        for index, path in parts.items():
            name = "/".join(path[-depth:])
            if index not in names and (depth == longest or (shared[path[-depth:]] == 1 and name not in taken)):
                names[index] = name
    # A name of bytes that are no UTF-8 could not be stored.
    return [printable(names[index]) for index in range(len(sources))]


def _notes_on_content(names: Sequence[str], thumbnails: Sequence[Float32Array], dark: Sequence[str]) -> list[str]:
    notes = _near_duplicates(thumbnails, names)
    if dark:
        notes.append(
            f"almost black: {', '.join(dark)}. 12-bit data in 16-bit files must be multiplied by 16 first; otherwise "
            "raise the exposure."
        )
    if len(names) == 1:
        notes.append(
            "only one image: how much good parts differ cannot be seen from it, so the threshold rests on its "
            "views. Give at least 2, better 4 to 8."
        )
    return notes


def _thumbnail(pixels: Uint8Array) -> Float32Array:
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)


def _near_duplicates(thumbnails: Sequence[Float32Array], names: Sequence[str]) -> list[str]:
    # Two exposures of one part that was not touched in between differ by sensor noise only: well under one gray level
    # after averaging to 64 x 64. Two parts, even on a fixture, differ by more.
    notes = []
    for i in range(len(names)):
        for j in range(i):
            if float(np.abs(thumbnails[i] - thumbnails[j]).mean()) < 0.6:
                notes.append(
                    f"nearly identical: {names[j]} and {names[i]}. The same part photographed twice says "
                    "nothing about how parts differ; the threshold will be too tight."
                )
                break
    return notes
