from __future__ import annotations

import threading
import time

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
