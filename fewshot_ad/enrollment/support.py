"""The support set, and its views: changed copies of the good images that fill the memory bank beside them."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, get_args

import cv2
import numpy as np

from fewshot_ad.arguments import choice, image_sources, number
from fewshot_ad.arrays import Float32Array, Float64Array, Progress, Uint8Array
from fewshot_ad.documents.naming import nearest
from fewshot_ad.errors import ImageError, SupportSetError, sentence
from fewshot_ad.images import ColorOrder, ImageSource, expand_sources, image_name, read_image
from fewshot_ad.printable import printable

ViewsSpec: TypeAlias = str | Sequence[str] | Mapping[str, Sequence[float]]

# Pixels of files that are kept between the passes over a support set; the files beyond are read once more each time.
KEPT_BYTES = 200_000_000
# Each is encoded for each image.
MAX_VIEWS = 1000


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


@dataclass(frozen=True)
class View:
    """One way to change a copy of a support image.

    Attributes:
        kind: A name in `VIEW_KINDS`.
        value: Its strength; the meaning is the kind's. 0 where it has none.
    """

    kind: str
    value: float = 0.0

    @property
    def shows_all(self) -> bool:
        """Whether it shows the whole image, mirrored or recolored, with no border mirrored in."""
        return self.kind in ("gray", "hflip", "vflip", "brightness", "contrast", "hue")

    def apply(self, image: Uint8Array, mask: Uint8Array) -> tuple[Uint8Array, Uint8Array, Float64Array]:
        """Make the view.

        Args:
            image: (H, W, 3) uint8 RGB.
            mask: (H, W) uint8, 255 where `image` shows the image itself.

        Returns:
            The view; its mask: 255 where it shows the image, 0 where the border was mirrored in; and the affine
            matrix (2, 3) that takes (x, y) of the view to (x, y) of `image`.
        """
        return VIEW_KINDS[self.kind].apply(image, mask, self.value)

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}" if VIEW_KINDS[self.kind].strengths != (0.0,) else self.kind


Applied: TypeAlias = tuple[Uint8Array, Uint8Array, Float64Array]


@dataclass(frozen=True)
class ViewKind:
    """A kind of view: what it does, the strengths it has by default, and their valid range."""

    apply: Callable[[Uint8Array, Uint8Array, float], Applied]
    strengths: tuple[float, ...]
    valid: tuple[float, float]


IDENTITY = np.array([[1, 0, 0], [0, 1, 0]], np.float64)


def _warp(image: Uint8Array, mask: Uint8Array, forward: Float64Array) -> Applied:
    size = image.shape[1::-1]
    # Mirroring gives the network plausible surroundings; the mask keeps mirrored patches out of the bank.
    view = cv2.warpAffine(image, forward, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    inside = cv2.warpAffine(mask, forward, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return view, inside, cv2.invertAffineTransform(forward)


def _flip(axis: int) -> Callable[[Uint8Array, Uint8Array, float], Applied]:
    def apply(image: Uint8Array, mask: Uint8Array, value: float) -> Applied:
        back = IDENTITY.copy()
        back[axis, axis] = -1
        back[axis, 2] = image.shape[1 - axis] - 1
        code = 1 if axis == 0 else 0
        return cv2.flip(image, code), cv2.flip(mask, code), back

    return apply


def _rotate(image: Uint8Array, mask: Uint8Array, degrees: float) -> Applied:
    height, width = image.shape[:2]
    return _warp(image, mask, cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0))


def _translate(axis: int) -> Callable[[Uint8Array, Uint8Array, float], Applied]:
    def apply(image: Uint8Array, mask: Uint8Array, fraction: float) -> Applied:
        forward = IDENTITY.copy()
        forward[axis, 2] = round(fraction * image.shape[1 - axis])
        return _warp(image, mask, forward)

    return apply


def _scale(image: Uint8Array, mask: Uint8Array, factor: float) -> Applied:
    height, width = image.shape[:2]
    return _warp(image, mask, cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 0.0, factor))


def _hue(image: Uint8Array, mask: Uint8Array, degrees: float) -> Applied:
    # OpenCV's full hue is a byte, so a whole turn of it comes back by itself.
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(degrees / 360 * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL), mask, IDENTITY


def _gray(image: Uint8Array, mask: Uint8Array, value: float) -> Applied:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), mask, IDENTITY


def _brightness(image: Uint8Array, mask: Uint8Array, factor: float) -> Applied:
    return cv2.convertScaleAbs(image, alpha=factor), mask, IDENTITY


def _contrast(image: Uint8Array, mask: Uint8Array, factor: float) -> Applied:
    mean = float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())
    table = np.clip(np.rint((np.arange(256) - mean) * factor + mean), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table), mask, IDENTITY


VIEW_KINDS: dict[str, ViewKind] = {
    "gray": ViewKind(_gray, (0.0,), (0, 0)),  # without color
    "hflip": ViewKind(_flip(0), (0.0,), (0, 0)),  # mirrored left to right
    "vflip": ViewKind(_flip(1), (0.0,), (0, 0)),  # mirrored top to bottom
    "translate_x": ViewKind(_translate(0), (-0.04, 0.04), (-0.5, 0.5)),  # shifted, as a fraction of the width
    "translate_y": ViewKind(_translate(1), (-0.04, 0.04), (-0.5, 0.5)),  # shifted, as a fraction of the height
    "rotate": ViewKind(_rotate, tuple(45.0 * i for i in range(1, 8)), (-360, 360)),  # rotated, in degrees
    "scale": ViewKind(_scale, (0.9, 1.1), (0.5, 2)),  # enlarged about the center
    "brightness": ViewKind(_brightness, (0.85, 1.15), (0.1, 5)),  # brightness multiplied
    "contrast": ViewKind(_contrast, (0.8, 1.2), (0.1, 5)),  # contrast about the mean multiplied
    "hue": ViewKind(_hue, (-12.0, 12.0), (-360, 360)),  # colors shifted along the circle of hues, in degrees
}
GROUPS: dict[str, tuple[str, ...]] = {
    "translate": ("translate_x", "translate_y"),
    "all": tuple(VIEW_KINDS),
}


def parse_views(spec: ViewsSpec) -> tuple[View, ...]:
    """Read a choice of views.

    Args:
        spec: `"none"`; names, as a sequence or separated by commas (`"hflip,vflip"`), each with its default
            strengths; strengths behind an equals sign (`"rotate=90/180/270"`); or a mapping from name to strengths
            (`{"rotate": [90, 180, 270]}`). `translate` means both directions, `all` every kind.

    Returns:
        The views, without the image itself, in the order given and without repeats.

    Raises:
        SupportSetError: An unknown name, an impossible strength, or more than `MAX_VIEWS`.
    """
    views: dict[View, None] = {}
    for group, strengths in _groups(spec):
        for kind in GROUPS.get(group, (group,)):
            if kind not in VIEW_KINDS:
                raise _no_such_view(kind)
            low, high = VIEW_KINDS[kind].valid
            for strength in strengths if strengths is not None else VIEW_KINDS[kind].strengths:
                value = number(strength, f"the strength of view {kind}", low, high, error=SupportSetError)
                views[View(kind, value)] = None
    if len(views) > MAX_VIEWS:
        raise SupportSetError(f"expected at most {MAX_VIEWS} views, got {len(views)}. Give fewer strengths.")
    return tuple(views)


def _groups(spec: ViewsSpec) -> list[tuple[str, Sequence[float] | None]]:
    """Names of kinds or groups, with their strengths if any were given."""
    if isinstance(spec, str):
        spec = [] if spec in ("none", "") else spec.split(",")
    if isinstance(spec, Mapping):
        return [(str(name), _strengths_of(name, strengths)) for name, strengths in spec.items()]
    if not isinstance(spec, Iterable) or not all(isinstance(entry, str) for entry in spec):
        raise SupportSetError(
            f"expected views as text such as 'hflip,rotate=90/180/270', a list of names, or a mapping such as "
            f"{{'rotate': [90, 180]}}, got {spec!r}."
        )
    entries = [entry.strip().partition("=") for entry in spec]
    return [(name, _read_strengths(name, text) if text else None) for name, _, text in entries]


def _strengths_of(name: object, strengths: object) -> Sequence[float] | None:
    if strengths is None or (isinstance(strengths, Iterable) and not isinstance(strengths, str)):
        return None if strengths is None else list(strengths)
    raise SupportSetError(
        f"view {name}: expected a list of strengths, got {strengths!r}. Put it in brackets, such as "
        f"{{{name!r}: [{strengths}]}}."
    )


def _read_strengths(name: str, text: str) -> list[float]:
    try:
        return [float(strength) for strength in text.split("/")]
    except ValueError:
        raise SupportSetError(
            f"view {name}: expected numbers separated by '/', as in 'rotate=90/180/270', got {text!r}."
        ) from None


def _no_such_view(kind: str) -> SupportSetError:
    if kind in ("auto", "none"):
        return SupportSetError(
            f"expected views='{kind}' alone, got it in a list of others. Leave it out, or the others."
        )
    known = [*VIEW_KINDS, *GROUPS]
    likely = nearest(kind, known)
    hint = f" Did you mean {likely}?" if likely else ""
    return SupportSetError(f"expected views among {', '.join(known)}, or 'auto' or 'none' alone; got {kind!r}.{hint}")
