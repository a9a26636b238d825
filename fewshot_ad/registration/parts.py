"""Several parts on one image: each is found on the plain background, cut out, and brought into one pose."""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Float32Array, Float64Array, Uint8Array
from fewshot_ad.errors import ArgumentError
from fewshot_ad.images import Geometry
from fewshot_ad.registration.background import unlike_background

# Parts are looked for at this working scale.
FIND_SIZE = 512
# A part covers between these multiples of the usual area. What is larger are several that touch; what is smaller is
# something else, or a fragment.
LEAST_AREA, LARGEST_AREA = 0.4, 1.6
# Something else counts from this multiple of the largest that lay on the support images on, and of a part's area, and
# always from the last multiple of that on.
OTHER_FACTOR, LEAST_OTHER, MOST_OTHER = 2.0, 0.02, 0.2
# An image without a brighter pixel shows nothing.
DARK = 32
# Of what differs from the background, gaps of up to this many pixels of that scale are closed, and specks removed.
_CLOSE, _OPEN = 5, 3
# The template is so many pixels wide and high, and covers a part and so much around it, as a share of its reach.
TEMPLATE_SIDE, TEMPLATE_MARGIN = 96, 0.1
# Turns that are tried first; then the best is refined, and up to two more that agree nearly as well.
TURNS, REFINED, NEARLY = 120, 3, 0.05
# Of parts that touch: turns that the outline is laid on in, and how much of it must be covered, and of them.
OUTLINE_TURNS, COVERED = 72, 0.85
# Pixels around an outline that count as around it.
_AROUND = 3
# Gray levels of a part count as multiples of their deviation, or of this many.
_LEAST_CONTRAST = 12.0
# Most parts that touch and are told apart.
MAX_TOUCHING = 12
# Most parts on an image; more are specks of some kind.
MAX_PARTS = 500
# Characters of a stored template; one takes some 6,000.
MAX_TEMPLATE = 40_000
# Pixels of all parts' own images, as a multiple of the image's: parts that fill it take some 5.
MAX_PIXELS_CUT = 12
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


class Blob(NamedTuple):
    """Something on the background, at the scale at which parts are looked for.

    Attributes:
        mask: (h, w) bool, its outline filled, within its box.
        box: x, y, width and height.
        area: In pixels.
        at_edge: Whether it reaches the edge of the image.
    """

    mask: BoolArray
    box: tuple[int, int, int, int]
    area: int
    at_edge: bool

    @property
    def centroid(self) -> Float64Array:
        """(x, y)."""
        rows, columns = np.nonzero(self.mask)
        return np.array([self.box[0] + columns.mean(), self.box[1] + rows.mean()])

    @property
    def reach(self) -> float:
        """The distance of its farthest pixel from its centroid."""
        rows, columns = np.nonzero(self.mask)
        return float(np.hypot(columns - columns.mean(), rows - rows.mean()).max())

    def on(self, shape: tuple[int, ...]) -> Uint8Array:
        """Its mask on the whole image, (H, W) uint8, 0 or 255."""
        x, y, width, height = self.box
        whole = np.zeros(shape[:2], np.uint8)
        whole[y : y + height, x : x + width] = 255 * self.mask.astype(np.uint8)
        return whole


def side_of(image_hw: tuple[int, ...]) -> float:
    """The square root of an image's area."""
    return float(image_hw[0] * image_hw[1]) ** 0.5


def at_find_scale(image: Uint8Array) -> Uint8Array:
    """An image (H, W, 3) uint8 RGB at the scale at which parts are looked for."""
    return Geometry.fit(image.shape[:2], FIND_SIZE, 1).scale(image)  # type: ignore[arg-type]


def blobs_of(content: Uint8Array) -> list[Blob] | None:
    """What lies on the plain background of an image (h, w, 3) uint8 RGB; None where the background is not plain."""
    unlike = unlike_background(content)
    if unlike is None:
        return None
    kernels = [cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)) for side in (_CLOSE, _OPEN)]
    closed = cv2.morphologyEx(unlike.astype(np.uint8), cv2.MORPH_CLOSE, kernels[0])
    contours, _ = cv2.findContours(
        cv2.morphologyEx(closed, cv2.MORPH_OPEN, kernels[1]), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    return [_blob(contour, content.shape) for contour in contours]


def _blob(contour: Any, shape: tuple[int, ...]) -> Blob:
    x, y, width, height = cv2.boundingRect(contour)
    mask = np.zeros((height, width), np.uint8)
    cv2.drawContours(mask, [contour - np.array([x, y])], 0, 1, cv2.FILLED)
    at_edge = x <= 1 or y <= 1 or x + width >= shape[1] - 1 or y + height >= shape[0] - 1
    return Blob(mask > 0, (x, y, width, height), int(mask.sum()), at_edge)


class Template:
    """A part in its pose, which others are turned to match.

    Args:
        picture: (s, s) float32, see `pictured`.
    """

    def __init__(self, picture: Float32Array) -> None:
        self.picture = picture
        side = picture.shape[0]
        middle = (side - 1) / 2
        # A copy for each turn: a part turned by so much looks like it.
        self._turned = np.stack(
            [
                cv2.warpAffine(picture, _turn_about((middle, middle), 2 * np.pi * k / TURNS), (side, side))
                for k in range(TURNS)
            ]
        ).reshape(TURNS, -1)
        self._turned /= np.maximum(np.linalg.norm(self._turned, axis=1, keepdims=True), 1e-9)

    @classmethod
    @functools.lru_cache(maxsize=8)
    def stored(cls, png: str) -> Template:
        """As `PartLayout.template` holds it.

        Raises:
            ArgumentError: It is no such file.
        """
        packed = np.frombuffer(base64.b64decode(png), np.uint8)
        gray = cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE) if len(packed) else None
        if gray is None or gray.shape != (TEMPLATE_SIDE, TEMPLATE_SIDE) or gray.max() == gray.min():
            raise ArgumentError(
                f"expected a gray PNG file of {TEMPLATE_SIDE} x {TEMPLATE_SIDE} pixels as picture of a part, got "
                "another thing. Enroll again."
            )
        return cls((gray.astype(np.float32) - _GRAY) / _PER_UNIT)

    def store(self) -> str:
        """As `PartLayout.template` holds it."""
        gray = np.clip(np.rint(self.picture * _PER_UNIT + _GRAY), 0, 255).astype(np.uint8)
        return base64.b64encode(cv2.imencode(".png", gray)[1].tobytes()).decode("ascii")

    def outline(self, reach: float) -> Float32Array:
        """How much of each pixel a part covers, (s, s) float32 in 0..1, where it extends so many pixels."""
        side = 2 * int(np.ceil((1 + TEMPLATE_MARGIN) * reach)) + 2 * _AROUND + 1
        scale = (1 + TEMPLATE_MARGIN) * reach / (TEMPLATE_SIDE / 2)
        matrix = np.column_stack([scale * np.eye(2), np.full(2, (side - 1) / 2 - scale * (TEMPLATE_SIDE - 1) / 2)])
        contours, _ = cv2.findContours((self.picture > 0.3).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        covered = cv2.drawContours(np.zeros(self.picture.shape, np.float32), contours, -1, 1.0, cv2.FILLED)
        return cv2.warpAffine(covered, matrix, (side, side), flags=cv2.INTER_AREA)

    def pose(self, picture: Float32Array) -> tuple[Float64Array, float]:
        """How a part lies.

        Args:
            picture: Of it, see `pictured`.

        Returns:
            The rigid matrix (2, 3) from (x, y) of the template to (x, y) of the picture, and how well both then agree,
            the correlation, -1..1.
        """
        flat = picture.ravel() / max(float(np.linalg.norm(picture)), 1e-9)
        agreement = self._turned @ flat
        peaks = (agreement >= np.roll(agreement, 1)) & (agreement > np.roll(agreement, -1))
        peaks &= agreement >= agreement.max() - NEARLY
        ranked = sorted(np.flatnonzero(peaks), key=lambda k: -agreement[k])[:REFINED] or [agreement.argmax()]
        middle = (picture.shape[0] - 1) / 2
        best: tuple[Float64Array, float] = (np.eye(2, 3), -1.0)
        for k in ranked:
            refined = self._refined(picture, _turn_about((middle, middle), 2 * np.pi * k / TURNS))
            best = max(best, refined, key=lambda found: found[1])
        return best

    def _refined(self, picture: Float32Array, start: Float64Array) -> tuple[Float64Array, float]:
        """The pose close to a first one (enhanced correlation coefficient, Evangelidis & Psarakis 2008)."""
        # OpenCV reads the turn off its sine, so it is given the rest of it.
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        turned = cv2.warpAffine(picture, start, picture.shape[::-1], flags=flags)
        rest = np.eye(2, 3, dtype=np.float32)
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
        try:
            agreement, rest = cv2.findTransformECC(self.picture, turned, rest, cv2.MOTION_EUCLIDEAN, criteria, None, 5)
        except cv2.error:
            # It does not converge where next to nothing agrees.
            agreement = _correlation(self.picture, turned)
        return start @ np.vstack([rest, [0, 0, 1]]), float(agreement)


def _correlation(one: Float32Array, other: Float32Array) -> float:
    """Of two pictures, -1..1; 0 where one of them is of one value."""
    a, b = one - one.mean(), other - other.mean()
    return float((a * b).sum() / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9))


# A template is stored as gray levels: what is 0 there, and how many make 1.
_GRAY, _PER_UNIT = 64.0, 48.0


def _turn_about(point: tuple[float, float], turn: float) -> Float64Array:
    """The matrix (2, 3) that turns by so many radians about a point."""
    return np.asarray(cv2.getRotationMatrix2D(point, float(np.degrees(turn)), 1.0), np.float64)


def to_picture(blob: Blob, reach: float) -> Float64Array:
    """The matrix (2, 3) from (x, y) at the scale at which parts are looked for to (x, y) of a part's picture.

    Args:
        blob: The part.
        reach: How far a part extends from its centroid at that scale, in pixels.
    """
    scale = TEMPLATE_SIDE / 2 / ((1 + TEMPLATE_MARGIN) * reach)
    middle = (TEMPLATE_SIDE - 1) / 2
    return np.column_stack([scale * np.eye(2), middle - scale * blob.centroid])


def pictured(content: Uint8Array, blob: Blob, reach: float) -> Float32Array:
    """What a part looks like, wherever it lies: its outline and its gray levels, (s, s) float32, 0 around it."""
    matrix, size = to_picture(blob, reach), (TEMPLATE_SIDE, TEMPLATE_SIDE)
    gray = cv2.warpAffine(cv2.cvtColor(content, cv2.COLOR_RGB2GRAY), matrix, size, flags=cv2.INTER_AREA)
    mask = cv2.warpAffine(blob.on(content.shape), matrix, size, flags=cv2.INTER_LINEAR).astype(np.float32) / 255
    inside = mask > 0.5
    values = gray[inside].astype(np.float32) if inside.any() else np.zeros(1, np.float32)
    structure = (gray - values.mean()) / max(float(values.std()), _LEAST_CONTRAST)
    return (mask * (1 + 0.5 * np.clip(structure, -2, 4))).astype(np.float32)


def parted(blob: Blob, template: Template, reach: float, count: int) -> list[Blob]:
    """Parts that touch each other, one by one; as they are if they cannot be told apart.

    The outline of the template is laid on them in all turns, where it covers them and nothing lies around it, and taken
    away, until nothing is left.

    Args:
        blob: Several parts as one.
        template: A part in its pose.
        reach: How far a part extends from its centroid, in pixels.
        count: How many parts there seem to be.
    """
    outline = template.outline(reach)
    room = outline.shape[0] // 2 + 1
    left = np.pad(blob.mask.astype(np.float32), room)
    middle = ((outline.shape[1] - 1) / 2, (outline.shape[0] - 1) / 2)
    turned = [
        cv2.warpAffine(outline, _turn_about(middle, 2 * np.pi * k / OUTLINE_TURNS), outline.shape[::-1]) > 0.5
        for k in range(OUTLINE_TURNS)
    ]
    kernels = [_kernel(mask) for mask in turned]
    placed: list[BoolArray] = []
    for _ in range(count):
        # Of all turns, where the outline lies best.
        found = [cv2.minMaxLoc(cv2.matchTemplate(left, kernel, cv2.TM_CCORR)) for kernel in kernels]
        best = max(range(OUTLINE_TURNS), key=lambda k: found[k][1])
        column, row = found[best][3]
        own = np.zeros(left.shape, bool)
        own[row : row + outline.shape[0], column : column + outline.shape[1]] = turned[best]
        if left[own].mean() < COVERED:
            return [blob]
        placed.append(own)
        left = np.where(own, np.float32(0), left)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _AROUND + 1, 2 * _AROUND + 1))
    grown = [cv2.dilate(own.astype(np.uint8), kernel) > 0 for own in placed]
    whole = np.pad(blob.mask, room)
    if (whole & ~np.any(grown, axis=0)).sum() > (1 - COVERED) * whole.sum():
        return [blob]
    pieces = []
    for at, own in enumerate(grown):
        others = [one for i, one in enumerate(placed) if i != at]
        mask = (whole & own & ~np.any(others, axis=0))[room:-room, room:-room].astype(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        box = (blob.box[0] + x, blob.box[1] + y, width, height)
        pieces.append(Blob(mask[y : y + height, x : x + width] > 0, box, int(mask.sum()), blob.at_edge))
    return pieces


def _kernel(mask: BoolArray) -> Float32Array:
    """What is 1 in sum on a part's outline, and takes away what lies just around it."""
    side = 2 * _AROUND + 1
    grown = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) > 0
    ring = grown & ~mask
    return (mask / max(1, mask.sum()) - 0.5 * ring / max(1, ring.sum())).astype(np.float32)


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
    most = min(MAX_PARTS, MAX_PIXELS_CUT * image.shape[0] * image.shape[1] // (window[0] * window[1]))
    if len(parts) > most:
        return CutImage((), reason=f"{len(parts)} parts are found, and at most {most} can be cut out")
    others = [blob for blob in pieces if least_other <= blob.area < LEAST_AREA * area and not blob.at_edge]
    scale = np.array([image.shape[1] / content.shape[1], image.shape[0] / content.shape[0]])
    ordered = in_rows(parts, layout.reach * side)
    return CutImage(
        tuple(_cut(image, content, blob, ordered, layout, template, scale) for blob in ordered),
        tuple(_in_image(blob.box, scale, image.shape) for blob in in_rows(others, layout.reach * side)),
    )


def in_rows(blobs: Sequence[Blob], reach: float) -> list[Blob]:
    """Blobs in the order in which one reads: a row ends where the next one lies lower by most of a part's reach."""
    rows: list[list[Blob]] = []
    for blob in sorted(blobs, key=lambda blob: float(blob.centroid[1])):
        if rows and blob.centroid[1] - rows[-1][0].centroid[1] < 0.8 * reach:
            rows[-1].append(blob)
        else:
            rows.append([blob])
    return [blob for row in rows for blob in sorted(row, key=lambda blob: float(blob.centroid[0]))]


def _in_image(box: tuple[int, int, int, int], scale: Float64Array, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A box at the scale at which parts are looked for, in pixels of the image."""
    left, top = (int(value) for value in np.floor(np.array(box[:2]) * scale))
    right, bottom = (int(value) for value in np.ceil((np.array(box[:2]) + box[2:]) * scale))
    return left, top, min(right, shape[1]) - left, min(bottom, shape[0]) - top


def _cut(
    image: Uint8Array,
    content: Uint8Array,
    blob: Blob,
    blobs: Sequence[Blob],
    layout: PartLayout,
    template: Template,
    scale: Float64Array,
) -> CutPart:
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
    others = [other.on(content.shape) for other in blobs if other is not blob and _is_near(blob, other, 2 * reach)]
    if others:
        hide(pixels, np.max(others, axis=0), blob.on(content.shape), forward @ _homogeneous(scale))
    return CutPart(box, forward, pixels)


def _is_near(blob: Blob, other: Blob, distance: float) -> bool:
    """Whether two boxes are closer than that."""
    return all(
        blob.box[k] - other.box[k] - other.box[k + 2] < distance
        and other.box[k] - blob.box[k] - blob.box[k + 2] < distance
        for k in (0, 1)
    )


def _homogeneous(scale: Float64Array) -> Float64Array:
    """The matrix (3, 3) that enlarges an image by so much across and down: centers of pixels stay centers."""
    return np.array([[scale[0], 0, (scale[0] - 1) / 2], [0, scale[1], (scale[1] - 1) / 2], [0, 0, 1]])


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
    to_template = np.linalg.inv(whole[1]) @ whole[0] @ np.linalg.inv(_homogeneous(scale))
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
        others: (H, W) uint8, 255 on them, at the scale at which parts are looked for.
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
