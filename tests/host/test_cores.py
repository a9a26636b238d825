"""Processors that jobs keep to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fewshot_ad.host.cores import pin_apart


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="NO AFFINITY on this system")
def test_jobs_of_one_node_share_no_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    all_of_them = os.sched_getaffinity(0)
    if len(all_of_them) < 2:
        pytest.skip("ONE PROCESSOR: nothing to share out")
    with pin_apart(1):
        first = os.sched_getaffinity(0)
        assert len(first) == 1
        # Another process sees all processors of the node again.
        os.sched_setaffinity(0, all_of_them)
        with pin_apart(1):
            second = os.sched_getaffinity(0)
            assert len(second) == 1
            assert not first & second
            os.sched_setaffinity(0, all_of_them)
            with pin_apart(len(all_of_them) - 1):
                # Not as many are free.
                assert os.sched_getaffinity(0) == all_of_them
    assert os.sched_getaffinity(0) == all_of_them
