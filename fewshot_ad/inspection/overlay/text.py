"""Text on pictures, with the letters that OpenCV has: ASCII."""

from __future__ import annotations

import unicodedata

import cv2

from fewshot_ad.arrays import Uint8Array

Color = tuple[int, int, int]
WHITE = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Height of a capital letter at scale 1.
_CAPITAL = 21
_GAP = "..."
# Below, letters cannot be read.
LEAST_CAPITAL = 9


def plain(text: str) -> str:
    """Text in printable ASCII: accents are taken off, all other letters become question marks."""
    text = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    letters = (letter for letter in text if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in letters)


def shortened(text: str, height: int, room: int) -> str:
    """Text cut in its middle to a width in pixels, at a height of its capitals; both of its ends stay."""
    kept = len(text)
    short = text
    while width_of(short, height) > room and kept > 0:
        kept -= 1
        short = text[: (kept + 1) // 2] + _GAP + text[len(text) - kept // 2 :]
    return short


def width_of(text: str, height: int) -> int:
    """Width of text in pixels, at a height of its capitals."""
    (width, _), _ = cv2.getTextSize(text, _FONT, height / _CAPITAL, _thickness(height))
    return int(width)


def write(picture: Uint8Array, text: str, left: int, baseline: int, height: int, color: Color) -> None:
    """Write ASCII text.

    Args:
        picture: (H, W, 3) uint8 RGB, written to.
        text: What.
        left: x of its start.
        baseline: y of its letters' feet.
        height: Of its capitals, in pixels.
        color: RGB.
    """
    scale = height / _CAPITAL
    cv2.putText(picture, text, (left, baseline), _FONT, scale, color, _thickness(height), cv2.LINE_AA)


def _thickness(height: int) -> int:
    return max(1, round(height / 9))
