"""Images in one pose."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from fewshot_ad.registration import AS_IT_IS, Framing, Registration, fit_registration, pose_estimator, scaled_image
from fewshot_ad.training.parts import render


def free(category: str, count: int, size: int = 256) -> list[np.ndarray]:
    """Parts of an unseen product at any angle."""
    return [render(category, seed, size, variant=90_000, placement="free") for seed in range(count)]


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1.0)
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("category", ["key", "screw"])
@pytest.mark.parametrize("degrees", [20, 75, 130])
def test_a_turned_part_comes_back_to_where_it_was(category: str, degrees: float) -> None:
    images = free(category, 4)
    registration, reason = fit_registration(images, pose_estimator(), half_turns=False)
    assert registration is not None
    assert "turns are read to within" in reason
    first, before, _ = scaled_image(images[0], 256, 16, Framing(registration), None)
    again, after, _ = scaled_image(turned(images[0], degrees), 256, 16, Framing(registration), None)
    line = np.abs(np.arange(256) - 127.5)
    shown = (before.shown() == 255) & (after.shown() == 255) & (np.maximum(line[:, None], line[None]) < 80)
    assert shown.sum() > 0.9 * 160**2
    off = np.abs(first[shown].astype(int) - again[shown]).mean()
    apart = np.abs(first[shown].astype(int) - turned(first, degrees)[shown]).mean()
    assert off < 0.35 * apart


def test_images_of_one_product_end_in_one_pose() -> None:
    images = free("key", 5)
    registration, _ = fit_registration(images, pose_estimator(), half_turns=False)
    assert registration is not None
    registered = [scaled_image(image, 256, 16, Framing(registration), None)[0] for image in images]
    poses = pose_estimator()(registered)
    at = (1, 2, 3, 4, 6).index(registration.order)
    phases = np.angle(poses.moments[:, at] * np.exp(-1j * registration.phase)) / registration.order
    assert np.degrees(np.abs(phases)).max() < 6
    assert np.abs(poses.center - poses.center.mean(axis=0)).max() < 0.08


def test_half_a_turn_does_not_matter_where_views_turn_images_upside_down() -> None:
    orders = [fit_registration(free("key", 4), pose_estimator(), half)[0] for half in (False, True)]
    assert [registration and registration.order for registration in orders] == [1, 2]


def test_images_without_a_part_have_no_pose() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(3)]
    registration, reason = fit_registration(noise, pose_estimator(), half_turns=False)
    assert registration is None
    assert reason.startswith("registration: none; ")


def test_parts_in_a_jig_stay_as_they_lie() -> None:
    images = [render("key", seed, 256, variant=90_001, placement="fixed") for seed in range(5)]
    registration, reason = fit_registration(images, pose_estimator(), half_turns=False)
    assert registration is None
    assert "agree no better in one pose than as they lie" in reason


def test_a_single_image_has_nothing_to_agree_with() -> None:
    registration, reason = fit_registration(free("key", 1), pose_estimator(), half_turns=True)
    assert registration is None
    assert "it takes two images" in reason


@pytest.mark.parametrize("shape", [(256, 320), (240, 360), (320, 256), (192, 256), (300, 300)])
def test_upside_down_images_of_any_shape_land_on_each_other(shape: tuple[int, int]) -> None:
    """Half a turn is followed exactly, so all that could differ is where the square is said to lie."""
    part = render("key", 0, min(shape), variant=90_000, placement="free")
    down, across = shape[0] - part.shape[0], shape[1] - part.shape[1]
    image = cv2.copyMakeBorder(
        part, down // 2, down - down // 2, across // 2, across - across // 2, cv2.BORDER_REPLICATE
    )
    estimator = pose_estimator()
    registration = Registration(estimator.sha256, 1, 0.3, (0.05, -0.1))
    before = registration.forward(image, estimator)
    after = registration.forward(np.ascontiguousarray(image[::-1, ::-1]), estimator)
    height, width = shape
    points = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]]).T
    flipped = points.copy()
    flipped[0], flipped[1] = width - 1 - points[0], height - 1 - points[1]
    np.testing.assert_allclose(after @ flipped, before @ points, atol=0.1)


def test_the_order_of_the_images_decides_nothing_and_one_stranger_little() -> None:
    images = [*free("key", 6), render("gear", 0, 256, variant=90_000)]
    found = [fit_registration(some, pose_estimator(), half_turns=True)[0] for some in (images, images[::-1])]
    assert found[0] is not None
    assert found[0] == found[1]
    alone = fit_registration(images[:-1], pose_estimator(), half_turns=True)[0]
    assert alone is not None
    assert alone.center is not None
    assert found[0].center is not None
    assert np.abs(np.subtract(alone.center, found[0].center)).max() < 0.05


def test_without_a_registration_nothing_is_turned() -> None:
    image = free("key", 1)[0]
    content, geometry, _ = scaled_image(image, 128, 16, AS_IT_IS, None)
    assert geometry.turned is None
    np.testing.assert_array_equal(geometry.pad(content), geometry.to_input(image))


def test_it_survives_json() -> None:
    for center in ((0.1, -0.2), None):
        registration = Registration("0" * 64, 2, 0.5, center)
        fields = dataclasses.asdict(registration)
        fields["center"] = None if center is None else list(center)
        assert Registration.from_dict(fields) == registration
