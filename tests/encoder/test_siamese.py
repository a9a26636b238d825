import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.encoder.pyramid import Pyramid, load_pyramid
from fewshot_ad.encoder.siamese import (
    Architecture,
    SiameseEncoder,
    load_siamese,
    negative_cosine,
    split_stages,
    spread,
    three_stages,
)
from fewshot_ad.encoder.weights import WeightsCard, shipped_encoders
from fewshot_ad.errors import WeightsError

BACKBONES = ["resnet18", "convnext_atto", "tf_efficientnet_lite0", "mobilenetv3_small_100", "regnetx_002"]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("mode", [None, "rotation+scale"])
def test_an_untrained_registration_changes_no_feature(backbone, mode):
    torch.manual_seed(0)
    pyramid = Pyramid(backbone, three_stages(backbone))
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        features, embedding = SiameseEncoder(Architecture(backbone, mode), pyramid).eval().upright(images)
        plain = pyramid.raw(images)
    for got, wanted in zip(features, plain, strict=True):
        assert torch.allclose(got, wanted, atol=1e-3)
    assert embedding.shape == (2, pyramid.channels[-1], 4, 6)


def test_a_registered_encoder_keeps_the_images_coordinates():
    """Where a spot stands out in the image, the features brought back stand out too."""
    torch.manual_seed(0)
    pyramid = load_pyramid("tf_efficientnet_lite0", None, (1, 2, 3))
    encoder = SiameseEncoder(Architecture("tf_efficientnet_lite0", "rotation+scale", "fused", 1, True), pyramid).eval()
    with torch.no_grad():
        for transformer, angle in zip(encoder.registration, (0.4, -0.2, 0.3), strict=True):
            transformer.regression[-1].bias[0] = angle
        plain = torch.full((1, 3, 256, 256), 0.5)
        spotted = plain.clone()
        spotted[:, :, 60:76, 160:176] = 1.0
        for before, after in zip(_maps(encoder, plain), _maps(encoder, spotted), strict=True):
            change = (after - before).norm(dim=1)[0]
            stride = 256 / change.shape[0]
            row, column = np.unravel_index(int(change.argmax()), change.shape)
            assert abs((row + 0.5) * stride - 68) < 1.5 * stride + 4
            assert abs((column + 0.5) * stride - 168) < 1.5 * stride + 4


def _maps(encoder, images):
    features, embedding = encoder.upright(images)
    return [*features, embedding]


def test_a_residual_projection_starts_as_the_identity():
    pyramid = load_pyramid("tf_efficientnet_lite0", None, (1, 2, 3))
    encoder = SiameseEncoder(Architecture("tf_efficientnet_lite0", None, "fused", 1, True), pyramid).eval()
    image = torch.randint(0, 255, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        _, middle, deep, embedding = encoder(image)
    for part in (middle, deep):
        part /= part.norm(dim=-1, keepdim=True) ** 0.75
    deep = F.interpolate(deep.permute(0, 3, 1, 2), (8, 8), mode="bilinear").permute(0, 2, 3, 1)
    assert torch.allclose(embedding, torch.cat([middle, deep], -1), atol=1e-3)


def test_simsiam_agrees_with_its_equation():
    torch.manual_seed(0)
    encoder = SiameseEncoder(Architecture("resnet18", None)).eval()
    first, second = torch.rand(3, 3, 64, 64), torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        z1, z2 = (encoder.embedding(*encoder.registered(x)) for x in (first, second))
        p1, p2 = encoder.P(z1).numpy(), encoder.P(z2).numpy()

    def cosine(a, b):
        return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))

    wanted = -0.5 * cosine(p1, z2.numpy()).mean() - 0.5 * cosine(p2, z1.numpy()).mean()
    assert encoder.simsiam(first, second).item() == pytest.approx(wanted, abs=1e-4)


def test_no_gradient_flows_into_the_branch_without_predictor():
    predicted, target = (torch.rand(1, 4, 2, 2, requires_grad=True) for _ in range(2))
    negative_cosine(predicted, target).backward()
    assert predicted.grad is not None
    assert target.grad is None


def test_spread_tells_an_even_embedding_from_a_collapsed_one():
    torch.manual_seed(0)
    assert spread(torch.randn(8, 64, 8, 8)) == pytest.approx(1, abs=0.05)
    assert spread(torch.ones(8, 64, 8, 8) + 0.01 * torch.randn(8, 64, 8, 8)) < 0.05


def test_a_backbone_without_three_stages_is_refused():
    with pytest.raises(WeightsError, match="strides"):
        three_stages("vit_tiny_patch16_224")


def test_a_backbone_that_is_no_sequence_is_refused():
    with pytest.raises(WeightsError, match="stage by stage"):
        split_stages(Pyramid("hrnet_w18_small"))


def _card(tensors, architecture):
    lite0 = shipped_encoders()["efficientnet_lite0"]
    return dataclasses.replace(
        lite0,
        architecture=dataclasses.asdict(architecture),
        tensors=tensors.name,
        tensors_sha256=hashlib.sha256(tensors.read_bytes()).hexdigest(),
    )


def test_a_stored_encoder_gives_the_same_embedding(tmp_path):
    torch.manual_seed(0)
    architecture = Architecture("resnet18", "affine")
    encoder = SiameseEncoder(architecture).eval()
    tensors = tmp_path / "encoder.safetensors"
    save_file({k: v for k, v in encoder.state_dict().items() if not k.startswith("P.")}, tensors)
    card = _card(tensors, architecture)
    image = torch.randint(0, 255, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        (got,) = load_siamese(card, tensors, (4,))(image)
        assert torch.equal(got, encoder(image)[-1])


def test_a_kept_share_mixes_initial_and_trained_distances():
    torch.manual_seed(0)
    encoder = SiameseEncoder(Architecture("resnet18", None, "last", 1, True)).double().eval()
    torch.nn.init.normal_(encoder.E[0].weight, std=0.05)
    torch.nn.init.normal_(encoder.E[0].bias)
    x, y = torch.randn(2, 9, encoder.channels, 1, 1, dtype=torch.float64)

    def squared(a, b):
        return (a - b).pow(2).sum((1, 2, 3))

    with torch.no_grad():
        wanted = 0.3 * squared(x, y) + 0.7 * squared(encoder._project(x), encoder._project(y))
        encoder.keep_initial(0.3)
        assert torch.allclose(squared(encoder._project(x), encoder._project(y)), wanted)


def test_only_a_linear_map_can_keep_a_share():
    with pytest.raises(WeightsError, match="one layer"):
        SiameseEncoder(Architecture("resnet18", None)).keep_initial(0.3)


def test_tensors_of_another_architecture_are_refused(tmp_path):
    tensors = tmp_path / "encoder.safetensors"
    save_file(SiameseEncoder(Architecture("resnet18", None)).state_dict(), tensors)
    with pytest.raises(WeightsError, match="do not fit"):
        load_siamese(_card(tensors, Architecture("resnet18", "affine")), tensors, (4,))


def test_a_card_survives_its_file(tmp_path):
    card = dataclasses.replace(
        shipped_encoders()["efficientnet_lite0"], data=({"name": "a", "images": 3, "license": "CC0-1.0"},)
    )
    card.write(tmp_path / "card.json")
    assert WeightsCard.read(tmp_path / "card.json") == card
