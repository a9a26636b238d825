"""A part in its pose, which others are turned to match, and which those that touch are told apart by."""

from __future__ import annotations

import base64
import functools

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Float32Array, Float64Array, Uint8Array
from fewshot_ad.errors import ArgumentError
from fewshot_ad.registration.blobs import Blob

# The template is so many pixels wide and high, and covers a part and so much around it, as a share of its reach.
TEMPLATE_SIDE, TEMPLATE_MARGIN = 96, 0.1
# Characters of a stored template; one takes some 6,000.
MAX_TEMPLATE = 40_000
# A template is stored as gray levels: what is 0 there, and how many make 1.
_GRAY, _PER_UNIT = 64.0, 48.0
# From this value on a pixel belongs to the part.
_OUTLINED = 0.3
# Turns that are tried first; then the best is refined, and up to two more that agree nearly as well.
TURNS, REFINED, NEARLY = 120, 3, 0.05
# Gray levels of a part count as multiples of their deviation, or of this many.
_LEAST_CONTRAST = 12.0
# Of parts that touch: turns that the outline is laid on in, and how much of it must be covered, and of them.
OUTLINE_TURNS, COVERED = 72, 0.85
# Pixels around an outline that count as around it.
_AROUND = 3
# Sides of an outline in pixels, and pixels that it is laid on in every turn for all parts, some seconds of work: what
# takes more stays together.
_MAX_OUTLINE, _MAX_LAID = 1200, 3_000_000


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
        if gray is None or gray.shape != (TEMPLATE_SIDE, TEMPLATE_SIDE) or gray.max() <= _GRAY + _OUTLINED * _PER_UNIT:
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
        contours, _ = cv2.findContours(
            (self.picture > _OUTLINED).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
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
    if 2 * reach > _MAX_OUTLINE or reach > max(blob.box[2:]):
        return [blob]
    outline = template.outline(reach)
    room = outline.shape[0] // 2 + 1
    left = np.pad(blob.mask.astype(np.float32), room)
    if left.size * count > _MAX_LAID:
        return [blob]
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
