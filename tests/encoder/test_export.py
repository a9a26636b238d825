from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from onnx import helper, numpy_helper

from fewshot_ad.encoder.engine import OpenVINOEngine, TorchEngine
from fewshot_ad.encoder.export import export_lite0, halve_constants
from fewshot_ad.encoder.pyramid import load_pyramid


def test_export_gives_the_network_and_a_card(tmp_path: Path) -> None:
    card = export_lite0(tmp_path, stages=(2, 3))
    pyramid = load_pyramid("tf_efficientnet_lite0", stages=(2, 3))
    engine = OpenVINOEngine(tmp_path / card.file, ["stage2", "stage3"], "f32", None)
    picture = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    for ours, theirs in zip(engine.run(picture), TorchEngine(pyramid, "f32", None).run(picture), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert (tmp_path / "efficientnet_lite0.json").exists()
    assert card.source_sha256 == pyramid.sha256()
    assert str(tmp_path).encode() not in (tmp_path / card.file).read_bytes()


def test_constants_are_stored_in_half_the_size_where_no_value_changes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    halved = rng.normal(size=(64, 64)).astype(np.float16).astype(np.float32)
    exact = rng.normal(size=(64, 64)).astype(np.float32)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "halved"], ["y"]), helper.make_node("MatMul", ["y", "exact"], ["z"])],
            "two",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64])],
            [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 64])],
            [numpy_helper.from_array(halved, "halved"), numpy_helper.from_array(exact, "exact")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    for path in (before, after):
        onnx.save(model, path)
    halve_constants(after)
    onnx.checker.check_model(onnx.load(after))
    assert before.stat().st_size - after.stat().st_size > 1.9 * halved.size
    x = rng.normal(size=(1, 64)).astype(np.float32)
    results = [onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0] for path in (before, after)]
    np.testing.assert_array_equal(*results)
