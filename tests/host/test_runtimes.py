from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fewshot_ad.host.runtimes import environment, import_onnxruntime, import_openvino


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_too_little_address_space_is_said_before_it_crashes() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))\n"
        "from fewshot_ad.host.runtimes import import_openvino; import_openvino()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert "MemoryError: expected at least 1000 MB of address space, got a limit of 700 MB" in done.stderr
