"""The bar below an image: what the verdict is, of which part, by which threshold, and what the colors mean."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.inspection.overlay.heat import COLORS
from fewshot_ad.inspection.overlay.text import LEAST_CAPITAL, WHITE, Color, plain, shortened, width_of, write
from fewshot_ad.inspection.verdict import verdict_words

# A narrower picture is enlarged or framed, so that the bar can be read.
LEAST_WIDTH = 320
VERDICT_COLORS: dict[str, Color] = {
    verdict_words("good"): (30, 110, 60),
    verdict_words("review"): (165, 105, 0),
    verdict_words("anomalous"): (170, 30, 30),
    verdict_words("not_inspectable"): (120, 70, 130),
}
GROUND, GRAY = (32, 32, 34), (200, 200, 200)


@dataclass(frozen=True)
class Caption:
    """What the bar says.

    Attributes:
        verdict: One of the words in `VERDICT_COLORS`.
        finding: What stands behind the word: the severity.
        name: Of the part.
        limit: The threshold.
    """

    verdict: str
    finding: str
    name: str
    limit: str


def framed(image: Uint8Array, caption: Caption) -> tuple[Uint8Array, Uint8Array, int]:
    """An image on a canvas, with the bar below it: pixels of the image keep their coordinates.

    Args:
        image: (H, W, 3) uint8 RGB. One of a few pixels is enlarged.
        caption: What the bar says.

    Returns:
        The canvas, (H', W', 3) uint8 RGB; the part of it that shows the image, to draw on; and how many times that is
        enlarged.
    """
    times = max(1, -(-LEAST_WIDTH // max(image.shape[:2])))
    height, width = image.shape[0] * times, image.shape[1] * times
    capital = max(LEAST_CAPITAL, round((height * width) ** 0.5 / 64))
    line = round(2.2 * capital)
    canvas = np.full((height + 3 * line, max(width, LEAST_WIDTH), 3), 255, np.uint8)
    canvas[height:] = GROUND
    shown = canvas[:height, :width]
    shown[:] = image if times == 1 else cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
    _draw(canvas[height:], caption, capital, line)
    return canvas, shown, times


def _draw(bar: Uint8Array, caption: Caption, capital: int, line: int) -> None:
    bar[:line] = VERDICT_COLORS[caption.verdict]
    edge, feet = capital, (line + capital) // 2
    room = bar.shape[1] - 2 * edge
    write(bar, shortened(f"{caption.verdict}  {caption.finding}", capital, room), edge, feet, capital, WHITE)
    write(bar, shortened(plain(caption.name), capital, room), edge, line + feet, capital, GRAY)
    legend = _draw_legend(bar[2 * line :], capital, line)
    write(bar, shortened(caption.limit, capital, legend - 2 * edge), edge, 2 * line + feet, capital, GRAY)


def _draw_legend(strip: Uint8Array, capital: int, line: int) -> int:
    """The colors of the map from 0 to its threshold, 1, and above; returns where it begins."""
    feet, end = (line + capital) // 2, strip.shape[1] - capital
    length, above, gap = 7 * capital, 2 * capital, capital // 2
    left = end - above - gap - width_of("1", capital) - gap - length
    start = left - gap - width_of("map 0", capital)
    write(strip, "map 0", start, feet, capital, GRAY)
    scale = cv2.resize(COLORS[:-1].reshape(1, -1, 3), (length, capital), interpolation=cv2.INTER_LINEAR)
    top = feet - capital
    strip[top:feet, left : left + length] = scale
    write(strip, "1", left + length + gap, feet, capital, GRAY)
    strip[top:feet, end - above : end] = COLORS[-1, 0]
    return start
