from __future__ import annotations

import json

import pytest

from fewshot_ad.check import Check, CheckedImage, UncountedImage


def make_check(good: list[float], bad: list[float], threshold: float = 2.0) -> Check:
    images = [
        CheckedImage(f"{truth}/{i}.png", f"{truth}/{i}.png", truth, score, score / threshold, score > threshold)
        for truth, scores in (("good", good), ("bad", bad))
        for i, score in enumerate(scores)
    ]
    return Check("p", threshold, tuple(images), (), ())


def test_mistakes_are_counted_and_named_worst_first() -> None:
    check = make_check([1.0, 2.5, 2.0, 3.0], [1.9, 1.2, 4.0, 5.0, 6.0])
    assert [image.name for image in check.rejected] == ["good/3.png", "good/1.png"]
    assert [image.name for image in check.missed] == ["bad/1.png", "bad/0.png"]
    assert check.false_rejects.rate == 0.5
    assert check.escapes is not None
    assert (check.escapes.count, check.escapes.total) == (2, 5)
    assert check.balanced_accuracy == pytest.approx((0.5 + 0.6) / 2)
    # Of 20 pairs a bad image scores higher in 1 (1.2), 1 (1.9) and three times 4.
    assert check.auroc == pytest.approx(14 / 20)


def test_the_text_says_the_table_the_names_and_that_the_suggestion_is_flattered() -> None:
    text = make_check([1.0, 2.5, 1.1, 1.2], [4.0, 5.0, 1.9]).explain()
    assert "p: 7 images at threshold 2" in text
    assert "good              3                 1\nbad               1                 2" in text
    assert "False reject rate 25.0% (1 of 4; 95% interval 0.6% to 80.6%)" in text
    assert "Missed (bad, judged good), least anomalous first:\n  severity  0.95  bad/2.png" in text
    assert "Rejected (good, judged anomalous), most anomalous first:\n  severity  1.25  good/1.png" in text
    assert "chosen on these same 4 good and 3 bad images" in text


def test_a_threshold_that_is_as_good_as_the_suggested_one_may_stay() -> None:
    assert "no reason to change it" in make_check([1.0, 1.1], [4.0, 5.0]).explain()
    # The best threshold makes no mistake on these, and two where it is chosen without the image that it judges.
    check = make_check([1.0, 2.5], [2.6, 4.0, 4.5, 5.0])
    assert check.suggestion is not None
    assert check.suggestion.balanced_accuracy == 1
    assert (check.balanced_accuracy, check.suggestion.fair_balanced_accuracy) == (0.75, 0.625)
    assert "no reason to change it" in check.explain()
    assert "no reason to change it" not in make_check([1.0, 1.1, 1.05], [1.8, 1.9, 5.0]).explain()


def test_sides_that_look_swapped_get_a_warning_and_no_threshold() -> None:
    check = make_check([4.0, 5.0], [1.0, 1.1])
    assert check.suggestion is None
    text = check.explain()
    assert "bad images mostly score below good ones. Are the two swapped?" in text
    assert "No threshold is suggested" in text
    assert check.as_dict()["suggestion"] is None


def test_long_lists_are_cut_in_the_text_alone() -> None:
    check = make_check([1.0], [1.0 + i / 100 for i in range(30)])
    assert "  and 10 more" in check.explain()
    assert len(check.as_dict()["missed"]) == 30


def test_without_bad_images_nothing_is_said_of_them() -> None:
    check = make_check([1.0 + i / 100 for i in range(19)], [])
    assert (check.escapes, check.auroc, check.balanced_accuracy, check.missed) == (None, None, None, ())
    assert "bad  " not in check.explain()
    assert "give bad images, too" in check.explain()


def test_as_dict_is_json() -> None:
    check = make_check([1.0, 2.5], [4.0])
    uncounted = UncountedImage("x.png", None, "bad", "damaged")
    fields = Check("p", 2.0, check.images, (uncounted,), (uncounted,)).as_dict()
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields
    assert fields["schema"] == "fewshot-ad/check/1"
    assert fields["unreadable"] == [{"name": "x.png", "file": None, "truth": "bad", "reason": "damaged"}]
