"""`Inspector.calibrate` on made-up parts: the threshold, its record, and what stays."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad import ArgumentError, ArtifactError, ImageError, Inspector
from fewshot_ad.encoder import Encoder
from tests.conftest import make_part


def product(encoder: Encoder, **settings: float) -> Inspector:
    good = [make_part(seed, 64) for seed in range(3)]
    return Inspector.from_support(good, product="washer", encoder=encoder, views="none", image_size=64, **settings)


@pytest.fixture
def own(encoder: Encoder) -> Inspector:
    return product(encoder)


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, 64) for seed in range(20, 42)]


@pytest.fixture(scope="module")
def bad() -> list[np.ndarray]:
    return [make_part(seed, 64, defect=True) for seed in range(60, 66)]


def test_the_threshold_holds_from_now_on_and_is_on_record(own: Inspector, good: list[np.ndarray]) -> None:
    banks, former = own.banks, own.threshold
    calls: list[tuple[str, int, int]] = []
    change = own.calibrate(good, progress=lambda *call: calls.append(call))
    assert (change.former_threshold, change.calibration) == (former, own.calibration)
    assert own.threshold == own.calibration.threshold != former
    assert own.inspect(good[0]).map_scale == own.calibration.map_scale
    assert own.banks == banks
    assert calls[-1] == ("calibrate", 22, 22)
    assert "calibrated on 22 good images (posterior-predictive): threshold" in own.enrollment.reasons[-1]
    assert f"{former:.6g} -> {own.threshold:.6g}" in own.enrollment.reasons[-1]
    scores = [own.inspect(image).score for image in good]
    assert own.calibration.further_scores == pytest.approx(scores)


def test_a_check_on_the_same_images_says_so(own: Inspector, good: list[np.ndarray], bad: list[np.ndarray]) -> None:
    assert own.check(good, bad).calibrated_on == 0
    own.calibrate(good[:20])
    again = own.check(good, bad)
    assert again.calibrated_on == 20
    assert "20 of these" in again.explain()
    assert again.as_dict()["calibrated_on"] == 20


def test_a_promise_and_what_it_takes(own: Inspector, good: list[np.ndarray]) -> None:
    kept = own.calibrate(good, max_false_reject=0.05)
    assert (kept.calibration.method, kept.calibration.status) == ("conformal", "calibrated")
    assert kept.false_rejects(own.threshold).count <= 1
    assert "Promised: a false reject rate of at most 0.05" in kept.explain()
    few = own.calibrate(good, max_false_reject=0.01).explain()
    assert "takes 99 good images, got 22" in few
    assert "22 good images can promise a false reject rate of 4.3%" in own.calibrate(good).explain()


def test_the_limit_of_the_enrollment_is_kept(encoder: Encoder, good: list[np.ndarray]) -> None:
    own = product(encoder, max_false_reject=0.05)
    assert own.calibrate(good).calibration.method == "conformal"


def test_bad_images_are_the_other_side(own: Inspector, good: list[np.ndarray], bad: list[np.ndarray]) -> None:
    change = own.calibrate(good, bad)
    low, high = own.calibration.threshold_interval or (0, 0)
    assert low <= own.threshold <= high
    text = change.explain()
    assert "Passes of these 6 bad images: " in text
    assert "22 further good and 6 bad images" in text
    assert "drawn defects" in text


def test_a_threshold_set_by_hand_is_replaced_and_told(own: Inspector, good: list[np.ndarray]) -> None:
    own.threshold *= 1.5
    assert own.threshold_set_by_hand
    change = own.calibrate(good)
    assert not own.threshold_set_by_hand
    assert "set by hand is replaced" in change.explain()
    assert "(set by hand) ->" in own.enrollment.reasons[-1]


def test_it_survives_saving_and_a_fresh_enrollment_does_not_replace_it(
    encoder: Encoder, own: Inspector, good: list[np.ndarray], bad: list[np.ndarray], tmp_path
) -> None:
    path = tmp_path / "p.fsad"
    for further_bad in (None, bad):
        own.calibrate(good, further_bad)
        own.save(path)
        again = Inspector.load(path, encoder=encoder)
        assert (again.calibration, again.threshold) == (own.calibration, own.threshold)
        assert again.info() == own.info()
    with pytest.raises(ArtifactError, match="whose calibration on further images would be lost"):
        product(encoder).save(path)


def test_it_stays_as_it_is_when_images_are_added(own: Inspector, good: list[np.ndarray]) -> None:
    own.calibrate(good)
    calibrated, threshold = own.calibration, own.threshold
    notes = own.add(make_part(90, 64))
    assert (own.calibration, own.threshold) == (calibrated, threshold)
    assert any("calibrate again" in note for note in notes)
    own.calibrate(good)
    assert own.threshold <= threshold


def test_what_says_nothing_is_named_and_left_out(own: Inspector, good: list[np.ndarray]) -> None:
    noisy = np.clip(good[0].astype(int) + np.random.default_rng(0).integers(-2, 3, good[0].shape), 0, 255)
    change = own.calibrate([make_part(0, 64), *good, good[1].copy(), noisy.astype(np.uint8), np.zeros((2, 2, 3), "u1")])
    assert change.calibration.n == 22
    reasons = "\n".join(change.notes)
    for part in ("in the support set, as image[0]", "identical to good[2]", "nearly identical to good[1]", "good[25]"):
        assert part in reasons
    assert set(change.notes) <= set(own.enrollment.notes)


def test_a_failure_changes_nothing(own: Inspector, good: list[np.ndarray], bad: list[np.ndarray]) -> None:
    before = own.info()

    def interrupt(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own.calibrate(good, progress=interrupt)
    with pytest.raises(ImageError, match="none that counts"):
        own.calibrate([make_part(0, 64)])
    with pytest.raises(ArgumentError, match="good or bad"):
        own.calibrate(good, [*bad, good[0]])
    for limit in (0, 0.9, "1%"):
        with pytest.raises(ArgumentError, match="max_false_reject"):
            own.calibrate(good, max_false_reject=limit)  # type: ignore[arg-type]
    assert own.info() == before


def test_real_bottles(bottle, encoder: Encoder) -> None:
    images = sorted((bottle / "train" / "good").iterdir())
    own = Inspector.from_support(images[:4], views="none", image_size=256, encoder=encoder)
    own.calibrate(images[10:40])
    check = own.check(bottle / "test" / "good", sorted((bottle / "test" / "broken_large").iterdir())[:5])
    assert check.missed == ()
    assert check.false_rejects.interval[0] <= own.calibration.false_reject_bound
