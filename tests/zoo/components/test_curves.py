from __future__ import annotations

import csv
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import loggers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.curves import Curves, current_logger
from fewshot_ad.zoo.components.training import train_epochs
from tests.conftest import make_part


def descend_a_parabola(epochs: int = 3) -> None:
    """Two steps per epoch."""
    place = torch.tensor([4.0], requires_grad=True)
    optimizer = torch.optim.SGD([place], 0.1)
    train_epochs(lambda batch: (place**2).sum(), lambda: (0, 1), epochs, [optimizer])


def test_every_step_is_a_point_of_the_curve(tmp_path: Path) -> None:
    with Curves("tensorboard", tmp_path).drawn("parabola"):
        descend_a_parabola()
    assert current_logger() is None
    events = EventAccumulator(str(tmp_path / "parabola")).Reload()
    # Each step of 0.1 along the slope 2x leaves 0.8 x.
    assert [point.step for point in events.Scalars("training/loss")] == list(range(6))
    assert [point.value for point in events.Scalars("training/loss")] == pytest.approx(
        [(4.0 * 0.8**step) ** 2 for step in range(6)]
    )
    assert [point.value for point in events.Scalars("training/rate")] == pytest.approx([0.1] * 6)


def test_a_run_of_the_same_name_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    curves = Curves("csv", tmp_path)
    for _ in range(2):
        with curves.drawn("ours board/bottle K=4"):
            descend_a_parabola()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours-board-bottle-K=4", "ours-board-bottle-K=4-2"]


def test_nothing_is_drawn_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    descend_a_parabola()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "curve"),
    [
        ("mkd", {"image_size": 64, "width": 8, "steps": 4}, "training/loss"),
        ("tdg", {"image_size": 32, "coarsest": 16, "scales": 2, "channels": 8, "steps": 2}, "scale 1/adversarial"),
        ("anomalib_stfpm", {"image_size": 64, "epochs": 3}, "train_loss_step"),
    ],
)
def test_a_fit_is_drawn(tmp_path: Path, name: str, options: dict[str, Any], curve: str) -> None:
    method = create(name, **options)
    with Curves("csv", tmp_path).drawn(name):
        method.fit([make_part(seed, size=64) for seed in range(3)])
    with open(tmp_path / name / "metrics.csv", encoding="utf-8", newline="") as file:
        values = [row[curve] for row in csv.DictReader(file) if row.get(curve)]
    assert len(values) == {"mkd": 4, "tdg": 2, "anomalib_stfpm": 3}[name]


def test_a_monitor_that_is_missing_is_named_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZooError, match=r"expected a monitor among .*'tensorboard'.*, got 'pencil'"):
        Curves("pencil", Path())  # type: ignore[arg-type]
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name))
    with pytest.raises(ZooError, match="pip install wandb"):
        Curves("wandb", Path())


@pytest.mark.parametrize(
    ("monitor", "logger", "offline"),
    [
        ("wandb", "WandbLogger", {"offline": True}),
        ("mlflow", "MLFlowLogger", {}),
        ("comet", "CometLogger", {"online": False}),
    ],
)
def test_the_others_write_here_and_send_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, monitor: Any, logger: str, offline: dict[str, bool]
) -> None:
    """Stand-ins for the libraries, which need not be installed."""
    made: list[dict[str, Any]] = []

    class StandIn:
        def __init__(self, *_: Any, **options: Any) -> None:
            made.append(options)

        def log_metrics(self, values: dict[str, float], step: int) -> None:
            made[-1].setdefault("steps", []).append(step)

        def finalize(self, status: str) -> None:
            made[-1]["ended"] = status

    monkeypatch.setattr(loggers, logger, StandIn)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    for variable in ("WANDB_MODE", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.delenv(variable, raising=False)
    with Curves(monitor, tmp_path).drawn("run"):
        descend_a_parabola(1)
    assert made[0]["steps"] == [0, 1]
    assert made[0]["ended"] == "success"
    assert offline.items() <= made[0].items()
    assert str(tmp_path) in str(made[0])
    assert os.environ["WANDB_MODE"] == "offline"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
