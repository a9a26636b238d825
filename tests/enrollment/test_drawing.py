from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.banks import EnrolledScale, enroll_scale
from fewshot_ad.enrollment.drawing import probes_on
from fewshot_ad.enrollment.embedding import embed_support
from fewshot_ad.enrollment.presets import enrollment_settings
from fewshot_ad.enrollment.probes import COPIES, DEFECT_KINDS, MAX_DRAWN_ON, SERIES
from fewshot_ad.enrollment.support import read_support
from tests.conftest import make_part


@pytest.fixture
def five_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of some hundred images at the usual sizes."""
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.MIN_STAND_INS", 5)
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.STAND_IN_LIMIT", 10)


def test_few_images_are_all_drawn_on(parts: list[np.ndarray], encoder: Encoder) -> None:
    settings = enrollment_settings(views="none", image_size=64)
    images = read_support(parts).images
    probes = probes_on(images, embed_support(images, settings, 64, encoder), settings, 64, encoder)
    assert {defect.image for defect in probes.series} == set(range(len(parts)))
    assert len(parts) <= MAX_DRAWN_ON


@pytest.mark.usefixtures("five_held_out")
def test_of_many_images_only_those_held_out_are_drawn_on(encoder: Encoder) -> None:
    settings = enrollment_settings(views="none", image_size=64)
    images = read_support([make_part(seed) for seed in range(14)]).images
    embedded = embed_support(images, settings, 64, encoder)
    held_out = {stand_in.image for stand_in in embedded.stand_ins}
    probes = probes_on(images, embedded, settings, 64, encoder)
    assert len(held_out) == 5
    assert {defect.image for defect in probes.series} == held_out
    assert all(list(probes.defects(at)) for at in held_out)
    assert not any(list(probes.defects(at)) for at in set(range(14)) - held_out)


@pytest.mark.usefixtures("five_held_out")
@pytest.mark.parametrize("choice", ["foreground", "lighting"])
def test_of_many_images_a_choice_compares_all_defects(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def noted(*args: object) -> EnrolledScale:
        scale = enroll_scale(*args)  # type: ignore[arg-type]
        compared.append(len(scale.defects))
        return scale

    module = {"foreground": "looking", "lighting": "relighting"}[choice]
    monkeypatch.setattr(f"fewshot_ad.product.{module}.enroll_scale", noted)
    images = [on_a_table(make_part(seed)) for seed in range(14)]
    inspector = Inspector.from_support(images, image_size=96, views="none", budget=500, **{choice: "auto"})
    assert "drawn defects stand out" in " ".join(inspector.enrollment.reasons)
    assert len(compared) >= 2
    assert set(compared) == {len(SERIES) * len(DEFECT_KINDS) * COPIES}


def on_a_table(part: np.ndarray) -> np.ndarray:
    return np.pad(part, ((32, 32), (32, 32), (0, 0)), constant_values=110)
