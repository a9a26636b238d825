"""Where a part lies on its image: center, and turn against another image.

Found twice, by pixels and by the encoder's features, because each fails where the other does not: pixels follow a
printed or machined pattern on a round part, features follow an outline through changing light. The turn is the one
under which the image, unrolled around the part's center, correlates best with the reference. So elongated and
round parts alike get a pose, and an upside-down part is told from an upright one, which second moments alone cannot.

Sources: Hu 1962 (centroid as an invariant origin); Reddy & Chatterji 1996 (rotation as a shift in polar coordinates).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.embedding import ScaledImage, embed_image
from fewshot_ad.images import Geometry

# Side of the small copy for the pixels, working scale for the features.
SIDE, FEATURE_SIZE = 128, 256
ANGLES, RADII = 360, 48
# A part covers at least and at most this share of the image; otherwise there is nothing to center on.
SMALLEST, LARGEST = 0.01, 0.9
# Principal components of the embeddings that are compared.
COMPONENTS = 8
# A turn is believed if the correlation is at least this, and above that of no turn by at least the margin (a symmetric
# part agrees with itself under several turns). It counts from so many degrees on: rotated views are 45 degrees apart,
# and patch embeddings bear a third of that.
MIN_CORRELATION_PIXELS, MIN_CORRELATION_FEATURES = 0.7, 0.5
MIN_MARGIN = 0.1
TURNED = 15


def turned_parts(images: Sequence[Uint8Array], encoder: Encoder) -> tuple[int, int]:
    """Of how many images the part lies at another angle than on the first.

    A turn counts if the image, turned back, agrees with the first, and clearly better than upright or upside down.

    Args:
        images: (H, W, 3) uint8 RGB each, of one product.
        encoder: The encoder.

    Returns:
        The number of turned parts by the way of looking (pixels or features) that found more, and the number of
        images that were compared with the first.
    """
    first = unroll_pixels(images[0])
    by_pixels = _turned([pose(unroll_pixels(p), first) for p in images[1:]], MIN_CORRELATION_PIXELS)
    unroll = FeatureUnroller(encoder, images[0])
    by_features = _turned([pose(unroll(p), unroll.reference) for p in images[1:]], MIN_CORRELATION_FEATURES)
    return max(by_pixels, by_features), len(images) - 1


def _turned(poses: Sequence[Pose], correlation: float) -> int:
    return sum(p.correlation >= correlation and p.margin >= MIN_MARGIN for p in poses)


@dataclass(frozen=True, eq=False)
class Unrolled:
    """An image unrolled around the center of its part.

    Attributes:
        x, y: The center, 0..1 across and down the image.
        rings: (360, n) float32 of unit energy: what lies at each degree, on rings and in channels; each of zero mean.
    """

    x: float
    y: float
    rings: Float32Array


@dataclass(frozen=True)
class Pose:
    """How a part lies against another.

    Attributes:
        angle: Its turn in whole degrees, 0..359, clockwise as seen on the image.
        correlation: Of the two in that pose, -1..1.
        margin: How much the correlation is above the best one within `TURNED` degrees of upright or upside down, which
            flips cover; 0 if the angle itself is there.
    """

    angle: int
    correlation: float
    margin: float


def pose(image: Unrolled, reference: Unrolled) -> Pose:
    """The turn under which an image agrees best with the reference."""
    spectra = [np.fft.rfft(u.rings, axis=0) for u in (image, reference)]
    correlation = np.fft.irfft((spectra[0] * spectra[1].conj()).sum(axis=1), ANGLES)
    best = int(correlation.argmax())
    covered = np.arange(-TURNED, TURNED + 1)
    upright = correlation[np.concatenate([covered, covered + 180])].max()
    return Pose(best, float(correlation[best]), float(correlation[best] - upright))


def unroll_pixels(image: Uint8Array) -> Unrolled:
    """Unroll the gray levels of an image (H, W, 3) uint8 RGB.

    The part is the largest area that differs from the border's colors.
    """
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 1.0), cv2.COLOR_RGB2LAB).astype(np.float32)
    differs = np.abs(lab - np.median(_border(lab, 4), axis=0)).max(axis=2)
    level, _ = cv2.threshold(differs.astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    mask = cv2.morphologyEx((differs > level).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, _, stats, centroids = cv2.connectedComponentsWithStats(mask)
    x, y = 0.5, 0.5
    if count > 1:
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        if SMALLEST < stats[largest, cv2.CC_STAT_AREA] / mask.size < LARGEST:
            x, y = ((centroids[largest] + 0.5) / mask.shape[::-1]).tolist()
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return _unrolled(gray[..., None], x, y)


class FeatureUnroller:
    """Unrolls the encoder's first level of embeddings; the part is where they are far from those of the border.

    Args:
        encoder: The encoder.
        reference: (H, W, 3) uint8 RGB; gives the principal components.

    Attributes:
        reference: The reference, unrolled.
    """

    def __init__(self, encoder: Encoder, reference: Uint8Array) -> None:
        self._encoder = encoder
        level = self._level(reference)
        rows = level.reshape(-1, level.shape[2])
        self._mean = rows.mean(axis=0)
        centered = rows - self._mean
        self._axes = np.linalg.eigh(centered.T @ centered)[1][:, : -COMPONENTS - 1 : -1]
        self.reference = self._unroll(level)

    def __call__(self, image: Uint8Array) -> Unrolled:
        """Unroll an image (H, W, 3) uint8 RGB."""
        return self._unroll(self._level(image))

    def _unroll(self, level: Float32Array) -> Unrolled:
        differs = np.linalg.norm(level - np.median(_border(level, 1), axis=0), axis=2)
        weight = np.maximum(differs - np.median(differs), 0)
        x, y = 0.5, 0.5
        if weight.sum() > 0:
            height, width = weight.shape
            x = float((weight.sum(axis=0) @ (np.arange(width) + 0.5)) / weight.sum() / width)
            y = float((weight.sum(axis=1) @ (np.arange(height) + 0.5)) / weight.sum() / height)
        return _unrolled((level - self._mean) @ self._axes, x, y)

    def _level(self, image: Uint8Array) -> Float32Array:
        height, width = image.shape[:2]
        multiple = self._encoder.spec.multiple
        # Stretched by less than a patch instead of mirrored: the border must be the image's own.
        scale = FEATURE_SIZE / (height * width) ** 0.5
        across, down = (max(1, round(side * scale / multiple)) * multiple for side in (width, height))
        content = cv2.resize(image, (across, down), interpolation=cv2.INTER_AREA)
        geometry = Geometry((height, width), (down, across), (down, across))
        stretched = ScaledImage(content, geometry, content)
        return embed_image(stretched, self._encoder).levels[0]


def _border(image: Float32Array, width: int) -> Float32Array:
    sides = (image[:width], image[-width:], image[:, :width], image[:, -width:])
    return np.concatenate([side.reshape(-1, image.shape[2]) for side in sides])


def _unrolled(planes: Float32Array, x: float, y: float) -> Unrolled:
    height, width = planes.shape[:2]
    turn = np.radians(np.arange(ANGLES, dtype=np.float32) * np.float32(360 / ANGLES))[:, None]
    radius = (np.arange(RADII, dtype=np.float32) * np.float32(0.5 * max(height, width) / RADII))[None]
    across = np.float32(x * width - 0.5) + radius * np.cos(turn)
    down = np.float32(y * height - 0.5) + radius * np.sin(turn)
    rings = []
    for n in range(planes.shape[2]):
        plane = np.ascontiguousarray(planes[..., n], np.float32)
        # Beyond the image lies what lies at its edge.
        polar = cv2.remap(plane, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        # A ring of one color says nothing about the turn; the others count by their circumference.
        rings.append((polar - polar.mean(axis=0)) * np.sqrt(np.arange(1, RADII + 1, dtype=np.float32)))
    joined = np.concatenate(rings, axis=1).astype(np.float32)
    return Unrolled(x, y, joined / np.float32(max(float(np.linalg.norm(joined)), 1e-6)))
