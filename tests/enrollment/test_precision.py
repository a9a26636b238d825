from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.encoder.engine import has_bf16
from fewshot_ad.enrollment import precision
from tests.conftest import make_part


@pytest.fixture
def auto(parts: list[np.ndarray]) -> Inspector:
    return Inspector.from_support(parts, views="hflip", image_size=128, precision="auto")


def test_what_was_chosen_is_recorded(auto: Inspector) -> None:
    chosen = auto.encoder.spec.precision
    if not has_bf16():
        assert chosen == "f32"
        return
    (reason,) = [r for r in auto.enrollment.reasons if r.startswith("precision:")]
    assert f"precision: {chosen}" in reason


@pytest.mark.skipif(not has_bf16(), reason="NO BFLOAT16 on this processor")
def test_the_faster_one_is_taken_only_if_it_says_the_same(
    parts: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def enroll(**settings: object) -> Inspector:
        return Inspector.from_support(parts, views="hflip", image_size=128, precision="auto", **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(precision, "speedup", lambda *_: 2.0)
    assert enroll().encoder.spec.precision == "bf16"
    monkeypatch.setattr(precision, "SEVERITY_TOLERANCE", 1e-6)
    refused = enroll()
    assert refused.encoder.spec.precision == "f32"
    assert "differ by at most" in refused.enrollment.reasons[-1]
    monkeypatch.setattr(precision, "speedup", lambda *_: 1.0)
    assert "only 1.00 times as fast" in enroll().enrollment.reasons[-1]


@pytest.mark.skipif(not has_bf16(), reason="NO BFLOAT16 on this processor")
@pytest.mark.parametrize("budget", [300, 2000, 100_000])
def test_what_is_promised_holds_for_inspections(
    parts: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr(precision, "speedup", lambda *_: 2.0)
    settings = {"views": "hflip", "image_size": 128, "budget": budget}
    auto = Inspector.from_support(parts, precision="auto", **settings)  # type: ignore[arg-type]
    exact = Inspector.from_support(parts, precision="f32", **settings)  # type: ignore[arg-type]
    assert auto.encoder.spec.precision == "bf16"
    for part in [*parts, make_part(30), make_part(31)]:
        assert auto.inspect(part).severity == pytest.approx(
            exact.inspect(part).severity, abs=precision.SEVERITY_TOLERANCE
        )
