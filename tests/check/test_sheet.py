from __future__ import annotations

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspection, Inspector
from fewshot_ad.check.sheet import COLUMNS, SIDE, TILES, chosen, draw_sheet
from tests.check.test_report import make_check
from tests.conftest import make_part


def names(good: list[float], bad: list[float]) -> list[str]:
    return [image.name for image in chosen(make_check(good, bad))]


def test_mistakes_come_first_then_the_closest_calls() -> None:
    assert names([1.0, 1.9, 3.0, 1.5], [5.0, 1.5, 2.1]) == [
        *("bad/1.png", "good/2.png"),
        *("bad/2.png", "bad/0.png"),
        *("good/1.png", "good/3.png", "good/0.png"),
    ]


def test_no_kind_takes_all_the_room() -> None:
    many = [1 + i / 1000 for i in range(100)]
    of_all = names([*many, *(10 + s for s in many)], [*many, *(10 + s for s in many)])
    assert len(of_all) == TILES
    assert of_all[:6] == [f"bad/{i}.png" for i in range(6)]
    assert of_all[6:12] == [f"good/{i}.png" for i in range(199, 193, -1)]
    assert len(names([1.0], many)) == TILES
    assert len(names(many, [10 + s for s in many])) == 12


@pytest.mark.parametrize("shape", [(100, 300), (300, 100), (40, 40)])
def test_tiles_show_the_whole_overlay(shape: tuple[int, int], inspector: Inspector) -> None:
    pixels = cv2.resize(make_part(50), shape[::-1])
    result = inspector.inspect(pixels)
    inspected: list[str] = []

    def inspect(image: object) -> Inspection:
        inspected.append(image.name)  # type: ignore[attr-defined]
        return result

    check = make_check([1.0] * 3, [3.0] * 5)
    sheet = draw_sheet(check, inspect)
    assert inspected == [image.name for image in chosen(check)]
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] >= COLUMNS * SIDE
    tile = sheet[22 + 4 : 22 + 4 + SIDE, 4 : 4 + SIDE]
    height, width = (round(side * SIDE / max(shape)) for side in shape)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    shown = cv2.resize(tile[top : top + height, left : left + width], shape[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(shown.astype(int) - result.overlay()).mean() < 25
    assert (tile[:top] == 235).all()


def test_names_that_are_no_ascii_or_long_are_shown_cut(inspector: Inspector) -> None:
    check = make_check([1.0], [3.0])
    long = check.images[0].__class__("ä" * 300 + "/17.png", None, "good", 1.0, 0.5, False)
    result = inspector.inspect(make_part(50))
    sheet = draw_sheet(check.__class__("p", 2.0, (long, check.images[1]), (), ()), lambda image: result)
    assert sheet.shape[1] == COLUMNS * (SIDE + 8)
