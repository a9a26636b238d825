"""Light that differs from the support set's: exposure and tint brought to the same, or an input that has neither."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np

from fewshot_ad.arrays import Float64Array, Uint8Array

LightingKind: TypeAlias = Literal["normalized", "log_chromaticity"]
LIGHTING_KINDS: tuple[LightingKind, ...] = ("normalized", "log_chromaticity")
# Of each channel, the mean of what lies between these shares of its values: neither highlights nor deep shadow move it.
TRIMMED = (0.1, 0.9)
# A channel is multiplied by no more and no less: beyond, its noise would be what is inspected.
GAINS = (0.5, 2.0)
# Of Maddern et al.: by the camera's spectral response; between the values they give for two cameras. 0.48 is theirs
# for one with a Sony ICX204, common in machine vision.
ALPHA = 0.48
# Rows and columns that are looked at for the means, one of so many.
STEP = 2
ALL = (slice(None), slice(None))


@dataclass(frozen=True)
class Lighting:
    """How light is taken out of images; stored with the product.

    Attributes:
        kind: `normalized`: each channel is multiplied so that its trimmed mean is the support set's.
            `log_chromaticity`: one channel that neither the brightness of a light nor, nearly, its color changes.
        means: Trimmed means of red, green and blue on the support set, in gray levels.
    """

    kind: LightingKind
    means: tuple[float, float, float]

    @classmethod
    def of(cls, kind: LightingKind, images: Sequence[Uint8Array]) -> Lighting:
        """The lighting of a support set, of what counts of each image, (h, w, 3) uint8 RGB."""
        red, green, blue = (float(v) for v in np.median([channel_means(image) for image in images], axis=0))
        return cls(kind, (red, green, blue))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Lighting:
        """Rebuild from `dataclasses.asdict` after a trip through JSON."""
        red, green, blue = fields["means"]
        return cls(fields["kind"], (red, green, blue))

    def apply(self, content: Uint8Array, window: tuple[slice, slice] = ALL) -> Uint8Array:
        """An image (h, w, 3) uint8 RGB as the encoder is to see it, of the same shape.

        Args:
            content: The image.
            window: Rows and columns that the means are taken of.
        """
        if self.kind == "log_chromaticity":
            return log_chromaticity(content)
        gains = np.clip(np.asarray(self.means) / np.maximum(channel_means(content[window]), 1.0), *GAINS)
        table = np.clip(np.rint(np.arange(256)[:, None] * gains), 0, 255).astype(np.uint8)
        return cv2.LUT(content, table[None])


def channel_means(image: Uint8Array) -> Float64Array:
    """Trimmed mean of each channel of an image (h, w, 3) uint8, (3,) float64 in gray levels."""
    few = np.ascontiguousarray(image[::STEP, ::STEP])
    levels, means = np.arange(256), []
    for channel in range(3):
        counts = cv2.calcHist([few], [channel], None, [256], [0, 256]).ravel().astype(np.float64)
        ends = np.cumsum(counts) / counts.sum()
        # How much of each gray level lies between the two shares.
        inside = np.clip(np.minimum(ends, TRIMMED[1]) - np.maximum(np.append(0, ends[:-1]), TRIMMED[0]), 0, None)
        means.append(float((inside * levels).sum() / inside.sum()))
    return np.array(means)


def log_chromaticity(image: Uint8Array) -> Uint8Array:
    """The illumination-invariant image, (h, w, 3) uint8 of three equal channels.

    I = 0.5 + log G - alpha log B - (1 - alpha) log R, of intensities 0..1, with 0.5 in the middle of the gray levels.
    Gray images have the same value everywhere.

    Source: Maddern et al. 2014, "Illumination Invariant Imaging", eq. 1 with the parameters of its section III.
    """
    red, green, blue = _tables()
    mixed = cv2.LUT(image[..., 0], red) + cv2.LUT(image[..., 1], green) + cv2.LUT(image[..., 2], blue)
    gray = np.clip(np.rint(255 * (0.5 + mixed)), 0, 255).astype(np.uint8)
    return cv2.merge([gray, gray, gray])


@functools.cache
def _tables() -> tuple[Any, Any, Any]:
    # Half a gray level keeps the logarithm of black finite, and its noise small.
    logs = np.log((np.arange(256) + 0.5) / 255.5)
    return tuple((factor * logs).astype(np.float32)[None] for factor in (-(1 - ALPHA), 1.0, -ALPHA))  # type: ignore[return-value]
