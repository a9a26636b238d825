from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fewshot_ad.errors import FewshotADError
from fewshot_ad.host.lifetime import ForkSafeLock, interruptible, native_work, waiting
from fewshot_ad.inspector import Inspector


def test_native_work_may_be_nested_and_left_for_a_while() -> None:
    with native_work(), native_work():
        with waiting(), native_work():
            pass
        with native_work():
            pass


def test_the_callback_of_a_long_work_is_called_outside_it() -> None:
    calls: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append((stage, done, total))

    with native_work():
        interruptible(progress)("a", 1, 2)
        interruptible(None)("a", 2, 2)
    interruptible(progress)("b", 1, 1)
    assert calls == [("a", 1, 2), ("b", 1, 1)]


def test_works_of_several_threads_do_not_wait_for_each_other() -> None:
    both = threading.Barrier(2, timeout=60)

    def work() -> None:
        with native_work():
            both.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.broken


def test_a_renewed_lock_is_open() -> None:
    lock = ForkSafeLock()
    holding, end = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            holding.set()
            end.wait(300)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    holding.wait(60)
    held, lock_of_thread = lock, lock._lock
    held.renew()
    start = time.monotonic()
    with lock:
        assert time.monotonic() - start < 60
    lock._lock = lock_of_thread
    end.set()
    thread.join()


def test_a_thread_never_waits_for_itself_at_a_lock() -> None:
    lock = ForkSafeLock()
    for _ in range(2):
        with lock, pytest.raises(FewshotADError, match=r"expected no call from a signal handler .* Set a flag"), lock:
            pass
    with lock:
        pass


def test_a_signal_is_survived_after_products_have_come_and_gone(tmp_path: Path, inspector: Inspector) -> None:
    """In a process of its own, since what this is about is a segmentation fault."""
    inspector.save(tmp_path / "p.fsad")
    code = (
        "import gc, signal, sys\n"
        "import numpy as np\n"
        "from fewshot_ad import Inspector\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('handled'))\n"
        "products = [Inspector.load(sys.argv[1]) for _ in range(2)]\n"
        "for product in products:\n"
        "    product.inspect(np.zeros((128, 128, 3), np.uint8))\n"
        "del product\n"
        "while products:\n"
        "    products.pop(0)\n"
        "    gc.collect()\n"
        "signal.raise_signal(signal.SIGTERM)\n"
    )
    child = [sys.executable, "-c", code, str(tmp_path / "p.fsad")]
    done = subprocess.run(child, capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_a_signal_handler_that_adds_while_its_thread_adds_is_told_so(
    inspector: Inspector, parts: list[np.ndarray]
) -> None:
    product = inspector.__reduce__()[0](*inspector.__reduce__()[1])
    reasons: list[str] = []

    def handler(*_: object) -> None:
        try:
            product.add([parts[0]])
        except FewshotADError as error:
            reasons.append(str(error))

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(FewshotADError, match="identical"):
            product.add([parts[0]], progress=lambda *_: signal.raise_signal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert reasons
    assert all("signal handler" in reason for reason in reasons)
