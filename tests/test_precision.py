from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad import Inspector, load_encoder, precision
from fewshot_ad.encoder.engine import has_bf16


@pytest.fixture
def auto(parts: list[np.ndarray]) -> Inspector:
    return Inspector.from_support(parts, views="hflip", image_size=128, precision="auto")


def test_what_was_chosen_is_recorded(auto: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = auto.encoder.spec.precision
    if not has_bf16():
        assert chosen == "f32"
        return
    (reason,) = [r for r in auto.enrolment.reasons if r.startswith("precision:")]
    assert f"precision: {chosen}" in reason


@pytest.mark.skipif(not has_bf16(), reason="NO BFLOAT16 on this processor")
def test_the_faster_one_is_taken_only_if_it_says_the_same(
    parts: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def enroll(**settings: object) -> Inspector:
        return Inspector.from_support(parts, views="hflip", image_size=128, precision="auto", **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(precision, "speedup", lambda *_: 2.0)
    assert enroll().encoder.spec.precision == "bf16"
    monkeypatch.setattr(precision, "TOLERANCE", 1e-6)
    refused = enroll()
    assert refused.encoder.spec.precision == "f32"
    assert "differ by at most" in refused.enrolment.reasons[-1]
    monkeypatch.setattr(precision, "speedup", lambda *_: 1.0)
    assert "only 1.00 times as fast" in enroll().enrolment.reasons[-1]


def test_speedup_of_an_encoder_against_itself_is_about_one(encoder: object) -> None:
    assert precision.speedup(load_encoder(), load_encoder(), 128) == pytest.approx(1, abs=0.6)
