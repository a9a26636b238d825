"""Several parts on one image: each is found on the plain background, cut out, and brought into one pose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float64Array, Uint8Array
from fewshot_ad.images import enlarging
from fewshot_ad.registration.blobs import Blob, at_find_scale, blobs_of, in_rows, side_of
from fewshot_ad.registration.template import TEMPLATE_SIDE, Template, parted, pictured, to_picture

# A part covers between these multiples of the usual area. What is larger are several that touch; what is smaller is
# something else, or a fragment.
LEAST_AREA, LARGEST_AREA = 0.4, 1.6
# Something else counts from this multiple of the largest that lay on the support images on, and of a part's area, and
# always from the last multiple of that on.
OTHER_FACTOR, LEAST_OTHER, MOST_OTHER = 2.0, 0.02, 0.2
# An image without a brighter pixel shows nothing.
DARK = 32
# Most parts that touch and are told apart.
MAX_TOUCHING = 12
# Most parts on an image; more are specks of some kind.
MAX_PARTS = 500
# Pixels of all parts' own images: as a multiple of the image's, of which parts that fill it take some 5, and in all.
MAX_TIMES_CUT, MAX_PIXELS_CUT = 12, 200_000_000
# The shorter side of a part's own image, in pixels: below, there is nothing to inspect.
MIN_PART_SIDE = 32


@dataclass(frozen=True)
class PartLayout:
    """What parts on an image look like; stored with the product.

    Lengths are shares of the image's side, the square root of its area, and areas shares of the image.

    Attributes:
        size: Width and height of each part's own image, on which it lies in its pose.
        center: Across and down, where a part's centroid lies in it, as shares of its sides.
        area: What a part covers.
        reach: How far a part extends from its centroid.
        largest_other: The largest thing on the support images that is no part.
        template: A part in its pose, as a gray PNG file in base64: `TEMPLATE_SIDE` pixels wide and high, centered.
        expected: How many parts an image shows; None for any number but none.
    """

    size: tuple[float, float]
    center: tuple[float, float]
    area: float
    reach: float
    largest_other: float
    template: str
    expected: int | None = None

    @property
    def least_other(self) -> float:
        """From which share of the image on something counts that is no part."""
        most = MOST_OTHER * self.area
        return min(max(OTHER_FACTOR * self.largest_other, LEAST_OTHER * self.area), most)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> PartLayout:
        """Rebuild from `dataclasses.asdict` after a trip through JSON."""
        (width, height), (x, y) = fields["size"], fields["center"]
        return cls(**{**fields, "size": (width, height), "center": (x, y)})

    def window(self, image_hw: tuple[int, ...]) -> tuple[int, int]:
        """Width and height of a part's own image in pixels, cut from an image of this size."""
        side = side_of(image_hw)
        return max(1, round(self.size[0] * side)), max(1, round(self.size[1] * side))


@dataclass(frozen=True, eq=False)
class CutPart:
    """One part of an image.

    Attributes:
        box: x, y, width and height of its outline in pixels of the image.
        forward: The affine matrix (2, 3) from (x, y) of the image to (x, y) of the part's own image, in pixels; None
            for one that cannot be judged.
        pixels: The part's own image (h, w, 3) uint8 RGB, likewise.
        reason: Why it cannot be judged; empty if it can.
        least: How many parts it is at least; 0 for what may be something else.
        most: And at most.
    """

    box: tuple[int, int, int, int]
    forward: Float64Array | None
    pixels: Uint8Array | None
    reason: str = ""
    least: int = 1
    most: int = 1


@dataclass(frozen=True, eq=False)
class CutImage:
    """What lies on an image.

    Attributes:
        parts: Row by row, from the top and from the left.
        others: x, y, width and height of what is no part, in pixels of the image.
        reason: Why nothing can be told of the image; empty if something can.
    """

    parts: tuple[CutPart, ...]
    others: tuple[tuple[int, int, int, int], ...] = ()
    reason: str = ""

    def within(self, weights: Uint8Array) -> CutImage:
        """What has its middle where weights (H, W) uint8 of the image are above 0."""

        def counts(box: tuple[int, int, int, int]) -> bool:
            return bool(weights[box[1] + box[3] // 2, box[0] + box[2] // 2])

        parts = tuple(part for part in self.parts if counts(part.box))
        return CutImage(parts, tuple(box for box in self.others if counts(box)), self.reason)


@dataclass(frozen=True, eq=False)
class Scene:
    """What lies on the plain background of an image, whatever parts look like.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        content: The same at the scale at which parts are looked for.
        blobs: What lies on it; None where the background is not plain.
    """

    image: Uint8Array
    content: Uint8Array
    blobs: list[Blob] | None

    @classmethod
    def of(cls, image: Uint8Array) -> Scene:
        """Of an image (H, W, 3) uint8 RGB."""
        content = at_find_scale(image)
        return cls(image, content, blobs_of(content))


def cut_out(image: Uint8Array | Scene, layout: PartLayout) -> CutImage:
    """Cut the parts of an image out and bring each into its pose.

    Args:
        image: (H, W, 3) uint8 RGB, or what lies on it.
        layout: What parts look like.
    """
    scene = image if isinstance(image, Scene) else Scene.of(image)
    image, content, blobs = scene.image, scene.content, scene.blobs
    if int(content.max()) < DARK:
        return CutImage((), reason="the image is almost black: is the light on?")
    if blobs is None:
        return CutImage((), reason="parts cannot be told from the background: the border of the image is not plain")
    window = layout.window(image.shape)
    if min(window) < MIN_PART_SIDE:
        return CutImage(
            (), reason=f"parts are {min(window)} pixels across on this image, and {MIN_PART_SIDE} are needed"
        )
    side = side_of(content.shape)
    area = layout.area * side**2
    least_other = layout.least_other * side**2
    template = Template.stored(layout.template)
    pieces: list[Blob] = []
    for blob in blobs:
        count = round(blob.area / area)
        several = blob.area > LARGEST_AREA * area and not blob.at_edge and count <= MAX_TOUCHING
        pieces += parted(blob, template, layout.reach * side, count) if several else [blob]
    parts = [
        blob for blob in pieces if blob.area >= LEAST_AREA * area or (blob.at_edge and blob.area >= LEAST_OTHER * area)
    ]
    room = min(MAX_PIXELS_CUT, MAX_TIMES_CUT * image.shape[0] * image.shape[1])
    most = min(MAX_PARTS, room // (window[0] * window[1]))
    if len(parts) > most:
        return CutImage((), reason=f"{len(parts)} parts are found, and at most {most} can be cut out")
    others = [blob for blob in pieces if least_other <= blob.area < LEAST_AREA * area and not blob.at_edge]
    scale = np.array([image.shape[1] / content.shape[1], image.shape[0] / content.shape[0]])
    ordered = in_rows(parts, layout.reach * side)
    # Which part each pixel belongs to, from 1 on.
    owners = np.zeros(content.shape[:2], np.uint16)
    for number, blob in enumerate(ordered, start=1):
        x, y, width, height = blob.box
        owners[y : y + height, x : x + width][blob.mask] = number
    return CutImage(
        tuple(
            _cut(image, content, number, ordered, owners, layout, template, scale)
            for number in range(1, len(ordered) + 1)
        ),
        tuple(_in_image(blob.box, scale, image.shape) for blob in in_rows(others, layout.reach * side)),
    )


def _in_image(box: tuple[int, int, int, int], scale: Float64Array, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A box at the scale at which parts are looked for, in pixels of the image."""
    left, top = (int(value) for value in np.floor(np.array(box[:2]) * scale))
    right, bottom = (int(value) for value in np.ceil((np.array(box[:2]) + box[2:]) * scale))
    return left, top, min(right, shape[1]) - left, min(bottom, shape[0]) - top


def _cut(
    image: Uint8Array,
    content: Uint8Array,
    number: int,
    blobs: Sequence[Blob],
    owners: npt.NDArray[np.uint16],
    layout: PartLayout,
    template: Template,
    scale: Float64Array,
) -> CutPart:
    """Cut out part `number`, from 1 on, of those on an image."""
    blob = blobs[number - 1]
    side = side_of(content.shape)
    box = _in_image(blob.box, scale, image.shape)
    times = blob.area / (layout.area * side**2)
    if blob.at_edge:
        return CutPart(box, None, None, "it reaches out of the image", 0, max(1, int(times) + 1))
    if times > LARGEST_AREA:
        return CutPart(box, None, None, "several parts touch, or one lies on another", 1, int(times) + 2)
    reach = layout.reach * side
    pose, _ = template.pose(pictured(content, blob, reach))
    forward = window_matrix(pose, to_picture(blob, reach), layout, image.shape, scale)
    pixels = cut_window(image, forward, layout.window(image.shape))
    if any(_is_near(blob, other, 2 * reach) for other in blobs if other is not blob):
        own = owners == number
        hide(pixels, ((owners > 0) & ~own).astype(np.uint8), own.astype(np.uint8), forward @ enlarging(*scale))
    return CutPart(box, forward, pixels)


def _is_near(blob: Blob, other: Blob, distance: float) -> bool:
    """Whether two boxes are closer than that."""
    return all(
        blob.box[k] - other.box[k] - other.box[k + 2] < distance
        and other.box[k] - blob.box[k] - blob.box[k + 2] < distance
        for k in (0, 1)
    )


def window_matrix(
    pose: Float64Array,
    to_picture: Float64Array,
    layout: PartLayout,
    image_hw: tuple[int, ...],
    scale: Float64Array,
) -> Float64Array:
    """The matrix (2, 3) from (x, y) of an image to (x, y) of a part's own image.

    Args:
        pose: From the template to the part's picture.
        to_picture: From the scale at which parts are looked for to that picture.
        layout: What parts look like.
        image_hw: Height and width of the image.
        scale: Its width and height over those at the scale at which parts are looked for.
    """
    whole = [np.vstack([matrix, [0, 0, 1]]) for matrix in (to_picture, pose)]
    # From the image to the template: rigid but for the scale, which is then taken back.
    to_template = np.linalg.inv(whole[1]) @ whole[0] @ np.linalg.inv(enlarging(*scale))
    enlarge = 1 / float(np.sqrt(abs(np.linalg.det(to_template[:2, :2]))))
    width, height = layout.window(image_hw)
    middle = np.full(2, (TEMPLATE_SIDE - 1) / 2)
    target = np.array([layout.center[0] * width, layout.center[1] * height]) - 0.5
    to_window = np.column_stack([enlarge * np.eye(2), target - enlarge * middle])
    return to_window @ to_template


def cut_window(image: Uint8Array, forward: Float64Array, size: tuple[int, int]) -> Uint8Array:
    """A part's own image (h, w, 3) uint8 RGB; what lies beyond the edge of the image repeats it."""
    return cv2.warpAffine(image, forward, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def hide(pixels: Uint8Array, others: Uint8Array, own: Uint8Array, forward: Float64Array) -> None:
    """Lay the background over other parts on a part's own image.

    Args:
        pixels: (h, w, 3) uint8 RGB, changed.
        others: (H, W) uint8, above 0 on them, at the scale at which parts are looked for.
        own: The same of the part.
        forward: The matrix (2, 3) from there to the part's own image.
    """
    size = pixels.shape[1::-1]
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    around = cv2.warpAffine(cv2.dilate(others, kernel), forward, size, flags=cv2.INTER_NEAREST) > 0
    inside = cv2.warpAffine(cv2.dilate(own, kernel), forward, size, flags=cv2.INTER_NEAREST) > 0
    background = ~around & ~inside
    if around.any() and background.any():
        pixels[around & ~inside] = np.median(pixels[background], axis=0).astype(np.uint8)
