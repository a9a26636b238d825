"""The part on a plain background, found on the support set: everything else need not be looked at.

The background is modeled from the image's border: its color as a smooth surface, since light falls off across a table,
and its patch embeddings as a few clusters. What is unlike both is the part. Where it lay on any support image counts in
full, and further out less and less: one soft weight for the product, not a mask per image, which a defect could bend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Float32Array, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.embedding import ScaledImage, embed_image, scale_image
from fewshot_ad.images import RegionOfInterest
from fewshot_ad.registration import Framing, Registration, unlike_background

# Working scale at which the part is looked for, and the most images for it.
FOREGROUND_SIZE, MAX_IMAGES = 256, 8
# Patches are unlike the background from this multiple of the largest distance on that 95% of the edge has.
UNLIKE_PATCHES = 1.5
CLUSTERS = 4
# A part covers so much of the image; more or less is no part on a background.
SHARES = (0.01, 0.85)
# What lies closer to the part than this counts in full, and beyond less, down to nothing; shares of the longer side.
MARGIN, FALL_OFF = 0.03, 0.06


class Foreground(NamedTuple):
    """Where the part lies.

    Attributes:
        roi: How much each place counts; None where no part was found.
        reason: Why, in words.
    """

    roi: RegionOfInterest | None
    reason: str


def find_foreground(images: Sequence[Uint8Array], encoder: Encoder, registration: Registration | None) -> Foreground:
    """Find the part on the images of a support set.

    Args:
        images: (H, W, 3) uint8 RGB each.
        encoder: Tells patches of the part from those of the background.
        registration: How images are brought into one pose; None leaves them as they lie.
    """
    parts = []
    for image in images[:MAX_IMAGES]:
        scaled = scale_image(image, FOREGROUND_SIZE, encoder, Framing(registration))
        part, reason = part_of(scaled, encoder)
        if part is None:
            return Foreground(None, f"foreground: all of the image; {reason}.")
        parts.append(part)
    size = parts[0].shape[::-1]
    union = np.zeros(parts[0].shape, bool)
    for part in parts:
        union |= cv2.resize(part.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    weights = soft_weights(union)
    share = float((weights > 0).mean())
    roi = RegionOfInterest.of(weights, images[0].shape[:2])  # type: ignore[arg-type]
    return Foreground(roi, f"foreground: the part and what is close to it, {share:.0%} of the image")


def soft_weights(part: BoolArray) -> Uint8Array:
    """How much each place counts, (h, w) uint8: 255 on the part and close to it, less and less farther out."""
    away = cv2.distanceTransform((~part).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / max(part.shape)
    return np.rint(255 * np.clip(1 - (away - MARGIN) / FALL_OFF, 0, 1)).astype(np.uint8)


def part_of(image: ScaledImage, encoder: Encoder) -> tuple[BoolArray | None, str]:
    """The part on one image, (h, w) bool at the working scale; None where there is none, and why."""
    unlike = unlike_background(image.content)
    if unlike is None:
        return None, "the border of the images is not plain"
    part = _filled(unlike) | _unlike_patches(image, encoder)
    share = float(part.mean())
    if not SHARES[0] <= share <= SHARES[1]:
        return None, f"what differs from the border of an image is {share:.0%} of it"
    return part, ""


def _filled(unlike: BoolArray) -> BoolArray:
    """Without specks, and with what is enclosed."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    opened = cv2.morphologyEx(unlike.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(closed, contours, -1, 1, cv2.FILLED) > 0


def _unlike_patches(image: ScaledImage, encoder: Encoder) -> BoolArray:
    """Which pixels lie in patches that are unlike those along the edge."""
    level = embed_image(image, encoder).levels[0]
    rows, columns = level.shape[:2]
    edge = np.zeros((rows, columns), bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    flat: Float32Array = level.reshape(-1, level.shape[2])
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1e-3)
    centers = cv2.kmeans(flat[edge.ravel()], CLUSTERS, np.empty(0, np.int32), stop, 3, cv2.KMEANS_PP_CENTERS)[2]
    away = np.linalg.norm(flat[:, None] - centers[None], axis=2).min(axis=1).reshape(rows, columns)
    unlike = (away > UNLIKE_PATCHES * float(np.quantile(away[edge], 0.95))).astype(np.uint8)
    height, width = image.geometry.input_hw
    return (
        cv2.resize(unlike, (width, height), interpolation=cv2.INTER_NEAREST)[
            : image.content.shape[0], : image.content.shape[1]
        ]
        > 0
    )
