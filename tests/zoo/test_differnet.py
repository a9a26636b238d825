"""DifferNet: the transformations, the loop; its flow is tested with `components.coupling`."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fewshot_ad.errors import ZooError  # noqa: E402
from fewshot_ad.zoo import create, options  # noqa: E402
from fewshot_ad.zoo.components.coupling import surprise  # noqa: E402
from fewshot_ad.zoo.differnet import transformed  # noqa: E402
from tests.conftest import make_part  # noqa: E402

TINY = {"image_size": 64, "epochs": 1, "transforms": 3, "blocks": 2, "hidden": 32}


def fitted(count: int = 4, **settings):
    method = create("differnet", **{**TINY, **settings})
    method.fit([make_part(seed, 96) for seed in range(count)])
    return method


def test_transformations_turn_and_relight():
    batch = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    same = transformed(batch, torch.tensor([[0.0, 1.0, 1.0]]))
    assert torch.allclose(same, batch, atol=1e-5)
    quarter = transformed(batch, torch.tensor([[math.pi / 2, 1.0, 1.0]]))
    assert torch.allclose(quarter, batch.rot90(1, (2, 3)), atol=1e-4)
    darker = transformed(batch, torch.tensor([[0.0, 1.0, 0.5]]))
    assert torch.allclose(darker, batch / 2, atol=1e-5)
    flat = transformed(batch, torch.tensor([[0.0, 0.5, 1.0]]))
    assert float(flat.std()) == pytest.approx(float(batch.std()) / 2, rel=1e-3)
    assert float(flat.mean()) == pytest.approx(float(batch.mean()), rel=1e-3)


def test_scores_and_maps_are_finite_and_in_the_images_sizes():
    method = fitted()
    predictions = method.predict([make_part(7, 80), make_part(8, 120)[:100]])
    assert np.isfinite(predictions.scores).all()
    assert (predictions.scores > 0).all()
    assert [m.shape for m in predictions.maps] == [(80, 80), (100, 120)]
    for heat in predictions.maps:
        assert np.isfinite(heat).all()
        assert heat.max() > heat.min() >= 0
    assert method.model_bytes() > 1_000_000


def test_the_seed_decides_and_each_image_is_judged_as_if_it_came_alone():
    images = [make_part(7, 96), make_part(8, 96)]
    state = torch.random.get_rng_state()
    one, two, other = (fitted(seed=s).predict(images) for s in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.maps[0], two.maps[0])
    assert not np.array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(fitted(seed=3).predict(images[1:]).scores, one.scores[1:])


def test_after_some_training_good_parts_are_likely_and_broken_ones_are_not():
    # Upright, evenly lit parts, so that a few epochs are enough.
    method = fitted(2, epochs=35, rotation=0.0, light=0.02, transforms=2, hidden=512, blocks=4)
    clean, broken = ([make_part(seed, 96, defect) for seed in (20, 21, 22)] for defect in (False, True))
    assert method.predict(broken).scores.min() > 2 * method.predict(clean).scores.max()
    # Less surprising than to a flow that has learned next to nothing, which leaves the features as they come.
    with torch.no_grad():
        batch = torch.from_numpy(np.stack([make_part(s, 64) for s in (0, 1)])).permute(0, 3, 1, 2).float() / 255
        features = method._density.features(batch)
        learned = surprise(*method._density.flow(features)).mean()
    assert learned < (features.square().sum(1) / 2).mean()


def test_progress_counts_epochs():
    calls: list[tuple[str, int, int]] = []
    create("differnet", **{**TINY, "epochs": 3}).fit([make_part(0, 64)], progress=lambda *a: calls.append(a))
    assert calls == [("training", n, 3) for n in (1, 2, 3)]


def test_the_defaults_are_the_published_ones():
    defaults = options("differnet")
    assert (defaults["image_size"], defaults["epochs"], defaults["transforms"]) == (448, 192, 64)
    assert (defaults["blocks"], defaults["hidden"]) == (8, 2048)


@pytest.mark.parametrize("setting", [{"image_size": 32}, {"epochs": 0}, {"rotation": 200.0}, {"light": 1.0}])
def test_senseless_settings_are_refused(setting: dict):
    with pytest.raises(ZooError, match="expected"):
        create("differnet", **setting)
