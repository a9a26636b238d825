"""The configuration that a method was published with, and in what a run departs from it."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import timm
import torch

from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo import cards, create, differences, options, published_options
from fewshot_ad.zoo.components.tensors import Backbone

CARDS = cards()
# Those whose weights neither ship nor come with a requirement: their figures would mean nothing.
WITHOUT_WEIGHTS = (
    *("anomaly_dino", "dinomaly", "inp_former", "general_ad", "l2bt", "foundad", "rad", "super_add", "winclip"),
    *("vfm", "uninet"),
)


@pytest.mark.parametrize("name", CARDS)
def test_the_published_configuration_is_one_of_the_baselines_own_options(name: str) -> None:
    card = CARDS[name]
    published = published_options(name)
    assert set(card.original.options) <= set(options(name)) == set(published)
    # What is the default anyway is no deviation, and must not be told as one.
    assert all(options(name)[option] != value for option, value in card.original.options.items())


@pytest.mark.parametrize("name", CARDS)
def test_with_the_published_options_and_weights_only_what_no_option_changes_differs(name: str) -> None:
    settings: dict[str, Any] = dict(published_options(name))
    for option in ("weights", "teacher_weights", "latent_weights", "detector", *CARDS[name].original.unless):
        if option in settings:
            settings[option] = "file.safetensors"
    original = CARDS[name].original
    lengths = tuple(f"{option} {settings[option]} (published: {text})" for option, text in original.lengths.items())
    assert differences(name, settings) == (*lengths, *original.departs)


def test_every_kind_of_departure_is_told() -> None:
    assert differences("anomalib_stfpm", {"epochs": 40}) == (
        "weights distilled by this package (published: ImageNet)",
        "epochs 40 (published: 100)",
    )
    assert differences("anomalib_cflow", {})[2] == "stages 1/2/3 (published: 2/3/4)"
    assert "random, so the figures mean nothing" in differences("padim", {"weights": "random"})[0]
    # EfficientNet-Lite0 has ImageNet's weights, so that the backbone alone differs.
    assert differences("anomalib_patchflow", {}) == ("backbone lite0 (published: tf_efficientnet_b5)",)
    # Lists of YAML are the tuples of Python; how fast a bank is filled changes nothing.
    assert differences("anomalib_padim", {"stages": [1, 2, 3], "weights": "file", "batch_size": 1}) == (
        "the whole image, no center crop",
    )
    # A file that its own distillation has left, or that the published configuration asks for.
    assert differences("efficientad_cdo", {"teacher": "pdn.safetensors"}) == differences("efficientad_cdo", {})
    published = {"proposals": "rcnn", "detector": "detector.pth", "weights": "resnet.safetensors"}
    assert differences("rkde", published) == CARDS["rkde"].original.departs
    # ImageNet's weights of its features are not the published detector's.
    assert "(published: Faster R-CNN on Visual Genome)" in differences("rkde", {"weights": "timm"})[0]
    # Both sizes of EfficientAD were published; the pictures are ImageNet's as far as the user has these.
    assert not any("size M" in text for text in differences("efficientad_cdo", {"size": "M"}))
    own = differences("efficientad_cdo", {"picture_folder": "imagenet"})
    assert set(differences("efficientad_cdo", {})) - set(own) == {"generated images in place of ImageNet"}
    with pytest.raises(ZooError, match="telepathy"):
        differences("telepathy", {})


@pytest.mark.skipif(importlib.util.find_spec("anomalib") is None, reason="NO ANOMALIB")
@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_a_method_without_weights_is_refused_unless_random_ones_are_asked_for(name: str) -> None:
    name = f"anomalib_{name}"
    with pytest.raises(WeightsError, match=r"expected weights, which are not at hand.*weights=FILE.*weights='random'"):
        create(name)
    create(name, weights="random")
    assert "figures mean nothing" in differences(name, {"weights": "random"})[0]
    assert differences(name, {})[0].startswith("weights not at hand (published: ")


@pytest.mark.skipif(importlib.util.find_spec("anomalib") is None, reason="NO ANOMALIB")
def test_no_backbone_is_advised_that_does_not_fit() -> None:
    with pytest.raises(ZooError, match="wide_resnet50_2 or resnet50 as backbone, got 'resnet18'"):
        create("anomalib_uninet", backbone="resnet18", weights="random")
    with pytest.raises(WeightsError) as refused:
        create("anomalib_uninet")
    assert "resnet18" not in str(refused.value)


def test_the_published_configuration_asks_for_its_weights() -> None:
    with pytest.raises(WeightsError, match=r"published weights \(ImageNet\).*weights=FILE, or weights='timm'"):
        create("patchcore", published=True)
    with pytest.raises(
        WeightsError, match=r"Visual Genome.*Give weights=FILE, or weights='timm'.*, and detector=FILE\.$"
    ):
        create("rkde", published=True)
    with pytest.raises(WeightsError, match=r"detector=FILE\.$"):
        create("rkde", published=True, weights="random")
    create("rkde", published=True, weights="random", proposals="edges")
    # No detector of ultralytics is timm's.
    with pytest.raises(WeightsError, match=r"published weights \(COCO\).*Give weights=FILE\.$"):
        create("yolov8", published=True)
    method: Any = create("patchcore", published=True, weights="random", coreset_ratio=0.5)
    assert (method.backbone, method.views, method.coreset_ratio) == ("wide_resnet50_2", "none", 0.5)
    with pytest.raises(WeightsError, match=r"published weights \(on ImageNet\).*latent_weights=FILE\.$"):
        create("anomalib_dsr", published=True)


def test_weights_are_fetched_with_permission_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="allow_download=True"):
        create("padim", weights="timm")
    plain, asked = timm.create_model, []

    def hub(model: str, pretrained: bool = False, **arguments: Any) -> torch.nn.Module:
        if pretrained:
            asked.append(model)
        return plain(model, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", hub)
    create("padim", weights="timm", allow_download=True)
    assert asked == ["resnet18"]

    def unreachable(model: str, pretrained: bool = False, **arguments: Any) -> torch.nn.Module:
        if pretrained:
            raise OSError("no route to host")
        return plain(model, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(WeightsError, match="could not fetch the weights"):
        Backbone("resnet18", (1, 2), "timm")


def test_random_weights_of_any_network_are_told() -> None:
    def is_random(name: str, **settings: Any) -> bool:
        return any("figures mean nothing" in text for text in differences(name, settings))

    assert is_random("anomalib_cfm", weights="vit.safetensors", points_weights="random")
    assert not is_random("anomalib_cfm", weights="vit.safetensors", points_weights="pretrain.pth")
    assert is_random("rkde", proposals="rcnn", detector="random")
    assert is_random("rkde", proposals="rpn")
    assert not is_random("rkde", proposals="rcnn", detector="rcnn.pth")
    # A detector learns from the boxes: that it starts from random weights is no more than its default.
    assert differences("yolov8", {"weights": "random"}) == differences("yolov8", {})


def test_a_length_that_was_published_in_epochs_is_no_published_number_of_steps() -> None:
    assert "steps 150 (published: 1000 epochs)" in differences("uniad", {"steps": 150})
    assert "steps 300 (published: 1000 epochs)" in differences("uniad", {})
    assert not any("steps" in text for text in differences("efficientad_cdo", {}))


def test_what_differs_is_of_what_runs() -> None:
    assert "starts from distilled weights" in differences("nsa", {})
    assert "starts from distilled weights" not in differences("nsa", {"weights": "random"})
    assert differences("tdg", {})
    assert any(text.startswith("pictures 1000") for text in differences("efficientad_cdo", {"picture_folder": "x"}))


def test_cards_hold_sentences() -> None:
    """A text where a tuple of texts is meant would be one sentence for each letter."""
    for card in cards().values():
        assert isinstance(card.original.departs, tuple), card.name
        assert set(card.original.lengths) <= set(options(card.name)), card.name
