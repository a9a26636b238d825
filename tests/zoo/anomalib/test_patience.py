"""Early stopping: by held-out good images, or by the training's own loss; never by a label."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create, differences, running_options
from tests.conftest import make_part

pytest.importorskip("anomalib")

from fewshot_ad.zoo.anomalib.runtime.patience import DrawnDefects, HeldOutLoss, Patience

IMAGES = [make_part(seed, 64) for seed in range(6)]


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss of each epoch that a training came to; from the second on, it does not fall."""
    told: list[float] = []
    original = HeldOutLoss.of

    def rising(self: HeldOutLoss, module: Any) -> float:
        assert np.isfinite(original(self, module))
        told.append(1.0 + (len(told) > 0))
        return told[-1]

    monkeypatch.setattr(HeldOutLoss, "of", rising)
    return told


@pytest.mark.parametrize("name", ["anomalib_stfpm", "anomalib_fastflow", "anomalib_draem"])
def test_it_stops_after_as_many_epochs_without_a_lower_loss(name: str, losses: list[float]) -> None:
    method, steps = create(name, image_size=64, epochs=9, patience=2, validation=0.34), []
    images = IMAGES[:3] if name == "anomalib_draem" else IMAGES
    method.fit(images, progress=lambda stage, done, total: steps.append((stage, done, total)))
    assert len(losses) == 3
    assert steps[-1][1] == steps[-1][2]
    assert np.isfinite(method.predict(IMAGES[:1]).scores).all()


def test_the_weights_are_those_of_the_best_epoch(losses: list[float]) -> None:
    stopped = create("anomalib_fre", image_size=64, epochs=9, patience=3, validation=0.34)
    stopped.fit(IMAGES)
    assert len(losses) == 4
    losses.clear()
    once = create("anomalib_fre", image_size=64, epochs=1, patience=1, validation=0.34)
    once.fit(IMAGES)
    np.testing.assert_allclose(stopped.predict(IMAGES).scores, once.predict(IMAGES).scores, rtol=1e-5)


def test_the_loss_of_the_training_tells_where_nothing_is_held_out(losses: list[float]) -> None:
    method = create("anomalib_stfpm", image_size=64, epochs=2, patience=1)
    method.fit(IMAGES[:2])
    assert losses == []
    assert np.isfinite(method.predict(IMAGES[:1]).scores).all()


@pytest.mark.parametrize(
    ("name", "monitor"),
    [("anomalib_cflow", "image_auroc"), ("anomalib_cflow", "pixel_auroc"), ("anomalib_ganomaly", "image_auroc")],
)
def test_drawn_defects_tell_when_to_stop(name: str, monitor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[float] = []
    original = DrawnDefects.of

    def rising(self: DrawnDefects, module: Any) -> float:
        states = (random.getstate(), torch.get_rng_state())
        found = original(self, module)
        assert 0 <= found <= 1
        assert found == original(self, module)
        assert random.getstate() == states[0]
        assert torch.equal(torch.get_rng_state(), states[1])
        assert module.model.training
        figures.append(1.0 + (len(figures) > 0))
        return figures[-1]

    monkeypatch.setattr(DrawnDefects, "of", rising)
    method = create(name, image_size=64, epochs=9, patience=2, validation=0.34, monitor=monitor)
    method.fit(IMAGES)
    assert len(figures) == 3
    assert np.isfinite(method.predict(IMAGES[:1]).scores).all()


def test_a_perfect_model_has_the_figure_zero() -> None:
    good = IMAGES[:2]

    def judge(_: torch.nn.Module, image: np.ndarray) -> tuple[float, torch.Tensor]:
        changed = np.min([np.abs(image.astype(int) - one).max(axis=2) for one in good], axis=0)
        return float(changed.max()), torch.from_numpy(changed).float()

    module = torch.nn.Module()
    module.model = torch.nn.Linear(1, 1)
    assert DrawnDefects("image_auroc", good, judge, 0).of(module) == 0
    assert DrawnDefects("pixel_auroc", good, judge, 0).of(module) < 0.02
    with pytest.raises(ZooError, match="RGB"):
        DrawnDefects("image_auroc", [np.zeros((8, 8, 6), np.uint8)], judge, 0)


def test_what_makes_no_sense_is_refused() -> None:
    assert {"patience", "validation", "monitor"} <= running_options("anomalib_stfpm").keys()
    assert "patience" not in running_options("anomalib_padim")
    assert "patience" not in running_options("simplenet")
    for settings, message in (
        ({"patience": 0}, "patience of at least 1"),
        ({"patience": 1, "validation": 0.9}, r"validation in 0\.\.0\.5"),
        ({"validation": 0.2}, "expected patience with validation"),
        ({"monitor": "image_auroc"}, "expected patience with monitor"),
        ({"monitor": "image_auroc", "patience": 2}, "expected validation with monitor=image_auroc"),
        ({"monitor": "val_loss", "patience": 2}, "image_auroc"),
    ):
        with pytest.raises(ZooError, match=message):
            create("anomalib_stfpm", **settings)
    with pytest.raises(ZooError, match="images enough to hold"):
        create("anomalib_stfpm", image_size=64, patience=1, validation=0.1).fit(IMAGES[:2])
    for value in (2.5, True, "abc"):
        with pytest.raises(ZooError, match="patience of at least 1"):
            create("anomalib_stfpm", patience=value)
    # They step their optimizers themselves: the loss says nothing. One has no maps.
    for name in ("cflow", "ganomaly"):
        with pytest.raises(ZooError, match=r"expected monitor among image_auroc.*got 'loss'"):
            create(f"anomalib_{name}", patience=1)
    with pytest.raises(ZooError, match="expected monitor among image_auroc, got 'pixel_auroc'"):
        create("anomalib_ganomaly", patience=1, validation=0.2, monitor="pixel_auroc")
    # They take other data in every step, or learn in two phases.
    for name in ("dsr", "glass", "efficient_ad_s"):
        with pytest.raises(ZooError, match="a hyper-parameter among"):
            create(f"anomalib_{name}", patience=1)
    with pytest.raises(ZooError, match="expected a baseline"):
        running_options("nope")


def test_every_epoch_is_judged_by_the_same_random_numbers() -> None:
    class Drawing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def log(self, *_: Any) -> None:
            raise AssertionError("logged")

        def training_step(self, *_: Any) -> torch.Tensor:
            self.log("loss", 1.0)
            return torch.tensor(random.random() + np.random.random()) + torch.rand(())

    module, watch = Drawing(), HeldOutLoss(object())
    states = (random.getstate(), torch.get_rng_state())
    assert len({watch.of(module) for _ in range(3)}) == 1
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert "log" not in vars(module)


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ZooError, match="a finite loss"):
        Patience("x", 1, None).on_train_epoch_end(None, None)  # type: ignore[arg-type]
    assert "patience 3 (published: default)" in differences("anomalib_stfpm", {"patience": 3})
