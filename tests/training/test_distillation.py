import json
from itertools import pairwise

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from fewshot_ad.encoder.pyramid import load_pyramid
from fewshot_ad.encoder.weights import weights_folder
from fewshot_ad.errors import TrainingError, WeightsError
from fewshot_ad.training.distillation import Distiller, distill, teacher_stages
from fewshot_ad.training.distillation_recipe import DistillationRecipe
from fewshot_ad.training.run import CHECKPOINT, LOG, RunFolder, one_cosine

SMALL = {
    "student": "resnet10t",
    "size": 64,
    "batch": 4,
    "steps": 6,
    "generated": 1,
    "short_side": 64,
    "checkpoint_every": 2,
    "precision": "f32",
    "warmup": 2,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    calls = []
    weights = distill(DistillationRecipe(**SMALL), folder, progress=lambda *call: calls.append(call))
    return folder, weights, calls


def test_a_distilled_backbone_loads_like_any_weights(run):
    folder, weights, _ = run
    pyramid = load_pyramid("resnet10t", weights, (1, 2, 3))
    assert len(pyramid.raw(torch.rand(1, 3, 64, 64))) == 3
    assert sorted(p.name for p in folder.iterdir()) == [
        "backbone.safetensors",
        CHECKPOINT,
        LOG,
        "recipe.yaml",
    ]


def test_a_shipped_encoder_is_a_student_to_start_from(tmp_path):
    settings = SMALL | {"student": "resnet18", "student_weights": str(weights_folder() / "resnet18_parts.safetensors")}
    weights = distill(DistillationRecipe(**settings | {"steps": 2}), tmp_path / "run")
    assert len(load_pyramid("resnet18", weights, (1, 2, 3)).raw(torch.rand(1, 3, 64, 64))) == 3


def test_progress_and_log_say_how_far_it_is(run):
    folder, _, calls = run
    assert calls == [("distill", n, 6) for n in range(1, 7)]
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(np.isfinite(line["loss"]) and line["eta_s"] >= 0 for line in lines)
    assert len(lines[0]["losses"]) == 3


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on_to_the_same_result(run, tmp_path):
    def kill(stage, done, total):
        if done == 5:
            raise KilledError

    with pytest.raises(KilledError):
        distill(DistillationRecipe(**SMALL), tmp_path / "run", progress=kill)
    assert [line["step"] for line in RunFolder(tmp_path / "run", DistillationRecipe(**SMALL)).lines()] == [2, 4]
    again = distill(DistillationRecipe(**SMALL), tmp_path / "run")
    _, weights, _ = run
    for (name, tensor), (_, expected) in zip(
        load_pyramid("resnet10t", again, (1, 2, 3)).state_dict().items(),
        load_pyramid("resnet10t", weights, (1, 2, 3)).state_dict().items(),
        strict=True,
    ):
        assert torch.allclose(tensor.float(), expected.float(), atol=1e-5), name


def test_a_run_with_another_recipe_is_not_overwritten(run):
    folder, _, _ = run
    with pytest.raises(TrainingError, match="another recipe"):
        distill(DistillationRecipe(**{**SMALL, "steps": 9}), folder)


def test_a_damaged_checkpoint_is_named(tmp_path):
    recipe = DistillationRecipe(**SMALL)
    RunFolder(tmp_path, recipe)
    (tmp_path / CHECKPOINT).write_bytes(b"torn")
    with pytest.raises(TrainingError, match=r"damaged.*--restart"):
        distill(recipe, tmp_path)


def test_the_student_learns():
    """A few steps on one batch bring the regression below what a constant reaches."""
    torch.manual_seed(0)
    from fewshot_ad.encoder.pyramid import Pyramid

    teacher = load_pyramid("tf_efficientnet_lite0", None, teacher_stages("tf_efficientnet_lite0"))
    model = Distiller(Pyramid("resnet10t", teacher_stages("resnet10t")), [teacher])
    from fewshot_ad.training.parts import render

    batch = torch.from_numpy(np.stack([render("gear", n, 64) for n in range(4)])).permute(0, 3, 1, 2).float() / 255
    model.measure([batch])
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(25):
        loss = torch.stack(model(batch)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.7


def test_one_cosine_warms_up_and_falls_to_zero():
    factors = [one_cosine(step, 100, 10) for step in range(100)]
    assert factors[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert factors[10] == 1
    assert all(a >= b for a, b in pairwise(factors[10:]))
    assert factors[-1] < 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 50}, "multiple of 16"),
        ({"batch": 5, "accumulate": 2}, "multiple of accumulate"),
        ({"teachers": ("a", "b")}, "weights file per teacher"),
        ({"precision": "f8"}, "precision"),
        ({"scales": (2.0, 1.0)}, "scales"),
        ({"folders": ()}, "folder"),
    ],
)
def test_a_senseless_recipe_is_refused(change, message):
    with pytest.raises(TrainingError, match=message):
        DistillationRecipe(**{**SMALL, **change})


def test_a_vit_with_patches_of_14_pixels_teaches_by_name_and_file(tmp_path):
    name = "vit_tiny_patch16_224"
    assert teacher_stages(name) == (3, 7, 11)
    name = "vit_small_patch14_dinov2.lvd142m"
    file = tmp_path / "vit.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model(name, pretrained=False).state_dict(), file)
    recipe = DistillationRecipe(**{**SMALL, "teachers": (name,), "teacher_weights": (str(file),), "steps": 2})
    assert distill(recipe, tmp_path / "run").is_file()
    model = Distiller(
        load_pyramid("resnet10t", tmp_path / "run" / "backbone.safetensors", (1, 2, 3)),
        [load_pyramid(name, file, teacher_stages(name))],
    )
    assert model.pairs == [(0, 0, 0), (0, 1, 1), (0, 2, 2)]
    targets = model.targets(torch.rand(1, 3, 64, 96))
    assert [tuple(t.shape) for t in targets] == [(1, 384, 4, 6)] * 3


def test_a_student_without_the_three_stages_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(WeightsError, match="strides"):
        distill(DistillationRecipe(**{**SMALL, "student": "vit_tiny_patch16_224"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
