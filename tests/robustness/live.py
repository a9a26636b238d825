"""Eight threads against one, and a long batch with bad images in it: what a line does all day."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_ad import Inspector
from fewshot_ad.errors import ImageError
from tests.conftest import make_part

# Three sizes: each has a compiled encoder of its own.
SIDES = (96, 112, 128)


def threads_agree(seconds: float, threads: int = 8) -> dict[str, Any]:
    """Inspect from many threads for so long, and compare each result with the serial one, bit for bit."""
    images = [make_part(seed, SIDES[seed % len(SIDES)], defect=seed % 2 == 1) for seed in range(12)]
    inspector = _inspector()
    expected = [_bits(inspector, image) for image in images]
    end, counts, faults = time.monotonic() + seconds, [0] * threads, []

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        while time.monotonic() < end:
            at = int(rng.integers(len(images)))
            try:
                if _bits(inspector, images[at]) != expected[at]:
                    faults.append(f"image {at} differs on thread {number}")
            except BaseException as error:
                faults.append(f"{type(error).__name__}: {error}")
                return
            counts[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"cases": sum(counts), "faults": faults[:5], "n_faults": len(faults)}


def long_batch(seconds: float, folder: Path, bad_share: float = 0.01) -> dict[str, Any]:
    """Inspect a stream with bad images in it for so long: each image has its result, and memory does not grow."""
    stream = _Stream(time.monotonic() + seconds, folder, bad_share)
    answers, wrong, memory = 0, 0, []
    for result in _inspector().inspect_batch(iter(stream), errors="return"):
        wrong += isinstance(result, ImageError) != stream.bad
        answers += 1
        if answers % 500 == 0:
            memory.append(_resident_megabytes())
    faults = [f"{wrong} answers of the wrong kind"] if wrong else []
    if answers != stream.count:
        faults.append(f"{stream.count} images, {answers} answers")
    # The first third is for allocators to settle.
    settled = memory[len(memory) // 3 :]
    growth = max(settled) - settled[0] if settled else 0.0
    if growth > 30:
        faults.append(f"memory grows by {growth:.0f} MB")
    return {"cases": answers, "bad": stream.n_bad, "growth_mb": round(growth, 1), "faults": faults}


class _Stream:
    """Images of a line until a time, some of them bad; `bad` says what the last one was."""

    def __init__(self, end: float, folder: Path, bad_share: float) -> None:
        self.end, self.bad_share, self.bad, self.count, self.n_bad = end, bad_share, False, 0, 0
        empty, text, cut = (folder / name for name in ("empty.png", "text.jpg", "cut.png"))
        empty.write_bytes(b"")
        text.write_text("no image")
        cut.write_bytes(b"\x89PNG\r\n\x1a\n")
        nan = np.full((32, 32), np.nan)
        self._bad: list[Any] = [folder / "absent.png", empty, text, cut, nan, None, b"", object()]
        self._good = [make_part(seed, 96, defect=seed % 4 == 0) for seed in range(40)]

    def __iter__(self) -> Iterator[Any]:
        rng = np.random.default_rng(0)
        while time.monotonic() < self.end:
            self.bad = bool(rng.random() < self.bad_share)
            self.count += 1
            self.n_bad += self.bad
            images = self._bad if self.bad else self._good
            yield images[int(rng.integers(len(images)))]


def _inspector() -> Inspector:
    return Inspector.from_support([make_part(seed, 96) for seed in range(3)], views="none", image_size=96)


def _bits(inspector: Inspector, image: np.ndarray) -> tuple[float, bytes]:
    result = inspector.inspect(image)
    return result.score, result.anomaly_map.tobytes()


def _resident_megabytes() -> float:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    except OSError:
        return 0.0
