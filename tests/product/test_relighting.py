from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from fewshot_ad import ArgumentError, Inspector
from fewshot_ad.encoder import Encoder
from fewshot_ad.product.relighting import relit
from tests.conftest import make_part

# An old lamp.
DIM = (0.9, 0.75, 0.5)


def enrolled(parts: list[np.ndarray], encoder: Encoder, lighting: str) -> Inspector:
    return Inspector.from_support(parts, encoder=encoder, views="none", image_size=128, lighting=lighting)  # type: ignore[arg-type]


def test_a_dimmed_part_is_judged_as_before(
    parts: list[np.ndarray], encoder: Encoder, broken_part: np.ndarray, tmp_path: Path
) -> None:
    off, on = (enrolled(parts, encoder, lighting) for lighting in ("off", "normalized"))
    part = make_part(70)
    change = [abs(i.inspect(relit(part, DIM)).severity / i.inspect(part).severity - 1) for i in (off, on)]
    assert change[1] < 0.1 < change[0]
    assert not on.inspect(relit(part, DIM)).is_anomalous
    assert on.inspect(relit(broken_part, DIM)).is_anomalous
    # What is shown is the photograph, not what the encoder saw.
    np.testing.assert_array_equal(on.inspect(relit(part, DIM)).image, relit(part, DIM))
    on.save(tmp_path / "p.fsad")
    for same in (Inspector.load(tmp_path / "p.fsad"), copy.deepcopy(on)):
        assert same.inspect(relit(part, DIM)).score == on.inspect(relit(part, DIM)).score
    assert on.info()["lighting"]["kind"] == "normalized"
    assert off.info()["lighting"] is None


def test_what_is_chosen_is_said(parts: list[np.ndarray], encoder: Encoder) -> None:
    chosen = enrolled(parts, encoder, "auto")
    (reason,) = (reason for reason in chosen.enrollment.reasons if reason.startswith("lighting:"))
    assert ("as it is" in reason) is (chosen.model.lighting is None)
    assert "drawn defects stand out" in reason
    backward = enrolled(parts[::-1], encoder, "auto")
    assert backward.model.lighting == chosen.model.lighting
    single = enrolled(parts[:1], encoder, "auto")
    assert single.model.lighting is None


def test_color_without_light(parts: list[np.ndarray], encoder: Encoder) -> None:
    on = enrolled(parts, encoder, "log_chromaticity")
    part = make_part(71)
    assert on.inspect(relit(part, DIM)).severity == pytest.approx(on.inspect(part).severity, rel=0.25)


def test_an_unknown_lighting_is_refused(parts: list[np.ndarray], encoder: Encoder) -> None:
    with pytest.raises(ArgumentError, match="lighting among"):
        enrolled(parts, encoder, "bright")
