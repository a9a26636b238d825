from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fewshot_ad.benchmark import record as ledger
from fewshot_ad.benchmark.ray_runner import on_ray
from fewshot_ad.benchmark.run import run_plan
from fewshot_ad.errors import ClusterError
from tests.benchmark.test_run import finish, real

ray = pytest.importorskip("ray", reason="NO RAY: pip install 'fewshot-ad[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A real cluster on this machine, by no means connected to: a head that takes no jobs, two nodes that take one."""
    from ray.cluster_utils import Cluster

    head = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [head.add_node(num_cpus=1) for _ in range(2)]
    yield head, nodes
    head.shutdown()


def test_how_far_each_job_is_comes_from_the_other_processes(cluster: Any, dataset: Path, tmp_path: Path) -> None:
    # First of all: once this process has had a cluster of its own, Ray lets no actor live on the next one.
    head, _ = cluster
    asked, seen = real(dataset, 1), []
    runner = on_ray(head.address, observe=lambda job, stage, done, total: seen.append((str(job), stage, done, total)))
    states = list(run_plan(asked, tmp_path / "records.jsonl", runner))
    assert {record.status for state in states for record in state.records} == {"done"}
    assert {job for job, *_ in seen} == {str(job) for job in asked.jobs()}
    assert all(stage and 0 <= done <= total for _, stage, done, total in seen)


def test_a_connection_is_kept_and_no_other_cluster_taken_for_it(cluster: Any, dataset: Path, tmp_path: Path) -> None:
    head, _ = cluster
    ray.init(address=head.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        for address, memory_mb, message in (
            ("127.0.0.1:1", None, r"expected the Ray cluster at '127\.0\.0\.1:1', but this process is connected to"),
            (
                head.address,
                10**9,
                r"expected a Ray node with 1 CPU, 1000000000 MB of memory for a job, got: .* 1 CPU, ",
            ),
            ("auto", 10**9, "expected a Ray node with"),
            (None, 10**9, "expected a Ray node with"),
        ):
            with pytest.raises(ClusterError, match=message):
                list(run_plan(real(dataset, 1), tmp_path / "records.jsonl", on_ray(address, memory_mb=memory_mb)))
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_no_address_is_a_local_cluster_and_a_job_that_fits_nowhere_is_refused(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(
        ClusterError, match=r"expected a Ray node with 5000 CPU for a job, got: \d+ CPU, .*Ask for less"
    ):
        list(run_plan(real(dataset, 1), tmp_path / "records.jsonl", on_ray(cpus=5000)))
    assert not ray.is_initialized()


def test_a_node_lost_in_mid_run_loses_and_doubles_nothing(cluster: Any, dataset: Path, tmp_path: Path) -> None:
    head, nodes = cluster
    asked = real(dataset, 2)
    out = tmp_path / "records.jsonl"
    states = []
    for state in run_plan(asked, out, on_ray(head.address, cpus=1, retries=5)):
        states.append(state)
        if state.jobs == 1:
            # Both nodes are at work: one dies with its job, and never comes back.
            head.remove_node(nodes[0], allow_graceful=False)
    assert not ray.is_initialized()
    assert (states[-1].jobs, states[-1].total, states[-1].failures) == (4, 4, 0)
    keys = [line for line in out.read_text().splitlines() if line]
    assert len(keys) == 4
    assert {r.key for r in ledger.read(out)} == {job.key(job.categories[0]) for job in asked.jobs()}
    if hasattr(os, "sched_getaffinity"):
        assert {r.machine["cpus"] for r in ledger.read(out)} == {"1"}
    here = {r.key: r for r in finish(real(dataset, 1), tmp_path / "here.jsonl")}
    for record in ledger.read(out):
        if record.key in here:
            assert record.figures == pytest.approx(here[record.key].figures, abs=1e-3)
        assert all((tmp_path / name).is_file() for name in record.overlays)


def test_no_cluster_at_that_address(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"expected a Ray cluster at '127\.0\.0\.1:1'"):
        list(run_plan(real(dataset, 1), tmp_path / "records.jsonl", on_ray("127.0.0.1:1")))
