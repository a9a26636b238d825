from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad.images.lighting import ALPHA, GAINS, TRIMMED, Lighting, channel_means, log_chromaticity


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.integers(20, 180, (64, 96, 3), dtype=np.uint8)


def relit(image: np.ndarray, gains: tuple[float, float, float]) -> np.ndarray:
    return np.clip(np.rint(image * np.array(gains)), 0, 255).astype(np.uint8)


def test_the_means_are_those_of_the_middle_of_each_channel(image: np.ndarray) -> None:
    few = image[::2, ::2].reshape(-1, 3).astype(float)
    for channel, mean in enumerate(channel_means(image)):
        values = np.sort(few[:, channel])
        low, high = (round(share * len(values)) for share in TRIMMED)
        assert mean == pytest.approx(values[low:high].mean(), abs=0.3)


@pytest.mark.parametrize("gains", [(0.7, 0.7, 0.7), (1.3, 1.3, 1.3), (1.1, 1.0, 0.85)])
def test_other_light_is_taken_out(image: np.ndarray, gains: tuple[float, float, float]) -> None:
    lighting = Lighting.of("normalized", [image])
    again = lighting.apply(relit(image, gains))
    assert np.abs(again.astype(int) - image).mean() < 1
    assert np.abs(lighting.apply(image).astype(int) - image).max() <= 1


def test_no_more_than_a_stop_is_taken_out(image: np.ndarray) -> None:
    lighting = Lighting.of("normalized", [image])
    dark = relit(image, (0.2, 0.2, 0.2))
    assert np.abs(lighting.apply(dark).astype(int) - np.clip(dark.astype(int) * GAINS[1], 0, 255)).max() <= 1


def test_the_means_may_be_those_of_a_window(image: np.ndarray) -> None:
    lighting = Lighting.of("normalized", [image])
    changed = image.copy()
    changed[:, 48:] = 255
    window = (slice(None), slice(0, 48))
    assert np.abs(lighting.apply(changed, window)[:, :48].astype(int) - image[:, :48]).mean() < 3
    assert np.abs(lighting.apply(changed)[:, :48].astype(int) - image[:, :48]).mean() > 10


def test_log_chromaticity_is_the_formula(image: np.ndarray) -> None:
    red, green, blue = np.moveaxis((image.astype(np.float64) + 0.5) / 255.5, 2, 0)
    expected = 0.5 + np.log(green) - ALPHA * np.log(blue) - (1 - ALPHA) * np.log(red)
    got = log_chromaticity(image)
    np.testing.assert_allclose(got[..., 0] / 255, np.clip(expected, 0, 1), atol=0.003)
    assert (got[..., 0] == got[..., 1]).all()
    assert (got[..., 0] == got[..., 2]).all()


def test_log_chromaticity_does_not_see_brightness() -> None:
    rng = np.random.default_rng(4)
    image = rng.integers(60, 120, (32, 32, 3), dtype=np.uint8)
    first, brighter = log_chromaticity(image), log_chromaticity(relit(image, (2.0, 2.0, 2.0)))
    assert np.abs(first.astype(int) - brighter).mean() < 2
    gray = np.repeat(image[..., :1], 3, axis=2)
    assert np.ptp(log_chromaticity(gray)) <= 1
