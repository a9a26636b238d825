"""Fork, spawn, pickle, copy, threads and exit: an Inspector goes on working, or one error says what to do."""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.errors import WeightsError
from tests.robustness.children import output, run

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@forks
@pytest.mark.parametrize(
    "options",
    [
        pytest.param("{}", id="openvino"),
        pytest.param("{'scoring': ScoringConfig(image_score='reweighted')}", id="faiss"),
        pytest.param("{'engine': 'onnxruntime'}", id="onnxruntime"),
        pytest.param("{'engine': 'torch', 'threads': 2}", id="torch"),
    ],
)
def test_children_forked_beside_inspections_inspect_and_enroll(options: str, request: pytest.FixtureRequest) -> None:
    engine = request.node.callspec.id
    if engine in ("onnxruntime", "torch"):
        pytest.importorskip(engine)
    lines = output(f"""
inspector = product(**{options})
score = inspector.inspect(part(5)).score
busy = True
def loop():
    while busy:
        inspector.inspect(part(6))
threads = [threading.Thread(target=loop) for _ in range(2)]
[thread.start() for thread in threads]
def work():
    print(abs(inspector.inspect(part(5)).score / score - 1) < 1e-5, flush=True)
    inspector.inspect(part(7, 120, 80))
    product(**{options}).inspect(part(8))
for _ in range(3):
    forked(work)
busy = False
print("end")
""")
    assert lines == ["True", "True", "True", "end"]


@forks
def test_a_thread_forks_while_others_enroll_add_and_inspect() -> None:
    lines = output("""
inspector = product()
score = inspector.inspect(part(5)).score
busy = True
def loop(work):
    while busy:
        work()
works = (lambda: inspector.inspect(part(6)), product, lambda: inspector.add([part(int(time.time() * 1e6))]))
threads = [threading.Thread(target=loop, args=(work,)) for work in works]
[thread.start() for thread in threads]
def work():
    assert inspector.inspect(part(5)).score > 0
    inspector.add([part(99)])
    inspector.threshold = 3.0
    print("inspected", flush=True)
forking = threading.Thread(target=lambda: [forked(work) for _ in range(3)])
forking.start()
forking.join()
busy = False
""")
    assert lines == ["inspected"] * 3


@forks
def test_a_child_that_ends_by_itself_does_not_hang() -> None:
    lines = output("""
inspector = product()
inspector.inspect(part(5))
pid = os.fork()
if pid == 0:
    inspector.inspect(part(5))
    del inspector
    sys.exit(0)
print(os.waitpid(pid, 0)[1])
""")
    assert lines == ["0"]


@forks
def test_what_a_fork_cannot_wait_for_is_one_error_in_the_child() -> None:
    lines = output("""
from fewshot_ad.host import lifetime
lifetime.FORK_WAIT_S = 0.2
inspector = product()
inside, end = threading.Event(), threading.Event()
def stuck():
    with lifetime.native_work():
        inside.set()
        end.wait()
thread = threading.Thread(target=stuck)
thread.start()
inside.wait()
forked(lambda: inspector.inspect(part(5)))
end.set()
thread.join()
print(inspector.inspect(part(5)).score > 0)
""")
    assert len(lines) == 2
    assert "FewshotADError" in lines[0]
    assert "'spawn'" in lines[0]
    assert lines[1] == "True"


@forks
def test_a_batch_begun_before_a_fork_ends_in_the_child_with_one_error() -> None:
    lines = output("""
inspector = product()
results = inspector.inspect_batch([part(seed) for seed in range(9)])
next(results)
forked(lambda: list(results))
print(len(list(results)))
""")
    assert "Call inspect_batch in the child" in lines[0]
    assert lines[1] == "8"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_processes_share_an_inspector(method: str, tmp_path: Path) -> None:
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    lines = output(
        """
if __name__ == "__main__":
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    inspector = product()
    expected = [inspector.inspect(part(seed)).score for seed in range(4)]
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        results = list(pool.map(inspector.inspect, [part(seed) for seed in range(4)]))
    print(np.allclose([result.score for result in results], expected, rtol=1e-5))
    print(results[0].anomaly_map.shape)
    with context.Pool(1) as pool:
        print(pool.apply(inspector.inspect, (part(0),)).is_anomalous == inspector.inspect(part(0)).is_anomalous)
""",
        method,
        folder=tmp_path,
    )
    assert lines == ["True", "(96, 96)", "True"]


@pytest.mark.skipif(importlib.util.find_spec("joblib") is None, reason="joblib is not installed")
def test_joblib_shares_an_inspector(tmp_path: Path) -> None:
    lines = output(
        """
if __name__ == "__main__":
    from joblib import Parallel, delayed
    inspector = product()
    results = Parallel(n_jobs=2)(delayed(inspector.inspect)(part(seed)) for seed in range(3))
    print(np.allclose([r.score for r in results], [inspector.inspect(part(s)).score for s in range(3)], rtol=1e-5))
""",
        folder=tmp_path,
    )
    assert lines == ["True"]


COPIES = {
    "pickle": lambda inspector: pickle.loads(pickle.dumps(inspector)),  # noqa: S301 - made on the same line
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_says_the_same_and_is_independent(
    how: str, inspector: Inspector, parts: list[np.ndarray], broken_part: np.ndarray
) -> None:
    before = inspector.threshold
    twin = COPIES[how](inspector)
    for image in (parts[0], broken_part):
        mine, its = inspector.inspect(image), twin.inspect(image)
        assert its.score == pytest.approx(mine.score, rel=1e-6)
        assert its.is_anomalous == mine.is_anomalous
    twin.threshold = 99.0
    assert inspector.threshold == before
    assert twin.info().keys() == inspector.info().keys()


class _Engine:
    """An engine of one's own: the mean color of each block of 8 pixels."""

    makes_levels = False
    device = "cpu"

    def __init__(self, helper: Any = None) -> None:
        self.helper = helper

    def run(self, image: Uint8Array) -> list[Float32Array]:
        height, width = image.shape[0] // 8, image.shape[1] // 8
        blocks = image[: height * 8, : width * 8].reshape(height, 8, width, 8, 3).astype(np.float32)
        return [blocks.mean(axis=(1, 3)) / 255 + 0.1]


def _own_inspector(inspector: Inspector, parts: list[np.ndarray], helper: Any) -> Inspector:
    import dataclasses

    spec = dataclasses.replace(
        inspector.encoder.spec, name="mean", stages=(0,), strides=(8,), channels=(3,), deepest_stride=8, embedding=None
    )
    encoder = Encoder(spec, _Engine(helper), "torch", None)
    return Inspector.from_support(parts, product="own", encoder=encoder, views="none", image_size=128)


def test_an_encoder_of_ones_own_is_pickled_with_its_engine(inspector: Inspector, parts: list[np.ndarray]) -> None:
    own = _own_inspector(inspector, parts, None)
    twin = pickle.loads(pickle.dumps(own))  # noqa: S301 - made on the same line
    assert twin.inspect(parts[1]).score == pytest.approx(own.inspect(parts[1]).score)


def test_an_encoder_that_cannot_be_pickled_is_one_error(inspector: Inspector, parts: list[np.ndarray]) -> None:
    own = _own_inspector(inspector, parts, lambda: None)
    with pytest.raises(WeightsError, match=r"Inspector\.load\(path, encoder="):
        pickle.dumps(own)


DAEMONS = {
    "inspect": "inspector.inspect(part(6)).overlay()",
    "enroll": "product()",
    "add": "inspector.add([part(int(time.time() * 1e6))])",
    "batch": "list(inspector.inspect_batch([part(seed) for seed in range(50)]))",
    "camera": "list(inspector.inspect_batch(part(seed) for seed in range(50)))",
    "read": "read_image(encoded)",
}


ENDS = [*((work, "") for work in DAEMONS), ("inspect", "sys.exit(3)"), ("inspect", "raise ValueError('the end')")]


@pytest.mark.parametrize(("work", "end"), ENDS)
def test_a_daemon_thread_at_work_does_not_abort_the_exit(work: str, end: str) -> None:
    done = run(f"""
import cv2
from fewshot_ad import read_image
encoded = cv2.imencode(".png", part(6, 1500, 1500))[1].tobytes()
inspector = product()
def loop():
    while True:
        {DAEMONS[work]}
for _ in range(2):
    threading.Thread(target=loop, daemon=True).start()
time.sleep(0.5)
{end}
""")
    assert done.returncode == {"": 0, "sys.exit(3)": 3}.get(end, 1), done.stderr
    assert "terminate" not in done.stderr
    assert "Fatal" not in done.stderr
    assert done.stderr.count("Traceback") == end.startswith("raise")


def test_exit_functions_of_others_may_still_inspect() -> None:
    lines = output("""
import atexit
inspector = product()
atexit.register(lambda: print("late", inspector.inspect(part(5)).score > 0, flush=True))
import fewshot_ad.host.lifetime
atexit.unregister(fewshot_ad.host.lifetime._gate.before_exit)
atexit.register(fewshot_ad.host.lifetime._gate.before_exit)
""")
    assert lines == ["late True"]
