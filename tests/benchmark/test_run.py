from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fewshot_ad import metrics
from fewshot_ad.benchmark import record as ledger
from fewshot_ad.benchmark import run as run_module
from fewshot_ad.benchmark.job import Outcome
from fewshot_ad.benchmark.material import material
from fewshot_ad.benchmark.plan import Job, MethodPlan, Plan
from fewshot_ad.benchmark.plan_file import parse_plan
from fewshot_ad.benchmark.run import in_process, pending, processes, run_plan, shares
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.metrics import au_pro
from fewshot_ad.zoo.components.curves import Curves
from tests.benchmark.test_plan import content
from tests.datasets.layouts import LAYOUTS


def plan(dataset: Path, **changes: Any) -> Plan:
    small = {"methods": {"mean": {}}, "shots": [2], "draws": 1, "protocol": {"pixel_side": 32, "bootstrap": 50}}
    return parse_plan(content(dataset, **{**small, **changes}), Path())


def finish(the_plan: Plan, out: Path, **options: Any) -> list[ledger.Record]:
    for _ in run_plan(the_plan, out, in_process, **options):
        pass
    return ledger.read(out)


def test_a_record_has_everything(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    records = finish(plan(dataset), tmp_path / "records.jsonl")
    assert [r.category for r in records] == ["washer", "zinc"]
    for record in records:
        assert record.status == "done"
        assert record.figures["image_auroc"] == 1.0  # the blot is far from any washer
        assert record.figures["pixel_auroc"] > 0.9
        assert {"au_pro", "au_pro_05", "image_aupr", "image_f1_max", "escape_rate"} <= set(record.figures)
        # Of one threshold, F1 and intersection over union are two ways to say the same.
        f1 = record.figures["pixel_f1_max"]
        assert record.figures["pixel_iou_max"] == pytest.approx(f1 / (2 - f1))
        precision, recall = record.figures["precision"], record.figures["recall"]
        assert record.figures["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
        rates = {"false_reject_rate", "escape_rate"}
        assert set(record.intervals) == {"image_auroc", "image_aupr", "image_f1_max", "image_mcc_max", *rates}
        for name, (low, high) in record.intervals.items():
            assert low <= record.figures[name] <= high
        used = {"support": 2, "test_good": 3, "test_defective": 3, "masks": 6, "unreadable": 0}
        copy = {"copy_train_good": 5, "copy_validation_good": 0, "copy_test_good": 3, "copy_test_defective": 3}
        assert record.counts == used | copy
        assert record.fit_s is not None
        assert record.ms is not None
        assert record.model_mb == pytest.approx(16 * 16 * 3 * 4 / 1e6)
        assert len(record.support) == 2
        assert record.versions["numpy"] == np.__version__
        assert record.machine["processor"]
        # Three defective and one good result, each image, truth and map.
        assert len(record.overlays) == 4
        strip = cv2.imread(str(tmp_path / record.overlays[0]))
        assert strip.shape == (192, 5 * 192, 3)


def test_figures_are_those_of_the_scores(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    from fewshot_ad.benchmark.material import Images, material
    from fewshot_ad.zoo import create

    the_plan = plan(dataset, methods={"mean": {"options": {"side": 4}}}, protocol={"pixel_side": None, "bootstrap": 0})
    record = finish(the_plan, tmp_path / "records.jsonl")[0]
    part = material(next(the_plan.jobs()))["washer"]
    method = create("mean", side=4)
    method.fit(Images(part.support))
    prediction = method.predict(Images(part.test))
    labels = [sample.label for sample in part.test]
    assert prediction.maps is not None
    masks = [sample.mask((64, 64)) for sample in part.test]
    assert record.figures["image_auroc"] == pytest.approx(metrics.auroc(labels, prediction.scores))
    assert record.figures["pixel_auroc"] == pytest.approx(
        metrics.auroc(np.stack(masks), np.stack(prediction.maps)), abs=1e-3
    )
    assert record.figures["au_pro"] == pytest.approx(au_pro(prediction.maps, masks), abs=5e-3)


@pytest.mark.parametrize("side", [None, 32])
def test_saturated_figures_where_the_dataset_says_what_is_enough(
    mean_baseline: str, tmp_path: Path, side: int | None
) -> None:
    """A third of a defect is found, at once and before any false positive: all there is to find if that is enough."""
    rows = np.mgrid[0:64, 0:64][0]
    for kind in ("train/good", "validation/good", "test/good", "test/logical_anomalies"):
        for number in range(2):
            image = np.full((64, 64, 3), 100, np.uint8)
            if "anomalies" in kind:
                image[8:16, 8:56] = 220
            path = tmp_path / "pushpins" / kind / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)
            if "anomalies" in kind:
                mask = tmp_path / "pushpins/ground_truth/logical_anomalies" / path.stem / "000.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(mask), np.where((rows >= 8) & (rows < 32), 9, 0).astype(np.uint8))
    enough = [{"defect_name": "extra", "pixel_value": 9, "saturation_threshold": 8 * 48, "relative_saturation": False}]
    (tmp_path / "pushpins/defects_config.json").write_text(json.dumps(enough))
    the_plan = parse_plan(
        {
            "datasets": {"loco": {"layout": "mvtec_loco", "root": str(tmp_path)}},
            "methods": {"mean": {"options": {"side": 64}}},
            "shots": [2],
            "draws": 1,
            "protocol": {"pixel_side": side, "bootstrap": 0, "overlays": 0},
        },
        Path(),
    )
    (record,) = finish(the_plan, tmp_path / "records.jsonl")
    assert record.figures["au_spro_05"] == pytest.approx(1)
    assert record.figures["au_spro"] == pytest.approx(1)
    assert record.figures["au_pro_05"] < 0.5


def test_what_is_on_record_is_not_done_again(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    finish(plan(dataset), out)
    before = out.read_bytes()
    assert [s.jobs for s in run_plan(plan(dataset), out, in_process)] == [2]
    assert out.read_bytes() == before
    # More shots: only these are done.
    finish(plan(dataset, shots=[2, 3]), out)
    assert out.read_bytes().startswith(before)
    assert len(ledger.read(out)) == 4


def test_a_run_stopped_half_way_goes_on(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    run = run_plan(plan(dataset), out, in_process)
    next(run), next(run)
    run.close()
    assert len(ledger.read(out)) == 1
    assert len(pending(plan(dataset), out)) == 1
    assert len(finish(plan(dataset), out)) == 2


def test_one_failing_job_stops_nothing(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    methods = {"bad": {"baseline": "mean", "options": {"fail": True}}, "mean": {}}
    out = tmp_path / "records.jsonl"
    states = list(run_plan(plan(dataset, methods=methods), out, in_process))
    assert (states[-1].jobs, states[-1].total, states[-1].failures) == (4, 4, 2)
    failed = [r for r in ledger.read(out) if r.status == "failed"]
    assert {r.method for r in failed} == {"bad"}
    assert failed[0].reason == "ZooError: told to fail"
    # On record, so left alone, unless asked for.
    again = list(run_plan(plan(dataset, methods=methods), out, in_process))
    assert (len(again), again[0].failures) == (1, 2)
    assert len(list(run_plan(plan(dataset, methods=methods), out, in_process, retry_failed=True))) == 3


def test_an_unreadable_test_image_is_left_out(
    dataset: Path, mean_baseline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    (copy / "zinc/test/good/000.png").write_bytes(b"no image")
    records = finish(plan(copy), tmp_path / "records.jsonl")
    assert [r.counts["unreadable"] for r in records] == [0, 1]
    assert all(r.status == "done" for r in records)


def test_unified_is_one_fit_for_all(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    records = finish(plan(dataset, settings=["unified"]), tmp_path / "records.jsonl")
    assert [r.category for r in records] == ["washer", "zinc"]
    assert records[0].support_sha256 == records[1].support_sha256
    assert [r.counts["support"] for r in records] == [4, 4]
    assert {name.split("/")[0] for name in records[0].support} == {"washer"}
    assert records[0].fit_s == records[1].fit_s


def test_noisy_support_has_defects_that_the_test_lacks(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    records = finish(plan(dataset, settings=[{"noisy": {"noise": 0.3}}], shots=[4]), tmp_path / "records.jsonl")
    for record in records:
        defects = [name for name in record.support if "/blot/" in name]
        assert len(defects) == 1
        assert record.counts["test_defective"] == 2
        assert len(record.support) == 4


def test_transfer_fits_on_the_source(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "copy")
    datasets = {
        "washers": {"layout": "mvtec", "root": str(tmp_path / "copy"), "categories": ["washer"]},
        "zincs": {"layout": "mvtec", "root": str(dataset), "categories": ["zinc"]},
    }
    the_plan = plan(dataset, datasets=datasets, settings=[{"transfer": {"source": "washers"}}], shots=[0, 2])
    records = [r for r in finish(the_plan, tmp_path / "records.jsonl") if r.dataset == "zincs"]
    assert [len(r.support) for r in records] == [5, 7]
    assert all(name.startswith("washer/") for name in records[0].support)


def test_images_are_named_below_their_own_dataset(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    """One dataset's folder may lie inside the other's."""
    shutil.copytree(dataset, tmp_path / "outer")
    shutil.copytree(dataset, tmp_path / "outer" / "inner")
    for source, target in (("outer", "outer/inner"), ("outer/inner", "outer")):
        datasets = {
            "source": {"layout": "mvtec", "root": str(tmp_path / source), "categories": ["washer"]},
            "target": {"layout": "mvtec", "root": str(tmp_path / target), "categories": ["zinc"]},
        }
        the_plan = plan(dataset, datasets=datasets, settings=[{"transfer": {"source": "source"}}])
        (record,) = [r for r in finish(the_plan, tmp_path / f"{target}.jsonl") if r.dataset == "target"]
        assert {name.split("/")[0] for name in record.support} == {"washer", "zinc"}


def test_a_method_that_wants_to_know_the_product_is_told(
    dataset: Path, mean_baseline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewshot_ad.zoo import method as registry

    card, factory = registry._REGISTRY["mean"]
    names: list[str] = []

    def named(*, seed: int = 0, class_name: str = "object") -> Any:
        made = factory(seed=seed)
        fit = made.fit

        def told(*images: Any, **more: Any) -> None:
            names.append(class_name)
            fit(*images, **more)

        monkeypatch.setattr(made, "fit", told)
        return made

    copy = tmp_path / "copy"
    for category, name in (("washer", "steel_washer"), ("zinc", "zinc")):
        shutil.copytree(dataset / category, copy / name)
    before = [job.key(job.categories[0]) for job in plan(copy).jobs()]
    monkeypatch.setitem(registry._REGISTRY, "mean", (card, named))
    assert [job.key(job.categories[0]) for job in plan(copy).jobs()] == before
    records = finish(plan(copy), tmp_path / "records.jsonl")
    assert names == ["steel washer", "zinc"]
    assert [(r.key, r.options) for r in records] == [(key, {}) for key in before]
    # A plan has the last word, and one model for all has no one name.
    names.clear()
    finish(plan(copy, methods={"mean": {"options": {"class_name": "thing"}}}), tmp_path / "records.jsonl")
    finish(plan(copy, settings=["unified", {"continual": {"replay": 1}}]), tmp_path / "records.jsonl")
    assert names == ["thing"] * 2 + ["object"] * 3


def test_continual_measures_what_was_forgotten(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    records = finish(plan(dataset, settings=[{"continual": {"replay": 1}}]), tmp_path / "records.jsonl")
    assert [r.category for r in records] == ["washer", "zinc"]
    # The model after the last step: one washer replayed, two of the newest.
    assert [len(r.support) for r in records] == [1, 2]
    alone = finish(plan(dataset), tmp_path / "alone.jsonl")[0]
    lost = alone.figures["image_auroc"] - records[0].figures["image_auroc"]
    assert records[0].figures["forgetting"] == pytest.approx(lost)
    assert "forgetting" not in records[1].figures


def test_a_full_disk_is_said_and_loses_nothing(
    dataset: Path, mean_baseline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "records.jsonl"
    run = run_plan(plan(dataset), out, in_process)
    next(run), next(run)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BenchmarkError, match="No space left"):
        next(run)
    monkeypatch.undo()
    assert ledger.read(out)[0].status == "done"


def test_where_one_method_is_supervised_all_are_tested_on_the_same(dataset: Path, mean_baseline: str) -> None:
    from fewshot_ad.benchmark.material import material

    the_plan = plan(dataset, methods={"mean": {}, "yolov8": {}})
    first, second = (next(job for job in the_plan.jobs() if job.method.name == name) for name in ("mean", "yolov8"))
    ours, theirs = material(first)["zinc" if "zinc" in first.categories else "washer"], material(second)["washer"]
    assert ours.test == theirs.test
    assert not ours.labeled
    assert theirs.labeled
    assert not set(theirs.labeled) & set(theirs.test)


def test_a_second_run_on_the_same_record_is_refused(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    run = run_plan(plan(dataset), out, in_process)
    next(run)
    with pytest.raises(BenchmarkError, match="another run is writing to it"):
        next(run_plan(plan(dataset), out, in_process))
    run.close()
    assert len(finish(plan(dataset), out)) == 2


def test_a_worker_ends_with_its_run(dataset: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from fewshot_ad.benchmark.run import *;"
        "from tests.benchmark.test_run import real\n"
        "if __name__ == '__main__':\n"
        "    for state in run_plan(real(Path(sys.argv[1]), 2), Path(sys.argv[2]), processes(1)): print('x', flush=True)"
    )
    file = tmp_path / "run.py"
    file.write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, str(file), str(dataset), str(tmp_path / "records.jsonl")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    process.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("NO /proc on this system")
    deadline = time.monotonic() + 60
    started: list[int] = []
    while not started and time.monotonic() < deadline:
        started = [int(pid) for pid in children.read_text().split() if b"spawn_main" in _command(int(pid))]
    # Its thread that watches over the run needs the interpreter up.
    time.sleep(8)
    process.kill()
    process.wait()
    while any(_command(pid) for pid in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_command(pid) for pid in started)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_shares_cover_the_processors() -> None:
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    assert [cpu for share in shares(1) for cpu in share] == list(cpus)
    assert all(shares(len(cpus) + 3))


def real(dataset: Path, count: int = 2) -> Plan:
    """Jobs of a baseline that a new process can import."""
    return plan(
        dataset, methods={"patchcore": {"options": {"image_size": 64, "views": "none"}}}, draws=count, shots=[2]
    )


def test_each_job_in_a_process_of_its_own(dataset: Path, tmp_path: Path) -> None:
    the_plan = real(dataset, 1)
    states = list(run_plan(the_plan, tmp_path / "records.jsonl", processes(2)))
    assert (states[-1].jobs, states[-1].failures) == (2, 0)
    here = tmp_path / "here.jsonl"
    finish(the_plan, here)
    by_key = {r.key: r for r in ledger.read(here)}
    for record in ledger.read(tmp_path / "records.jsonl"):
        assert record.figures == pytest.approx(by_key[record.key].figures, abs=1e-3)


def test_a_killed_worker_is_a_failed_job(dataset: Path, tmp_path: Path) -> None:
    def kill_first() -> None:
        deadline = time.monotonic() + 60
        while not multiprocessing.active_children() and time.monotonic() < deadline:
            time.sleep(0.01)
        pid = multiprocessing.active_children()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_first)
    killer.start()
    out = tmp_path / "records.jsonl"
    states = list(run_plan(real(dataset, 1), out, processes(1)))
    killer.join()
    assert (states[-1].jobs, states[-1].failures) == (2, 1)
    (failed,) = [r for r in ledger.read(out) if r.status == "failed"]
    assert "its process died (signal 9" in failed.reason


def test_a_job_that_takes_too_long_is_stopped(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    states = list(run_plan(real(dataset, 1), out, processes(2, limit_s=0.0)))
    assert states[-1].failures == 2
    assert ledger.read(out)[0].reason == "stopped after the limit of 0 s."


def test_outcomes_are_kept_in_the_order_they_come(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    def backwards(jobs: Sequence[Job]) -> Iterator[tuple[Job, list[Outcome]]]:
        yield from reversed(list(in_process(jobs)))

    out = tmp_path / "records.jsonl"
    for _ in run_plan(plan(dataset), out, backwards):
        pass
    assert [r.category for r in ledger.read(out)] == ["zinc", "washer"]
    assert dataclasses.asdict(ledger.read(out)[0])["schema"] == 1


def test_a_run_tells_how_far_each_job_is_and_draws_its_curves(dataset: Path, tmp_path: Path) -> None:
    method = {"mkd": {"options": {"image_size": 64, "width": 8, "steps": 6}}}
    the_plan = plan(dataset, methods=method)
    seen: list[tuple[str, str, int, int]] = []

    def observe(job: Job, stage: str, done: int, total: int) -> None:
        seen.append((job.categories[0], stage, done, total))

    runner = processes(1, curves=Curves("csv", tmp_path / "curves"), observe=observe)
    states = list(run_plan(the_plan, tmp_path / "records.jsonl", runner))
    assert [state.failures for state in states] == [0, 0, 0]
    for category in ("washer", "zinc"):
        reports = [report[1:] for report in seen if report[0] == category]
        assert ("training", 6, 6) in reports
        assert reports[-1] == (f"inspecting {category}", 6, 6)
    runs = sorted(path.name for path in (tmp_path / "curves").iterdir())
    assert runs == [f"mkd-tiny-{category}-few-shot-K=2-draw-0" for category in ("washer", "zinc")]


def report_without_end(job: Job, threads: int, sender: Any, curves: Curves | None) -> None:
    """Stands in for a worker whose job reports for hours."""
    while True:
        sender.send(("training", 1, 2))


def test_a_job_that_keeps_reporting_is_stopped_at_the_limit_all_the_same(
    dataset: Path, mean_baseline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_work", report_without_end)
    *_, last = run_plan(plan(dataset), tmp_path / "records.jsonl", processes(2, limit_s=1))
    assert last.failures == 2
    assert last.records[0].reason == "stopped after the limit of 1 s."


def test_few_abnormal_images_are_learned_from_and_tested_by_no_method(
    dataset: Path, mean_baseline: str, tmp_path: Path
) -> None:
    methods = {"mean": {}, "devnet": {"options": {"image_size": 64, "steps": 2, "batch_size": 4}}}
    the_plan = plan(dataset, methods=methods, settings=[{"few-abnormal": {"count": 1}}], draws=2)
    ours, theirs = (
        {(r.category, r.draw): r for r in finish(the_plan, tmp_path / "records.jsonl") if r.method == name}
        for name in methods
    )
    assert [record.reason for record in (*ours.values(), *theirs.values()) if record.status == "failed"] == []
    for place, record in theirs.items():
        assert record.setting == "1 abnormal"
        assert record.counts["labeled"] == len(record.labeled) == 1
        assert record.counts["test_defective"] == ours[place].counts["test_defective"] == 2
        assert ours[place].labeled == ()
    assert len({record.labeled for record in theirs.values()}) > 1


def test_several_numbers_of_abnormal_images_are_tested_on_the_same_ones(
    dataset: Path, mean_baseline: str, tmp_path: Path
) -> None:
    settings = [{"few-abnormal": {"count": n}} for n in (1, 2)]
    jobs = [job for job in plan(dataset, settings=settings, draws=1).jobs() if job.categories == ("washer",)]
    few, more = (material(dataclasses.replace(job, method=MethodPlan("dra", "dra")))["washer"] for job in jobs)
    assert few.test == more.test
    assert (len(few.labeled), len(more.labeled)) == (1, 2)
    assert few.labeled == more.labeled[:1]
    alone = next(iter(plan(dataset, settings=settings[:1], draws=1).jobs()))
    assert alone.key("washer") != jobs[0].key("washer")


def test_a_partial_copy_is_told_once_before_any_job(mean_baseline: str, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    LAYOUTS["real_iad"](root)
    lost = next(root.rglob("*_OK_C1_*.jpg"))
    lost.unlink()
    plan_of = {"datasets": {"iad": {"root": str(root), "layout": "real_iad"}}, "methods": {"mean": {}}, "shots": [1]}
    notes: list[str] = []
    states = run_plan(parse_plan(plan_of, tmp_path), tmp_path / "records.jsonl", in_process, note=notes.append)
    assert next(states).jobs == 0
    assert len(notes) == 1
    assert "iad: a partial copy" in notes[0]
    assert lost.name in notes[0]
    assert "1 images are missing" in notes[0]
    assert "datasets check real_iad" in notes[0]
    list(states)
    assert len(notes) == 1


def test_whole_copies_and_products_of_ones_own_are_no_partial_copies(
    dataset: Path, mean_baseline: str, tmp_path: Path
) -> None:
    notes: list[str] = []
    next(run_plan(plan(dataset), tmp_path / "records.jsonl", in_process, note=notes.append))
    assert notes == []


def test_too_few_images_are_told_before_any_job(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    asked, notes = plan(dataset, shots=[2, 300]), list[str]()
    assert pending(asked, tmp_path / "records.jsonl", note=notes.append)
    next(run_plan(asked, tmp_path / "records.jsonl", in_process, note=notes.append))
    first, second = notes
    assert first == second
    assert "fewer good training images than jobs ask for" in first
    assert "washer has" in first
    assert "K = 300" in first


def test_missing_weights_are_told_before_any_job(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    options = {"weights": str(tmp_path / "later.pth")}
    asked = plan(dataset, methods={"mean": {}, "cfa": {"baseline": "anomalib_cfa", "options": options}})
    first, second = list[str](), list[str]()
    assert pending(asked, tmp_path / "records.jsonl", note=first.append)
    next(run_plan(asked, tmp_path / "records.jsonl", in_process, note=second.append))
    assert first == second
    assert len(first) == 1
    assert first[0].startswith("cfa: its jobs will fail unless this changes: ")
    assert "later.pth is none. Check the path." in first[0]


def test_too_few_defects_are_told_before_any_job(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    asked, notes = plan(dataset, settings=[{"few-abnormal": {"count": 500}}]), list[str]()
    assert pending(asked, tmp_path / "records.jsonl", note=notes.append)
    assert len(notes) == 1
    assert "fewer defective images than jobs ask for" in notes[0]
    assert "500 are to be learned from and others tested" in notes[0]
    # One to learn from leaves others to test.
    notes.clear()
    pending(plan(dataset, settings=[{"few-abnormal": {"count": 1}}]), tmp_path / "records.jsonl", note=notes.append)
    assert notes == []


def test_masks_that_are_missing_are_told(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(dataset, copied)
    next((copied / "washer/ground_truth/blot").iterdir()).unlink()
    told: list[list[str]] = [[], []]
    next(run_plan(plan(copied), tmp_path / "records.jsonl", in_process, note=told[0].append))
    # So does a look at what would run.
    pending(plan(copied), tmp_path / "records.jsonl", note=told[1].append)
    assert told[0] == told[1]
    assert len(told[0]) == 1
    assert "1 masks are missing" in told[0][0]
