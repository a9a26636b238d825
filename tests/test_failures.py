from __future__ import annotations

import errno
import os

import pytest

from fewshot_ad.errors import ImageError, TrainingError, WeightsError
from fewshot_ad.failures import explanation
from fewshot_ad.storage import write_failure

OPENVINO = """Exception from src/inference/src/cpp/core.cpp:84:
Exception from src/inference/src/model_reader.cpp:148:
Unable to read the model: "lite0.onnx" Please check that model format is supported. Available frontends: {}

"""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("std::bad_alloc"),
        RuntimeError(
            "Exception from src/core.cpp:117:\nCannot load library x.so: failed to map segment from shared object\n"
        ),
        RuntimeError(OPENVINO.format("paddle tflite ir tf")),
        RuntimeError("Exception from src/plugin.cpp:54:\nResource temporarily unavailable\n"),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
        ImportError("cv2.abi3.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        WeightsError("lite0: cannot be loaded (std::bad_alloc). Reinstall it."),
    ],
    ids=str,
)
def test_short_of_memory(error: Exception) -> None:
    message = explanation(error)
    assert message.startswith("expected enough memory for this command, got too little (")
    assert "Close other programs" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a.png"),
        OSError(errno.ENFILE, os.strerror(errno.ENFILE), "a.png"),
        ImportError("libgomp.so.1: cannot open shared object file: Too many open files"),
        ImageError("a.png: cannot be read (Too many open files). Check the path."),
        ImageError(write_failure("a.png", OSError(errno.EMFILE, os.strerror(errno.EMFILE)))),
    ],
    ids=str,
)
def test_short_of_files(error: Exception) -> None:
    message = explanation(error)
    assert message.count("ulimit -n") == 1
    assert "open" in message


def test_what_is_broken() -> None:
    message = explanation(ModuleNotFoundError("No module named 'cv2'", name="cv2"))
    assert "No module named 'cv2'" in message
    assert "pip install --force-reinstall fewshot-ad" in message


@pytest.mark.parametrize(
    "error",
    [
        ImageError("a.png: expected an image that needs at most 1.3 GB of memory. Shrink it."),
        TrainingError("out of memory with batches of 8 at 64 x 64 pixels. Halve `batch`."),
        ValueError("expected a threshold"),
    ],
    ids=str,
)
def test_an_own_message_stays(error: Exception) -> None:
    assert explanation(error) == str(error)


def test_what_nobody_foresaw() -> None:
    assert explanation(RuntimeError(OPENVINO.format("onnx ir"))).endswith("Set FEWSHOT_AD_DEBUG=1 to see where.")
    assert explanation(KeyError("x")) == "KeyError: 'x'. Set FEWSHOT_AD_DEBUG=1 to see where."
