"""Maps between an image and the encoder's input."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float32Array, Float64Array, Uint8Array
from fewshot_ad.images.region_of_interest import WHOLE_BOX, RegionOfInterest

# Standard deviation, in pixels of the working scale, of the smoothing before the encoder: sensor noise and compression
# differ between two images of one part, and the encoder's first layers amplify them.
SMOOTHING = 0.7
# Of a mask: covered up to rounding.
WHOLE = 250


@dataclass(frozen=True)
class Geometry:
    """The mapping between images of one size and the encoder's input.

    An image keeps its aspect ratio: it is scaled to an area of about `image_size` squared pixels, and its right and
    bottom edges are padded by mirroring, to a multiple of the encoder's stride. Nothing is cropped.

    Attributes:
        image_hw: Height and width of the image in pixels.
        content_hw: Height and width of the scaled image.
        input_hw: Height and width of the encoder's input: the scaled image plus the padding.
        turned: The affine matrix (2, 3), row by row, from (x, y) of the scaled image to (x, y) of the registered one,
            in pixels; None for an image that stays as it lies.
        roi: Where the registered image is looked at; None for all of it.
    """

    image_hw: tuple[int, int]
    content_hw: tuple[int, int]
    input_hw: tuple[int, int]
    turned: tuple[float, ...] | None = None
    roi: RegionOfInterest | None = None

    @classmethod
    def fit(
        cls, image_hw: tuple[int, int], image_size: int, multiple: int, roi: RegionOfInterest | None = None
    ) -> Geometry:
        """The geometry of images of one size at a working scale.

        Args:
            image_hw: Height and width in pixels.
            image_size: Working scale: the square root of the scaled image's area, in pixels.
            multiple: Each side of the encoder's input is a multiple of this.
            roi: Where they are looked at; None for all of them.
        """
        height, width = image_hw
        scale = image_size / (height * width) ** 0.5
        content = (max(multiple, round(height * scale)), max(multiple, round(width * scale)))
        padded = (-(-content[0] // multiple) * multiple, -(-content[1] // multiple) * multiple)
        return cls((height, width), content, padded, roi=roi)

    def to_input(self, image: Uint8Array) -> Uint8Array:
        """Scale, turn and pad an image (H, W, 3) uint8 to the encoder's input (`input_hw`, 3) uint8."""
        return self.pad(self.turn(self.scale(image)))

    def with_turn(self, forward: Float64Array) -> Geometry:
        """The same for an image that is turned by an affine matrix (2, 3), see `turned`."""
        return dataclasses.replace(self, turned=tuple(float(value) for value in forward.ravel()))

    @property
    def forward(self) -> Float64Array:
        """The affine matrix (2, 3) from (x, y) of the scaled image to (x, y) of the registered one."""
        return np.eye(2, 3) if self.turned is None else np.array(self.turned).reshape(2, 3)

    def turn(self, content: Uint8Array) -> Uint8Array:
        """Turn a scaled image (h, w, 3) as registration asks for; what lies beyond its edges is mirrored."""
        if self.turned is None:
            return content
        size = content.shape[1::-1]
        return cv2.warpAffine(content, self.forward, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    def shown(self) -> Uint8Array:
        """Mask of the registered image, (`content_hw`) uint8: 255 where it shows the image, 0 on a mirrored edge."""
        mask = np.full(self.content_hw, 255, np.uint8)
        if self.turned is None:
            return mask
        return cv2.warpAffine(mask, self.forward, mask.shape[::-1], flags=cv2.INTER_LINEAR)

    def cares(self) -> Uint8Array | None:
        """How much each pixel of the registered image counts, (`content_hw`) uint8; None where all count in full."""
        return None if self.roi is None else self.roi.at(self.content_hw)

    def narrowed(self, weights: Uint8Array) -> Geometry:
        """The same, where less of the image counts.

        Args:
            weights: (H, W) uint8 of the image as it lies: how much each pixel counts, 0 to 255.

        Raises:
            ArgumentError: Nothing of it is left.
        """
        height, width = self.content_hw
        content = cv2.resize(weights, (width, height), interpolation=cv2.INTER_AREA)
        if self.turned is not None:
            content = cv2.warpAffine(content, self.forward, (width, height), flags=cv2.INTER_LINEAR)
        whole = RegionOfInterest.of(content, self.image_hw, WHOLE_BOX)
        own = whole if self.roi is None else self.roi.narrowed(content)
        return dataclasses.replace(self, roi=own)

    def cares_as_it_lies(self) -> Uint8Array | None:
        """How much each pixel of the scaled image counts before it is turned, (`content_hw`) uint8; None for all."""
        cares = self.cares()
        if cares is None or self.turned is None:
            return cares
        back = cv2.invertAffineTransform(self.forward)
        return cv2.warpAffine(cares, back, cares.shape[::-1], flags=cv2.INTER_LINEAR)

    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the registered image that light and sharpness are measured in, at least 8 each."""
        if self.roi is None:
            return slice(None), slice(None)
        (height, width), (left, top, right, bottom) = self.content_hw, self.roi.box
        rows = _span(top, bottom, height)
        return rows, _span(left, right, width)

    def scale(self, image: Uint8Array) -> Uint8Array:
        """Scale an image (H, W, 3) uint8 to `content_hw` and smooth it by `SMOOTHING`."""
        height, width = self.content_hw
        # OpenCV vectorizes exact halving but not general area averaging: 0.2 ms instead of 1.6 ms from 1024 x 1024 to
        # 256 x 256, with the same result to within one gray level.
        while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
            half = (image.shape[1] // 2, image.shape[0] // 2)
            image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
        if image.shape[:2] != self.content_hw:
            shrinks = height * width < self.image_hw[0] * self.image_hw[1]
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return cv2.GaussianBlur(image, (5, 5), SMOOTHING)

    def unseen(self) -> float:
        """Share of the image, or of its region of interest, 0..1, that the registered one does not show."""
        if self.turned is None:
            return 0.0
        cares = self.cares()
        if cares is not None:
            return float(1 - (self.shown()[cares > 0] >= WHOLE).mean()) if cares.any() else 1.0
        return float(1 - (self.crop(np.ones(self.input_hw, np.float32)) > 0.5).mean())

    def pad(self, content: Uint8Array) -> Uint8Array:
        """Pad a scaled image (h, w, 3) to `input_hw` by mirroring it at its right and bottom edges."""
        bottom, right = self.input_hw[0] - self.content_hw[0], self.input_hw[1] - self.content_hw[1]
        if bottom or right:
            content = cv2.copyMakeBorder(content, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
        return content

    def crop(self, input_map: Float32Array) -> Float32Array:
        """A map (`input_hw`) without its padding, and turned back.

        It is 0 where the registered image does not show it, and outside the region of interest.
        """
        content = input_map[: self.content_hw[0], : self.content_hw[1]]
        cares = self.cares()
        if cares is not None:
            content = np.where(cares > 0, content, np.float32(0))
        if self.turned is None:
            return content
        content = np.where(self.shown() >= WHOLE, content, np.float32(0))
        back = cv2.invertAffineTransform(self.forward)
        return cv2.warpAffine(content, back, content.shape[::-1], flags=cv2.INTER_LINEAR)

    def content_mask(self, content: Uint8Array | None = None) -> Uint8Array:
        """Mask of the encoder's input that is 0 on the padding.

        Args:
            content: Mask (h, w) uint8 of the registered image; None = `shown`.

        Returns:
            (`input_hw`) uint8.
        """
        mask = np.zeros(self.input_hw, np.uint8)
        mask[: self.content_hw[0], : self.content_hw[1]] = self.shown() if content is None else content
        return mask

    def scale_xy(self) -> tuple[float, float]:
        """Number of image pixels per pixel of the scaled image, along x and y."""
        return self.image_hw[1] / self.content_hw[1], self.image_hw[0] / self.content_hw[0]


def enlarging(across: float, down: float) -> Float64Array:
    """The matrix (3, 3) that enlarges an image by so much across and down: centers of pixels stay centers."""
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])


def inside_patches(mask: Uint8Array, grid_hw: Sequence[int], partly: bool = False) -> npt.NDArray[np.bool_]:
    """Which patches of a grid lie inside a mask.

    Args:
        mask: (H, W) uint8 of 0 and 255.
        grid_hw: Height and width of the grid.
        partly: Whether patches count of which only some pixels lie inside.

    Returns:
        (h, w) bool, True = inside.
    """
    coverage = cv2.resize(mask, (grid_hw[1], grid_hw[0]), interpolation=cv2.INTER_AREA)
    return coverage >= (1 if partly else WHOLE)


def patch_cares(cares: Uint8Array, input_hw: tuple[int, int], grid_hw: Sequence[int]) -> Float32Array:
    """How much each patch of a grid counts, (h, w) float32 in 0..1: 0 where less than half of it does at all.

    Args:
        cares: (h, w) uint8, how much each pixel of a scaled image or of a view of it counts.
        input_hw: Height and width of the encoder's input.
        grid_hw: Height and width of the grid.
    """
    weights = np.zeros(input_hw, np.float32)
    weights[: cares.shape[0], : cares.shape[1]] = cares
    size = (grid_hw[1], grid_hw[0])
    counted = cv2.resize((weights > 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    mean = cv2.resize(weights, size, interpolation=cv2.INTER_AREA) / 255
    return np.where(counted >= 0.5, mean / np.maximum(counted, 0.5), 0).astype(np.float32)


def _span(start: float, end: float, size: int) -> slice:
    """A range of pixels from shares of a side, at least 8 long where the side is."""
    first = min(int(start * size), max(0, size - 8))
    return slice(first, max(math.ceil(end * size), first + 8))
