from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fewshot_ad.benchmark import record as ledger
from fewshot_ad.benchmark.ray_runner import kept_apart, on_ray
from fewshot_ad.benchmark.run import run_plan
from fewshot_ad.errors import BenchmarkError
from tests.benchmark.test_run import finish, real

ray = pytest.importorskip("ray", reason="NO RAY: pip install 'fewshot-ad[ray]'")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A real cluster on this machine: a head that takes no jobs, and two nodes that take one at a time."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def test_a_node_lost_in_mid_run_loses_and_doubles_nothing(cluster: Any, dataset: Path, tmp_path: Path) -> None:
    made, nodes = cluster
    asked = real(dataset, 3)
    out = tmp_path / "records.jsonl"
    states = []
    for state in run_plan(asked, out, on_ray(cpus=1, retries=5)):
        states.append(state)
        if state.jobs == 1:
            # Both nodes are at work: one dies with its job, and never comes back.
            made.remove_node(nodes[0], allow_graceful=False)
    assert (states[-1].jobs, states[-1].total, states[-1].failures) == (6, 6, 0)
    keys = [line for line in out.read_text().splitlines() if line]
    assert len(keys) == 6
    assert {r.key for r in ledger.read(out)} == {job.key(job.categories[0]) for job in asked.jobs()}
    if hasattr(os, "sched_getaffinity"):
        assert {r.machine["cpus"] for r in ledger.read(out)} == {"1"}
    here = {r.key: r for r in finish(real(dataset, 1), tmp_path / "here.jsonl")}
    for record in ledger.read(out):
        if record.key in here:
            assert record.figures == pytest.approx(here[record.key].figures, abs=1e-3)
        assert all((tmp_path / name).is_file() for name in record.overlays)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="NO AFFINITY on this system")
def test_jobs_of_one_node_share_no_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    all_of_them = os.sched_getaffinity(0)
    if len(all_of_them) < 2:
        pytest.skip("ONE PROCESSOR: nothing to share out")
    with kept_apart(1):
        first = os.sched_getaffinity(0)
        assert len(first) == 1
        # Another process sees all processors of the node again.
        os.sched_setaffinity(0, all_of_them)
        with kept_apart(1):
            second = os.sched_getaffinity(0)
            assert len(second) == 1
            assert not first & second
            os.sched_setaffinity(0, all_of_them)
            with kept_apart(len(all_of_them) - 1):
                # Not as many are free.
                assert os.sched_getaffinity(0) == all_of_them
    assert os.sched_getaffinity(0) == all_of_them


def test_no_cluster_at_that_address(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"expected a Ray cluster at '127\.0\.0\.1:1'"):
        list(run_plan(real(dataset, 1), tmp_path / "records.jsonl", on_ray("127.0.0.1:1")))
