"""Whatever is global to the host process is the same after everything the package does, errors and threads included."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.children import output

STATE = """
import decimal, faulthandler, gc, locale, logging, os, random, signal, socket, sys, threading, warnings

def state():
    import cv2, faiss
    found = {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "random": random.getstate(),
        "numpy random": str(np.random.get_state()),
        "numpy errors": np.geterr(),
        "numpy printing": np.get_printoptions(),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "root logger": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "our loggers": [
            (name, logger.level, logger.handlers, logger.propagate)
            for name, logger in sorted(logging.root.manager.loggerDict.items())
            if name.startswith("fewshot_ad") and getattr(logger, "level", 0) + len(getattr(logger, "handlers", []))
        ],
        "warnings": list(warnings.filters),
        "hooks": (sys.excepthook, threading.excepthook, sys.displayhook, sys.unraisablehook),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "encoding": (sys.getdefaultencoding(), sys.getfilesystemencoding()),
        "faults": faulthandler.is_enabled(),
        "recursion": sys.getrecursionlimit(),
        "switching": sys.getswitchinterval(),
        "collector": (gc.isenabled(), gc.get_threshold()),
        "decimal": str(decimal.getcontext()),
        "time-out": socket.getdefaulttimeout(),
        "path": list(sys.path),
        "OpenCV": (
            cv2.utils.logging.getLogLevel(), cv2.getNumThreads(), cv2.useOptimized(), cv2.ocl.useOpenCL(),
        ),
        "FAISS": faiss.omp_get_max_threads(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
    }
    mask = os.umask(0)
    os.umask(mask)
    found["umask"] = mask
    if "torch" in sys.modules:
        import torch

        found["torch"] = (
            torch.get_num_threads(), torch.get_num_interop_threads(), torch.initial_seed(), torch.is_grad_enabled(),
            torch.get_default_dtype(), torch.backends.cudnn.flags.__module__, torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark,
            torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        )
    return found

def differences(before, after):
    return [(name, before[name], after[name]) for name in before if before[name] != after[name]]
"""

WORK = """
def tried(work):
    try:
        return work()
    except Exception as error:
        assert type(error).__module__ == "fewshot_ad.errors", repr(error)

def everything(number, **options):
    folder = os.path.join(sys.argv[1], str(number))
    os.makedirs(folder, exist_ok=True)
    bad, cut = os.path.join(folder, "bad.png"), os.path.join(folder, "cut.png")
    png = cv2.imencode(".png", part(number))[1].tobytes()
    open(bad, "wb").write(b"no image")
    open(cut, "wb").write(png[: len(png) // 2])
    inspector = product(**options)
    inspector.inspect(part(7)).overlay()
    list(inspector.inspect_batch([part(8), bad, cut, "gone.png"], errors="return"))
    tried(lambda: list(inspector.inspect_batch([bad])))
    tried(lambda: inspector.inspect(cut))
    tried(lambda: Inspector.from_support([bad], product="p"))
    tried(lambda: product(views="sideways"))
    inspector.add([part(9 + number)])
    inspector.warm_up((80, 120))
    path = os.path.join(folder, "p.fsad")
    inspector.save(path)
    tried(lambda: Inspector.load(bad))
    Inspector.load(path, threads=1).inspect(part(7))
    return inspector
"""


def test_nothing_of_the_host_process_changes(tmp_path: Path) -> None:
    lines = output(
        STATE
        + WORK
        + """
import cv2
import faiss  # both are the host's own here; what importing them sets is theirs
random.seed(5), np.random.seed(6)
before = state()
inspector = everything(0)
after_one = differences(before, state())
threads = [threading.Thread(target=everything, args=(number,)) for number in range(1, 5)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
from fewshot_ad.doctor import examine
from fewshot_ad.export import export
tried(lambda: export(inspector, os.path.join(sys.argv[1], "out"), "openvino"))
print(after_one)
print([d for d in differences(before, state())])
""",
        tmp_path,
    )
    assert lines == ["[]", "[]"]


def test_nothing_of_torch_changes(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("timm")
    lines = output(
        STATE
        + WORK
        + """
import cv2, faiss, torch, timm
torch.manual_seed(4)
inspector = product(engine="torch", threads=1)
before = state()
threads = [threading.Thread(target=everything, args=(n,), kwargs={"engine": "torch", "threads": 1}) for n in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(differences(before, state()))
""",
        tmp_path,
    )
    assert lines == ["[]"]


def test_importing_the_package_changes_nothing() -> None:
    lines = output(
        STATE.replace("import cv2, faiss", "import cv2, faiss, numpy as np")
        + """
import cv2, faiss, numpy
for name in [name for name in sys.modules if name.startswith("fewshot_ad")]:
    del sys.modules[name]
before = state()
import fewshot_ad, fewshot_ad.inspector, fewshot_ad.cli, fewshot_ad.datasets, fewshot_ad.export, fewshot_ad.doctor
print(differences(before, state()))
"""
    )
    assert lines == ["[]"]
