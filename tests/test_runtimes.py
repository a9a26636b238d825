from __future__ import annotations

import os
import sys

import pytest

from fewshot_ad.runtimes import environment, import_onnxruntime, import_openvino


def test_a_module_that_is_imported_already_is_the_same() -> None:
    assert import_openvino() is sys.modules["openvino"]
    pytest.importorskip("onnxruntime")
    assert import_onnxruntime() is sys.modules["onnxruntime"]


@pytest.mark.parametrize("before", [None, "mine"])
def test_a_variable_is_put_back(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEWSHOT_AD_TEST", raising=False)
    if before is not None:
        monkeypatch.setenv("FEWSHOT_AD_TEST", before)
    with environment("FEWSHOT_AD_TEST", "1"):
        assert os.environ["FEWSHOT_AD_TEST"] == "1"
    assert os.environ.get("FEWSHOT_AD_TEST") == before
