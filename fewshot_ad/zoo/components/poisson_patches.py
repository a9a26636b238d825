"""The anomalies of NSA: patches of another image, scaled and moved, and blended in without a seam; and their labels.

Source: Schlüter, Tan, Hou & Kainz 2022 (NSA, Sec. 3: sizes, places and labels; details as in the authors' public code);
Pérez, Gangnet & Blake 2003 (Poisson image editing).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Float32Array, Uint8Array

# Half the height and width of a patch are LEAST + a draw from a gamma distribution, in shares of the image's.
LEAST, GAMMA_SHAPE, GAMMA_SCALE = 0.03, 2.0, 0.05
LARGEST = 0.4
TRIES = 200
FEWEST_PIXELS = 50  # OpenCV cannot clone much smaller patches.
GRAIN = 7  # Side of the median filter of an object's mask.
# Mean difference over the colors, in gray levels, above which a pixel counts as changed, and the side of the median
# filter of these pixels.
VISIBLE, VISIBLE_GRAIN = 1.0, 5
SMOOTHING = 5 / 224  # Reach of the median filter of the differences, as a share of the image's side.


@dataclass(frozen=True, kw_only=True)
class PoissonPatches:
    """How patches are drawn.

    Attributes:
        patches: Most patches in an image: each after the first is there with a chance of one half.
        scales: Least and largest scale of a patch.
        mixed_gradients: Take the stronger gradient of patch and image at each pixel, instead of the patch's.
        background: Brightness of the background and the largest difference from it that still is background, in gray
            levels; None if the whole image is the object.
        least_object: Share of a patch that must show the object.
        least_overlap: Share of the object in a patch that must come to lie on the object.
    """

    patches: int
    scales: tuple[float, float]
    mixed_gradients: bool
    background: tuple[int, int] | None
    least_object: float
    least_overlap: float

    def blend(self, image: Uint8Array, source: Uint8Array, rng: np.random.Generator) -> tuple[Uint8Array, Float32Array]:
        """Blend patches of one image into another.

        Args:
            image: (S, S, 3) uint8 RGB.
            source: (S, S, 3) uint8 RGB that the patches are cut from.
            rng: Source of everything random.

        Returns:
            The image with the patches, and the (S, S) float32 difference that they make in gray levels, smoothed, 0
            where it is not visible. Nothing changes if no place is found where a patch fits.
        """
        blended, covered = image, np.zeros(image.shape[:2], bool)
        objects = self._object(image), self._object(source)
        for number in range(self.patches):
            if number == 0 or rng.integers(2):
                blended, mask = self._add(blended, source, objects, rng)
                covered |= mask
        return blended, difference(image, blended, covered)

    def _object(self, image: Uint8Array) -> BoolArray:
        """(S, S): where an image shows the object."""
        if self.background is None:
            return np.ones(image.shape[:2], bool)
        brightness, threshold = self.background
        mask = np.abs(image.mean(2) - brightness) > threshold
        return cv2.medianBlur(mask.astype(np.uint8), GRAIN).astype(bool)

    def _add(
        self, image: Uint8Array, source: Uint8Array, objects: tuple[BoolArray, BoolArray], rng: np.random.Generator
    ) -> tuple[Uint8Array, BoolArray]:
        """Blend one patch in; returns the image and the mask (S, S) of the patch, empty if none fits."""
        nothing = np.zeros(image.shape[:2], bool)
        side = image.shape[0]
        cut = self._cut(objects[1], rng)
        if cut is None:
            return image, nothing
        height, width = self._scaled(cut, side, rng)
        patch = cv2.resize(source[cut], (width, height))
        shows = cv2.resize(objects[1][cut].astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        place = self._place(objects[0], shows, rng)
        if place is None:
            return image, nothing
        # Background over background would be a patch that cannot be seen; to blend it in all the same avoids artifacts.
        mask = nothing.copy()
        mask[place] = shows | objects[0][place]
        cloned = np.full((height, width), 255, np.uint8)
        # OpenCV takes the mask's bounding box for the patch, and centers that; its frame is not blended.
        cloned[[0, -1]] = cloned[:, [0, -1]] = 0
        if np.count_nonzero(cloned) < FEWEST_PIXELS:
            return image, nothing
        center = place[1].start + width // 2, place[0].start + height // 2
        kind = cv2.MIXED_CLONE if self.mixed_gradients else cv2.NORMAL_CLONE
        return cv2.seamlessClone(patch, image, cloned, center, kind), mask

    def _cut(self, shown: BoolArray, rng: np.random.Generator) -> tuple[slice, slice] | None:
        """A random rectangle of the source that shows enough of the object."""
        side = shown.shape[0]
        halves = [int(side * min(LEAST + float(rng.gamma(GAMMA_SHAPE, GAMMA_SCALE)), LARGEST)) for _ in range(2)]
        least = max(1, round(LEAST * side))
        for _ in range(TRIES):
            centers = rng.integers(least, side - least, 2)
            rows, columns = (
                slice(max(0, int(center) - half), min(side, int(center) + half))
                for center, half in zip(centers, halves, strict=True)
            )
            if shown[rows, columns].mean() > self.least_object:
                return rows, columns
        return None

    def _scaled(self, cut: tuple[slice, slice], side: int, rng: np.random.Generator) -> tuple[int, int]:
        """Height and width that a rectangle is scaled to."""
        scale = float(np.clip(rng.normal(1, 0.5), *self.scales))
        least, largest = max(3, round(LEAST * side)), round(LARGEST * side)
        height, width = (int(np.clip(scale * (part.stop - part.start), least, largest)) for part in cut)
        return height, width

    def _place(self, shown: BoolArray, shows: BoolArray, rng: np.random.Generator) -> tuple[slice, slice] | None:
        """A random place in the image where a patch lies on enough of the object."""
        (height, width), side = shows.shape, shown.shape[0]
        for _ in range(TRIES):
            top, left = (int(rng.integers(1, side - extent)) for extent in (height, width))
            place = slice(top, top + height), slice(left, left + width)
            overlap = (shown[place] & shows).sum() / max(1, shows.sum())
            if shows.mean() > self.least_object and overlap > self.least_overlap:
                return place
        return None


def difference(image: Uint8Array, blended: Uint8Array, covered: BoolArray) -> Float32Array:
    """(S, S): mean difference over the colors of two images (S, S, 3) where a mask covers them and it can be seen."""
    change = np.abs(image.astype(np.float32) - blended.astype(np.float32)).mean(2) * covered
    visible = cv2.medianBlur((change > VISIBLE).astype(np.uint8), VISIBLE_GRAIN)
    reach = max(1, round(SMOOTHING * image.shape[0]))
    return cv2.medianBlur(np.rint(change * visible).astype(np.uint8), 2 * reach + 1).astype(np.float32) * visible
