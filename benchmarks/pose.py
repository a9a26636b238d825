"""Registration of a whole photograph: found, centred and turned into the pose of the first support photograph.

The part is what differs from the photograph's border. Its centroid gives the place; the turn is the one under which the
photograph, unrolled around that centre, correlates best with the reference. So elongated and round parts alike get a
pose, and an upside-down part is told from an upright one, which second moments alone cannot.

Sources: Hu 1962 (centroid as an invariant origin); Reddy & Chatterji 1996 (rotation as a shift in polar coordinates).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fewshot_ad.encoder import Encoder
from fewshot_ad.images import Float32Array, Geometry, Uint8Array

# Estimated on a small copy: a quarter of a degree is finer than a patch.
SIDE = 128
ANGLES, RADII = 360, 48
# A part covers at least and at most this share of the photograph; otherwise there is nothing to centre on.
SMALLEST, LARGEST = 0.01, 0.9


@dataclass(frozen=True)
class Pose:
    """Where a part lies.

    Attributes:
        x, y: Its centre, 0..1 across and down the photograph.
        angle: Its turn against the reference in degrees, clockwise as seen.
        agreement: Correlation with the reference in that pose, -1..1; 1 for the reference itself.
    """

    x: float
    y: float
    angle: float
    agreement: float


def foreground(photograph: Uint8Array) -> Float32Array:
    """How far each pixel of a small copy is from the colours of the border: (h, w) float32, 0 on the background."""
    small = _small(photograph)
    lab = cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 1.0), cv2.COLOR_RGB2LAB).astype(np.float32)
    rim = max(2, SIDE // 32)
    border = np.concatenate(
        [lab[:rim].reshape(-1, 3), lab[-rim:].reshape(-1, 3), lab[:, :rim].reshape(-1, 3), lab[:, -rim:].reshape(-1, 3)]
    )
    differs = np.abs(lab - np.median(border, axis=0)).max(axis=2)
    level, _ = cv2.threshold(differs.astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    mask = (differs > level).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count > 1:
        mask = (labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    return mask.astype(np.float32)


def _small(photograph: Uint8Array) -> Uint8Array:
    height, width = photograph.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    return cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)


class Aligner:
    """Brings photographs into the pose of a reference photograph.

    Args:
        reference: (H, W, 3) uint8 RGB, a good part.
    """

    def __init__(self, reference: Uint8Array) -> None:
        self._centre = self._locate(reference)
        self._spectrum = np.fft.rfft(self._unrolled(reference, self._centre), axis=0)

    def _locate(self, photograph: Uint8Array) -> tuple[float, float]:
        mask = foreground(photograph)
        share = float(mask.mean())
        if not SMALLEST < share < LARGEST:
            return 0.5, 0.5
        moments = cv2.moments(mask, binaryImage=True)
        x, y = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
        return (x + 0.5) / mask.shape[1], (y + 0.5) / mask.shape[0]

    def _unrolled(self, photograph: Uint8Array, centre: tuple[float, float]) -> Float32Array:
        """(angles, radii) of the small grey copy around a centre, of zero mean and unit energy."""
        small = cv2.cvtColor(_small(photograph), cv2.COLOR_RGB2GRAY)
        middle = (centre[0] * small.shape[1] - 0.5, centre[1] * small.shape[0] - 0.5)
        radius = 0.5 * max(small.shape)
        padded = cv2.copyMakeBorder(small, SIDE, SIDE, SIDE, SIDE, cv2.BORDER_REPLICATE)
        polar = cv2.warpPolar(
            padded, (RADII, ANGLES), (middle[0] + SIDE, middle[1] + SIDE), radius, cv2.INTER_LINEAR
        ).astype(np.float32)
        # Rings without a pattern say nothing about the turn; a ring counts by its circumference.
        polar -= polar.mean(axis=0)
        polar *= np.sqrt(np.arange(1, RADII + 1, dtype=np.float32))
        return polar / max(float(np.linalg.norm(polar)), 1e-6)

    def pose(self, photograph: Uint8Array) -> Pose:
        """The pose of the part in a photograph (H, W, 3) uint8 RGB."""
        centre = self._locate(photograph)
        spectrum = np.fft.rfft(self._unrolled(photograph, centre), axis=0)
        correlation = np.fft.irfft((spectrum * self._spectrum.conj()).sum(axis=1), ANGLES)
        best = int(correlation.argmax())
        return Pose(centre[0], centre[1], best * 360 / ANGLES, float(correlation[best]))

    def matrix(self, photograph: Uint8Array, pose: Pose) -> np.ndarray:
        """The affine matrix (2, 3) that takes (x, y) of the photograph to (x, y) in the reference's pose."""
        height, width = photograph.shape[:2]
        x, y = pose.x * width - 0.5, pose.y * height - 0.5
        turn = cv2.getRotationMatrix2D((x, y), pose.angle, 1.0)
        turn[:, 2] += (self._centre[0] * width - 0.5 - x, self._centre[1] * height - 0.5 - y)
        return turn

    def aligned(self, photograph: Uint8Array) -> tuple[Uint8Array, np.ndarray]:
        """The photograph in the reference's pose, borders drawn out, and the matrix that did it."""
        matrix = self.matrix(photograph, self.pose(photograph))
        size = photograph.shape[1::-1]
        return cv2.warpAffine(photograph, matrix, size, borderMode=cv2.BORDER_REPLICATE), matrix


class FeatureAligner(Aligner):
    """The same by the encoder's own features instead of colours and pixels.

    The part is where patch embeddings are far from those of the border; unrolled around its centre are the first
    principal components of the reference's embeddings.

    Args:
        reference: (H, W, 3) uint8 RGB, a good part.
        encoder: The encoder.
        components: How many principal components are compared.
    """

    def __init__(self, reference: Uint8Array, encoder: Encoder, components: int = 8) -> None:
        self._encoder, self._components = encoder, components
        level = self._level(reference)
        rows = level.reshape(-1, level.shape[2])
        self._mean = rows.mean(axis=0)
        self._axes = np.linalg.svd(rows - self._mean, full_matrices=False)[2][:components].T
        super().__init__(reference)

    def _level(self, photograph: Uint8Array) -> Float32Array:
        geometry = Geometry.fit(photograph.shape[:2], 256, self._encoder.spec.multiple)
        return self._encoder.encode(geometry.to_input(photograph))[0]

    def _locate(self, photograph: Uint8Array) -> tuple[float, float]:
        level = self._level(photograph)
        border = np.concatenate([level[0], level[-1], level[:, 0], level[:, -1]])
        differs = np.linalg.norm(level - np.median(border, axis=0), axis=2)
        differs = np.maximum(differs - np.percentile(differs, 50), 0)
        if differs.sum() <= 0:
            return 0.5, 0.5
        y, x = np.mgrid[: differs.shape[0], : differs.shape[1]]
        return (
            float(((x + 0.5) * differs).sum() / differs.sum() / differs.shape[1]),
            float(((y + 0.5) * differs).sum() / differs.sum() / differs.shape[0]),
        )

    def _unrolled(self, photograph: Uint8Array, centre: tuple[float, float]) -> Float32Array:
        level = (self._level(photograph) - self._mean) @ self._axes
        height, width = level.shape[:2]
        rings = []
        for n in range(self._components):
            plane = cv2.copyMakeBorder(
                np.ascontiguousarray(level[..., n], np.float32), height, height, width, width, cv2.BORDER_REPLICATE
            )
            middle = (centre[0] * width - 0.5 + width, centre[1] * height - 0.5 + height)
            polar = cv2.warpPolar(plane, (RADII, ANGLES), middle, 0.5 * max(height, width), cv2.INTER_LINEAR)
            polar -= polar.mean(axis=0)
            rings.append(polar * np.sqrt(np.arange(1, RADII + 1, dtype=np.float32)))
        joined = np.concatenate(rings, axis=1)
        return joined / max(float(np.linalg.norm(joined)), 1e-6)
