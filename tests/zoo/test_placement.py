"""Baselines on a GPU, or on a stand-in where there is none, and in mixed precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import Labeled, cards, create, differences, running_options
from fewshot_ad.zoo.anomalib.runtime import training
from fewshot_ad.zoo.fitted import Baseline
from fewshot_ad.zoo.placement import placed
from tests.conftest import real_part
from tests.stand_in_gpu import OnDevice, stand_in_gpu
from tests.zoo.tiny import TINY

OWN = [name for name, card in cards().items() if card.source == "fewshot_ad" and name != "fewshot_ad"]
IMAGES = [real_part(place) for place in range(2)]
# What the stand-in says of itself makes torch believe that weights go nowhere.
pytestmark = pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")


def defects() -> list[Labeled]:
    pairs = [(real_part(place), real_part(place, defect=True)) for place in (8, 9)]
    return [Labeled(bad, (good != bad).any(2), "blot") for good, bad in pairs]


@pytest.mark.parametrize("name", OWN)
def test_a_method_leaves_nothing_on_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in_gpu(monkeypatch):
        method = create(name, seed=3, device="cuda", **TINY.get(name, {}))
        method.fit(IMAGES, defects())
        predictions = method.predict(IMAGES[:1])
    assert np.isfinite(predictions.scores).all()
    assert all(type(one) is np.ndarray for one in (predictions.scores, *(predictions.maps or ())))


@pytest.mark.parametrize("name", OWN)
def test_a_method_runs_in_mixed_precision(name: str) -> None:
    method = create(name, seed=3, precision="bf16", **TINY.get(name, {}))
    method.fit(IMAGES, defects())
    assert np.isfinite(method.predict(IMAGES[:1]).scores).all()


def test_training_in_mixed_precision_uses_what_it_has_learned() -> None:
    losses = []
    with placed("cpu", "bf16"):
        network = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        for _ in range(20):
            loss = (network(torch.ones(1, 4)) - 3).square().mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert losses[-1] < 0.01 * losses[0]


def test_initial_weights_are_drawn_where_a_seed_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_on = []
    empty_like = torch.empty_like

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        drawn_on.append(kwargs.get("device"))
        return empty_like(*args, **kwargs)

    torch.manual_seed(5)
    expected = torch.nn.Linear(4, 3)
    torch.manual_seed(5)
    monkeypatch.setattr(torch, "empty_like", watched)
    with stand_in_gpu(monkeypatch), placed("cuda", "f32"):
        made = torch.nn.Linear(4, 3)
        assert drawn_on == ["cpu", "cpu"]
        np.testing.assert_array_equal(made.weight.detach().numpy(), expected.weight.detach().numpy())


@pytest.mark.parametrize("name", ["ast", "fastrecon"])
def test_a_seed_gives_the_same_on_either_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = create(name, seed=3, **TINY[name])
    here.fit(IMAGES, defects())
    with stand_in_gpu(monkeypatch):
        there = create(name, seed=3, device="cuda", **TINY[name])
        there.fit(IMAGES, defects())
        np.testing.assert_allclose(there.predict(IMAGES).scores, here.predict(IMAGES).scores, rtol=1e-4)


def test_a_detector_runs_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ultralytics")
    with stand_in_gpu(monkeypatch):
        method = create("yolov8", device="cuda", weights="random", image_size=64, epochs=1)
        method.fit(IMAGES, defects())
        assert np.isfinite(method.predict(IMAGES[:1]).scores).all()


def test_it_is_stored_and_read_on_either_device(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in_gpu(monkeypatch):
        there = Baseline.fit("padim", [*IMAGES, real_part(2)], device="cuda", **TINY["padim"])
        expected = there.inspect(IMAGES[0]).score
        there.save(tmp_path / "model")
        again = Baseline.load(tmp_path / "model", device="cuda")
        assert any(isinstance(p.data, OnDevice) for p in vars(again.method)["_network"].parameters())
        assert again.inspect(IMAGES[0]).score == pytest.approx(expected, rel=1e-5)
    assert Baseline.load(tmp_path / "model").inspect(IMAGES[0]).score == pytest.approx(expected, rel=1e-5)


def test_random_numbers_of_a_generator_are_the_same_in_place_too(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = torch.empty(5).normal_(generator=torch.Generator().manual_seed(2))
    with stand_in_gpu(monkeypatch), placed("cuda", "f32"):
        drawn = torch.empty(5).normal_(generator=torch.Generator().manual_seed(2))
        assert isinstance(drawn, OnDevice)
        np.testing.assert_array_equal(drawn.numpy(), expected.numpy())
        np.testing.assert_array_equal(np.asarray(drawn), expected.numpy())


def test_draws_without_a_device_of_their_own_work_too(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.tensor([1.0, 2.0, 3.0])
    expected = torch.multinomial(weights, 2, generator=torch.Generator().manual_seed(2))
    with stand_in_gpu(monkeypatch), placed("cuda", "f32"):
        drawn = torch.multinomial(weights.to("cuda"), 2, generator=torch.Generator().manual_seed(2))
        assert isinstance(drawn, OnDevice)
        np.testing.assert_array_equal(drawn.numpy(), expected.numpy())


def test_anomalibs_trainer_gets_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class AskedError(Exception):
        """Raised in place of a training."""

    asked: dict[str, Any] = {}

    def trainer(**arguments: Any) -> Any:
        asked.update(arguments)
        raise AskedError

    monkeypatch.setattr(training, "Trainer", trainer)
    module = type("Module", (), {"trainer_arguments": {}})()
    shots = training.Shots(torch.zeros(2, 3, 8, 8), 2, 0)
    with pytest.raises(AskedError):
        training.train(module, shots, 1, -1, 0, None, None, device="cuda:1", precision="bf16")  # type: ignore[arg-type]
    assert (asked["accelerator"], asked["devices"], asked["precision"]) == ("cuda", [1], "bf16-mixed")


@pytest.mark.parametrize("name", ["simplenet", "spade", "anomalib_stfpm"])
def test_mixed_precision_is_close_and_said(name: str) -> None:
    settings = {**TINY.get(name, {}), **({"image_size": 64, "epochs": 1} if name == "anomalib_stfpm" else {})}
    scores = []
    for precision in ("f32", "bf16"):
        method = create(name, seed=3, precision=precision, **settings)
        method.fit(IMAGES)
        scores.append(method.predict(IMAGES[:2]).scores)
    assert not np.array_equal(*scores)
    np.testing.assert_allclose(*scores, rtol=0.1)
    assert "precision bf16 (published: f32)" in differences(name, {"precision": "bf16"})


def test_a_stored_model_says_what_is_wrong_with_the_device(tmp_path: Any) -> None:
    Baseline.fit("spade", [*IMAGES, real_part(2)], **TINY["spade"]).save(tmp_path / "model")
    with pytest.raises(ZooError, match=r"^expected a device of cpu, cuda or cuda:N, got 'gpu'\.$"):
        Baseline.load(tmp_path / "model", device="gpu")


def test_what_is_no_device_or_not_here_is_refused() -> None:
    with pytest.raises(ZooError, match=r"expected a device of cpu, cuda or cuda:N, got 'gpu'"):
        create("padim", device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ZooError, match="torch sees no GPU here"):
            create("padim", device="cuda:0")
    with pytest.raises(ZooError, match="precision: expected f32 or bf16, got 'f16'"):
        create("padim", precision="f16")


def test_a_method_with_a_device_of_its_own_keeps_it() -> None:
    assert running_options("fewshot_ad") == {}
    assert running_options("padim") == {"device": "cpu", "precision": "f32"}
