"""Contours, boxes and a faint tint around the regions of an image; the rest of the photograph stays as it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.images import row_blocks
from fewshot_ad.inspection.overlay.heat import AMBER, BELOW_RED, RED, blend_heat
from fewshot_ad.inspection.overlay.text import LEAST_CAPITAL, WHITE, Color, width_of, write
from fewshot_ad.inspection.parts import Box
from fewshot_ad.inspection.regions import Region
from fewshot_ad.inspection.verdict import Verdict, format_severity

DARK = (20, 20, 20)
LEAST_SIDE_OF_LABELS = 160
# Contours are found in the map at this many pixels a side at most: it is smooth, and a line is placed between pixels.
CONTOUR_SIDE = 1024
# Bits after the point of the lines' coordinates.
_SHIFT = 4
# How far the tint reaches around a region, as a share of the map's longer side.
SURROUNDINGS = 0.06
# How bright the picture stays outside of its region of interest.
OUTSIDE = 0.45
# Side of the smallest box, in widths of its line.
_LEAST_BOX = 12
_PART_COLORS: dict[Verdict, Color] = {
    "good": (90, 200, 120),
    "review": AMBER,
    "anomalous": RED,
    "not_inspectable": (190, 120, 210),
}


class PartMark(NamedTuple):
    """One of several parts: its number, its box in pixels of the image, and the verdict on it."""

    number: int
    box: Box
    verdict: Verdict


@dataclass(frozen=True)
class Marks:
    """What is marked on an image.

    Attributes:
        regions: Worst first, in pixels of the image.
        cut: Value of the map, on its fixed scale, from which a pixel counts: where the contours run.
        is_anomalous: Whether they are defects, in red, or near misses, amber and dashed.
    """

    regions: tuple[Region, ...]
    cut: float
    is_anomalous: bool

    @property
    def color(self) -> Color:
        """RGB of the lines."""
        return RED if self.is_anomalous else AMBER


def draw_marks(picture: Uint8Array, heat: Float32Array, marks: Marks, opacity: float, enlarged: int = 1) -> None:
    """Mark regions on an image.

    Args:
        picture: (H, W, 3) uint8 RGB, drawn on.
        heat: (h, w) float32 map on its fixed scale, at the working scale.
        marks: What.
        opacity: Of the tint at the map's threshold, 0..1.
        enlarged: How many pixels of the picture one of the image is wide.
    """
    regions = tuple(_enlarged(region, enlarged) for region in marks.regions)
    # What the cut leaves outside of the regions is not told, and gets no contour.
    below = np.nextafter(np.float32(marks.cut), np.float32(-np.inf))
    own = np.where(_boxes(heat.shape, picture.shape, regions), heat, np.minimum(heat, below))
    _tint(picture, *_colored(own, marks), opacity)
    side = (picture.shape[0] * picture.shape[1]) ** 0.5
    line = max(1 if side < LEAST_SIDE_OF_LABELS else 2, round(side / 450))
    for contour in _contours(own, marks.cut, picture.shape):
        _stroke(picture, contour, line, marks.color)
    boxes = [_widened(region.box, line, picture.shape) for region in regions]
    for left, top, right, bottom in boxes:
        _stroke(picture, _corners(left, top, right, bottom), line, marks.color, dashed=not marks.is_anomalous)
    # A near miss has none: the map may reach its threshold on a good part, and the score decides.
    if marks.is_anomalous and min(picture.shape[:2]) >= LEAST_SIDE_OF_LABELS:
        for region, box in zip(reversed(regions), reversed(boxes), strict=True):
            _label(picture, region, box, line)


def draw_region_of_interest(picture: Uint8Array, cares: Uint8Array) -> None:
    """Darken what lies outside the region of interest, and outline that.

    Args:
        picture: (H, W, 3) uint8 RGB, drawn on.
        cares: (h, w) uint8, 0 outside.
    """
    height, width = picture.shape[:2]
    inside = cv2.resize((cares > 0).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    for rows in row_blocks(height, width):
        block = picture[rows]
        np.copyto(block, (block * OUTSIDE).astype(np.uint8), where=inside[rows][..., None] == 0)
    line = max(1, round((height * width) ** 0.5 / 700))
    for contour in _contours(cares.astype(np.float32), 1, picture.shape):
        _stroke(picture, contour, line, WHITE)


def draw_parts(picture: Uint8Array, parts: Iterable[PartMark], others: Iterable[Box], enlarged: int = 1) -> None:
    """Outline each part of an image and number it, in the color of its verdict; what is no part has a red dashed box.

    Args:
        picture: (H, W, 3) uint8 RGB, drawn on.
        parts: The parts.
        others: x, y, width and height of what is no part, in pixels of the image.
        enlarged: How many pixels of the picture one of the image is wide.
    """
    side = (picture.shape[0] * picture.shape[1]) ** 0.5
    line = max(1, round(side / 700))
    capital = max(LEAST_CAPITAL, round(side / 64))
    for part in parts:
        left, top, width, height = (enlarged * value for value in part.box)
        color = _PART_COLORS[part.verdict]
        # Beside the part, so that nothing is drawn on it.
        away = 3 * line
        sides = left - away, top - away, left + width + away, top + height + away
        last = np.array([picture.shape[1] - 1, picture.shape[0] - 1], np.float32)
        _stroke(picture, np.clip(_corners(*sides), 0, last).astype(np.float32), line, color)
        feet = int(min(picture.shape[0] - 1, top + height + away + line + 2 + capital))
        write(picture, str(part.number), max(0, left - away), feet, capital, color)
    for x, y, width, height in others:
        sides = _widened((enlarged * x, enlarged * y, enlarged * width, enlarged * height), line, picture.shape)
        _stroke(picture, _corners(*sides), 2 * line, RED, dashed=True)


def _corners(left: float, top: float, right: float, bottom: float) -> Float32Array:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)


def _enlarged(region: Region, times: int) -> Region:
    x, y, width, height = (times * v for v in region.box)
    return Region((x, y, width, height), region.area, region.peak, region.severity)


def _boxes(map_hw: tuple[int, ...], picture_hw: tuple[int, ...], regions: tuple[Region, ...]) -> npt.NDArray[np.bool_]:
    """The regions' boxes as a mask (h, w) of the map."""
    mask = np.zeros(map_hw, bool)
    per_y, per_x = map_hw[0] / picture_hw[0], map_hw[1] / picture_hw[1]
    for x, y, width, height in (region.box for region in regions):
        left, top = round(x * per_x), round(y * per_y)
        right, bottom = round((x + width) * per_x), round((y + height) * per_y)
        mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return mask


def _colored(own: Float32Array, marks: Marks) -> tuple[Float32Array, Float32Array]:
    """What is tinted, and how strongly, (h, w) float32 in 0..1 each; only regions are above the cut."""
    # A good part gets no red, and nothing else does that is no region.
    inside = own >= marks.cut
    shown = np.clip(own, 0, np.where(inside & marks.is_anomalous, np.float32(1), np.float32(BELOW_RED)))
    outside = 1 - inside.astype(np.uint8)
    if outside.all():
        return shown, np.zeros_like(shown)
    away = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_3)
    nearness = np.clip(1 - away / (SURROUNDINGS * max(own.shape)), 0, 1)
    return shown, shown * shown * nearness


def _tint(picture: Uint8Array, heat: Float32Array, weight: Float32Array, opacity: float) -> None:
    """Lay a map's colors over a picture, in blocks of columns: the whole takes more memory than the picture."""
    height, width = picture.shape[:2]
    # First along x alone, so that a block along y needs nothing of its neighbors and comes out exactly the same.
    heat, weight = (cv2.resize(m, (width, len(m)), interpolation=cv2.INTER_LINEAR) for m in (heat, weight))
    for columns in row_blocks(width, height):
        if not weight[:, columns].any():
            continue
        size = (columns.stop - columns.start, height)
        block, share = (cv2.resize(m[:, columns], size, interpolation=cv2.INTER_LINEAR) for m in (heat, weight))
        picture[:, columns] = blend_heat(picture[:, columns], block, opacity * share)


def _contours(heat: Float32Array, cut: float, picture_hw: tuple[int, ...]) -> Iterator[Float32Array]:
    """Outlines (n, 2) float32 of what lies above the cut, as x and y in pixels of the picture."""
    height, width = picture_hw[:2]
    share = min(1.0, CONTOUR_SIDE / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    above = cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR) >= cut
    found, _ = cv2.findContours(above.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    scale = np.array([width / size[0], height / size[1]], np.float32)
    for contour in found:
        yield (contour[:, 0].astype(np.float32) + np.float32(0.5)) * scale - np.float32(0.5)


def _widened(box: Box, line: int, picture_hw: tuple[int, ...]) -> Box:
    """Left, top, right and bottom of a box's line, clear of the contour in it, and large enough to be seen."""
    x, y, width, height = box
    across, down = (max(2 * line, (_LEAST_BOX * line - side) // 2) for side in (width, height))
    right, bottom = min(picture_hw[1] - 1, x + width - 1 + across), min(picture_hw[0] - 1, y + height - 1 + down)
    return max(0, x - across), max(0, y - down), right, bottom


def _label(picture: Uint8Array, region: Region, box: Box, line: int) -> None:
    """A region's severity above or below its box, where it does not lie on the defect."""
    height, width = picture.shape[:2]
    left, top, _, bottom = box
    text = format_severity(region.severity, region.severity >= 1)
    capital = max(LEAST_CAPITAL, round((height * width) ** 0.5 / 80))
    edge = max(2, capital // 3)
    down, across = capital + 2 * edge, width_of(text, capital) + 2 * edge
    places = (top - line - down, bottom + line + 1)
    top = next((place for place in places if 0 <= place <= height - down), top)
    left = min(left, max(0, width - across))
    picture[top : top + down, left : left + across] = RED
    write(picture, text, left + edge, top + edge + capital, capital, WHITE)


def _stroke(picture: Uint8Array, points: Float32Array, line: int, color: Color, dashed: bool = False) -> None:
    """A closed line with a dark edge, so that it shows on any ground."""
    pieces = _dashes(points, 4 * line) if dashed else [np.vstack([points, points[:1]])]
    fixed = [np.rint(piece * 2**_SHIFT).astype(np.int32) for piece in pieces]
    for shade, width in ((DARK, line + 2 * max(1, line // 2)), (color, line)):
        cv2.polylines(picture, fixed, False, shade, width, cv2.LINE_AA, _SHIFT)


def _dashes(points: Float32Array, length: int) -> list[Float32Array]:
    """Every other piece, of about a length, of the closed line through points (n, 2)."""
    closed = np.vstack([points, points[:1]])
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    ends = np.linspace(0, along[-1], 2 * max(1, round(along[-1] / (2 * length))) + 1)
    dashes = []
    for start, end in itertools.islice(itertools.pairwise(ends), 0, None, 2):
        at = np.concatenate([[start], along[(along > start) & (along < end)], [end]])
        dashes.append(np.stack([np.interp(at, along, closed[:, axis]) for axis in (0, 1)], axis=1).astype(np.float32))
    return dashes
