import numpy as np
import pytest

from fewshot_ad.training.collage import collage
from fewshot_ad.training.distillation import distill, training_data
from fewshot_ad.training.distillation_recipe import DistillationRecipe
from fewshot_ad.training.parts import CATEGORIES, render


@pytest.fixture(scope="module")
def textures():
    return [render(name, 0, 64) for name in ("gear", "leather", "chip")]


def test_the_same_seed_gives_the_same_collage_and_another_seed_another(textures):
    first = collage(textures, 3, 96)
    assert first.shape == (96, 96, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, collage(textures, 3, 96))
    assert np.abs(first.astype(int) - collage(textures, 4, 96)).mean() > 10


def test_a_collage_has_more_edges_all_over_than_a_part(textures):
    def quiet(image):
        gray = image.mean(axis=2)
        across, down = np.diff(gray, axis=1)[:-1], np.diff(gray, axis=0)[:, :-1]
        strength = np.hypot(across, down).reshape(5, 19, 5, 19).mean(axis=(1, 3))
        return float((strength < 1).mean())

    collages = np.mean([quiet(collage(textures, seed, 96)) for seed in range(12)])
    assert collages < np.mean([quiet(render(name, 0, 96)) for name in CATEGORIES])


def test_a_student_learns_from_collages_alone_and_the_card_says_so(tmp_path):
    recipe = DistillationRecipe(
        student="resnet10t",
        folders=("collages",),
        size=64,
        batch=4,
        steps=2,
        generated=1,
        short_side=64,
        checkpoint_every=2,
        precision="f32",
        warmup=1,
    )
    assert distill(recipe, tmp_path).is_file()
    assert training_data(recipe) == (
        {"name": "generated collages", "images": len(CATEGORIES), "license": "Apache-2.0"},
    )
