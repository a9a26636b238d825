"""Ctrl-C and SIGTERM end a training of anomalib as they end any other: the exit code does not say that it is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import make_part

pytest.importorskip("anomalib", reason="NO ANOMALIB: pip install 'fewshot-ad[zoo]'")

TRAINING = """
import os, signal
from fewshot_ad.zoo import create
from tests.conftest import make_part

def progress(stage, done, total):
    if stage.startswith("training") and done == 2:
        os.kill(os.getpid(), signal.SIGTERM)

create("anomalib_stfpm", image_size=64, epochs=50).fit([make_part(seed, 64) for seed in range(2)], progress=progress)
"""


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as a program in the foreground has it: one that a shell starts in the background ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def test_ctrl_c_is_an_interruption(ctrl_c: None) -> None:
    from fewshot_ad.zoo import create

    def interrupted(stage: str, done: int, total: int) -> None:
        if stage.startswith("training") and done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        create("anomalib_stfpm", image_size=64, epochs=50).fit(
            [make_part(seed, 64) for seed in range(2)], progress=interrupted
        )
    # The next Ctrl-C is not ignored.
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.skipif(sys.platform == "win32", reason="NO SIGTERM on Windows")
def test_sigterm_is_no_success() -> None:
    ended = subprocess.run([sys.executable, "-c", TRAINING], capture_output=True, text=True, timeout=300)
    assert ended.returncode == -signal.SIGTERM, ended.stderr
