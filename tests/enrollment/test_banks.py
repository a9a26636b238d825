from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad.arrays import IndexArray
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.banks import EnrolledScale, enroll_scale, folds, join_scales
from fewshot_ad.enrollment.calibration import calibrate
from fewshot_ad.enrollment.embedding import Embedded, embed_support
from fewshot_ad.enrollment.presets import EnrollmentSettings, enrollment_settings
from fewshot_ad.enrollment.probes import Probes, defect_series
from fewshot_ad.enrollment.support import read_support
from fewshot_ad.errors import SupportSetError
from fewshot_ad.scoring import Measurement, ScoringConfig, measure
from fewshot_ad.search.memory_bank import MemoryBank, greedy_coreset, nearest_of_others


def settings(views: str = "hflip", budget: int = 1000, seed: int = 0) -> EnrollmentSettings:
    return enrollment_settings(views=views, image_size=128, budget=budget, seed=seed)


def embedded(parts: list[np.ndarray], views: str, encoder: Encoder) -> Embedded:
    return embed_support(read_support(parts).images, settings(views), 128, encoder)


def held_out(support: Embedded, coreset: IndexArray) -> list[Measurement]:
    config = ScoringConfig()
    return [
        measure(stand_in.levels, banks, [1.0], stand_in.geometry, config)
        for stand_in, banks in folds(support, [coreset], config)
    ]


def enrolled(
    parts: list[np.ndarray], settings: EnrollmentSettings, encoder: Encoder, size: int = 128, drawn: bool = False
) -> EnrolledScale:
    series = defect_series(range(len(parts)), 0.05, 0) if drawn else ()
    probes = Probes(dict(enumerate(parts)) if drawn else {}, series, 0, 256)
    embedded_parts = embed_support(read_support(parts).images, settings, size, encoder)
    return enroll_scale(embedded_parts, settings, size, encoder, probes)


def test_held_out_scores_are_those_of_an_exact_bank_of_the_others(parts: list[np.ndarray], encoder: Encoder) -> None:
    support = embedded(parts, "hflip", encoder)
    config = ScoringConfig()
    pool = support.pools[0]
    for i, fold in enumerate(held_out(support, np.arange(len(pool.vectors)))):
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
    exact = [m.score for m in held_out(support, np.arange(len(support.pools[0].vectors)))]
    thin = [m.score for m in held_out(support, greedy_coreset(support.pools[0].vectors, 500))]
    np.testing.assert_allclose(thin, exact, rtol=0.15)
    assert all(h >= e * 0.999 for h, e in zip(thin, exact, strict=True))


def test_one_image_is_calibrated_on_its_views(parts: list[np.ndarray], encoder: Encoder) -> None:
    scale = enrolled(parts[:1], settings("hflip,vflip"), encoder, drawn=True)
    assert (len(scale.good), len(scale.nuisances), set(scale.held_out)) == (3, 4, {0})
    _, evidence = join_scales([scale], settings(), defect_series(range(1), 0.05, 0), 1)
    calibration = calibrate(evidence, settings())
    assert (calibration.method, calibration.n) == ("leave-one-view-out", 1)
    with pytest.raises(SupportSetError, match="Give a second good"):
        enrolled(parts[:1], settings("none"), encoder)


def test_identical_seeds_give_identical_banks(parts: list[np.ndarray], encoder: Encoder) -> None:
    first, second = (enrolled(parts, settings(budget=300, seed=5), encoder, drawn=True) for _ in range(2))
    np.testing.assert_array_equal(first.banks[0].vectors, second.banks[0].vectors)
    assert len(first.banks[0]) == 300
    assert (first.defects, first.nuisances) == (second.defects, second.nuisances)
    assert [m.score for m in first.good] == [m.score for m in second.good]


def test_probes_are_scored_against_the_other_images(parts: list[np.ndarray], encoder: Encoder) -> None:
    scale = enrolled(parts[:3], settings(), encoder, drawn=True)
    series = defect_series(range(3), 0.05, 0)
    assert (len(scale.nuisances), len(scale.defects)) == (4 * 3, len(series))
    good = np.median([m.score for m in scale.good])
    assert 0.7 * good < np.median(scale.nuisances) < 2 * good
    largest = [score for defect, score in zip(series, scale.defects, strict=True) if defect.size > 0.15]
    assert np.median(largest) > 1.5 * good


def test_a_joint_score_is_the_larger_of_the_scales_with_a_typical_good_image_at_one(
    parts: list[np.ndarray], encoder: Encoder
) -> None:
    scales = [enrolled(parts, settings(), encoder, size, drawn=True) for size in (128, 192)]
    divisors, evidence = join_scales(scales, settings(), defect_series(range(len(parts)), 0.05, 0), len(parts))
    each = [np.asarray([m.score for m in scale.good]) for scale in scales]
    np.testing.assert_allclose(divisors, [np.median(scores) for scores in each])
    np.testing.assert_allclose(evidence.scores, np.maximum(each[0] / divisors[0], each[1] / divisors[1]))
    assert len(evidence.map_peaks) == len(parts)
    single, alone = join_scales(scales[:1], settings(), defect_series(range(len(parts)), 0.05, 0), len(parts))
    assert single == (1.0,)
    np.testing.assert_allclose(alone.scores, each[0])


def test_of_many_images_an_even_choice_is_held_out(
    parts: list[np.ndarray], encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.MIN_STAND_INS", 2)
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.STAND_IN_LIMIT", 10)
    assert [s.image for s in embedded(parts, "hflip", encoder).stand_ins] == [0, 4]
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.STAND_IN_LIMIT", 3 * 16 * 16)
    support = embedded(parts, "hflip", encoder)
    assert [s.image for s in support.stand_ins] == [0, 2, 4]
    assert enrolled(parts, settings(budget=500), encoder).held_out == (0, 2, 4)


def test_replacements_are_the_nearest_of_another_group() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3000, 20)).astype(np.float32)
    groups = rng.integers(0, 4, 3000).astype(np.int32)
    picked = rng.permutation(3000)[:200]
    distances = ((points[picked][:, None].astype(np.float64) - points[None]) ** 2).sum(2)
    distances[groups[picked][:, None] == groups[None]] = np.inf
    np.testing.assert_array_equal(nearest_of_others(points, picked, groups), distances.argmin(1))
