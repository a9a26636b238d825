"""An image that cannot be judged gets a reason and no verdict; a defective part, however bad, gets its verdict."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector, SupportSetError
from fewshot_ad.encoder import Encoder
from fewshot_ad.inspection.inspectability import Appearance, Expectations, closeness
from tests.conftest import make_part


def red_part(seed: int) -> np.ndarray:
    """A part on a reddish table."""
    return np.clip(make_part(seed).astype(np.float32) * (1.2, 0.9, 0.6), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def red(encoder: Encoder) -> Inspector:
    return Inspector.from_support([red_part(i) for i in range(5)], encoder=encoder, views="hflip", image_size=128)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda image: image // 8, "too dark"),
        (lambda image: np.full_like(image, 2), "too dark"),
        (lambda image: np.full_like(image, 252), "overexposed"),
        (lambda image: np.full_like(image, 128), "no contrast"),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 8), "blurred"),
        (lambda image: image[..., ::-1], "red and blue are swapped"),
    ],
)
def test_what_cannot_be_judged_is_told_with_the_reason(red: Inspector, change, reason: str) -> None:
    result = red.inspect(np.ascontiguousarray(change(red_part(60))))
    assert result.verdict == "not_inspectable"
    assert reason in result.reason
    # A script that asks nothing else must not pass it.
    assert result.is_anomalous


def test_another_product_is_told(encoder: Encoder, brick: np.ndarray) -> None:
    support = [red_part(i) for i in range(4)]
    inspector = Inspector.from_support(support, encoder=encoder, views="hflip", image_size=256, budget=500)
    result = inspector.inspect(cv2.cvtColor(brick[:128, :128], cv2.COLOR_GRAY2RGB))
    assert result.verdict == "not_inspectable"
    assert "another product" in result.reason


def test_good_and_defective_parts_keep_their_verdicts(inspector: Inspector) -> None:
    verdicts = [inspector.inspect(make_part(200 + i)) for i in range(6)]
    assert {v.reason for v in verdicts} == {""}
    assert {v.verdict for v in verdicts} <= {"good", "anomalous"}
    for seed in range(300, 306):
        broken = make_part(seed, defect=True)
        # A seventh of the image is gone.
        broken[40:88, 40:88] = 30
        assert (inspector.inspect(broken).verdict, inspector.inspect(broken).reason) == ("anomalous", "")


def test_gray_parts_know_no_swapped_colors(encoder: Encoder) -> None:
    gray = [cv2.cvtColor(cv2.cvtColor(make_part(i), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for i in range(6)]
    inspector = Inspector.from_support(gray[:5], encoder=encoder, views="hflip", image_size=128)
    assert inspector.inspect(gray[5]).reason == ""


def test_what_is_expected_travels_with_the_product(red: Inspector, tmp_path, encoder: Encoder) -> None:
    red.save(tmp_path / "p.fsad")
    loaded = Inspector.load(tmp_path / "p.fsad", encoder=encoder)
    assert loaded.model.expectations == red.model.expectations
    assert len(loaded.model.expectations.appearances) == 5
    loaded.add(red_part(90))
    assert len(loaded.model.expectations.appearances) == len(loaded.model.expectations.closeness) == 6


def test_without_expectations_nothing_is_checked(red: Inspector) -> None:
    bare = Inspector(red.encoder, red._product.with_expectations(None))
    assert bare.inspect(np.full((128, 128, 3), 2, np.uint8)).reason == ""
    assert bare.inspect(red_part(60)).score == red.inspect(red_part(60)).score


def test_expectations_survive_json() -> None:
    appearance = Appearance.of(make_part(1))
    expectations = Expectations((appearance,), (0.5,))
    assert Expectations.from_dict(json.loads(json.dumps(dataclasses.asdict(expectations)))) == expectations


def test_measures_of_an_image() -> None:
    ramp = np.repeat(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    seen = Appearance.of(ramp)
    assert seen.bright == pytest.approx(252, abs=2)
    assert seen.contrast == pytest.approx(0.9 * 255, abs=3)
    assert seen.saturated == pytest.approx(6 / 256, abs=0.005)
    assert seen.sharpness == pytest.approx(0, abs=1e-6)
    assert seen.red_minus_blue == 0
    ramp[..., 0] //= 2
    assert Appearance.of(ramp).red_minus_blue == pytest.approx(-64, abs=3)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert Appearance.of(noise).sharpness > 10 * Appearance.of(cv2.GaussianBlur(noise, (0, 0), 4)).sharpness


def test_closeness_is_that_of_the_best_tenth_of_the_shown_patches() -> None:
    distances = np.arange(100, dtype=np.float32).reshape(10, 10)
    assert closeness(distances, np.ones((10, 10), bool)) == 10
    assert closeness(distances, distances >= 50) == 55


def test_images_that_cannot_be_judged_are_not_added(red: Inspector) -> None:
    before = red.enrollment.support
    with pytest.raises(SupportSetError, match=r"cannot be judged: .*swapped.*Nothing was added"):
        red.add(np.ascontiguousarray(red.references[0].content[..., ::-1]))
    assert red.enrollment.support == before
