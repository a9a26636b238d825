from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402

from fewshot_ad import Inspector, load_encoder  # noqa: E402
from fewshot_ad.encoder.pyramid import Pyramid, lite0_weights_file, load_pyramid  # noqa: E402
from fewshot_ad.encoder.state_dict import read_state_dict  # noqa: E402
from fewshot_ad.encoder.weights import shipped_encoders  # noqa: E402
from fewshot_ad.errors import ArtifactError, WeightsError  # noqa: E402
from tests.robustness.artifact_mutator import put_together, replaced, taken_apart  # noqa: E402


def test_lite0_weights_map_in_order_and_recognize_imagenet_classes() -> None:
    """The mapping is right if timm's classifier, so loaded, names what real images show."""
    data = pytest.importorskip("skimage.data")
    model = timm.create_model("tf_efficientnet_lite0").eval()
    state = read_state_dict(lite0_weights_file())
    assert len(state) == 296
    assert [v.shape for v in state.values()] == [v.shape for v in model.state_dict().values()]
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    from PIL import Image

    # ImageNet classes 281-285 are cats, 967 espresso, 657 missile, 744 projectile, 812 space shuttle.
    expected = {"chelsea": set(range(281, 286)), "coffee": {967}, "rocket": {657, 744, 812}}
    for name, classes in expected.items():
        picture = Image.fromarray(getattr(data, name)())
        with torch.inference_mode():
            top = model(transform(picture)[None]).topk(3).indices[0].tolist()
        assert classes & set(top), (name, top)


def test_the_shipped_onnx_was_made_from_these_weights() -> None:
    card = shipped_encoders()["efficientnet_lite0"]
    assert load_pyramid(card.backbone, stages=card.stages).sha256() == card.source_sha256


@pytest.mark.parametrize(
    ("name", "strides", "channels"),
    [
        ("resnet18", (8, 16), (128, 256)),
        ("convnext_atto", (8, 16), (80, 160)),
        ("vit_small_patch14_dinov2.lvd142m", (14,), (384,)),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_any_timm_model_takes_a_local_file(
    tmp_path: Path, name: str, strides: tuple[int, ...], channels: tuple[int, ...], suffix: str
) -> None:
    torch.manual_seed(0)
    full = timm.create_model(name, pretrained=False).eval()
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(full.state_dict(), path)
    else:
        save_file({k: v.contiguous() for k, v in full.state_dict().items()}, path)
    pyramid = load_pyramid(name, path)
    assert (pyramid.strides, pyramid.channels) == (strides, channels)
    if name.startswith("vit"):
        assert pyramid.stages == (11,)  # the last block, not the last of the few that timm lists
    side = pyramid.multiple * 8
    image = torch.randint(0, 256, (1, side, side + pyramid.multiple, 3), dtype=torch.uint8)
    with torch.inference_mode():
        stages = pyramid(image)
        scaled = (image.permute(0, 3, 1, 2) / 255 - torch.tensor(pyramid.mean).view(1, 3, 1, 1)) / torch.tensor(
            pyramid.std
        ).view(1, 3, 1, 1)
        if name == "resnet18":
            x = full.maxpool(full.act1(full.bn1(full.conv1(scaled))))
            x = full.layer2(full.layer1(x))
            expected = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            torch.testing.assert_close(stages[0], expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
    assert [s.shape[1:3] for s in stages] == [(side // s, side // s + pyramid.multiple // s) for s in strides]


def test_a_timm_encoder_enrolls_saves_and_loads(
    tmp_path: Path, parts: list[np.ndarray], broken_part: np.ndarray
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "resnet18.pth"
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), weights)
    inspector = Inspector.from_support(parts, encoder="resnet18", weights=weights, views="hflip", image_size=128)
    inspector.save(tmp_path / "p.fsad")
    loaded = Inspector.load(tmp_path / "p.fsad", weights=weights)
    assert loaded.inspect(broken_part).score == pytest.approx(inspector.inspect(broken_part).score, rel=1e-5)
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), weights)
    with pytest.raises(Exception, match="sha256"):
        Inspector.load(tmp_path / "p.fsad", weights=weights)


def test_backbones_that_are_no_pyramid_of_any_size_are_refused_or_read_right(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "w.pth"
    torch.save(timm.create_model("swin_tiny_patch4_window7_224", pretrained=False).state_dict(), weights)
    with pytest.raises(WeightsError, match="any input size"):
        load_pyramid("swin_tiny_patch4_window7_224", weights)


def test_a_timm_model_of_a_file_needs_what_the_caller_gives(tmp_path: Path, parts: list[np.ndarray]) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "resnet18.pth"
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), weights)
    path = tmp_path / "p.fsad"
    Inspector.from_support(parts[:3], encoder="resnet18", weights=weights, views="none", image_size=128).save(path)
    with pytest.raises(ArtifactError, match=r"enrolled with the encoder 'resnet18' .*Pass it: encoder=CARD.json"):
        Inspector.load(path)
    assert Inspector.load(path, encoder="resnet18", weights=weights).encoder.spec.name == "resnet18"
    # The hash says what the tensors are, not what is computed with them.
    with pytest.raises(ArtifactError, match=r"name 'resnet18' there, 'resnet18\.a1_in1k' here"):
        Inspector.load(path, encoder="resnet18.a1_in1k", weights=weights)
    header, record, tensors = taken_apart(path.read_bytes())
    path.write_bytes(put_together(header, replaced(record, ("encoder", "name"), "vit_giant_patch14_dinov2"), tensors))
    with pytest.raises(WeightsError, match=r"do not fit: 116,\d{3},\d{3} values are needed, the file has 11,"):
        Inspector.load(path, weights=weights)


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "hf_hub:timm/resnet18", "local-dir:.", "http://a/b"])
def test_names_that_timm_would_look_up_elsewhere_are_refused_before_it_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not(*_: object, **__: object) -> None:
        raise AssertionError("timm was asked")

    (tmp_path / "w.pth").write_bytes(b"")
    monkeypatch.setattr(timm, "create_model", must_not)
    monkeypatch.setattr("socket.socket", must_not)
    with pytest.raises(WeightsError, match=r"needs allow_download=True"):
        load_encoder(name, weights=tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"needs allow_download=True"):
        Pyramid(name)


def test_a_slip_in_a_name_is_met_with_the_nearest() -> None:
    with pytest.raises(WeightsError, match=r"Did you mean 'lite0_parts'\?"):
        load_encoder("lite0_prats")
    with pytest.raises(WeightsError, match=r"Did you mean 'lite0_parts'\?"):
        load_encoder("lite0-parts")
    with pytest.raises(WeightsError, match=r"Did you mean 'resnet18'\?"):
        load_encoder("resnet81")


def test_without_weights_both_ways_out_are_named() -> None:
    with pytest.raises(WeightsError, match=r"weights=FILE.*allow_download=True"):
        load_encoder("resnet18")


def test_a_download_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = timm.create_model

    def offline(*args, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no internet")
        return real(*args, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match="could not download"):
        load_encoder("resnet18", allow_download=True)


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(timm.create_model("resnet34", pretrained=False).state_dict(), path)
    with pytest.raises(WeightsError, match="do not fit"):
        load_encoder("resnet50", weights=path)
    path.write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="got something else"):
        load_encoder("resnet18", weights=path)
    with pytest.raises(WeightsError, match="does not exist"):
        load_encoder("resnet18", weights=tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="list_models"):
        load_encoder("resnet_of_nowhere", weights=path)
    with pytest.raises(WeightsError, match=r"stages among 0\.\.4"):
        Pyramid("resnet18", (9,))


class Exploit:
    def __reduce__(self):
        return (print, ("code was executed",))


def test_a_pickle_in_a_weights_file_is_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"conv1.weight": Exploit()}, path)
    with pytest.raises(WeightsError, match="plain tensors"):
        load_encoder("resnet18", weights=path)
    assert "executed" not in capsys.readouterr().out


def test_nobody_is_advised_to_run_what_is_in_a_file_of_weights(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(WeightsError, match=r"expected a \.safetensors file or a .pth state dict") as caught:
        read_state_dict(tmp_path / "w.pth")
    assert "weights_only" not in str(caught.value)
