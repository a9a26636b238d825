"""anomalib's learning rates while it trains here, and the settings that come from papers and files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewshot_ad import zoo
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.components.pdn import PDN, save_teacher
from fewshot_ad.zoo.components.tensors import seeded
from tests.conftest import make_part

pytest.importorskip("anomalib")

from lightning.pytorch import Callback, LightningModule, Trainer

from fewshot_ad.zoo.anomalib.runtime import training

SMALL_REG4 = "vit_small_patch14_reg4_dinov2"


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, 64) for seed in range(3)]


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of each batch that is trained on, of the first optimizer's first parameters."""
    rates: list[float] = []

    class Recorder(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    class Recording(Trainer):
        def __init__(self, callbacks: list[Callback], **arguments: Any) -> None:
            super().__init__(callbacks=[*callbacks, Recorder()], **arguments)

    monkeypatch.setattr(training, "Trainer", Recording)
    return rates


def cosine(start: float, end: float, steps: int) -> list[float]:
    return [end + (start - end) * (1 + math.cos(math.pi * n / steps)) / 2 for n in range(steps)]


def test_efficient_ad_falls_to_a_tenth_after_95_percent_of_the_steps(
    rates: list[float], good: list[np.ndarray], tmp_path: Path
) -> None:
    file = tmp_path / "teacher.safetensors"
    with seeded(0):
        save_teacher(file, PDN("S"), {"size": "S"})
    method = zoo.create("anomalib_efficient_ad_s", steps=2, teacher=str(file), penalty_images=2)
    method.fit(good[:2])
    # int(0.95 * 2) = 1 step at the first rate, and both are of one epoch.
    assert rates == pytest.approx([1e-4, 1e-5])
    assert np.isfinite(method.predict(good[:1]).scores).all()


@pytest.mark.parametrize(
    ("name", "length", "peak"), [("dinomaly", {"steps": 6}, 2e-3), ("inp_former", {"epochs": 3}, 1e-3)]
)
def test_warm_up_and_cosine_count_batches(
    name: str,
    length: dict[str, int],
    peak: float,
    rates: list[float],
    good: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib

    module = importlib.import_module(f"anomalib.models.image.{name}.lightning_model")
    monkeypatch.setitem(module.TRAINING_CONFIG["scheduler"], "warmup_iters", 2)
    zoo.create(f"anomalib_{name}", image_size=28, backbone=SMALL_REG4, weights="random", batch_size=2, **length).fit(
        good
    )
    assert rates == pytest.approx([0, peak, *cosine(peak, peak / 10, 4)])


def test_uflow_falls_to_four_tenths_over_25000_batches(rates: list[float], good: list[np.ndarray]) -> None:
    zoo.create("anomalib_uflow", image_size=64, flow_steps=1, epochs=2, batch_size=1).fit(good)
    assert rates == pytest.approx([1e-3 * (1 - 0.6 * n / 25_000) for n in range(6)], rel=1e-9)


def test_dsr_falls_to_a_tenth_after_four_fifths_of_the_epochs_before_upsampling(
    rates: list[float], good: list[np.ndarray]
) -> None:
    options = {"image_size": 64, "epochs": 2, "upsampling_train_ratio": 1.0, "latent_weights": "random"}
    zoo.create("anomalib_dsr", batch_size=1, **options).fit(good[:2])
    # int(0.8 * 2) = 1 epoch at the first rate.
    assert rates == pytest.approx([2e-4, 2e-4, 2e-5, 2e-5])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("uninet", {"image_size": 32, "epochs": 3, "backbone": "resnet50", "weights": "random"}, [5e-3, 5e-3, 1e-3]),
        ("supersimplenet", {"image_size": 128, "epochs": 5}, [1e-4, 1e-4, 1e-4, 1e-4, 1.6e-5]),
        (
            "general_ad",
            {
                "image_size": 28,
                "epochs": 4,
                "backbone": "vit_small_patch14_dinov2",
                "weights": "random",
                "hidden": 16,
                "top_k": 1,
            },
            cosine(5e-4, 1e-4, 4),
        ),
    ],
)
def test_the_others_count_epochs(
    name: str, options: dict[str, Any], expected: list[float], rates: list[float], good: list[np.ndarray]
) -> None:
    zoo.create(f"anomalib_{name}", batch_size=2, **options).fit(good[:2] if name == "uninet" else good)
    batches = len(rates) // len(expected)
    assert rates == pytest.approx([rate for rate in expected for _ in range(batches)])
    assert batches == (1 if name == "uninet" else 2)


@pytest.mark.parametrize("size", ["S", "M"])
def test_efficient_ad_describes_patches_as_the_teacher_of_efficientad_cdo(size: str, tmp_path: Path) -> None:
    from anomalib.models.image.efficient_ad import torch_model

    from fewshot_ad.zoo.anomalib.runtime.pretraining import take_teacher

    with seeded(0):
        teacher, batch = PDN(size), torch.rand(1, 3, 64, 64)
        network = {"S": torch_model.SmallPatchDescriptionNetwork, "M": torch_model.MediumPatchDescriptionNetwork}[size](
            384
        )
    file = tmp_path / "teacher.safetensors"
    save_teacher(file, teacher, {"size": size})
    take_teacher(network, file, size)
    with torch.no_grad():
        torch.testing.assert_close(network(batch), teacher(batch), rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in network.parameters())


def test_teachers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    from fewshot_ad.zoo.anomalib.runtime.pretraining import take_teacher

    file, absent = tmp_path / "teacher.safetensors", tmp_path / "absent.safetensors"
    with seeded(0):
        save_teacher(file, PDN("S"), {"size": "S"})
    with pytest.raises(ZooError, match="size 'M', got 'S'"):
        take_teacher(torch.nn.Identity(), file, "M")
    with pytest.raises(WeightsError, match="efficientad_cdo"):
        zoo.create("anomalib_efficient_ad_s", teacher=str(absent))
    with pytest.raises(ZooError, match="got both"):
        zoo.create("anomalib_efficient_ad_s", teacher=str(file), teacher_weights="random")


def test_general_ad_reads_the_last_layer_of_its_backbone() -> None:
    from fewshot_ad.zoo.anomalib.transformers import _depth

    assert _depth("vit_small_patch14_dinov2") == 12
    assert _depth("vit_large_patch14_dinov2") == 24


def test_the_side_fits_the_patch_of_the_backbone_given() -> None:
    zoo.create("anomalib_foundad", backbone="vit_base_patch16_dinov3", image_size=512, weights="random")
    with pytest.raises(ZooError, match="patch of 14 divides, got 512"):
        zoo.create("anomalib_foundad", image_size=512)
    with pytest.raises(ZooError, match="vision transformer of timm"):
        zoo.create("anomalib_rad", backbone="resnet18")
