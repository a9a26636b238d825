from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad import Inspector
from tests.conftest import make_part


@pytest.mark.parametrize("image_size", [128, (96, 192)], ids=["one scale", "two scales"])
def test_of_many_images_those_held_out_are_drawn_on(
    image_size: int | tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of a hundred images at the usual sizes: not all can be held out, at the finer scale still fewer.
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.MIN_STAND_INS", 5)
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.STAND_IN_LIMIT", 10)
    parts = [make_part(seed) for seed in range(14)]
    inspector = Inspector.from_support(parts, image_size=image_size, views="none", budget=500)
    assert any("5 of 14 images, evenly chosen, were held out" in note for note in inspector.enrollment.notes)
    assert inspector.sensitivity is not None
    assert inspector.inspect(make_part(99, defect=True)).severity > inspector.inspect(make_part(98)).severity


def test_many_images_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = Inspector.from_support([make_part(seed) for seed in range(3)], image_size=(96, 192), budget=500)
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.MIN_STAND_INS", 4)
    # 24 x 24 patches at the finer scale and 12 x 12 at the coarser: of nine images four, and all, are scored.
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.STAND_IN_LIMIT", 4 * 24 * 24)
    notes = inspector.add([make_part(seed) for seed in range(3, 12)])
    assert any("of 9 images, evenly chosen, were scored" in note for note in notes)
    assert len(inspector.enrollment.support) == 12
    assert inspector.inspect(make_part(99, defect=True)).severity > inspector.inspect(make_part(98)).severity


def test_the_choices_before_enrollment_show_progress() -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    images = [np.pad(make_part(seed), ((32, 32), (32, 32), (0, 0)), constant_values=110) for seed in range(5)]
    Inspector.from_support(
        images,
        image_size=96,
        budget=500,
        foreground="auto",
        lighting="auto",
        progress=lambda stage, done, total: told.setdefault(stage, []).append((done, total)),
    )
    assert list(told)[:4] == ["read", "foreground", "lighting", "rotations"]
    for stage in ("foreground", "lighting", "rotations"):
        assert told[stage] == sorted(told[stage])
        assert told[stage][-1][0] == told[stage][-1][1]


def test_of_very_many_images_some_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewshot_ad.enrollment.drawing.MAX_COMPARED", 4)
    told: dict[str, int] = {}
    parts = [make_part(seed) for seed in range(6)]
    inspector = Inspector.from_support(
        parts,
        image_size=96,
        views="none",
        budget=500,
        lighting="auto",
        progress=lambda stage, _, total: told.update({stage: total}),
    )
    # Three lights of four images, without views.
    assert told["lighting"] == 3 * 4
    assert len(inspector.enrollment.support) == 6
