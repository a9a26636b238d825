from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fewshot_ad.inspection.overlay.bar import LEAST_WIDTH, VERDICT_COLORS, Caption, framed
from fewshot_ad.inspection.verdict import verdict_words

CAPTION = Caption(verdict_words("anomalous"), "severity 1.84 x threshold", "washer: 1.png", "threshold 2.170")


@pytest.mark.parametrize("hw", [(16, 16), (64, 64), (64, 900), (900, 64), (480, 640), (1500, 2000)])
def test_the_image_stays_and_the_bar_is_below_it(hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*hw, 3), np.uint8)
    canvas, shown, times = framed(image, CAPTION)
    np.testing.assert_array_equal(shown[::times, ::times], image)
    assert np.shares_memory(canvas, shown)
    assert canvas.shape[1] >= LEAST_WIDTH
    bar = canvas[times * hw[0] :]
    # Room for three lines that can be read, and no more than that.
    assert 3 * 15 < len(bar) < max(80, 0.2 * (canvas.shape[0] * canvas.shape[1]) ** 0.5)
    np.testing.assert_array_equal(bar[0, 0], VERDICT_COLORS[verdict_words("anomalous")])
    # Letters, in each line.
    for line in np.array_split(bar, 3):
        assert (line.max(axis=2) > 180).sum() > 50


def test_large_images_stay_as_they_are_and_small_ones_are_enlarged() -> None:
    assert framed(np.zeros((480, 640, 3), np.uint8), CAPTION)[2] == 1
    assert framed(np.zeros((64, 64, 3), np.uint8), CAPTION)[2] == 5


def test_the_two_verdicts_have_colors_of_their_own() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    good = framed(image, dataclasses.replace(CAPTION, verdict=verdict_words("good")))[0][400, 0].astype(int)
    assert good[1] > good[0] + 50
    bad = framed(image, CAPTION)[0][400, 0].astype(int)
    assert bad[0] > bad[1] + 50


def test_whatever_a_name_holds_it_fits() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    long = framed(image, dataclasses.replace(CAPTION, name="n" * 5000))[0]
    # Nothing is written into the margins.
    assert (long[420:, -4:] == long[-1, -1]).all()
    strange = framed(image, dataclasses.replace(CAPTION, name="ボルト\n.png"))[0]
    plain = framed(image, dataclasses.replace(CAPTION, name="????.png"))[0]
    np.testing.assert_array_equal(strange, plain)
