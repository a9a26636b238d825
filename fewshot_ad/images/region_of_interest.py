"""The region of interest: where an image is looked at, and how much what is there counts."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np

from fewshot_ad.arguments import number
from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.errors import ArgumentError
from fewshot_ad.images.reading import read_image
from fewshot_ad.images.sources import ImageSource

# A box x, y, width, height; a polygon of (x, y); several of these; or a mask: an image that is 0 where nothing counts,
# 255 (or True) where all does, and in between for less. Numbers are pixels of the image that it was drawn on.
RegionSpec: TypeAlias = Sequence[float] | Sequence[Sequence[float]] | Sequence[Sequence[Sequence[float]]] | ImageSource
# The longest side of what is kept of it: finer than the finest default working scale.
LONGEST = 1024
# Sides of two images whose proportions differ by no more than this are the same view of a scene.
SAME_PROPORTIONS = 0.02
# Characters of a stored mask. A binary one takes some 2,000.
MAX_STORED = 2_000_000
WHOLE_BOX = (0.0, 0.0, 1.0, 1.0)
# A mask that nowhere reaches this is one of 0 and 1 by mistake, and would count nothing in full.
LEAST_FULL = 16
EXPECTED = (
    "expected a region of interest as a box (x, y, width, height), a polygon of at least three (x, y), several of "
    "these, or a mask image"
)


@dataclass(frozen=True)
class RegionOfInterest:
    """Where an image is looked at; stored with the product as it is.

    Attributes:
        image_hw: Height and width in pixels of the image that it was drawn on.
        png: How much each place counts, 0 (don't care) to 255, as a gray PNG file in base64. It lies over the whole
            image whatever its size; of a registered product over the registered image.
        box: Left, top, right and bottom of all that counted when the product was enrolled, as shares of the image.
            Light and sharpness are measured there; it stays where the region is narrowed.
    """

    image_hw: tuple[int, int]
    png: str
    box: tuple[float, float, float, float] = WHOLE_BOX

    @classmethod
    def of(
        cls,
        weights: Uint8Array,
        image_hw: tuple[int, int],
        box: tuple[float, float, float, float] | None = None,
    ) -> RegionOfInterest:
        """From weights (h, w) uint8; a box of None is the one around all that counts.

        Raises:
            ArgumentError: Nothing is left in it.
        """
        if max(weights.shape) > LONGEST:
            shrink = LONGEST / max(weights.shape)
            weights = cv2.resize(weights, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        if not weights.any():
            raise ArgumentError("expected a region of interest that shows some of the image, got one without any.")
        if box is None:
            height, width = weights.shape
            x, y, across, down = cv2.boundingRect(weights)
            box = x / width, y / height, (x + across) / width, (y + down) / height
        return cls(image_hw, base64.b64encode(cv2.imencode(".png", weights)[1].tobytes()).decode("ascii"), box)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RegionOfInterest:
        """Rebuild from `dataclasses.asdict` after a trip through JSON."""
        height, width = fields["image_hw"]
        left, top, right, bottom = fields["box"]
        return cls((height, width), fields["png"], (left, top, right, bottom))

    @functools.cached_property
    def weights(self) -> Uint8Array:
        """(h, w) uint8, see `png`.

        Raises:
            ArgumentError: It is no such file.
        """
        packed = np.frombuffer(base64.b64decode(self.png), np.uint8)
        weights = cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE) if len(packed) else None
        if weights is None:
            raise ArgumentError("expected a gray PNG file as region of interest, got another thing. Draw it again.")
        return weights

    @property
    def share(self) -> float:
        """Share of the image that counts at all, 0..1."""
        return float((self.weights > 0).mean())

    def narrowed(self, weights: Uint8Array) -> RegionOfInterest:
        """What lies in this one and in other weights (h, w) uint8, too.

        Raises:
            ArgumentError: They have nothing in common.
        """
        height, width = self.weights.shape
        other = cv2.resize(weights, (width, height), interpolation=cv2.INTER_AREA)
        both = np.rint(self.weights.astype(np.float32) * other / 255).astype(np.uint8)
        return RegionOfInterest.of(both, self.image_hw, self.box)

    def fits(self, image_hw: tuple[int, int]) -> bool:
        """Whether an image has the proportions of the one that it was drawn on."""
        own, other = (height / width for height, width in (self.image_hw, image_hw))
        return abs(own / other - 1) <= SAME_PROPORTIONS

    def at(self, size_hw: tuple[int, int]) -> Uint8Array:
        """The weights at another size, (h, w) uint8."""
        return _at(self, size_hw)


@functools.lru_cache(maxsize=16)
def _at(region: RegionOfInterest, size_hw: tuple[int, int]) -> Uint8Array:
    shrinks = size_hw[0] * size_hw[1] < region.weights.size
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(region.weights, size_hw[::-1], interpolation=interpolation)
    resized.setflags(write=False)
    return resized


def drawn_weights(roi: RegionSpec | None, ignore: RegionSpec | None, image_hw: tuple[int, int]) -> Uint8Array:
    """What a user has drawn, as weights of an image's pixels.

    Args:
        roi: What counts; None for all of the image.
        ignore: What does not, cut out of that; None for nothing.
        image_hw: Height and width of the image that both were drawn on, in pixels.

    Returns:
        (H, W) uint8, 0 (don't care) to 255.

    Raises:
        ArgumentError: One is none of the forms that `RegionSpec` has, or nothing is left.
        ImageError: A mask cannot be read.
    """
    weights = np.full(image_hw, 255, np.uint8) if roi is None else _weights_of(roi, image_hw, "roi")
    if ignore is not None:
        weights = np.minimum(weights, 255 - _weights_of(ignore, image_hw, "ignore"))
    if not weights.any():
        raise ArgumentError(
            f"expected a region of interest that shows some of the image of {image_hw[1]} x {image_hw[0]} pixels, got "
            "one without any. Give pixels of the image: x to the right and y down from its upper left corner."
        )
    return weights


def loaded_region(region: RegionSpec, name: str) -> RegionSpec:
    """A region that is known to be one: a mask is read, once and not for each image.

    Args:
        region: What was given.
        name: The argument's name.

    Raises:
        ArgumentError: It is none of the forms that `RegionSpec` has.
        ImageError: A mask cannot be read.
    """
    if _shapes(region, name) is not None:
        return region
    return read_image(region).max(axis=2)  # type: ignore[arg-type]


def _weights_of(region: RegionSpec, image_hw: tuple[int, int], name: str) -> Uint8Array:
    shapes = _shapes(region, name)
    if shapes is None:
        return _mask(region, image_hw, name)
    weights = np.zeros(image_hw, np.uint8)
    for shape in shapes:
        cv2.fillPoly(weights, [np.rint(shape).astype(np.int32)], 255)
    return weights


def _shapes(region: Any, name: str) -> list[Float32Array] | None:
    """Corners (n, 2) of each box or polygon; None for what is a mask."""
    if not isinstance(region, (list, tuple)):
        return None
    if region and not any(isinstance(one, (list, tuple)) for one in region):
        return [_box(region, name)]
    if not region or not all(isinstance(one, (list, tuple)) for one in region):
        raise ArgumentError(f"{name}: {EXPECTED}, got {str(region)[:80]}.")
    if all(len(one) == 2 and not isinstance(one[0], (list, tuple)) for one in region):
        return [_polygon(region, name)]
    return [shape for one in region for shape in _shapes(one, name) or []]


def _box(box: Sequence[Any], name: str) -> Float32Array:
    if len(box) != 4:
        raise ArgumentError(f"{name}: {EXPECTED}, got {len(box)} number(s).")
    x, y = (number(value, name, -1e6, 1e6) for value in box[:2])
    width, height = (number(value, name, 0, 1e6, low_counts=False) for value in box[2:])
    # The last pixel of a box still belongs to it.
    right, bottom = x + max(width - 1, 0), y + max(height - 1, 0)
    return np.array([(x, y), (right, y), (right, bottom), (x, bottom)], np.float32)


def _polygon(corners: Iterable[Sequence[Any]], name: str) -> Float32Array:
    points = [tuple(number(value, name, -1e6, 1e6) for value in corner) for corner in corners]
    if len(points) < 3:
        raise ArgumentError(f"{name}: {EXPECTED}, got {len(points)} corner(s).")
    return np.array(points, np.float32)


def _mask(mask: Any, image_hw: tuple[int, int], name: str) -> Uint8Array:
    weights = read_image(mask).max(axis=2)
    if 0 < weights.max() < LEAST_FULL:
        raise ArgumentError(
            f"{name}: expected a mask with 255 (or True) where all counts, got one of at most {weights.max()}. "
            "Multiply it by 255, or convert it to bool."
        )
    if not RegionOfInterest(image_hw, "").fits(weights.shape):  # type: ignore[arg-type]
        raise ArgumentError(
            f"{name}: expected a mask with the proportions of the images, {image_hw[1]} x {image_hw[0]} pixels, got "
            f"one of {weights.shape[1]} x {weights.shape[0]}. Draw it on one of the images."
        )
    return cv2.resize(weights, image_hw[::-1], interpolation=cv2.INTER_AREA)
