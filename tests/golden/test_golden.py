"""The main job gives the numbers on record, on photographs that are always there and on real products where present."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.golden.cases import HERE, PRESETS, SHARED_PRODUCTS, shared_cases, shipped_cases, stored
from tests.golden.machine import this_machine
from tests.golden.record import STORED

# On the processor and libraries of the record, scores repeat to the last digit; others round differently.
SAME, OTHER = 1e-6, 5e-3


def record(name: str) -> dict[str, Any]:
    return json.loads((HERE / name).read_text())


def differences(wanted: Any, got: Any, tolerance: float, at: str = "") -> list[str]:
    """What differs, with the way to it."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        if wanted.keys() != got.keys():
            return [f"{at}: fields {sorted(wanted.keys() ^ got.keys())}"]
        return [line for key in wanted for line in differences(wanted[key], got[key], tolerance, f"{at}/{key}")]
    if isinstance(wanted, list) and isinstance(got, list):
        if len(wanted) != len(got):
            return [f"{at}: {len(wanted)} entries on record, {len(got)} here: {wanted} | {got}"]
        pairs = enumerate(zip(wanted, got, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, tolerance, f"{at}/{i}")]
    if isinstance(wanted, float) and isinstance(got, (int, float)):
        return [] if math.isclose(wanted, got, rel_tol=tolerance, abs_tol=1e-9) else [f"{at}: {wanted} | {got}"]
    return [] if wanted == got else [f"{at}: {wanted!r} | {got!r}"]


def compare(name: str, case: str, got: Any) -> None:
    on_record = record(name)
    wanted = on_record["cases"][case]
    # Through JSON, as the record went.
    got = json.loads(json.dumps(got))
    if on_record["machine"] == this_machine():
        assert differences(wanted, got, SAME) == []
    else:
        assert differences(decisions(wanted), decisions(got), OTHER) == []


def decisions(case: Any) -> Any:
    """What holds on any processor: settings, verdicts, and scores to `OTHER`; not boxes, maps and printed digits."""
    if isinstance(case, dict):
        if "verdicts" in case:
            verdicts = [{k: v[k] for k in ("is_anomalous", "score", "threshold", "severity")} for v in case["verdicts"]]
            info = {k: case["info"][k] for k in ("views", "image_size", "threshold", "support")}
            return {"info": info, "verdicts": verdicts}
        if "runs" in case:
            return {"exit": [run["exit"] for run in case["runs"]], "files": case["files"]}
        return {key: decisions(value) for key, value in case.items()}
    return case


SHIPPED = [*(f"brick_{preset}" for preset in PRESETS), "grass_separate", "gravel_reweighted", "brick_one_photograph"]
SHIPPED += ["grass_onnxruntime", "brick_added", "shell"]


@pytest.mark.parametrize("case", SHIPPED)
def test_shipped_photographs(case: str) -> None:
    pytest.importorskip("skimage.data", reason="NO REAL PHOTOGRAPHS: pip install 'fewshot-ad[demo]'")
    if case == "brick_fast_bf16" and this_machine()["bf16"] != "True":
        pytest.skip("this processor has no bfloat16")
    compare("shipped.json", case, dict(shipped_cases())[case]())


def test_a_product_of_the_first_format_loads_and_says_the_same() -> None:
    pytest.importorskip("skimage.data", reason="NO REAL PHOTOGRAPHS: pip install 'fewshot-ad[demo]'")
    compare("shipped.json", "stored", stored(STORED))


@pytest.mark.parametrize(
    "case", [f"{product}_{preset}" for product in SHARED_PRODUCTS for preset in PRESETS if preset != "fast_bf16"]
)
def test_real_products(case: str, shared_data: Path) -> None:
    compare("shared.json", case, dict(shared_cases(shared_data))[case]())


def test_nothing_on_record_is_left_out(shared_data: Path) -> None:
    assert {*record("shipped.json")["cases"]} == {*SHIPPED, "stored"}
    assert {*record("shared.json")["cases"]} == {name for name, _ in shared_cases(shared_data)}
