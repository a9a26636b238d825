"""One picture of what is wrong and what is close, to look at after a check."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.check.report import Check, CheckedImage
from fewshot_ad.inspection.result import Inspection

# Tiles on a sheet, at most, and in a row.
TILES, COLUMNS = 24, 6
# Room that each kind of image keeps for itself, however many there are of the kinds before it; right verdicts get no
# more.
_ROOM = 6
# Side of an image on the sheet, and height of the lines of text, in pixels.
SIDE, _LINE = 240, 22
_BORDER = 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE = (255, 255, 255)
_COLORS = {"missed": (176, 32, 40), "rejected": (196, 110, 0), "right": (52, 110, 70)}


def draw_sheet(check: Check, inspect: Callable[[CheckedImage], Inspection]) -> Uint8Array:
    """Draw a contact sheet: missed images, rejected ones, then the closest right verdicts on bad and on good images.

    Memory does not grow with the number or the size of the images: each is inspected once more when it is its turn, and
    kept at the size of its tile.

    Args:
        check: The check.
        inspect: Inspects a checked image again.

    Returns:
        (H, W, 3) uint8 RGB: a heading, and `TILES` tiles at most, each an overlay and its caption.

    Raises:
        ImageError: An image cannot be read any more.
    """
    tiles = grid([_tile(image, inspect(image)) for image in chosen(check)], COLUMNS)
    counts = f"{len(check.missed)} missed, {len(check.rejected)} rejected of {len(check.images)} images"
    heading = strip(f"{check.product}: {counts}; threshold {check.threshold:.4g}", tiles.shape[1], (40, 44, 52))
    return np.vstack([heading, tiles])


def chosen(check: Check) -> list[CheckedImage]:
    """The images of a sheet, in its order."""
    right = [image for image in check.images if image.outcome == "right"]
    groups = [
        check.missed,
        check.rejected,
        sorted((image for image in right if image.truth == "bad"), key=lambda image: image.score)[:_ROOM],
        sorted((image for image in right if image.truth == "good"), key=lambda image: -image.score)[:_ROOM],
    ]
    images: list[CheckedImage] = []
    for number, group in enumerate(groups, start=1):
        reserved = sum(min(_ROOM, len(later)) for later in groups[number:])
        images += group[: TILES - len(images) - reserved]
    return images


def grid(tiles: list[Uint8Array], columns: int) -> Uint8Array:
    """Tiles of one size side by side, row by row, on white.

    Args:
        tiles: (h, w, 3) uint8 each, one at least.
        columns: Number of tiles in a row.
    """
    blank = np.full_like(tiles[0], 255)
    tiles = tiles + [blank] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)


def _tile(image: CheckedImage, result: Inspection) -> Uint8Array:
    """(SIDE + two lines + borders, SIDE + borders, 3): the whole overlay, its outcome and its name."""
    color = _COLORS[image.outcome]
    word = image.outcome.upper() if image.outcome != "right" else f"{image.truth}, right"
    picture = np.vstack(
        [
            fitted(result.overlay()),
            strip(f"{word}  severity {image.severity:.2f}", SIDE, color),
            strip(image.name, SIDE, color),
        ]
    )
    return np.pad(picture, ((_BORDER, _BORDER), (_BORDER, _BORDER), (0, 0)), constant_values=255)


def fitted(picture: Uint8Array) -> Uint8Array:
    """A picture in a square of SIDE pixels, whole and in its own aspect."""
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    square = np.full((SIDE, SIDE, 3), 235, np.uint8)
    top, left = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square


def strip(text: str, width: int, color: tuple[int, int, int]) -> Uint8Array:
    """One line of text, white on a color; of one that is too long the end is shown, which tells files apart."""
    # OpenCV's fonts have ASCII alone.
    letters = text.encode("ascii", "replace").decode()
    room = width - 12
    while len(letters) > 4 and cv2.getTextSize(letters, _FONT, 0.45, 1)[0][0] > room:
        letters = f"...{letters.removeprefix('...')[1:]}"
    strip = np.full((_LINE, width, 3), color, np.uint8)
    cv2.putText(strip, letters, (6, 15), _FONT, 0.45, _WHITE, 1, cv2.LINE_AA)
    return strip
