from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest

from fewshot_ad.errors import FewshotADError
from fewshot_ad.inspector import Inspector
from fewshot_ad.lifetime import ForkSafeLock, interruptible, native_work, waiting


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
    both = threading.Barrier(2, timeout=10)

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
            end.wait(10)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    holding.wait(10)
    held, lock_of_thread = lock, lock._lock
    held.renew()
    start = time.monotonic()
    with lock:
        assert time.monotonic() - start < 5
    lock._lock = lock_of_thread
    end.set()
    thread.join()


def test_a_thread_never_waits_for_itself_at_a_lock() -> None:
    lock = ForkSafeLock()
    for _ in range(2):
        with lock, pytest.raises(FewshotADError, match="expected no call from a signal handler .* Set a flag"), lock:
            pass
    with lock:
        pass


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
