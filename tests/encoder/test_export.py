from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from fewshot_ad.encoder.engine import OpenVINOEngine, TorchEngine
from fewshot_ad.encoder.export import export_lite0
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
