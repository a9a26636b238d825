"""What a fit will take of memory is known before it, where it was measured and still holds."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import cards, fit_memory, options
from fewshot_ad.zoo.components import memory
from fewshot_ad.zoo.fit_memory import fit_bytes, require_fit_memory
from fewshot_ad.zoo.fitted import Baseline
from tests.conftest import make_part

FIGURES = {
    "cutpaste": {"fixed_mb": 100, "step_mb": 400, "image_size": 128, "batch": 8},
    "anomalib_stfpm": {"fixed_mb": 300, "step_mb": 800, "image_size": 256, "batch": 8},
}


@pytest.fixture(autouse=True)
def figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_memory, "_measured", lambda: FIGURES)


@pytest.mark.parametrize(
    ("name", "settings", "images", "megabytes"),
    [
        ("cutpaste", {}, 8, 500),
        ("cutpaste", {"image_size": 256, "steps": 3}, 8, 100 + 4 * 400),
        ("cutpaste", {"batch_size": 16}, 8, 100 + 2 * 400),
        ("cutpaste", {}, 2, 500),
        # A pass through the images has no more of them.
        ("anomalib_stfpm", {"epochs": 3}, 4, 300 + 400),
        ("anomalib_stfpm", {"batch_size": 16}, 64, 300 + 2 * 800),
        ("cutpaste", {"device": "cpu", "precision": "f32"}, 8, 500),
    ],
)
def test_it_grows_with_the_image_and_the_batch(
    name: str, settings: dict[str, Any], images: int, megabytes: float
) -> None:
    assert fit_bytes(name, settings, images) == pytest.approx(1e6 * megabytes)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("padim", {}),
        ("cutpaste", {"stage": 2}),
        ("cutpaste", {"precision": "bf16"}),
        ("cutpaste", {"device": "cuda"}),
        ("anomalib_stfpm", {"backbone": "wide_resnet50_2", "weights": "file.pth"}),
    ],
)
def test_what_was_not_measured_is_not_known(name: str, settings: dict[str, Any]) -> None:
    assert fit_bytes(name, settings, 8) is None
    require_fit_memory(name, settings, 8)


def test_a_fit_that_would_not_fit_is_refused_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: int(1e9))
    stages: list[str] = []
    images = [make_part(seed, 64) for seed in range(3)]
    with pytest.raises(
        ZooError,
        match=r"cutpaste: expected about 6\.5 GB of free memory for these settings, got 1 GB\. "
        r"Give a smaller image_size, or a batch_size below 8\.",
    ):
        Baseline.fit("cutpaste", images, image_size=512, progress=lambda stage, *_: stages.append(stage))
    assert set(stages) == {"read"}


def test_the_shipped_figures_are_of_baselines_that_train() -> None:
    shipped = json.loads(files("fewshot_ad.zoo").joinpath("fit_memory.json").read_text("utf-8"))
    assert shipped
    for name, figures in shipped.items():
        assert cards()[name].trains
        assert figures.keys() == {"fixed_mb", "step_mb", "image_size", "batch"}
        assert options(name)["image_size"] == figures["image_size"]
        assert np.isfinite(list(figures.values())).all()
        assert 0 < figures["fixed_mb"] + figures["step_mb"] < 64_000
