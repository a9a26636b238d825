"""Pieces of work on Ray: each in a process of its own or not, and why one gave nothing."""

from __future__ import annotations

import os

import pytest

from fewshot_ad.errors import ImageError
from fewshot_ad.host import cluster
from fewshot_ad.host.cluster import RayPool, reason

ray = pytest.importorskip("ray", reason="NO RAY: pip install 'fewshot-ad[ray]'")


def process_of(_: int) -> int:
    return os.getpid()


def test_a_process_does_as_many_pieces_as_it_is_told() -> None:
    for most, fewest, expected in ((1, 6, 6), (0, 1, 2)):
        pool = RayPool(cpus=1, pieces_per_process=most)
        done = dict(pool.each(process_of, range(6)))
        assert sorted(done) == list(range(6))
        assert fewest <= len(set(done.values())) <= max(expected, os.cpu_count() or 1)
        assert os.getpid() not in done.values()
    assert list(RayPool().each(process_of, [])) == []


def test_pieces_are_handed_out_as_others_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "SUBMITTED", 3)
    assert sorted(piece for piece, _ in RayPool(pieces_per_process=0).each(process_of, range(10))) == list(range(10))


def test_why_a_job_gave_nothing() -> None:
    lost = reason(ray.exceptions.WorkerCrashedError(), 2)
    assert lost.startswith("lost on Ray after 2 retries (")
    assert reason(ray.exceptions.OutOfMemoryError("too much\nof it"), 0) == "lost on Ray after 0 retries (too much)."
    raised = ray.exceptions.RayTaskError("_work", "Traceback", ImageError("no such image."))
    for error in (raised, raised.as_instanceof_cause()):
        assert reason(error, 3) == "ImageError: no such image."
    setup = ray.exceptions.RuntimeEnvSetupError("no such wheel")
    assert reason(setup, 3) == f"RuntimeEnvSetupError: {str(setup).splitlines()[0]}"
    assert reason(ray.exceptions.RayError(), 3) == "RayError: RayError"
