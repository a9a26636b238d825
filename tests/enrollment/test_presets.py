from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.enrollment.presets import PRESETS, enrollment_settings
from fewshot_ad.errors import SupportSetError


def test_presets_set_what_is_not_given(parts: list[np.ndarray]) -> None:
    fast = Inspector.from_support(parts, preset="fast")
    assert fast.enrollment.settings.image_sizes == (PRESETS["fast"].image_size,)
    assert fast.enrollment.settings.budget == PRESETS["fast"].budget
    assert len(fast.enrollment.settings.views) == 3
    given = Inspector.from_support(parts, preset="accurate", image_size=128, views="hflip")
    assert (given.enrollment.settings.image_sizes, len(given.enrollment.settings.views)) == ((128,), 1)
    assert given.enrollment.settings.budget == PRESETS["accurate"].budget


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(SupportSetError, match="balanced"):
        enrollment_settings("turbo")  # type: ignore[arg-type]


def test_a_budget_of_milliseconds_and_a_scale_exclude_each_other() -> None:
    assert enrollment_settings(max_ms=8).max_ms == 8
    with pytest.raises(SupportSetError, match=r"max_ms or image_size, got both"):
        enrollment_settings(max_ms=8, image_size=256)
    with pytest.raises(SupportSetError, match=r"give image_size='auto'"):
        enrollment_settings("fast", max_ms=8)
