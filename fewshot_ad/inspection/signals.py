"""What one inspection says of light, camera and part besides its verdict: what a drift is told by."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.inspection.inspectability import Appearance

# Side of what the place is read from, in pixels.
SIDE = 64


class Signals(NamedTuple):
    """Measures of one image, at the coarsest working scale.

    Attributes:
        distance: Median distance of its patches to good ones.
        appearance: What it looks like as a whole, in the light that it was photographed in.
        place: Where its structure has its center, see `center_of_structure`.
    """

    distance: float
    appearance: Appearance
    place: tuple[float, float]


def center_of_structure(pixels: Uint8Array) -> tuple[float, float]:
    """The center of mass of an image's edges, across and down, as shares of its sides, 0..1.

    A part that moves on a plain background moves it by as much; light and focus hardly do.

    Args:
        pixels: (H, W, 3) uint8 RGB.
    """
    small = cv2.cvtColor(cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    edges = cv2.magnitude(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1))
    moments = cv2.moments(edges)
    if moments["m00"] <= 0:
        return 0.5, 0.5
    across, down = (moments[name] / moments["m00"] + 0.5 for name in ("m10", "m01"))
    return float(np.clip(across / SIDE, 0, 1)), float(np.clip(down / SIDE, 0, 1))
