"""The pose network as it ships."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.encoder.weights import weights_folder
from fewshot_ad.errors import WeightsError
from fewshot_ad.registration import ORDERS, POSE_SIDE, pose_estimator, squared
from fewshot_ad.registration.estimator import pose_card
from fewshot_ad.training.parts import render


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_an_image_of_any_shape_keeps_its_aspect_on_the_square(height: int, width: int) -> None:
    square = squared(np.full((height, width, 3), 200, np.uint8), POSE_SIDE)
    assert square.shape == (POSE_SIDE, POSE_SIDE, 3)
    assert (square == 200).all()


def test_a_circle_stays_a_circle_on_the_square() -> None:
    image = np.zeros((120, 300, 3), np.uint8)
    cv2.circle(image, (150, 60), 50, (255, 255, 255), -1)
    rows, columns = np.nonzero(squared(image, POSE_SIDE)[..., 0] > 127)
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1
    assert abs(rows.mean() - columns.mean()) <= 1


@pytest.mark.parametrize("category", ["key", "screw", "connector"])
def test_a_quarter_turn_is_followed_exactly(category: str) -> None:
    image = render(category, 0, 128, variant=90_000, placement="free")
    before, after = (pose_estimator()([one]) for one in (image, np.ascontiguousarray(np.rot90(image, -1))))
    x, y = before.center[0]
    np.testing.assert_allclose(after.center[0], [-y, x], atol=1e-3)
    np.testing.assert_allclose(after.spread, before.spread, rtol=1e-3)
    clockwise = np.exp(1j * np.pi / 2 * np.array(ORDERS))
    np.testing.assert_allclose(after.moments[0], before.moments[0] * clockwise, atol=2e-3)


def test_threads_and_repetition_change_nothing() -> None:
    image = render("key", 1, 128, variant=90_000)
    one, two = pose_estimator(1)([image, image]), pose_estimator()([image])
    np.testing.assert_allclose(one.moments, np.repeat(two.moments, 2, axis=0), atol=1e-5)
    assert pose_estimator() is pose_estimator()


def test_the_card_says_where_it_comes_from_and_vouches_for_the_file() -> None:
    card = pose_card()
    assert card["license"] == "Apache-2.0"
    assert "generated parts" in card["training_data"]
    assert card["parity"]["openvino"] < 1e-4
    assert b"/" not in (weights_folder() / "pose" / card["file"]).read_bytes().split(b"photograph")[0]


def test_a_missing_or_strange_card_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="Reinstall"):
        pose_card(tmp_path)
    (tmp_path / "pose.json").write_text(json.dumps({"file": 3, "sha256": None}))
    with pytest.raises(WeightsError, match="expected the card of the pose network"):
        pose_card(tmp_path)
