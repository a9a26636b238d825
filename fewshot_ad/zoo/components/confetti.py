"""Confetti noise: smooth-edged squares of random size, direction, color and number, which make good images anomalous.

Source: Liznerski et al. 2021, Explainable Deep One-Class Classification (section 4.2 and its appendix); the sizes and
rates are those of the authors' public configuration.
"""

from __future__ import annotations

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array

# Side of the images that sizes and rates are given for, in pixels.
SIDE = 240
# Squares for each pixel: of a random color, and of black.
COLORED, BLACK = 1.8e-5, 1.2e-5
SIDES = (8, 54)
DEGREES = 45.0
# Of the smoothing, in pixels: size of the kernel and standard deviation.
KERNEL, SIGMA = 25, 5.0
# A change of an image's mean below this, in levels of gray, is none: dark squares on a dark part.
UNSEEN = 0.025


def confetti(side: int, rng: np.random.Generator) -> Float32Array:
    """Noise to add to an image.

    Args:
        side: Both sides of the image, in pixels; the squares grow with it.
        rng: Source of everything random.

    Returns:
        (side, side, 3) float32, 0 outside of the squares and down to -511 within; at least one of either kind.
    """
    scale = side / SIDE
    noise = np.zeros((side, side, 3), np.float32)
    for rate, colored in ((COLORED, True), (BLACK, False)):
        layer = np.zeros_like(noise)
        for _ in range(max(1, int(rng.poisson(rate * SIDE**2)))):
            center = rng.uniform(0, side, 2)
            width = float(rng.integers(SIDES[0], SIDES[1] + 1)) * scale
            angle = float(rng.uniform(-DEGREES, DEGREES))
            corners = cv2.boxPoints(((float(center[0]), float(center[1])), (width, width), angle))
            color = [float(v) for v in (rng.integers(-256, 0, 3) if colored else (-255, -255, -255))]
            cv2.fillConvexPoly(layer, np.rint(corners).astype(np.int32), color)
        noise += layer
    kernel = 2 * round(KERNEL * scale / 2 - 0.5) + 1
    return cv2.GaussianBlur(noise, (kernel, kernel), SIGMA * scale, borderType=cv2.BORDER_REFLECT_101)


def malformed(image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
    """A square image (S, S, 3) uint8 with confetti, which brightens it where darkening would not be seen."""
    noise = confetti(image.shape[0], rng)
    darker, brighter = (np.clip(np.rint(image + sign * noise), 0, 255).astype(np.uint8) for sign in (1, -1))
    change, other = (float(np.abs(changed.mean() - image.mean())) for changed in (darker, brighter))
    return brighter if change < UNSEEN and other > change else darker
