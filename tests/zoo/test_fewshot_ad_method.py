from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.encoder import Encoder
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo import create
from tests.conftest import make_part

SETTINGS = {"image_size": 128, "views": "hflip,vflip", "threads": 1}


def test_says_what_the_inspector_says(parts: list[np.ndarray], broken_part: np.ndarray, encoder: Encoder) -> None:
    method = create("fewshot_ad", seed=5, **SETTINGS)
    method.fit(parts)
    images = [make_part(50), broken_part, make_part(51, size=160)[:, :140]]
    predictions = method.predict(images)
    inspector = Inspector.from_support(parts, encoder=encoder, seed=5, views="hflip,vflip", image_size=128)
    inspections = [inspector.inspect(image) for image in images]
    np.testing.assert_allclose(predictions.scores, [i.score for i in inspections], rtol=1e-3)
    assert predictions.rejected is not None
    assert predictions.rejected.tolist() == [i.is_anomalous for i in inspections]
    assert predictions.rejected[1]
    assert predictions.scores[1] > 1.5 * predictions.scores[0]
    assert predictions.maps is not None
    for heat, inspection in zip(predictions.maps, inspections, strict=True):
        np.testing.assert_allclose(heat, inspection.anomaly_map, rtol=1e-2, atol=1e-3)
    y, x = np.unravel_index(int(predictions.maps[1].argmax()), (128, 128))
    assert np.hypot(y - 64, x - 96) < 16


def test_budget_shows_in_the_size(parts: list[np.ndarray]) -> None:
    sizes = []
    for budget in (50, 150):
        method = create("fewshot_ad", budget=budget, **SETTINGS)
        method.fit(parts)
        dims = method._inspector.encoder.spec.dims[0]  # type: ignore[attr-defined]
        sizes.append(method.model_bytes())
    assert sizes[1] - sizes[0] == 100 * dims * 2


@pytest.mark.parametrize(
    "options",
    [
        {"metric": "cosine", "sigma": 2.0, "edge_weight": 1.0},
        {"image_score": "reweighted", "neighbors": 3},
        {"top_fraction": 0.1, "max_patches": 50, "norm_power": 0.5, "encoder": "efficientnet_lite0"},
        {"stages": [1, 2], "fusion": "separate", "encoder": "efficientnet_lite0"},
        {"max_ms": 1000.0, "image_size": None},
        {"engine": "onnxruntime", "device": "cpu", "keep_outliers": True},
    ],
)
def test_every_scoring_and_encoder_option_arrives(options: dict, parts: list[np.ndarray]) -> None:
    method = create("fewshot_ad", **SETTINGS | options)
    method.fit(parts)
    inspector = method._inspector  # type: ignore[attr-defined]
    for name in ("metric", "sigma", "edge_weight", "image_score", "neighbors", "top_fraction", "max_patches"):
        if name in options:
            assert getattr(inspector.scoring, name) == options[name]
    spec = inspector.encoder.spec
    for name in ("norm_power", "fusion", "stages"):
        if name in options:
            assert getattr(spec, name) == (tuple(options[name]) if name == "stages" else options[name])
    assert inspector.encoder.engine_name == options.get("engine", "openvino")
    assert len(method.predict(parts[:1]).scores) == 1


@pytest.mark.parametrize(
    "wrong", [{"preset": "best"}, {"image_size": 7}, {"budget": 0}, {"sigma": -1.0}, {"metric": "manhattan"}]
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("fewshot_ad", **wrong)


def test_wrong_views_are_refused(parts: list[np.ndarray]) -> None:
    with pytest.raises(ZooError, match="sideways"):
        create("fewshot_ad", **SETTINGS | {"views": "sideways"}).fit(parts)


def test_an_encoder_that_does_not_ship_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"expected a shipped encoder .* got resnet50"):
        create("fewshot_ad", encoder="resnet50")
