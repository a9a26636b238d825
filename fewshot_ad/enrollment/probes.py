"""Probes: support images changed on purpose, to see how far the good may vary and what a defect scores.

Two kinds are drawn on each support image and scored against the memory bank of the others. A nuisance is what a line
varies on a good part: shift, turn, light, color, focus, sensor noise, compression. A drawn defect is a spot, a scratch
or a displaced patch of a stated size and contrast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.enrollment.defects import blot, displaced_patch, scratch

DefectKind: TypeAlias = Literal["spot", "scratch", "patch"]
DEFECT_KINDS: tuple[DefectKind, ...] = ("spot", "scratch", "patch")
# Of the drawn defects: how much of the way to the opposite color they go, and how thin and long scratches are.
CONTRAST = 0.6
SCRATCH_WIDTH, SCRATCH_LENGTH, SHORTEST_SCRATCH = 0.25, 3.0, 0.06
# The series of sizes, as multiples of the smallest defect that matters, and the number of each kind and size. The
# largest stands for a defect of the ordinary kind; see `prediction`.
SERIES = (0.5, 1.0, 1.5, 2.25, 3.5)
COPIES = 4
# Images that defects are drawn on, at most.
MAX_DRAWN_ON = 8
# Two images are near-identical if thumbnails of this side differ by at most so many gray levels (root mean square):
# noise, compression and a shift of a pixel make 1 to 4, the most alike of different parts 5.
THUMBNAIL, NEAR_IDENTICAL = 32, 3.0


@dataclass(frozen=True)
class DrawnDefect:
    """A defect that can be drawn again.

    Attributes:
        image: Index of the support image.
        kind: `spot`, `scratch` or `patch`.
        size: Diameter of a spot, side of a patch, or 4 times the width of a scratch, as a share of the image's side.
        seed: Of its place and shape.
    """

    image: int
    kind: DefectKind
    size: float
    seed: int

    def draw(self, image: Uint8Array, within: Uint8Array | None = None) -> Uint8Array:
        """The image (H, W, 3) uint8 RGB with the defect on it, at whatever resolution.

        Args:
            image: The image.
            within: (h, w) uint8, where it may lie; see `defects.scratch`.
        """
        rng = np.random.default_rng(self.seed)
        if self.kind == "spot":
            # The axes of a blot are 0.5 to 1 times its radius.
            return blot(image, rng, self.size / 1.5, CONTRAST, within)
        if self.kind == "scratch":
            length = max(SHORTEST_SCRATCH, SCRATCH_LENGTH * self.size)
            return scratch(image, rng, length, SCRATCH_WIDTH * self.size, CONTRAST, within)
        return displaced_patch(image, rng, self.size, within)


def defect_series(images: Sequence[int], min_defect: float, seed: int) -> tuple[DrawnDefect, ...]:
    """Drawn defects of graded size, spread over the images.

    Args:
        images: Indices of the support images to draw on.
        min_defect: Size of the smallest defect that matters, as a share of the image's side.
        seed: Of places and shapes.
    """
    sizes = sorted(round(min_defect * factor, 6) for factor in SERIES)
    series = [(kind, size) for size in sizes for kind in DEFECT_KINDS for _ in range(COPIES)]
    seeds = np.random.default_rng([seed, 1]).integers(0, 2**31, len(series)).tolist()
    return tuple(
        DrawnDefect(images[at % len(images)], kind, size, one)
        for at, ((kind, size), one) in enumerate(zip(series, seeds, strict=True))
    )


def nuisances(image: Uint8Array, seed: int) -> Iterator[Uint8Array]:
    """What a line may make of the next image of the same part, (H, W, 3) uint8 RGB each.

    Args:
        image: (H, W, 3) uint8 RGB.
        seed: Of what is random.
    """
    rng = np.random.default_rng([seed, 2])
    height, width = image.shape[:2]
    side = (height * width) ** 0.5
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(-2, 2)), 1.0)
    turn[:, 2] += rng.uniform(-0.01, 0.01, 2) * side
    yield cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    gain = rng.choice([0.9, 1.1]) * (1 + rng.uniform(-0.03, 0.03, 3))
    yield np.clip(np.rint(image * gain), 0, 255).astype(np.uint8)
    yield cv2.GaussianBlur(image, (0, 0), side / 600)
    noisy = np.clip(np.rint(image + rng.normal(0, 4, image.shape)), 0, 255).astype(np.uint8)
    compressed = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
    yield np.asarray(cv2.imdecode(compressed, cv2.IMREAD_COLOR), np.uint8)


def distinct_images(images: Sequence[Uint8Array]) -> int:
    """How many of the images, (H, W, 3) uint8 RGB each, differ by more than sensor noise and a shaking camera.

    Photographs of one burst say no more about how good parts vary than one of them does.
    """
    kept: list[Float32Array] = []
    for each in map(thumbnail, images):
        if near_identical(each, kept) is None:
            kept.append(each)
    return len(kept)


def thumbnail(image: Uint8Array) -> Float32Array:
    """An image (H, W, 3) uint8 RGB as `near_identical` compares it, (32, 32, 3) float32."""
    return cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)


def near_identical(image: Float32Array, others: Sequence[Float32Array]) -> int | None:
    """Index of the first of other thumbnails that differs by no more than noise and a shaking camera; None for none."""
    for at, other in enumerate(others):
        if float(np.sqrt(((image - other) ** 2).mean())) <= NEAR_IDENTICAL:
            return at
    return None


class Probes:
    """What is drawn on the images of a support set, made when it is asked for.

    Args:
        images: (H, W, 3) uint8 RGB each, of any size, by their index; nothing is drawn on others.
        series: The drawn defects.
        seed: Of the nuisances.
        side: Images are shrunk to this many pixels squared first: more detail than the working scales show costs time.
        within: Where defects may be drawn, (h, w) uint8 by the image's index; none for anywhere.
    """

    def __init__(
        self,
        images: Mapping[int, Uint8Array],
        series: Sequence[DrawnDefect],
        seed: int,
        side: int,
        within: Mapping[int, Uint8Array] | None = None,
    ) -> None:
        self.series = tuple(series)
        self._within = within or {}
        self._images = {at: shrunk(image, side) for at, image in images.items()}
        # The order of the images, not their numbers: the order of a support set must not decide anything.
        self._seeds = {at: seed + place for place, at in enumerate(images)}

    def nuisances(self, at: int) -> Iterator[Uint8Array]:
        """Image number `at` after what a line varies; see `nuisances`."""
        return nuisances(self._images[at], self._seeds[at]) if at in self._images else iter(())

    def defects(self, at: int) -> Iterator[tuple[int, Uint8Array]]:
        """Image number `at` with each of its drawn defects, and the defect's place in the series."""
        for number, defect in enumerate(self.series):
            if defect.image == at and at in self._images:
                yield number, defect.draw(self._images[at], self._within.get(at))


def shrunk(image: Uint8Array, side: int) -> Uint8Array:
    """An image (H, W, 3) uint8 of at most `side` pixels squared."""
    height, width = image.shape[:2]
    if height * width <= side * side:
        return image
    scale = side / (height * width) ** 0.5
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
