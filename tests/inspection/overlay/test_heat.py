from __future__ import annotations

import numpy as np

from fewshot_ad.inspection.overlay import blend_heat
from fewshot_ad.inspection.overlay.heat import BELOW_RED, RED, colors_of


def test_only_the_threshold_is_red() -> None:
    heat = np.float32([[1, BELOW_RED, 0.95, 0.5, 0]])
    red, *others = colors_of(heat)[0].astype(int)
    assert tuple(red) == RED
    assert all(green > 100 or blue > 150 for _, green, blue in others)


def test_the_weight_says_how_much_color_there_is() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    weight = np.float32([[0, 0.5], [1, 0]])
    blended = blend_heat(image, np.ones((2, 2), np.float32), weight)
    np.testing.assert_array_equal(blended[0, 0], 100)
    np.testing.assert_array_equal(blended[1, 0], RED)
    np.testing.assert_array_equal(blended[0, 1], np.rint((np.array(RED) + 100) / 2))
