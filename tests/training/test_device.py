"""Training and encoding on a GPU; on a stand-in where there is none, which finds every tensor that stays behind."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from fewshot_ad.encoder import load_encoder  # noqa: E402
from fewshot_ad.encoder.weights import weights_folder  # noqa: E402
from fewshot_ad.training.distillation import distill  # noqa: E402
from fewshot_ad.training.distillation_recipe import DistillationRecipe  # noqa: E402
from fewshot_ad.training.recipe import TrainingRecipe  # noqa: E402
from fewshot_ad.training.siamese import train  # noqa: E402
from tests.stand_in_gpu import OnDevice, stand_in_gpu  # noqa: E402

SMALL = {
    "init": str(weights_folder() / "resnet18_parts.safetensors"),
    # So small that rounding does not grow over the steps.
    "learning_rate": 1e-6,
    "size": 64,
    "batch": 4,
    "group": 2,
    "epochs": 1,
    "generated": 1,
    "generated_images": 2,
    "margin": 1.0,
    "precision": "f32",
}


def last_line(folder):
    return json.loads((folder / "log.jsonl").read_text().splitlines()[-1])


def test_the_stand_in_refuses_what_a_gpu_refuses(monkeypatch):
    with stand_in_gpu(monkeypatch):
        there, here = torch.ones(3).to("cuda"), torch.ones(3)
        assert isinstance(there * 2 + torch.tensor(1.0), OnDevice)
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        assert not isinstance(there.cpu(), OnDevice)
        assert (there.cpu() + here).tolist() == [2.0] * 3


@pytest.mark.parametrize(
    "changes",
    [
        {"registration": None, "embed": "fused", "layers": 1, "residual": True, "anchor": 0.1},
        {"registration": "rotation+scale", "equivariance": 1.0, "predictor_rate": 1e-6},
    ],
    ids=["no transformers", "transformers"],
)
def test_training_leaves_nothing_on_the_cpu(changes, tmp_path, monkeypatch):
    recipe = TrainingRecipe(**{**SMALL, **changes})
    train(recipe, tmp_path / "cpu", device="cpu")
    with stand_in_gpu(monkeypatch):
        result = train(recipe, tmp_path / "gpu", device="cuda")
        assert all(isinstance(parameter.data, OnDevice) for parameter in result.encoder.parameters())
    expected, got = last_line(tmp_path / "cpu"), last_line(tmp_path / "gpu")
    for name in ("simsiam", "margin", "anchor", "equivariance", "spread"):
        assert got.get(name) == pytest.approx(expected.get(name), abs=0.05), name


def test_a_gpu_is_taken_where_there_is_one_and_a_run_moves_to_the_cpu(tmp_path, monkeypatch):
    recipe = TrainingRecipe(**{**SMALL, "registration": None, "epochs": 2})
    with stand_in_gpu(monkeypatch), monkeypatch.context() as patch:
        patch.setattr("fewshot_ad.training.siamese._check_epoch", stop_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "run")
    result = train(recipe, tmp_path / "run", device="cpu")
    assert not any(isinstance(parameter.data, OnDevice) for parameter in result.encoder.parameters())
    assert last_line(tmp_path / "run")["epoch"] == 2


def stop_after_the_first(means, epoch):
    raise KeyboardInterrupt


def test_distillation_leaves_nothing_on_the_cpu(tmp_path, monkeypatch):
    recipe = DistillationRecipe(
        student="resnet18",
        teachers=("tf_efficientnet_lite0",),
        teacher_weights=("bundled",),
        folders=("parts",),
        generated=1,
        size=64,
        batch=2,
        steps=2,
        checkpoint_every=1,
        learning_rate=1e-6,
        precision="f32",
    )
    distill(recipe, tmp_path / "cpu", device="cpu")
    with stand_in_gpu(monkeypatch):
        distill(recipe, tmp_path / "gpu", device="cuda")
    assert last_line(tmp_path / "gpu")["loss"] == pytest.approx(last_line(tmp_path / "cpu")["loss"], rel=0.02)


def test_an_encoder_on_a_gpu_gives_the_embeddings_of_the_cpu(monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    expected = load_encoder(engine="torch").encode(image)[0]
    with stand_in_gpu(monkeypatch):
        encoder = load_encoder(engine="torch", device="cuda")
        assert encoder.device == "cuda"
        np.testing.assert_allclose(encoder.encode(image)[0], expected, atol=1e-4)
