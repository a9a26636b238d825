from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.banks import build_banks, hold_out, pick_coresets
from fewshot_ad.enrollment.embedding import Embedded, embed_support
from fewshot_ad.enrollment.presets import EnrollmentSettings, enrollment_settings
from fewshot_ad.enrollment.support import read_support
from fewshot_ad.errors import SupportSetError
from fewshot_ad.scoring import ScoringConfig, measure
from fewshot_ad.search.memory_bank import MemoryBank, greedy_coreset, nearest_of_others


def settings(views: str = "hflip", budget: int = 1000, seed: int = 0) -> EnrollmentSettings:
    return enrollment_settings(views=views, image_size=128, budget=budget, seed=seed)


def embedded(parts: list[np.ndarray], views: str, encoder: Encoder) -> Embedded:
    return embed_support(read_support(parts).images, settings(views), encoder)


def built(support: Embedded, settings: EnrollmentSettings):
    return build_banks(support, pick_coresets(support.pools, settings), settings)


def test_held_out_scores_are_those_of_an_exact_bank_of_the_others(parts: list[np.ndarray], encoder: Encoder) -> None:
    support = embedded(parts, "hflip", encoder)
    config = ScoringConfig()
    pool = support.pools[0]
    everything = np.arange(len(pool.vectors))
    for i, fold in enumerate(hold_out(support, [everything], config, [1.0])):
        others = pool.origin.image != i
        bank = MemoryBank(pool.vectors[others], pool.origin[others], config.metric)
        stand_in = support.stand_ins[i]
        exact = measure(stand_in.levels, [bank], [1.0], stand_in.geometry, config).score
        assert fold.score == pytest.approx(exact, rel=1e-4)
        # The image and its own views would have given next to nothing.
        full = MemoryBank(pool.vectors, pool.origin, config.metric)
        assert measure(stand_in.levels, [full], [1.0], stand_in.geometry, config).score < 0.2 * fold.score


def test_held_out_scores_of_a_coreset_stay_close_to_exact(parts: list[np.ndarray], encoder: Encoder) -> None:
    support = embedded(parts, "hflip", encoder)
    exact = [m.score for m in hold_out(support, [np.arange(len(support.pools[0].vectors))], ScoringConfig(), [1.0])]
    thin = greedy_coreset(support.pools[0].vectors, 500)
    held_out = [m.score for m in hold_out(support, [thin], ScoringConfig(), [1.0])]
    np.testing.assert_allclose(held_out, exact, rtol=0.15)
    assert all(h >= e * 0.999 for h, e in zip(held_out, exact, strict=True))


def test_one_image_is_calibrated_on_its_views(parts: list[np.ndarray], encoder: Encoder) -> None:
    support = embedded(parts[:1], "hflip,vflip", encoder)
    _, _, calibration = built(support, settings("hflip,vflip"))
    assert calibration.method == "leave-one-view-out"
    assert calibration.n == 1
    assert len(calibration.scores) == 3
    with pytest.raises(SupportSetError, match="Give a second good"):
        built(embedded(parts[:1], "none", encoder), settings("none"))


def test_identical_seeds_give_identical_banks(parts: list[np.ndarray], encoder: Encoder) -> None:
    first, second = (built(embedded(parts, "hflip", encoder), settings(budget=300, seed=5)) for _ in range(2))
    np.testing.assert_array_equal(first[0][0].vectors, second[0][0].vectors)
    assert len(first[0][0]) == 300
    assert first[1:] == second[1:]


def test_of_many_images_an_even_choice_is_held_out(
    parts: list[np.ndarray], encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.MIN_STAND_INS", 2)
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.STAND_IN_LIMIT", 10)
    assert [s.image for s in embedded(parts, "hflip", encoder).stand_ins] == [0, 4]
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.STAND_IN_LIMIT", 3 * 16 * 16)
    support = embedded(parts, "hflip", encoder)
    assert [s.image for s in support.stand_ins] == [0, 2, 4]
    _, _, calibration = built(support, settings(budget=500))
    assert calibration.n == len(calibration.scores) == 3


def test_replacements_are_the_nearest_of_another_group() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3000, 20)).astype(np.float32)
    groups = rng.integers(0, 4, 3000).astype(np.int32)
    picked = rng.permutation(3000)[:200]
    distances = ((points[picked][:, None].astype(np.float64) - points[None]) ** 2).sum(2)
    distances[groups[picked][:, None] == groups[None]] = np.inf
    np.testing.assert_array_equal(nearest_of_others(points, picked, groups), distances.argmin(1))
