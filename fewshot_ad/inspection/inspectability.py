"""Whether an image can be judged at all: what good images of a product look like as a whole, and what does not."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import BoolArray, Float32Array, Uint8Array

# Limits are generous: a defect, however large, leaves some of the part and the light as they were. Set on 8 products;
# benchmarks/inspectability.py measures all of them.
#
# The tenth of the patches that looks best may be this much farther from good patches than on any good image, in
# logarithms: with many good images, and with a single one. Defective parts reach 0.35, other products begin at 0.35.
UNLIKE, UNLIKE_ONE = 0.36, 0.54
# Pixels of the encoder's input from which on that holds.
LEAST_AREA = 256 * 256
# As shares of the lowest of the good images.
TOO_DARK, TOO_FLAT, TOO_SOFT = 0.45, 0.25, 0.4
# How much of what is not saturated on any good image may be.
TOO_BRIGHT = 0.75
# The same where the whole image is unlike already and only the cause is asked for.
RATHER_DARK, RATHER_SOFT, RATHER_BRIGHT = 0.7, 0.6, 0.15
# Colors count where good images have any: mean difference of red and blue, in gray levels.
COLORED = 1.0
# By how much closer the channels must come to good patches once they are swapped, in logarithms.
SWAPPED_BACK = 0.06
# So many rows at a time.
STEP = 8


@dataclass(frozen=True)
class Appearance:
    """Measures of one image as a whole, in gray levels of the encoder's input.

    Attributes:
        bright: 99th percentile.
        contrast: 95th percentile less the 5th.
        saturated: Share of pixels at 250 or above, 0..1.
        sharpness: Root mean square of the second differences, as a share of the contrast.
        red_minus_blue: Mean difference of the two channels.
    """

    bright: float
    contrast: float
    saturated: float
    sharpness: float
    red_minus_blue: float

    @classmethod
    def of(cls, pixels: Uint8Array) -> Appearance:
        """Measure an image (H, W, 3) uint8 RGB of at least `STEP` rows; three of every `STEP` are looked at."""
        count = len(pixels) // STEP
        rows, below, next_below = (_gray(pixels[at::STEP][:count]).astype(np.int16) for at in range(3))
        shares = cv2.calcHist([rows.astype(np.uint8)], [0], None, [256], [0, 256]).ravel().cumsum() / rows.size
        low, high, bright = (float(at) for at in np.searchsorted(shares, (0.05, 0.95, 0.99)))
        energy = _mean_square(np.diff(rows, 2, axis=1)) + _mean_square(rows - 2 * below + next_below)
        few = pixels[::STEP, ::STEP]
        return cls(
            bright=bright,
            contrast=high - low,
            saturated=float(1 - shares[249]),
            # The 4: of an image without contrast the rounding of the pixels is all there is.
            sharpness=energy**0.5 / (high - low + 4),
            red_minus_blue=float(few[..., 0].mean() - few[..., 2].mean()),
        )


@dataclass(frozen=True)
class Expectations:
    """What good images of a product look like as a whole.

    Attributes:
        appearances: Of the support images.
        closeness: `closeness` of each held-out support image.
    """

    appearances: tuple[Appearance, ...]
    closeness: tuple[float, ...]

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Expectations:
        """Rebuild from `dataclasses.asdict` after a trip through JSON."""
        appearances = tuple(Appearance(**appearance) for appearance in fields["appearances"])
        return cls(appearances, tuple(fields["closeness"]))

    def extended(self, appearances: Sequence[Appearance], held_out: Sequence[float]) -> Expectations:
        """With those of further good images."""
        return dataclasses.replace(
            self, appearances=(*self.appearances, *appearances), closeness=(*self.closeness, *held_out)
        )

    def reason_against(self, seen: Appearance, area: int, nearness: float, swapped: Callable[[], float]) -> str:
        """Why an image cannot be judged; empty if it can.

        Args:
            seen: What it looks like as a whole.
            area: Pixels of the encoder's input that are looked at.
            nearness: Its `closeness`.
            swapped: Makes that of the same image with red and blue swapped. It is asked for only where the colors
                are the other way round, since it takes another run of the encoder.
        """
        if self._colors_turned(seen.red_minus_blue) and nearness > swapped() * math.exp(SWAPPED_BACK):
            return "red and blue are swapped: BGR given for RGB?"
        if not self._unlike(nearness, area):
            return self._light(seen, TOO_DARK, TOO_BRIGHT, TOO_SOFT)
        cause = self._light(seen, RATHER_DARK, RATHER_BRIGHT, RATHER_SOFT)
        if cause:
            return f"{cause}; the whole image is unlike the good ones"
        return "the whole image is unlike the good ones: another product, no part, or another camera setting?"

    @functools.cached_property
    def _farthest(self) -> float:
        return max(*self.closeness, 1e-12)

    @functools.cached_property
    def _extremes(self) -> Appearance:
        """Of each measure the extreme of the good images that a bad image passes first; the usual color."""
        good = self.appearances
        return Appearance(
            bright=min(a.bright for a in good),
            contrast=min(a.contrast for a in good),
            saturated=max(a.saturated for a in good),
            sharpness=min(a.sharpness for a in good),
            red_minus_blue=float(np.median([a.red_minus_blue for a in good])),
        )

    def _unlike(self, nearness: float, area: int) -> bool:
        """Whether not even the best part of an image of so many pixels looks as on good ones."""
        # The fewer there are, the less is known of how good ones differ.
        limit = UNLIKE + (UNLIKE_ONE - UNLIKE) / len(self.appearances)
        # On a small input each patch sees most of the image, and a large defect in it.
        limit *= max(1.0, LEAST_AREA / area)
        return nearness > self._farthest * math.exp(limit)

    def _light(self, seen: Appearance, dark: float, bright: float, soft: float) -> str:
        """What is wrong with light or focus, against these limits."""
        good, extreme = self.appearances, self._extremes
        if seen.bright < dark * extreme.bright:
            return f"too dark (brightest pixels {seen.bright:.0f}, on good images {_range(a.bright for a in good)})"
        if seen.saturated > extreme.saturated + bright * (1 - extreme.saturated):
            return (
                f"overexposed ({seen.saturated:.0%} of the pixels are saturated, on good images up to "
                f"{extreme.saturated:.0%})"
            )
        if seen.contrast < TOO_FLAT * extreme.contrast:
            return f"no contrast ({seen.contrast:.0f} gray levels, on good images {_range(a.contrast for a in good)})"
        if seen.sharpness < soft * extreme.sharpness:
            return f"blurred (sharpness {seen.sharpness / extreme.sharpness:.0%} of the softest good image's)"
        return ""

    def _colors_turned(self, red_minus_blue: float) -> bool:
        usual = self._extremes.red_minus_blue
        return abs(usual) > COLORED and abs(red_minus_blue + usual) < abs(red_minus_blue - usual)


def closeness(score_map: Float32Array, shown: BoolArray) -> float:
    """The 10th percentile of the patch distances: how good the best part of an image looks.

    A defect covers some of a part, and the best tenth of the patches stays as it was; another product has none that
    looks right.

    Args:
        score_map: (h, w) float32.
        shown: (h, w) bool, the patches that show any of the image.
    """
    distances = score_map[shown]
    at = len(distances) // 10
    return float(np.partition(distances, at)[at])


def _mean_square(differences: npt.NDArray[np.int16]) -> float:
    return float(cv2.norm(differences)) ** 2 / max(1, differences.size)


def _gray(pixels: Uint8Array) -> Uint8Array:
    return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)


def _range(values: Any) -> str:
    values = list(values)
    return f"{min(values):.0f} to {max(values):.0f}"
