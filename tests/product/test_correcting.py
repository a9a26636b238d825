"""Accept and reject: what becomes good, what is refused, and with which reason."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import ArgumentError, Inspector, ScoringConfig, SupportSetError
from tests.conftest import make_part


@pytest.fixture
def product(inspector: Inspector) -> Inspector:
    return copy.deepcopy(inspector)


def variant(seed: int) -> np.ndarray:
    """A good part with a mark that the support set lacks: a false reject."""
    part = make_part(seed)
    cv2.rectangle(part, (60, 24), (68, 32), (150, 150, 160), -1)
    return part


def test_a_false_reject_and_its_like_are_good_once_it_is_accepted(product: Inspector) -> None:
    assert product.inspect(variant(50)).is_anomalous
    assert product.inspect(variant(51)).is_anomalous
    before = product.inspect(variant(50)).severity_text
    note = product.accept(variant(50))[0]
    after = product.inspect(variant(50))
    assert note == f"image[5] accepted: severity {before} before, {after.severity_text} now"
    assert not after.is_anomalous
    assert not product.inspect(variant(51)).is_anomalous
    assert product.inspect(make_part(100, defect=True)).is_anomalous
    assert product.enrollment.support[-1][0] == "image[5]"
    assert max(len(bank) for bank in product.banks) <= product.enrollment.settings.budget


def test_what_was_good_already_is_taken_and_said(product: Inspector) -> None:
    _, note = product.accept(make_part(43))
    assert "was judged good already" in note


def test_what_is_as_unlike_as_a_defect_is_taken_and_said(product: Inspector) -> None:
    notes = product.accept(make_part(100, defect=True), force=True)
    assert any("as unlike the good images as a defect drawn on them" in note for note in notes)


def test_an_image_like_a_known_defect_is_refused(product: Inspector) -> None:
    product.reject(make_part(100, defect=True))
    before = product.info()
    with pytest.raises(SupportSetError, match=r"like the defect of image\[5\].*Nothing was changed"):
        product.accept(make_part(101, defect=True))
    with pytest.raises(SupportSetError, match="it was rejected as a defect"):
        product.accept(make_part(100, defect=True))
    with pytest.raises(SupportSetError, match=r"patches like those of a known defect.*Nothing was added"):
        product.add([make_part(102, defect=True)])
    assert product.info() == before
    notes = product.accept(make_part(101, defect=True), force=True)
    assert any(note.startswith("taken as asked: like the defect") for note in notes)


def test_an_image_that_lets_a_known_defect_pass_is_refused(product: Inspector) -> None:
    """The defect itself, shown without its surroundings: the likeness is not asked, what would pass is."""
    defect = make_part(100, defect=True)
    product.reject(defect)
    forgotten = make_part(100, defect=True)
    forgotten[0, 0] ^= 1
    with pytest.raises(SupportSetError, match="Nothing was changed"):
        product.accept(forgotten)


def test_good_parts_are_not_like_a_defect(product: Inspector) -> None:
    product.reject(make_part(100, defect=True), (80, 50, 40, 30))
    assert product.add([make_part(40)], force=False) == ()
    product.accept(variant(50))
    assert len(product.history()) == 3


def test_an_image_with_which_drawn_defects_would_pass_is_refused(
    product: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = product.model
    monkeypatch.setattr(
        "fewshot_ad.product.correcting.score_against", lambda patches, model: 9.0 if model is former else 0.0
    )
    with pytest.raises(SupportSetError, match=r"\d+ of \d+ drawn defects that are caught now would pass"):
        product.accept(variant(50))
    assert product.history() == ()


def test_what_cannot_be_judged_is_refused(product: Inspector) -> None:
    black = np.zeros((128, 128, 3), np.uint8)
    with pytest.raises(SupportSetError, match="it cannot be judged"):
        product.accept(black)


def test_reject_says_whether_it_is_caught(product: Inspector) -> None:
    [caught] = product.reject(make_part(100, defect=True))
    assert "is rejected as it is" in caught
    [passes] = product.reject(make_part(43))
    assert "passes" in passes
    assert "calibrate --bad" in passes
    assert [defect.name for defect in product.known_defects] == ["image[5]", "image[6]"]


def test_the_region_decides_which_patches_are_kept(product: Inspector) -> None:
    image = make_part(100, defect=True)
    product.reject(image, (0, 0, 20, 20))
    product.reject(image, (80, 50, 40, 40))
    corner, defect = product.known_defects
    assert (corner.region, defect.region) == ((0, 0, 20, 20), (80, 50, 40, 40))
    assert all(len(patches) >= 1 for patches in (*corner.patches, *defect.patches))
    assert not any(np.array_equal(*pair) for pair in zip(corner.patches, defect.patches, strict=True))


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((1, 2, 3), "expected region as x, y, width, height"),
        ("1,2,3,4", "expected region as x, y, width, height"),
        ((500, 0, 5, 5), "within the image of 128 x 128"),
        ((5, 5, 0, 5), "within the image"),
        ((0.5, 0, 5, 5), "region"),
    ],
)
def test_a_region_beside_the_image_is_refused(product: Inspector, region: object, message: str) -> None:
    with pytest.raises(SupportSetError, match=message):
        product.reject(make_part(100, defect=True), region)


def test_a_region_is_cut_to_the_image(product: Inspector) -> None:
    product.reject(make_part(100, defect=True), (-10, 100, 50, 500))
    assert product.known_defects[0].region == (0, 100, 40, 28)


def test_what_was_enrolled_or_shown_before_is_refused(product: Inspector, parts: list[np.ndarray]) -> None:
    with pytest.raises(SupportSetError, match=r"which is: as image\[0\]"):
        product.accept(parts[0])
    with pytest.raises(SupportSetError, match="enrolled from as a good one"):
        product.reject(parts[0])
    product.reject(make_part(100, defect=True))
    with pytest.raises(SupportSetError, match="rejected already"):
        product.reject(make_part(100, defect=True))


def test_several_images_at_once_are_refused(product: Inspector, tmp_path: Path) -> None:
    for seed in (50, 51):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), make_part(seed))
    with pytest.raises(SupportSetError, match="expected one image, got 2"):
        product.accept(tmp_path)
    with pytest.raises(ArgumentError, match="force"):
        product.accept(make_part(50), force="yes")


def test_a_threshold_set_by_hand_stays(product: Inspector) -> None:
    product.threshold = 3.25
    product.accept(variant(50))
    assert (product.threshold, product.threshold_set_by_hand) == (3.25, True)


def test_a_product_of_one_image_accepts(parts: list[np.ndarray], inspector: Inspector) -> None:
    single = Inspector.from_support(parts[:1], image_size=64, encoder=inspector.encoder)
    single.threshold = 0.5 * single.inspect(make_part(50)).score
    single.accept(make_part(50))
    assert single.inspect(make_part(50)).score < 2 * single.threshold
    assert len(single.enrollment.support) == 2


def test_a_known_defect_is_judged_at_the_threshold_that_holds(product: Inspector) -> None:
    """Set by hand far above the calibration's, where nothing is caught and so nothing can be lost; and just below."""
    defect = make_part(100, defect=True)
    product.reject(defect)
    score = product.inspect(defect).score
    product.threshold = 2 * score
    product.accept(variant(50))
    assert product.threshold == 2 * score
    product.undo()
    product.threshold = 0.5 * score
    product.accept(make_part(40), force=False)


@pytest.mark.parametrize("region", [(0, 0, 1, 1), (127, 127, 1, 1), (64, 64, 1, 1)])
def test_the_smallest_region_has_a_patch(product: Inspector, tmp_path: Path, region: tuple[int, ...]) -> None:
    large = cv2.resize(make_part(100, defect=True), None, fx=8, fy=8)
    product.reject(large, [8 * value if at < 2 else value for at, value in enumerate(region)])
    assert all(len(patches) for patches in product.known_defects[0].patches)
    product.save(tmp_path / "p.fsad")
    again = Inspector.load(tmp_path / "p.fsad", encoder=product.encoder)
    np.testing.assert_array_equal(again.known_defects[0].patches[0], product.known_defects[0].patches[0])
    np.testing.assert_array_equal(again.known_defects[0].top[0], product.known_defects[0].top[0])


def test_check_says_which_known_defects_are_caught(product: Inspector) -> None:
    product.reject(make_part(100, defect=True), (80, 50, 40, 30))
    product.reject(make_part(43))
    result = product.check([make_part(44)])
    assert [(defect.name, defect.is_caught) for defect in result.known_defects] == [
        ("image[5]", True),
        ("image[6]", False),
    ]
    assert result.known_defects[0].severity == pytest.approx(
        product.inspect(make_part(100, defect=True)).severity, rel=0.1
    )
    assert "Known defects: 1 of 2 caught" in result.explain()
    assert "Known defects that would pass" in result.explain()


def test_the_reweighted_score_is_guarded_as_well(parts: list[np.ndarray], inspector: Inspector) -> None:
    reweighted = Inspector.from_support(
        parts, image_size=128, encoder=inspector.encoder, scoring=ScoringConfig(image_score="reweighted")
    )
    defect = make_part(100, defect=True)
    reweighted.reject(defect)
    [known] = reweighted.check([make_part(44)]).known_defects
    assert known.severity == pytest.approx(reweighted.inspect(defect).severity, rel=1e-3)


def test_what_a_product_was_compiled_for_is_freed_at_once(product: Inspector) -> None:
    """Not at the next search for circles, which may be long after the memory is used up."""
    product.inspect(make_part(50))
    former = [weakref.ref(scale.one_pass) for scale in product.model.scales]
    gc.disable()
    try:
        product.accept(variant(50))
        assert [one() for one in former] == [None]
    finally:
        gc.enable()
