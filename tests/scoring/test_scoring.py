from __future__ import annotations

import dataclasses
import itertools
import types

import cv2
import numpy as np
import pytest

from fewshot_ad.errors import SupportSetError
from fewshot_ad.images import Geometry
from fewshot_ad.inspection.regions import MapScale, find_regions
from fewshot_ad.scoring import (
    Model,
    Scale,
    ScoringConfig,
    anomaly_map,
    inspect_image,
    measure,
    patch_weights,
    prepare,
    reweighted,
    top_mean,
    top_mean_score,
)
from fewshot_ad.search.memory_bank import MemoryBank, Origin


def bank_of(vectors: np.ndarray) -> MemoryBank:
    zeros = np.zeros(len(vectors), np.int32)
    return MemoryBank(vectors.astype(np.float32), Origin(zeros, zeros, np.zeros((len(vectors), 2), np.int32)), "l2")


def test_reweighting_is_equation_7() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 4)).astype(np.float16).astype(np.float32)
    query = rng.normal(size=4).astype(np.float32)
    bank = bank_of(vectors)
    distances = np.linalg.norm(vectors - query, axis=1)
    star = int(distances.argmin())
    around = np.argsort(np.linalg.norm(vectors - vectors[star], axis=1))[:9]
    expected = (1 - np.exp(distances[star]) / np.exp(distances[around]).sum()) * distances[star]
    assert reweighted(query, bank, 1.0, 9) == pytest.approx(expected, rel=1e-4)


def test_reweighting_does_not_overflow() -> None:
    vectors = np.array([[0.0, 0.0], [3000.0, 0.0], [0.0, 3000.0]])
    score = reweighted(np.array([1500.0, 1500.0], np.float32), bank_of(vectors), 1.0, 3)
    assert np.isfinite(score)
    assert 0 < score <= np.hypot(1500, 1500)


def test_top_mean() -> None:
    distances = np.arange(100, dtype=np.float32)
    assert top_mean(distances, 2) == pytest.approx(98.5)
    assert top_mean(distances, 1) == 99


def test_mirrored_padding_does_not_count() -> None:
    geometry = Geometry((32, 24), (32, 24), (32, 32))
    level = np.zeros((4, 4, 2), np.float32)
    level[:, 3] = 50
    bank = [bank_of(np.zeros((2, 2)))]
    for kind in ("top_mean", "reweighted"):
        config = ScoringConfig(image_score=kind)  # type: ignore[arg-type]
        assert measure([level], bank, [1.0], geometry, config).score == pytest.approx(0, abs=1e-3)


def test_edge_patches_weigh_less_in_the_score_but_not_in_the_map() -> None:
    geometry = Geometry((40, 32), (40, 32), (48, 32))
    bank = [bank_of(np.zeros((2, 2)))]
    for (row, column), weight in {(0, 2): 0.5, (4, 2): 0.5, (2, 0): 0.5, (2, 2): 1.0, (5, 2): 0.0}.items():
        level = np.zeros((6, 4, 2), np.float32)
        level[row, column] = (3, 4)
        measured = measure([level], bank, [1.0], geometry, ScoringConfig(edge_weight=0.5, top_fraction=0.01))
        assert measured.score == pytest.approx(5 * weight, abs=1e-3)
        assert measured.score_maps[0][row, column] == pytest.approx(5, rel=1e-4)


def test_levels_are_joined_by_their_maximum() -> None:
    geometry = Geometry((32, 32), (32, 32), (32, 32))
    fine, coarse = np.zeros((4, 4), np.float32), np.zeros((2, 2), np.float32)
    fine[0, 0], coarse[1, 1] = 1, 2
    heat = anomaly_map([fine, coarse], geometry, sigma=0, image_size=32)
    assert heat.shape == (32, 32)
    assert heat[2, 2] == pytest.approx(1)
    assert heat[-1, -1] == pytest.approx(2)


def test_one_level_gives_the_map_that_enlarging_and_smoothing_give() -> None:
    for hw, sigma in (((256, 256), 4.0), ((96, 400), 2.5), ((256, 256), 0.9), ((272, 64), 0.0)):
        geometry = Geometry(hw, hw, hw)
        grid = np.random.default_rng(0).random((hw[0] // 8, hw[1] // 8), np.float32)
        wanted = cv2.resize(grid, hw[::-1], interpolation=cv2.INTER_LINEAR)
        if sigma:
            wanted = cv2.GaussianBlur(wanted, (0, 0), sigma)
        # A second level that is never the larger one takes the other way.
        two = anomaly_map([grid, grid * 0], geometry, sigma, 256)
        np.testing.assert_allclose(anomaly_map([grid], geometry, sigma, 256), wanted, atol=1e-5)
        np.testing.assert_allclose(two, wanted, atol=1e-5)


def test_a_large_map_is_made_the_same_way() -> None:
    grid = np.random.default_rng(0).random((16, 256), np.float32)
    geometry = Geometry((128, 2048), (128, 2048), (128, 2048))
    two = anomaly_map([grid, grid], geometry, 4.0, 512)
    np.testing.assert_allclose(anomaly_map([grid], geometry, 4.0, 512), two, atol=1e-4)


def test_map_points_at_the_patch_on_a_wide_image() -> None:
    geometry = Geometry.fit((500, 1250), 256, 16)
    grid = np.zeros((geometry.input_hw[0] // 8, geometry.input_hw[1] // 8), np.float32)
    grid[5, 40] = 1
    heat = anomaly_map([grid], geometry, sigma=4, image_size=256)
    assert heat.shape == geometry.content_hw
    (region,) = find_regions(heat, MapScale(0.0, 1.0), (500, 1250))
    scale_x, scale_y = geometry.scale_xy()
    assert region.peak[0] == pytest.approx(40.5 * 8 * scale_x, abs=8)
    assert region.peak[1] == pytest.approx(5.5 * 8 * scale_y, abs=8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "manhattan"},
        {"image_score": "median"},
        {"top_fraction": 0},
        {"max_patches": 0},
        {"max_patches": 2.5},
        {"neighbors": 1},
        {"sigma": -1},
        {"edge_weight": 2},
    ],
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(SupportSetError, match="expected"):
        ScoringConfig(**wrong)


class FlatEncoder:
    """Gives the same patch embeddings for every image: one level of 4 x 4 patches of 8 pixels."""

    spec = types.SimpleNamespace(name="flat", multiple=8)
    threads = None

    def __init__(self, level: np.ndarray) -> None:
        self.level = level
        self.inputs: list[np.ndarray] = []

    def encode(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        self.inputs.append(image)
        return (self.level,)


def model_of(threshold: float, **scoring: object) -> Model:
    config = ScoringConfig(top_fraction=0.01, **scoring)  # type: ignore[arg-type]
    return Model((Scale(32, (bank_of(np.zeros((2, 2))),), (1.0,)),), config, threshold, MapScale(0.5, 2.0))


def one_graph(model: Model, level_scale: tuple[float, ...], one_pass: object) -> Model:
    (scale,) = model.scales
    return dataclasses.replace(model, scales=(dataclasses.replace(scale, level_scale=level_scale, one_pass=one_pass),))


def inspected(level: np.ndarray, model: Model, **options: object):
    photograph = np.full((64, 64, 3), 90, np.uint8)
    return inspect_image(photograph, FlatEncoder(level), model, "washer", **options)  # type: ignore[arg-type]


def level_with(row: int, column: int, distance: float) -> np.ndarray:
    level = np.zeros((4, 4, 2), np.float32)
    level[row, column] = (distance, 0)
    return level


def test_a_score_at_the_threshold_is_good_and_above_it_anomalous() -> None:
    score = inspected(level_with(1, 2, 4.0), model_of(1.0)).score
    assert score == pytest.approx(4.0, rel=1e-3)
    good = inspected(level_with(1, 2, 4.0), model_of(score))
    assert (good.is_anomalous, good.severity, good.regions) == (False, 1.0, ())
    below = inspected(level_with(1, 2, 4.0), model_of(score * 2))
    assert (below.is_anomalous, below.severity, below.regions) == (False, 0.5, ())
    bad = inspected(level_with(1, 2, 4.0), model_of(score * 0.999))
    assert bad.is_anomalous
    assert bad.severity == pytest.approx(1 / 0.999)
    (region,) = bad.regions
    # Patch (1, 2) of 8 pixels at half the image's size.
    assert region.peak[0] == pytest.approx(2 * (2.5 * 8), abs=4)
    assert region.peak[1] == pytest.approx(2 * (1.5 * 8), abs=4)


def test_an_inspection_says_of_what_and_how_long() -> None:
    result = inspected(level_with(0, 0, 1.0), model_of(5.0), name="0001.png", decode_ms=100.0)
    assert (result.product, result.encoder, result.name, result.threshold) == ("washer", "flat", "0001.png", 5.0)
    stages = result.timings_ms
    assert set(stages) == {"decode", "resize", "encode", "search", "map", "total"}
    assert stages["decode"] == 100.0
    assert all(0 <= ms < 100 for stage, ms in stages.items() if stage not in ("decode", "total"))
    assert stages["total"] == pytest.approx(sum(ms for stage, ms in stages.items() if stage != "total"), rel=1e-6)


def test_times_are_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each look at the clock is a quarter of a second after the one before.
    clock = itertools.count()
    monkeypatch.setattr("fewshot_ad.scoring.deciding.time.perf_counter", lambda: next(clock) / 4)
    stages = inspected(level_with(0, 0, 1.0), model_of(5.0)).timings_ms
    # The search, and whether the image can be judged at all.
    assert stages == {"decode": 0.0, "resize": 250.0, "encode": 250.0, "search": 500.0, "map": 250.0, "total": 1250.0}


def test_the_map_of_an_inspection_is_that_of_its_distances() -> None:
    geometry = Geometry((64, 64), (32, 32), (32, 32))
    for threshold in (1.0, 9.0):  # drawn with the verdict, or when it is read
        model = model_of(threshold, sigma=8.0)
        result = inspected(level_with(1, 2, 4.0), model)
        grid = np.zeros((4, 4), np.float32)
        grid[1, 2] = 4
        np.testing.assert_allclose(result.working_map, anomaly_map([grid], geometry, 8.0, 32), atol=1e-3)
        assert result.anomaly_map.shape == (64, 64)


def test_an_input_that_was_made_ahead_is_used_as_it_is() -> None:
    model, encoder = model_of(1.0), FlatEncoder(level_with(1, 1, 2.0))
    photograph = np.full((64, 64, 3), 90, np.uint8)
    prepared = prepare(photograph, encoder, model)  # type: ignore[arg-type]
    assert prepared.inputs[0].pixels.shape == (32, 32, 3)
    assert 0 <= prepared.milliseconds < 1000
    inspect_image(photograph, encoder, model, "washer", prepared=prepared)  # type: ignore[arg-type]
    assert encoder.inputs[0] is prepared.inputs[0].pixels


def test_distances_are_divided_by_the_levels_scale_and_the_worst_level_counts() -> None:
    geometry = Geometry((32, 32), (32, 32), (32, 32))
    levels = [level_with(1, 2, 6.0), level_with(2, 1, 4.0)]
    banks = [bank_of(np.zeros((2, 2)))] * 2
    for kind in ("top_mean", "reweighted"):
        config = ScoringConfig(image_score=kind, top_fraction=0.01)  # type: ignore[arg-type]
        share = 1.0 if kind == "top_mean" else 0.5  # two equal bank vectors: half of the weight is taken away
        for scale, expected in (((1.0, 1.0), 6.0), ((3.0, 1.0), 4.0), ((1.0, 8.0), 6.0)):
            measured = measure(levels, banks, scale, geometry, config)
            assert measured.score == pytest.approx(share * expected, rel=1e-2)
            assert measured.score_maps[0][1, 2] == pytest.approx(6.0 / scale[0], rel=1e-3)


def test_distances_of_the_joint_graph_are_brought_to_the_common_scale_too() -> None:
    grid = np.zeros((4, 4), np.float32)
    grid[1, 2] = 6
    model = one_graph(model_of(2.0), (3.0,), lambda pixels: (grid,))
    result = inspected(level_with(0, 0, 99.0), model)  # what the encoder alone says is not looked at
    assert result.score == pytest.approx(2.0)
    assert not result.is_anomalous
    assert result.working_map.max() < 2.0


def test_the_share_is_of_the_patches_that_show_the_image() -> None:
    # 8 x 8 patches, of which 8 x 4 show the image: a quarter of those is 8.
    geometry = Geometry((64, 32), (64, 32), (64, 64))
    grid = np.arange(64, dtype=np.float32).reshape(8, 8)
    config = ScoringConfig(top_fraction=0.25, edge_weight=1.0)
    shown = np.sort(grid[:, :4].ravel())
    assert top_mean_score([grid], geometry, config) == pytest.approx(shown[-8:].mean())
    assert top_mean_score([grid * 0, grid], geometry, config) == pytest.approx(shown[-8:].mean())


def test_a_finer_grid_averages_no_more_patches() -> None:
    geometry = Geometry((64, 64), (64, 64), (64, 64))
    coarse = np.zeros((8, 8), np.float32)
    coarse[3:5, 3:5] = 7
    fine = np.zeros((16, 16), np.float32)
    fine[6:8, 6:8] = 7
    config = ScoringConfig(top_fraction=4 / 64, max_patches=64, edge_weight=1.0)
    assert top_mean_score([coarse], geometry, config) == 7
    assert top_mean_score([fine], geometry, config) == 7
    everything = dataclasses.replace(config, max_patches=None)
    assert top_mean_score([coarse], geometry, everything) == 7
    assert top_mean_score([fine], geometry, everything) == pytest.approx(7 / 4)


def test_patch_weights_of_small_grids() -> None:
    geometry = Geometry((8, 24), (8, 24), (8, 24))
    np.testing.assert_array_equal(patch_weights(geometry, (1, 3), 0.25), [[0.25, 0.25, 0.25]])
    geometry = Geometry((24, 8), (24, 8), (24, 8))
    np.testing.assert_array_equal(patch_weights(geometry, (3, 1), 0.25), [[0.25], [0.25], [0.25]])
    # Content of 20 pixels: the third patch of 8 is half on it and counts, the fourth does not.
    geometry = Geometry((20, 20), (20, 20), (32, 32))
    np.testing.assert_array_equal(patch_weights(geometry, (4, 4), 0.25).max(axis=0), [0.25, 1, 0.25, 0])
    geometry = Geometry((24, 24), (24, 24), (24, 24))
    weights = patch_weights(geometry, (3, 3), 0.25)
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, [[0.25, 0.25, 0.25], [0.25, 1.0, 0.25], [0.25, 0.25, 0.25]])


def test_reweighting_of_a_single_vector_is_its_distance_on_the_common_scale() -> None:
    bank = bank_of(np.zeros((1, 2)))
    assert reweighted(np.array([3.0, 4.0], np.float32), bank, 2.0, 9) == pytest.approx(2.5, rel=1e-4)


def test_reweighting_scales_and_compares_as_many_neighbors_as_asked() -> None:
    vectors = np.array([[0.0, 0.0], [0.5, 0.0], [1.0, 0.0], [9.0, 0.0]])
    query, bank = np.array([0.0, 2.0], np.float32), bank_of(vectors)
    distances = np.linalg.norm(vectors - query, axis=1)
    for neighbors in (2, 3, 4):
        for scale in (1.0, 4.0):
            scaled = distances / scale
            expected = (1 - np.exp(scaled[0]) / np.exp(scaled[:neighbors]).sum()) * scaled[0]
            assert reweighted(query, bank, scale, neighbors) == pytest.approx(expected, rel=1e-3)


def test_smoothing_is_in_pixels_of_a_scale_of_256() -> None:
    grid = np.zeros((16, 16), np.float32)
    grid[8, 8] = 1
    at_128 = anomaly_map([grid], Geometry((128, 128), (128, 128), (128, 128)), 4.0, 128)
    expected = cv2.GaussianBlur(cv2.resize(grid, (128, 128), interpolation=cv2.INTER_LINEAR), (0, 0), 2.0)
    np.testing.assert_allclose(at_128, expected, atol=1e-5)


def test_the_mirrored_edge_is_cut_off_the_map() -> None:
    geometry = Geometry((30, 20), (30, 20), (32, 32))
    grid = np.random.default_rng(0).random((4, 4), np.float32)
    full = cv2.resize(grid, (32, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(anomaly_map([grid], geometry, 0, 32), full[:30, :20], atol=1e-6)
    np.testing.assert_allclose(anomaly_map([grid, grid], geometry, 0, 32), full[:30, :20], atol=1e-6)


def test_the_defaults_and_the_limits_of_the_settings() -> None:
    config = ScoringConfig()
    assert (config.metric, config.image_score, config.top_fraction, config.neighbors) == ("l2", "top_mean", 0.02, 9)
    assert (config.edge_weight, config.sigma, config.max_patches) == (2 / 3, 4.0, 4096)
    ScoringConfig(top_fraction=1, edge_weight=0, neighbors=2, sigma=0)
    ScoringConfig(edge_weight=1)
    for wrong in ({"top_fraction": 1.01}, {"top_fraction": -0.1}, {"edge_weight": -0.01}, {"edge_weight": 1.01}):
        with pytest.raises(SupportSetError, match=next(iter(wrong))):
            ScoringConfig(**wrong)  # type: ignore[arg-type]


def test_reweighting_weighs_the_edge_before_it_looks_for_the_worst_patch() -> None:
    geometry = Geometry((32, 32), (32, 32), (32, 32))
    bank = [bank_of(np.zeros((1, 2)))]  # one vector: the score is the distance itself
    config = ScoringConfig(image_score="reweighted", edge_weight=0.5)
    level = level_with(0, 2, 6.0)  # on the edge: counts as 3
    assert measure([level], bank, [1.0], geometry, config).score == pytest.approx(3.0, rel=1e-3)
    level[1, 1] = (4, 0)
    assert measure([level], bank, [1.0], geometry, config).score == pytest.approx(4.0, rel=1e-3)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ScoringConfig().sigma = 1.0  # type: ignore[misc]
