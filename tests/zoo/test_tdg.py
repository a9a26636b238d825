import cv2
import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.tdg_transformations import published_transformations
from fewshot_ad.zoo.tdg import MAX_SHOTS, Generator
from tests.conftest import make_part

TINY = {"image_size": 32, "coarsest": 16, "scales": 2, "channels": 8, "steps": 2, "transformations": 4}


@pytest.fixture(scope="module")
def good():
    return [make_part(seed, size=48) for seed in range(4)]


@pytest.fixture(scope="module")
def fitted(good):
    method = create("tdg", seed=1, **TINY)
    method.fit(good)
    return method


def test_54_transformations_all_give_different_images():
    images = torch.rand(1, 3, 20, 20)
    views = torch.cat([t(images) for t in published_transformations()]).flatten(1)
    distances = torch.cdist(views, views)
    assert len(views) == 54
    assert distances[~torch.eye(54, dtype=torch.bool)].min() > 0.1


def test_the_first_4_are_quarter_turns_and_the_first_42_keep_the_colors():
    images = torch.rand(2, 3, 12, 12)
    transformations = published_transformations()
    for turns in range(4):
        expected = np.rot90(images.numpy(), turns, axes=(2, 3))
        np.testing.assert_array_equal(transformations[turns](images).numpy(), expected)
    gray = [bool((t(images)[:, 0] == t(images)[:, 1]).all()) for t in transformations]
    assert gray == [False] * 42 + [True] * 12


def test_undoing_a_transformation_brings_a_map_back_where_it_is_known():
    heat = torch.rand(1, 1, 20, 20)
    for transformation in published_transformations():
        moved = transformation(heat.expand(1, 3, 20, 20))[0, 0]
        back, known = transformation.undo(moved, shift=3)
        shifts = abs(transformation.x) + abs(transformation.y)
        assert known.sum() == 20 ** (2 - shifts) * 17**shifts
        torch.testing.assert_close(back, heat[0, 0] * known)


def test_a_generator_without_weights_keeps_the_coarse_image_and_its_size():
    generator = Generator(4)
    for parameter in generator.network[-1].parameters():
        torch.nn.init.zeros_(parameter)
    coarse = torch.rand(2, 3, 13, 13)
    torch.testing.assert_close(generator(coarse + torch.randn(2, 3, 13, 13), coarse), coarse)


def test_scores_and_maps_of_images_of_different_sizes(fitted, good):
    wide = cv2.resize(good[0], (60, 40))
    result = fitted.predict([good[1], wide])
    assert result.scores.shape == (2,)
    assert np.isfinite(result.scores).all()
    assert ((result.scores > 0) & (result.scores < 1)).all()
    assert [m.shape for m in result.maps] == [(48, 48), (40, 60)]
    assert all(np.isfinite(m).all() for m in result.maps)
    assert fitted.model_bytes() > 0
    np.testing.assert_array_equal(fitted.predict([wide]).scores, result.scores[1:])


def test_same_seed_same_scores_and_the_global_generator_is_left_alone(fitted, good):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again, other = create("tdg", seed=1, **TINY), create("tdg", seed=2, **TINY)
    again.fit(good)
    other.fit(good)
    assert torch.equal(torch.random.get_rng_state(), before)
    expected = fitted.predict(good).scores
    np.testing.assert_array_equal(again.predict(good).scores, expected)
    assert not np.array_equal(other.predict(good).scores, expected)


def test_training_makes_the_discriminators_surer_of_the_image():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[::4], stripes[1::4], stripes[:, :16, 0] = 255, 128, 200
    doubts = {}
    for steps in (1, 30):
        method = create("tdg", **TINY | {"scales": 1, "steps": steps})
        method.fit([stripes])
        doubts[steps] = float(method.predict([stripes]).maps[0].mean())
    # Chance is log 4 nats.
    assert doubts[30] < 0.5 * min(doubts[1], np.log(4))


def test_the_image_score_is_the_doubt_on_the_least_certain_patches(good):
    scores = []
    for fraction in (0.1, 1.0):
        method = create("tdg", **TINY | {"steps": 4, "fraction": fraction})
        method.fit(good)
        scores.append(method.predict(good).scores)
    assert (scores[0] > scores[1]).all()


def test_progress_counts_to_the_end(good):
    calls = []
    create("tdg", **TINY).fit(good, progress=lambda *call: calls.append(call))
    assert [done for _, done, _ in calls] == [1, 2, 3, 4]
    assert {total for *_, total in calls} == {4}


@pytest.mark.parametrize("wrong", [{"transformations": 1}, {"transformations": 55}, {"coarsest": 8}, {"steps": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ZooError, match="expected"):
        create("tdg", **TINY | wrong)


def test_more_images_than_memory_can_hold_are_refused(good):
    with pytest.raises(ZooError, match=f"at most {MAX_SHOTS} images.*got {MAX_SHOTS + 1}"):
        create("tdg", **TINY).fit(good[:1] * (MAX_SHOTS + 1))
