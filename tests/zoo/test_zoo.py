"""What holds of every baseline in the registry."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect

import numpy as np
import pytest
import torch

from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo import Card, Labeled, Method, cards, create, options
from fewshot_ad.zoo.method import _REGISTRY, baseline
from tests.conftest import make_part, real_part
from tests.zoo.progress import assert_progress
from tests.zoo.storing import restored
from tests.zoo.tiny import TINY

CARDS = cards()
OWN = [name for name, card in CARDS.items() if card.source == "fewshot_ad"]


def create_tiny(name: str, seed: int = 3) -> Method:
    """A baseline with tiny settings, or a skip if a library or file is missing."""
    card = CARDS[name]
    if card.source != "fewshot_ad" and importlib.util.find_spec(card.source) is None:
        pytest.skip(f"{name} needs {card.source}, which is not installed")
    try:
        return create(name, seed=seed, **TINY.get(name, {}))
    except WeightsError:
        return create(name, seed=seed, weights="random", **TINY.get(name, {}))
    except ZooError as error:
        if card.source == "fewshot_ad":
            raise
        pytest.skip(f"{name}: {error}")


def labeled(count: int) -> list[Labeled]:
    """Real parts with a defect, and its mask."""
    pairs = [(real_part(place), real_part(place, defect=True)) for place in range(8, 8 + count)]
    return [Labeled(bad, (good != bad).any(2), "blot") for good, bad in pairs]


def test_the_products_own_and_the_few_shot_methods_are_there() -> None:
    assert {"fewshot_ad", "patchcore", "padim", "spade", "regad", "rkde", "mkd"} <= set(CARDS)
    assert set(TINY) <= set(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_card_is_complete(name: str) -> None:
    card = CARDS[name]
    assert card.name == name
    assert name == name.lower()
    assert name.isidentifier()
    assert all(text.strip() for text in (card.title, card.paper, card.license, card.weights))
    assert 2015 <= card.year <= 2026
    assert str(card.year) in card.paper
    assert card.supervision != "labeled defects" or card.source != "anomalib"
    assert not card.needs_masks or card.supervision == "labeled defects"


@pytest.mark.parametrize("name", CARDS)
def test_hyper_parameters_are_keywords_with_defaults_and_the_seed_is_0(name: str) -> None:
    parameters = inspect.signature(_REGISTRY[name][1]).parameters
    assert parameters["seed"].default == 0
    for parameter in parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, f"{name}: {parameter}"
        assert parameter.default is not inspect.Parameter.empty, f"{name}: {parameter}"
    assert "seed" not in options(name)


@pytest.mark.parametrize("name", OWN)
def test_own_methods_are_dataclasses_whose_hyper_parameters_are_documented(name: str) -> None:
    method = _REGISTRY[name][1]
    assert dataclasses.is_dataclass(method)
    documented = inspect.getdoc(method) or ""
    for hyper_parameter in ("seed", *options(name)):
        assert f"    {hyper_parameter}: " in documented, f"{name}: {hyper_parameter}"


@pytest.mark.parametrize("name", CARDS)
def test_unknown_hyper_parameter_is_refused_and_the_known_are_named(name: str) -> None:
    with pytest.raises(ZooError, match="nonsense") as refused:
        create(name, nonsense=1)
    assert all(known in str(refused.value) for known in options(name))


def test_unknown_method_is_refused_with_what_lists_the_known() -> None:
    for ask in (create, options):
        with pytest.raises(ZooError, match=r"'telepathy'. `fewshot-ad zoo` describes them"):
            ask("telepathy")


def test_two_baselines_of_one_name_are_refused() -> None:
    card: Card = CARDS["patchcore"]
    with pytest.raises(ValueError, match="patchcore"):
        baseline(card)(lambda *, seed=0: None)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("name", [n for n, card in CARDS.items() if not card.zero_shot])
def test_nothing_to_learn_from_is_refused(name: str) -> None:
    detector = CARDS[name].supervision == "labeled defects"
    with pytest.raises(ZooError, match="expected"):
        create_tiny(name).fit([make_part(0, size=96)] if detector else [])


@pytest.mark.parametrize("name", CARDS)
def test_predict_before_fit_is_one_error(name: str) -> None:
    method = create_tiny(name)
    message = f"^{name}: expected a fitted method, got one that has learned from no images; fit it first.$"
    with pytest.raises(ZooError, match=message):
        method.predict([make_part(0, size=96)])
    with pytest.raises(ZooError, match=message):
        method.model_bytes()


@pytest.mark.parametrize("name", OWN)
def test_contract(name: str) -> None:
    """Fits and predicts real images of any size, and the seed reproduces it, whatever it was fitted to before."""
    card = CARDS[name]
    good = [real_part(place, 96) for place in range(3)] + [real_part(3, 112)[:104]]
    images = [real_part(4, 96, defect=True), real_part(5, 128)[:, :100], real_part(6, 70)]
    defects = labeled(3) if card.supervision == "labeled defects" else []
    first, second = create_tiny(name), create_tiny(name)
    state = torch.random.get_rng_state()
    calls: list[tuple[str, int, int]] = []
    first.fit(good[:2], defects)
    first.fit(good, defects, progress=lambda *call: calls.append(call))
    second.fit(good, defects)
    predictions, again = first.predict(images), second.predict(images)
    assert torch.equal(torch.random.get_rng_state(), state), "torch's global random numbers were disturbed"

    assert predictions.scores.shape == (3,)
    assert predictions.scores.dtype == np.float32
    assert np.isfinite(predictions.scores).all()
    np.testing.assert_allclose(predictions.scores, again.scores, rtol=1e-5)
    if name != "fewshot_ad":  # an Inspector stores itself
        stored = restored(name, first, TINY.get(name, {}), seed=3)
        np.testing.assert_allclose(stored.predict(images).scores, predictions.scores, rtol=1e-5)
        assert stored.model_bytes() == first.model_bytes()
    alone = second.predict(images[1:2])
    np.testing.assert_allclose(alone.scores, predictions.scores[1:2], rtol=1e-4)
    assert (predictions.maps is not None) == (again.maps is not None) == card.maps
    if predictions.maps is not None and again.maps is not None:
        for heat, other in zip(predictions.maps, again.maps, strict=True):
            np.testing.assert_allclose(heat, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())
        assert [heat.shape for heat in predictions.maps] == [image.shape[:2] for image in images]
        assert all(heat.dtype == np.float32 and np.isfinite(heat).all() for heat in predictions.maps)
    if predictions.rejected is not None:
        assert predictions.rejected.shape == (3,)
        assert predictions.rejected.dtype == np.bool_
        np.testing.assert_array_equal(predictions.rejected, again.rejected)
    assert_progress(calls)
    assert first.model_bytes() == second.model_bytes() > 0
