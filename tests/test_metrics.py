from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.metrics import at_threshold, au_pro, auroc


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), digits=st.integers(0, 3))
def test_auroc_is_scikit_learns(seed: int, digits: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    labels = rng.random(80) < 0.4
    scores = np.round(rng.normal(size=80) + labels, digits)
    assert auroc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores))


def test_auroc_needs_both_classes() -> None:
    assert np.isnan(auroc([1, 1], [0.1, 0.2]))


def test_au_pro_of_perfect_and_of_random_maps() -> None:
    rng = np.random.default_rng(0)
    masks = [np.zeros((64, 64), bool) for _ in range(4)]
    masks[0][10:20, 10:20] = masks[1][40:44, 2:60] = True
    perfect = [mask + rng.random((64, 64)) * 0.5 for mask in masks]
    assert au_pro(perfect, masks) == pytest.approx(1.0)
    # Of random maps overlap grows as fast as false positives: the area up to 0.3 is 0.15 of 0.3.
    noise = [rng.random((64, 64)) for _ in masks]
    assert au_pro(noise, masks) == pytest.approx(0.15, abs=0.05)


def test_au_pro_by_hand() -> None:
    # Two regions, 10 good pixels. Region one is above all good pixels; region two ties with the 3rd highest good one.
    mask = np.array([[1, 0, 1] + [0] * 9], bool)
    heat = np.array([[100, 10, 8, 9, 8, 7, 6, 5, 4, 3, 2, 1]], float)
    # overlap 0.5 for rates 0, 0.1, 0.2; then 1.0 at 0.3.
    expected = (0.5 * 0.2 + (0.5 + 1.0) / 2 * 0.1) / 0.3
    assert au_pro([heat], [mask], limit=0.3) == pytest.approx(expected)


def test_au_pro_weighs_regions_alike_and_needs_one() -> None:
    big, small = np.zeros((50, 50), bool), np.zeros((50, 50), bool)
    big[:20, :20] = True
    small[40:42, 40:42] = True
    masks = [big | small]
    found_big = [big.astype(float)]
    assert au_pro(found_big, masks, limit=0.05) == pytest.approx(0.5, abs=0.05)
    assert np.isnan(au_pro([np.zeros((4, 4))], [np.zeros((4, 4), bool)]))
    with pytest.raises(ValueError, match="shape"):
        au_pro([np.zeros((4, 4))], [np.zeros((5, 4), bool)])


def test_figures_at_a_threshold_by_hand() -> None:
    figures = at_threshold([0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0])
    assert figures.precision == pytest.approx(2 / 3)
    assert figures.recall == pytest.approx(2 / 3)
    assert figures.f1 == pytest.approx(2 / 3)
    assert figures.false_reject_rate == 0.25
    assert figures.escape_rate == pytest.approx(1 / 3)
