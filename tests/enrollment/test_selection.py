from __future__ import annotations

import cv2
import numpy as np
import pytest

from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.presets import BASE_SIZE, BASE_VIEWS, enrollment_settings
from fewshot_ad.enrollment.selection import Separability, choose_settings
from fewshot_ad.enrollment.support import read_support


def test_a_gain_must_show_in_both_figures() -> None:
    base = Separability(0.80, 1.0)
    assert Separability(0.85, 1.5).beats(base)
    assert not Separability(0.85, 1.0).beats(base)
    assert not Separability(0.81, 2.0).beats(base)


def test_what_the_user_chose_is_taken(parts: list[np.ndarray], encoder: Encoder) -> None:
    images = read_support(parts[:2]).images
    asked = enrollment_settings(views="gray", image_size=128)
    assert choose_settings(images, asked, encoder) == (asked, ())


def test_one_image_gets_the_defaults_and_is_told_why(parts: list[np.ndarray], encoder: Encoder) -> None:
    choice, reasons = choose_settings(read_support(parts[:1]).images, enrollment_settings(), encoder)
    assert (choice.views, choice.image_size) == (BASE_VIEWS, BASE_SIZE)
    assert len(reasons) == 2
    assert all("no second image" in reason for reason in reasons)


def test_freely_rotated_parts_get_rotated_views(encoder: Encoder) -> None:
    part = np.full((160, 160, 3), 90, np.uint8)
    cv2.rectangle(part, (40, 70), (125, 92), (200, 190, 180), -1)
    cv2.rectangle(part, (40, 70), (62, 118), (150, 160, 200), -1)
    rng = np.random.default_rng(0)
    turned = []
    for degrees in (0, 90, 225):
        matrix = cv2.getRotationMatrix2D((79.5, 79.5), degrees, 1)
        view = cv2.warpAffine(part, matrix, (160, 160), borderMode=cv2.BORDER_REPLICATE)
        turned.append(np.clip(view + rng.normal(0, 3, view.shape), 0, 255).astype(np.uint8))
    calls: list[tuple[str, int, int]] = []
    choice, reasons = choose_settings(
        read_support(turned).images, enrollment_settings(image_size=256), encoder, lambda *call: calls.append(call)
    )
    assert any(view.kind == "rotate" and view.value == 90 for view in choice.views)
    assert "flips and rotations" in reasons[0]
    assert calls[-1] == ("settings", 2, 2)


@pytest.mark.parametrize("views", ["auto", "hflip"])
def test_the_choice_is_repeatable(parts: list[np.ndarray], encoder: Encoder, views: str) -> None:
    images = read_support(parts[:3]).images
    asked = enrollment_settings(views=views, seed=1)
    first, second = (choose_settings(images, asked, encoder) for _ in range(2))
    assert first == second
    chosen, reasons = first
    assert chosen.image_size in (256, 384, 512)
    assert "image size" in reasons[-1]
