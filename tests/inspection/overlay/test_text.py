from __future__ import annotations

import pytest

from fewshot_ad.inspection.overlay.text import plain, shortened, width_of


@pytest.mark.parametrize(
    ("text", "drawn"),
    [("bolt_1.png", "bolt_1.png"), ("Straße é", "Strasse e"), ("ボルト.png", "???.png"), ("a\nb\udcff", "a?b?")],
)
def test_letters_that_cannot_be_drawn_are_replaced(text: str, drawn: str) -> None:
    assert plain(text) == drawn


def test_a_long_name_keeps_both_of_its_ends() -> None:
    name = "line_7_" + "0" * 300 + "_camera.png"
    short = shortened(name, 12, 200)
    assert width_of(short, 12) <= 200
    assert short.startswith("line_7")
    assert short.endswith(".png")
    assert "..." in short
    assert shortened("short.png", 12, 200) == "short.png"
