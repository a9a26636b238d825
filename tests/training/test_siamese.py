import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import yaml

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.encoder import siamese as siamese_encoder
from fewshot_ad.encoder.weights import weights_folder
from fewshot_ad.errors import TrainingError, WeightsError
from fewshot_ad.training import siamese
from fewshot_ad.training.images import generated_categories
from fewshot_ad.training.losses import equivariance_loss, margin_loss
from fewshot_ad.training.pairs import Pairs, draw_defects, in_pose_of
from fewshot_ad.training.parts import render
from fewshot_ad.training.publish import publish
from fewshot_ad.training.recipe import TrainingRecipe
from fewshot_ad.training.run import LOG, Workers, read_recipe
from fewshot_ad.training.siamese import train

SMALL = {
    "backbone": "tf_efficientnet_lite0",
    "init": "bundled",
    "size": 64,
    "batch": 4,
    "group": 2,
    "epochs": 2,
    "precision": "f32",
    "embed": "fused",
    "layers": 1,
    "residual": True,
    "margin": 1.0,
    "anchor": 0.5,
}

# Without transformers, of the backbone with the fewest operations: it is exported in half the time.
FAST_TO_EXPORT = SMALL | {"backbone": "resnet18", "init": "resnet18_parts", "epochs": 1, "registration": None}


@pytest.fixture
def folders(tmp_path):
    from fewshot_ad.training.parts import render

    for category in ("gear", "washer"):
        folder = tmp_path / "data" / category / "train" / "good"
        folder.mkdir(parents=True)
        for seed in range(6):
            cv2.imwrite(str(folder / f"{seed}.png"), render(category, seed, 64)[..., ::-1])
    return (str(tmp_path / "data"),)


def test_the_recipe_of_a_shipped_encoder_is_the_one_that_its_card_tells():
    card = json.loads((weights_folder() / "lite0_tuned.json").read_text())
    told = TrainingRecipe(**yaml.safe_load(card["recipe"]) | {"folders": ("parts",), "licenses": (), "leave_out": ()})
    assert told == read_recipe(Path(siamese.__file__).parent / "recipes" / "tuned.yaml", TrainingRecipe)


def test_processes_that_prepare_images_change_nothing_but_the_time(tmp_path):
    recipe = TrainingRecipe(**{**SMALL, "generated": 1, "generated_images": 2, "epochs": 1, "batch": 16})
    logs = []
    for loaders in (0, 2):
        train(recipe, tmp_path / str(loaders), device="cpu", loaders=loaders)
        line = json.loads((tmp_path / str(loaders) / LOG).read_text())
        logs.append({name: value for name, value in line.items() if name not in ("pairs_per_s", "eta_s")})
    assert logs[0] == logs[1]
    assert logs[0]["step"] == 4


@pytest.mark.parametrize("loaders", [-1, "2", 1.5])
def test_what_is_no_number_of_processes_is_refused(loaders, folders, tmp_path):
    recipe = TrainingRecipe(**{**SMALL, "folders": folders})
    with pytest.raises(TrainingError, match=r"loaders.*got"):
        train(recipe, tmp_path / "run", device="cpu", loaders=loaders)


@pytest.mark.parametrize(
    ("name", "backbone"), [("resnet18_parts", "resnet18"), ("convnext_atto_parts", "convnext_atto")]
)
def test_a_shipped_encoder_is_where_training_starts(name, backbone, folders, tmp_path):
    file = weights_folder() / f"{name}.safetensors"
    first = {"backbone": backbone, "init": str(file), "epochs": 1, "learning_rate": 1e-9}
    trained = train(TrainingRecipe(**SMALL | first, folders=folders, licenses=("CC0-1.0",)), tmp_path / "run")
    shipped = safetensors.torch.load_file(file)
    for key, tensor in trained.encoder.pyramid.backbone.state_dict().items():
        if tensor.is_floating_point() and "running" not in key:
            torch.testing.assert_close(tensor, shipped[f"pyramid.backbone.{key}"], atol=1e-4, rtol=1e-3)


def test_a_shipped_encoder_is_named_as_the_start(folders, tmp_path):
    rates = {"epochs": 1, "learning_rate": 1e-9, "freeze": True, "anchor": 0.0}
    recipes = [
        TrainingRecipe(**SMALL | rates | {"backbone": "resnet18", "init": init}, folders=folders)
        for init in ("resnet18_parts", str(weights_folder() / "resnet18_parts.safetensors"))
    ]
    by_name, by_file = (train(recipe, tmp_path / str(n)).encoder.pyramid for n, recipe in enumerate(recipes))
    assert by_name.sha256() == by_file.sha256()
    with pytest.raises(WeightsError, match=r"resnet81_parts does not exist\. Did you mean 'resnet18_parts'"):
        train(dataclasses.replace(recipes[0], init="resnet81_parts"), tmp_path / "none")
    with pytest.raises(WeightsError, match=r"weights of resnet18, got lite0_parts, which is a tf_efficientnet_lite0"):
        train(dataclasses.replace(recipes[0], init="lite0_parts"), tmp_path / "none")
    # As they ship, the recipes start without a network.
    assert read_recipe(Path(siamese.__file__).parent / "recipes" / "tuned.yaml", TrainingRecipe).init == "lite0_parts"
    shipped = read_recipe(Path(siamese.__file__).parent / "recipes" / "siamese.yaml", TrainingRecipe)
    assert shipped.init == "resnet18_parts"


def test_a_download_that_fails_names_the_option_that_train_has(folders, tmp_path, monkeypatch):
    create = timm.create_model

    def offline(*args, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no route to host")
        return create(*args, **kwargs)

    monkeypatch.setattr("fewshot_ad.encoder.pyramid.timm.create_model", offline)
    recipe = TrainingRecipe(**SMALL | {"init": "timm", "backbone": "resnet18"}, folders=folders, licenses=("CC0-1.0",))
    with pytest.raises(WeightsError, match="init=FILE"):
        train(recipe, tmp_path / "run", allow_download=True)


def test_a_trained_encoder_ships_and_inspects(folders, tmp_path):
    recipe = TrainingRecipe(**SMALL, folders=folders, licenses=("CC0-1.0",))
    trained = train(recipe, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"simsiam", "margin", "anchor", "spread", "eta_s", "learning_rate"} <= set(lines[0])
    assert trained.data == (
        {"name": "gear", "images": 6, "license": "CC0-1.0"},
        {"name": "washer", "images": 6, "license": "CC0-1.0"},
    )
    images = sorted((tmp_path / "data" / "gear" / "train" / "good").iterdir())
    card = publish(
        trained.encoder,
        tmp_path / "run",
        "tiny",
        recipe=recipe,
        data=trained.data,
        initialization="EfficientNet-Lite0 (Apache-2.0)",
        license="Apache-2.0",
        source="a test",
        images=images,
    )
    assert str(tmp_path) not in (tmp_path / "run" / "tiny.json").read_text()
    report = json.loads((tmp_path / "run" / "tiny.parity").read_text())
    assert report["decision_flips"] == {"openvino": 0, "onnxruntime": 0}
    name = str(tmp_path / "run" / "tiny.json")
    scores = []
    for engine in ("openvino", "onnxruntime", "torch"):
        inspector = Inspector.from_support(images[:4], encoder=name, engine=engine, image_size=64, views="none")
        scores.append(inspector.inspect(images[5]).score)
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-3)
    inspector.save(tmp_path / "gear.fsad")
    loaded = Inspector.load(tmp_path / "gear.fsad", encoder=name)
    assert loaded.inspect(images[5]).score == pytest.approx(scores[0], rel=1e-3)
    assert card.data == trained.data


def test_an_encoder_in_half_precision_takes_half_the_size_and_is_the_same_on_all_engines(folders, tmp_path):
    recipe = TrainingRecipe(**FAST_TO_EXPORT, folders=folders)
    trained = train(recipe, tmp_path / "run")
    about = {"recipe": recipe, "data": trained.data, "initialization": "", "license": "Apache-2.0", "source": "a test"}
    # Few images, of 64 pixels: the engines are compared on larger ones where encoders ship.
    about["images"] = sorted((tmp_path / "data" / "gear" / "train" / "good").iterdir())
    single = {name: tensor.clone() for name, tensor in trained.encoder.state_dict().items()}
    publish(trained.encoder.half(), tmp_path / "half", "own", **about)
    half = tmp_path / "half" / "own.safetensors"
    assert half.stat().st_size < 0.55 * sum(tensor.nbytes for tensor in single.values())
    image = render("gear", 0, 64)
    name = str(tmp_path / "half" / "own.json")
    first, *others = (load_encoder(name, engine=e).encode(image)[0] for e in ("openvino", "onnxruntime", "torch"))
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-4 * np.abs(first).max())
    rounded = {name: tensor.float() for name, tensor in safetensors.torch.load_file(half).items() if name in single}
    assert len(rounded) > 60
    for name, tensor in rounded.items():
        torch.testing.assert_close(tensor, single[name].float(), rtol=1e-3, atol=1e-4)
    # Such a file starts a training, too.
    init = {"init": str(half)}
    report = json.loads(half.with_suffix(".parity").read_text())
    assert max(report["feature_difference"].values()) < 5e-5
    assert train(TrainingRecipe(**FAST_TO_EXPORT | init, folders=folders), tmp_path / "again") is not None


def test_the_backbone_has_a_rate_and_statistics_of_its_own(folders, tmp_path):
    file = str(weights_folder() / "resnet18_parts.safetensors")
    settings = SMALL | {"backbone": "resnet18", "init": file, "epochs": 1, "learning_rate": 1e-3}
    before = safetensors.torch.load_file(file)

    def moved(name, **changes):
        trained = train(TrainingRecipe(**settings | changes, folders=folders), tmp_path / name)
        after = trained.encoder.pyramid.backbone.state_dict()
        pairs = {k: (after[k].float(), before[f"pyramid.backbone.{k}"].float()) for k in after}
        return {
            "weights": max(float((a - b).abs().max()) for k, (a, b) in pairs.items() if k.endswith("conv1.weight")),
            "statistics": max(float((a - b).abs().max()) for k, (a, b) in pairs.items() if "running_mean" in k),
        }

    plain, kept = moved("plain"), moved("kept", freeze_statistics=True, backbone_rate=1e-6)
    assert plain["statistics"] > 0 == kept["statistics"]
    assert 0 < kept["weights"] < 0.1 * plain["weights"]


class KilledError(Exception):
    pass


def test_a_category_is_left_out(folders, tmp_path):
    recipe = TrainingRecipe(**SMALL | {"epochs": 1, "generated": 1, "generated_images": 2}, folders=(*folders, "parts"))
    with pytest.raises(TrainingError, match=r"leave_out: .*'gearr'.*gear"):
        train(dataclasses.replace(recipe, leave_out=("gearr",)), tmp_path / "run")
    with pytest.raises(TrainingError, match="all of them in leave_out"):
        train(dataclasses.replace(recipe, folders=folders, leave_out=("gear", "washer")), tmp_path / "run")
    # In the folders as well as among the generated ones.
    pairs = Pairs(dataclasses.replace(recipe, leave_out=("gear",)), Workers(0, 1, torch.device("cpu")))
    assert [(d["name"], d["images"]) for d in pairs.data] == [
        ("washer", 6),
        ("generated parts", 2 * (len(generated_categories()) - 1)),
    ]


def test_warmup_and_the_rate_of_the_predictor(folders, tmp_path):
    recipe = TrainingRecipe(**SMALL | {"epochs": 3, "simsiam": 1.0, "freeze": True}, folders=folders)
    rates, predictors = {}, {}
    for name, changes in {"plain": {}, "constant P": {"predictor_rate": 0.5}, "warm-up": {"warmup": 8}}.items():
        trained = train(dataclasses.replace(recipe, learning_rate=1e-3, **changes), tmp_path / name)
        lines = [json.loads(line) for line in (tmp_path / name / LOG).read_text().splitlines()]
        rates[name] = [line["learning_rate"] for line in lines]
        predictors[name] = trained.encoder.P[0].weight
    assert rates["plain"] == sorted(rates["plain"], reverse=True)
    # Of all weights but P's, which stay at their own rate: the log has the former.
    assert rates["constant P"] == rates["plain"]
    assert rates["warm-up"][:2] == sorted(rates["warm-up"][:2])
    assert not torch.allclose(predictors["plain"], predictors["constant P"], atol=1e-2)


def test_a_killed_run_goes_on_to_the_same_result(folders, tmp_path):
    recipe = TrainingRecipe(**SMALL, folders=folders)
    whole = train(recipe, tmp_path / "whole")

    def kill(stage, done, total):
        if done == 5:
            raise KilledError

    with pytest.raises(KilledError):
        train(recipe, tmp_path / "torn", progress=kill)
    resumed = train(recipe, tmp_path / "torn")
    for (name, tensor), (_, expected) in zip(
        resumed.encoder.state_dict().items(), whole.encoder.state_dict().items(), strict=True
    ):
        assert torch.allclose(tensor.float(), expected.float(), atol=1e-4), name
    assert len((tmp_path / "torn" / LOG).read_text().splitlines()) == 2


def test_a_frozen_backbone_stays_as_it_was(folders, tmp_path):
    from fewshot_ad.encoder.pyramid import load_pyramid

    recipe = TrainingRecipe(**{**SMALL, "freeze": True, "epochs": 1, "learning_rate": 0.1}, folders=folders)
    trained = train(recipe, tmp_path / "run")
    assert trained.encoder.pyramid.sha256() == load_pyramid("tf_efficientnet_lite0", None, (1, 2, 3)).sha256()
    assert trained.encoder.E[0].weight.abs().max() > 0


def test_a_collapse_stops_the_run(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(siamese, "COLLAPSED", 5.0)
    with pytest.raises(TrainingError, match="collapse in epoch 1"):
        train(TrainingRecipe(**SMALL, folders=folders), tmp_path / "run")


def test_a_coming_collapse_is_announced(folders, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(siamese, "COLLAPSE_WARNING", 5.0)
    train(TrainingRecipe(**{**SMALL, "epochs": 1}, folders=folders), tmp_path / "run")
    assert "a collapse may come" in caplog.text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"freeze": True, "backbone_rate": 1e-4}, "with freeze=true"),
        ({"freeze": True, "freeze_statistics": True}, "with freeze=true"),
        ({"simsiam": 0.0, "predictor_rate": 1e-2}, "simsiam above 0 with a predictor_rate"),
        ({"learning_rate": float("nan")}, "learning_rate above 0, got nan"),
        ({"warmup": -1}, "warmup of at least 0"),
        ({"generated": 0}, "generated of at least 1, got 0"),
        ({"generated_images": 1}, "generated_images of at least 2, got 1"),
        ({"seed": -1}, "seed of at least 0, got -1"),
        ({"photometric": -1.0}, "photometric of at least 0"),
        ({"rotation": 9999.0}, r"rotation in 0\.\.180"),
        ({"momentum": 5.0}, r"momentum in 0\.\.1"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(changes, says):
    with pytest.raises(TrainingError, match=says):
        TrainingRecipe(**SMALL | changes)


def test_a_warmup_that_never_ends_is_refused(folders, tmp_path):
    recipe = TrainingRecipe(**SMALL | {"epochs": 1, "warmup": 3, "freeze": True}, folders=folders)
    with pytest.raises(TrainingError, match=r"fewer steps than the run has \(3\), got 3"):
        train(recipe, tmp_path / "run")


def test_content_is_what_an_embedding_tells_besides_the_place():
    torch.manual_seed(0)
    images = torch.randn(8, 16, 5, 5)
    place = torch.randn(1, 16, 5, 5).expand(8, -1, -1, -1)
    assert siamese_encoder.content(images) == pytest.approx(1, abs=0.1)
    assert siamese_encoder.content(place) == pytest.approx(0, abs=1e-3)
    assert 0.2 < siamese_encoder.content(images + place) < 0.8
    assert siamese_encoder.content(torch.ones(4, 8, 2, 2)) == 0


def test_an_export_whose_scores_are_no_numbers_is_refused_in_words(folders, tmp_path, monkeypatch):
    recipe = TrainingRecipe(**FAST_TO_EXPORT, folders=folders)
    trained = train(recipe, tmp_path / "run")
    monkeypatch.setattr("fewshot_ad.training.parity.relative_difference", lambda *_: float("nan"))
    about = {"initialization": "a test", "license": "unknown", "source": "a test"}
    about["images"] = sorted((tmp_path / "data" / "gear" / "train" / "good").iterdir())
    with pytest.raises(WeightsError, match="does not agree with torch"):
        publish(trained.encoder, tmp_path / "out", "mine", recipe=recipe, data=trained.data, **about)
    assert not (tmp_path / "out" / "mine.json").exists()


def test_a_category_with_one_image_is_refused(tmp_path):
    folder = tmp_path / "nut"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(TrainingError, match="at least 2 images"):
        train(TrainingRecipe(**SMALL, folders=(str(folder),)), tmp_path / "run")


def test_out_of_memory_is_explained(folders, tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(siamese, "_fit", full)
    with pytest.raises(TrainingError, match="Halve `batch`"):
        train(TrainingRecipe(**SMALL, folders=folders), tmp_path / "run")


def test_accumulation_changes_nothing_but_memory(folders, tmp_path):
    """With batch norm in evaluation (frozen), parts of a batch sum to the batch."""
    plain = {**SMALL, "freeze": True, "epochs": 1, "margin": 0.0, "anchor": 0.0, "group": 1, "registration": None}
    one = train(TrainingRecipe(**plain, folders=folders), tmp_path / "one")
    two = train(TrainingRecipe(**{**plain, "accumulate": 2}, folders=folders), tmp_path / "two")
    for a, b in zip(one.encoder.E.parameters(), two.encoder.E.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_the_margin_loss_falls_when_defects_stand_out():
    torch.manual_seed(0)
    bank, clean = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 8, 8)
    painted = torch.zeros(2, 8, 8)
    painted[:, 2:4, 2:4] = 1
    hidden = clean.clone()
    distinct = clean + 20 * painted[:, None]
    assert margin_loss(bank, clean, distinct, painted, 0) < 0.2 * margin_loss(bank, clean, hidden, painted, 0)
    assert margin_loss(bank, clean, hidden, torch.zeros(2, 8, 8), 0) == 0


def test_the_equivariance_loss_is_zero_for_a_pose_that_follows_and_not_for_one_that_stays():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    image = torch.exp(-((x - 0.2) ** 2 + y**2) / 0.02) + 0.5 * torch.exp(-((x + 0.2) ** 2 + (y - 0.1) ** 2) / 0.02)
    images = image.expand(3, 3, 64, 64).contiguous()

    class Following:
        """Reads the pose off the pixels: from the middle of the large blob to that of the small one."""

        def registered(self, images):
            weight = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
            a = torch.stack([(weight**3 * v).sum((1, 2)) / (weight**3).sum((1, 2)) for v in (x, y)], 1)
            b = torch.stack([(weight * v).sum((1, 2)) for v in (x, y)], 1)
            d = b - a
            rows = torch.stack([d[:, 0], -d[:, 1], a[:, 0], d[:, 1], d[:, 0], a[:, 1]], 1)
            return [images], [rows.view(-1, 2, 3)]

    class Staying:
        def registered(self, images):
            return [images], [torch.eye(2, 3).expand(len(images), 2, 3)]

    losses = [
        float(equivariance_loss(one, images, one.registered(images)[1][-1], seed=1)) for one in (Following(), Staying())
    ]
    assert losses[0] < 1e-3
    assert losses[1] > 0.02


def test_transformers_that_are_trained_by_known_warps_follow_them(folders, tmp_path):
    recipe = TrainingRecipe(
        **SMALL
        | {"simsiam": 0.0, "margin": 0.0, "anchor": 0.0, "equivariance": 1.0, "freeze": True, "epochs": 12}
        | {"optimizer": "adamw", "learning_rate": 3e-3, "registration": "rotation+translation+scale"},
        folders=folders,
    )
    train(recipe, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    assert lines[-1]["equivariance"] < 0.9 * lines[0]["equivariance"]


def test_drawn_defects_come_with_their_mask():
    image = np.full((96, 96, 3), 120, np.uint8)
    for seed in range(20):
        painted, mask = draw_defects(image, np.random.default_rng(seed))
        assert (painted[~mask].astype(int) - 120).__abs__().max() <= 12
    assert mask.any()


def test_two_processes_train_one_encoder(folders, tmp_path):
    """Through torchrun on the CPU: both hold the same weights, one writes the log."""
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\n"
        "from fewshot_ad.training.recipe import TrainingRecipe\n"
        "from fewshot_ad.training.siamese import train\n"
        f"recipe = TrainingRecipe(**{ ({**SMALL, 'epochs': 1, 'anchor': 0.0})!r}, folders={folders!r})\n"
        f"done = train(recipe, {str(tmp_path / 'run')!r}, device='cpu')\n"
        "print('PUBLISHES' if done else 'HELPS')\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # Both write to one pipe, and may do so at once.
    assert [done.stdout.count(word) for word in ("HELPS", "PUBLISHES")] == [1, 1]
    assert len((tmp_path / "run" / LOG).read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 70}, "multiple of 16"),
        ({"batch": 5}, "multiple of group"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"precision": "f8"}, "precision"),
        ({"simsiam": 0.0, "margin": 0.0, "anchor": 0.0}, "above 0"),
        ({"equivariance": 1.0, "registration": None}, "no transform to train"),
        ({"folders": ()}, "folder"),
        ({"licenses": ("a", "b")}, "license per folder"),
    ],
)
def test_a_senseless_recipe_is_refused(change, message):
    with pytest.raises(TrainingError, match=message):
        TrainingRecipe(**{**SMALL, **change})


def test_pairs_are_brought_into_one_pose(tmp_path):
    first, second = (render("key", seed, 128, variant=90_000, placement="free") for seed in (0, 1))
    turned = in_pose_of(first, second)
    apart, together = (np.abs(first.astype(int) - other)[24:104, 24:104].mean() for other in (second, turned))
    upside_down = np.abs(first.astype(int) - turned[::-1, ::-1])[24:104, 24:104].mean()
    assert min(together, upside_down) < 0.75 * apart
    plain = np.full((64, 64, 3), 90, np.uint8)
    np.testing.assert_array_equal(in_pose_of(plain, plain), plain)
    recipe = TrainingRecipe(**SMALL | {"epochs": 1, "register": True, "generated": 1, "generated_images": 2})
    assert train(recipe, tmp_path / "run") is not None
