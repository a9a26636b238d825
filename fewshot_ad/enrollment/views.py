"""The views of a support set: changed copies of the good images that fill the memory bank beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from fewshot_ad.arguments import number
from fewshot_ad.arrays import Float64Array, Uint8Array
from fewshot_ad.documents.naming import nearest
from fewshot_ad.errors import SupportSetError

ViewsSpec: TypeAlias = str | Sequence[str] | Mapping[str, Sequence[float]]

# Each is encoded for each image.
MAX_VIEWS = 1000


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
    """A kind of view.

    Attributes:
        apply: What it does to an image and its mask, by a strength.
        strengths: Those it has by default.
        valid: Lowest and highest strength.
        neutral: The strength that changes nothing; None where there is none.
        period: Strengths that differ by it are the same, 0 where none are.
    """

    apply: Callable[[Uint8Array, Uint8Array, float], Applied]
    strengths: tuple[float, ...]
    valid: tuple[float, float]
    neutral: float | None = None
    period: float = 0.0

    def changes_nothing(self, strength: float) -> bool:
        """Whether a strength leaves the image as it is."""
        if self.neutral is None:
            return False
        distance = strength - self.neutral
        return (distance % self.period if self.period else distance) == 0.0


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
    "translate_x": ViewKind(_translate(0), (-0.04, 0.04), (-0.5, 0.5), 0.0),  # shifted, as a fraction of the width
    "translate_y": ViewKind(_translate(1), (-0.04, 0.04), (-0.5, 0.5), 0.0),  # shifted, as a fraction of the height
    "rotate": ViewKind(_rotate, tuple(45.0 * i for i in range(1, 8)), (-360, 360), 0.0, 360.0),  # rotated, in degrees
    "scale": ViewKind(_scale, (0.9, 1.1), (0.5, 2), 1.0),  # enlarged about the center
    "brightness": ViewKind(_brightness, (0.85, 1.15), (0.1, 5), 1.0),  # brightness multiplied
    "contrast": ViewKind(_contrast, (0.8, 1.2), (0.1, 5), 1.0),  # contrast about the mean multiplied
    "hue": ViewKind(_hue, (-12.0, 12.0), (-360, 360), 0.0, 360.0),  # hues shifted along their circle, in degrees
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
        SupportSetError: An unknown name, an impossible strength, one that changes nothing, or more than `MAX_VIEWS`.
    """
    views: dict[View, None] = {}
    for group, strengths in _groups(spec):
        for kind in GROUPS.get(group, (group,)):
            if kind not in VIEW_KINDS:
                raise _no_such_view(kind)
            low, high = VIEW_KINDS[kind].valid
            for strength in strengths if strengths is not None else VIEW_KINDS[kind].strengths:
                value = number(strength, f"the strength of view {kind}", low, high, error=SupportSetError)
                if VIEW_KINDS[kind].changes_nothing(value):
                    raise SupportSetError(
                        f"view {kind}={value:g}: expected a strength that changes the image, got one that leaves it "
                        f"as it is. Leave it out, or take another, such as {VIEW_KINDS[kind].strengths[0]:g}."
                    )
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
