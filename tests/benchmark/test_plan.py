from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fewshot_ad import zoo
from fewshot_ad.benchmark.material import material
from fewshot_ad.benchmark.plan import Job
from fewshot_ad.benchmark.plan_file import parse_plan, read_plan
from fewshot_ad.benchmark.run import in_process, pending, run_plan
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.zoo.configuration import lacks_weights
from tests.benchmark.conftest import write


def content(dataset: Path, **changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "name": "tiny",
        "methods": {"small": {"baseline": "mean", "options": {"side": 8}}, "mean": {}},
        "datasets": {"tiny": {"layout": "mvtec", "root": str(dataset)}},
        "shots": [2, "full"],
        "draws": 2,
    }
    return {**plan, **changes}


def test_jobs_are_the_product_of_everything(dataset: Path, mean_baseline: str) -> None:
    jobs = list(parse_plan(content(dataset), Path()).jobs())
    assert len(jobs) == 2 * 2 * 2 * 2  # methods, categories, shots, draws
    assert {job.setting for job in jobs if job.shots == "full"} == {"full-shot"}
    assert len({job.key(job.categories[0]) for job in jobs}) == len(jobs)
    assert {(job.draw, job.seed) for job in jobs} == {(0, 0), (1, 1)}


def test_a_key_says_what_was_asked_and_not_where(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    def key(**changes: Any) -> str:
        job = next(parse_plan(content(dataset, **changes), Path()).jobs())
        return job.key(job.categories[0])

    (tmp_path / "elsewhere").symlink_to(dataset)
    assert key() == key()
    assert key(datasets={"tiny": {"layout": "mvtec", "root": str(tmp_path / "elsewhere")}}) == key()
    assert key(protocol={"overlays": 0}) == key()
    assert key(seed=1) != key()
    assert key(protocol={"pixel_side": 64}) != key()
    assert key(methods={"small": {"baseline": "mean", "options": {"side": 9}}}) != key()


def test_one_model_for_all_categories(dataset: Path, mean_baseline: str) -> None:
    plan = parse_plan(content(dataset, settings=["unified", {"continual": {"replay": 1}}], shots=[2]), Path())
    assert all(job.categories == ("washer", "zinc") for job in plan.jobs())
    assert {(job.setting, job.replay) for job in plan.jobs()} == {("unified", 0), ("continual", 1)}


def test_paths_are_relative_to_the_plan(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(dataset)
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(content(dataset, datasets={"mvtec": {"root": "data"}})))
    assert read_plan(file).datasets[0].root == dataset.resolve()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": {}}, "got 'method' .did you mean 'methods'"),
        ({"methods": {}}, "methods: expected at least 1 entry, got 0"),
        (
            {"methods": {"mean": {"options": {"sides": 3}}}},
            "methods.mean.options.sides: expected an option among device, fail, precision, side, got 'sides'",
        ),
        (
            {"methods": {"patchkore": {}}},
            "methods.patchkore: expected a baseline, got 'patchkore' .did you mean 'patchcore'",
        ),
        (
            {"datasets": {"x": {"layout": "mvtek", "root": "."}}},
            "datasets.x.layout: expected a layout, got 'mvtek' .did you mean 'mvtec'",
        ),
        ({"datasets": {"mvtec": {}}}, "datasets.mvtec.root: expected text, got nothing"),
        ({"shots": ["all"]}, "shots\\[0\\]: expected a whole number from 0 to 1000000, or `full`, got 'all'"),
        ({"shots": [0]}, "methods that judge without any, which small, mean cannot"),
        (
            {"shots": [0, 2], "settings": ["unified"]},
            "that judge without any, got unified. Take other settings or shots",
        ),
        ({"shots": [10**7]}, "from 0 to 1000000, or `full`, got 10000000"),
        ({"draws": 0}, "draws"),
        ({"settings": ["full-shot"]}, "For full-shot give shots"),
        ({"shots": [2, 2]}, "different whole numbers"),
        ({"settings": []}, "settings: expected at least 1 entry, got 0"),
        ({"settings": [3]}, "got 3"),
        ({"settings": [{"noisy": {"noise": 0.5}, "unified": {}}]}, "expected one of few-shot, unified"),
        ({"settings": [{"noisy": {}}]}, "settings\\[0\\].noisy.noise: expected a number above 0 below 1, got nothing"),
        ({"settings": [{"noisy": {"noise": "much"}}]}, "got 'much'"),
        ({"settings": [{"noisy": 0.1}]}, "settings\\[0\\].noisy: expected names and values"),
        ({"settings": [{"continual": {"replay": -1}}]}, "got -1"),
        ({"protocol": {"test_limit": 0}}, "protocol.test_limit: expected a whole number from 1, or null, got 0"),
        ({"protocol": {"bootstrap": -1}}, "protocol.bootstrap: expected a whole number from 0 to 1000000, got -1"),
        (
            {"settings": [{"transfer": {"source": "x"}}]},
            "transfer.source: expected a dataset of the plan among tiny, got 'x'",
        ),
        ({"protocol": {"pixel_side": -1}}, "pixel_side"),
    ],
)
def test_what_a_plan_cannot_say(dataset: Path, mean_baseline: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        parse_plan(content(dataset, **change), Path())


def test_another_support_list_is_another_question(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    def keys(listed: str | None) -> set[str]:
        entry: dict[str, Any] = {"layout": "mvtec", "root": str(dataset)}
        if listed is not None:
            (tmp_path / "lists.txt").write_text(listed)
            entry["support"] = str(tmp_path / "lists.txt")
        plan = parse_plan(content(dataset, datasets={"tiny": entry}, shots=[2], draws=1, methods={"mean": {}}), Path())
        return plan.keys()

    drawn, first, second = keys(None), keys("washer\t0\ta\tb\tc\n"), keys("washer\t0\tb\ta\tc\n")
    assert len(drawn & first) == 1  # zinc is on no list
    assert len(first & second) == 1
    # What lies beyond the shots does not matter.
    assert keys("washer\t0\ta\tb\td\n") == first


def test_lists_of_ones_own_are_whole(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    file = tmp_path / "lists.txt"
    datasets = {"tiny": {"layout": "mvtec", "root": str(dataset), "support": str(file)}}
    plan = parse_plan(content(dataset, datasets=datasets, shots=[1, 2, "full"], draws=2, methods={"mean": {}}), Path())
    advice = f"fewshot-ad benchmark lists mvtec {dataset} --shots 2 --draws 2 -o FILE"
    for text, got in (
        ("washer\t0\ta\tb\nwasher\t1\ta\n", "at least 2 names of washer, draw 1, got 1"),
        ("washer\t0\ta\tb\n", "at least 1 names of washer, draw 1, got 0"),
    ):
        file.write_text(text)
        with pytest.raises(BenchmarkError, match=f"lists.txt: expected {got}") as raised:
            list(plan.jobs())
        assert advice in str(raised.value)
    file.write_text("washer\t0\ta\tb\nwasher\t1\ta\tb\n")
    assert {job.listed for job in plan.jobs() if job.categories == ("zinc",)} == {(None,)}


def test_more_shots_and_draws_than_a_shipped_list_has(
    mean_baseline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tmp_path / "bottle/train/good"
    for i in range(209):
        write(good / f"{i:03d}.png", np.zeros((4, 4, 3), np.uint8))
    write(tmp_path / "bottle/test/good/000.png", np.zeros((4, 4, 3), np.uint8))
    plan_content = content(tmp_path, methods={"mean": {}}, shots=[8, 16], draws=4)
    with_lists = list(parse_plan(plan_content, Path()).jobs())
    monkeypatch.setattr("fewshot_ad.benchmark.plan.shipped_lists", lambda layout: {})
    without = list(parse_plan(plan_content, Path()).jobs())
    for listed, drawn in zip(with_lists, without, strict=True):
        support = [sample.path for sample in material(listed)["bottle"].support]
        assert len(set(support)) == listed.shots
        assert support == [sample.path for sample in material(drawn)["bottle"].support]
        assert (listed.key("bottle") != drawn.key("bottle")) == (listed.draw < 3)


def test_noise_that_comes_to_nothing_or_all(dataset: Path, mean_baseline: str) -> None:
    for shots, noise in ((2, 0.1), (1, 0.9)):
        plan = parse_plan(content(dataset, settings=[{"noisy": {"noise": noise}}], shots=[shots]), Path())
        with pytest.raises(BenchmarkError, match="Take other shots, or another noise"):
            list(plan.jobs())
    plan = parse_plan(content(dataset, settings=[{"noisy": {"noise": 0.3}}], shots=[1, 4, "full"]), Path())
    assert {job.shots for job in plan.jobs()} == {4, "full"}


def test_a_dataset_is_not_transferred_to_itself(dataset: Path, mean_baseline: str) -> None:
    plan = parse_plan(content(dataset, settings=[{"transfer": {"source": "tiny"}}]), Path())
    assert list(plan.jobs()) == []


def test_a_setting_without_jobs_is_named_beside_others(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    one = {"tiny": {"layout": "mvtec", "root": str(dataset), "categories": ["washer"]}}
    settings = ["few-shot", "one-category", {"transfer": {"source": "tiny"}}]
    notes: list[str] = []
    plan = parse_plan(content(dataset, datasets=one, settings=settings), Path())
    assert {job.setting for job in pending(plan, tmp_path / "records.jsonl", note=notes.append)} == {
        "few-shot",
        "full-shot",
    }
    idle = [note for note in notes if "makes no job" in note]
    assert [note.split(":")[1].strip() for note in idle] == [
        "the setting one-category makes no job",
        "the setting transfer makes no job",
    ]
    notes.clear()
    both = [*settings[:2], "unified", {"noisy": {"noise": 0.5}}, {"continual": {"replay": 1}}]
    pending(parse_plan(content(dataset, settings=both), Path()), tmp_path / "records.jsonl", note=notes.append)
    assert not [note for note in notes if "makes no job" in note]


def test_categories_that_are_not_there(dataset: Path, mean_baseline: str) -> None:
    datasets = {"tiny": {"layout": "mvtec", "root": str(dataset), "categories": ["nut"]}}
    with pytest.raises(BenchmarkError, match=r"expected categories among \['washer', 'zinc'\], got \['nut'\]"):
        list(parse_plan(content(dataset, datasets=datasets), Path()).jobs())


def test_no_plan_and_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="cannot read it"):
        read_plan(tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_text("methods: [")
    with pytest.raises(BenchmarkError, match="expected YAML"):
        read_plan(tmp_path / "plan.yaml")


def test_all_mistakes_of_a_file_are_named_with_their_lines(tmp_path: Path, mean_baseline: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(
        "methods:\n  mean:\n    options: {side: big, fial: yes}\n  padim: {options: {regularisation: 1}}\n"
        "  patchcore: {options: {stages: [1, two]}}\ndatasets:\n  mvtec: {root: .}\n"
    )
    with pytest.raises(BenchmarkError) as raised:
        read_plan(file)
    assert str(raised.value) == (
        f"{file}: 4 mistakes. "
        f"[1] methods.mean.options.side: expected a whole number, got 'big' ({file}, line 3). "
        "[2] methods.mean.options.fial: expected an option among device, fail, precision, side, got 'fial' "
        "(did you mean 'fail'?) "
        f"({file}, line 3). "
        "[3] methods.padim.options.regularisation: expected 'regularization', as it is called since version 0.2, "
        f"got its former name ({file}, line 4). "
        f"[4] methods.patchcore.options.stages: expected a list, each a whole number, got [1, 'two'] ({file}, line 5)."
    )


def test_values_out_of_range_are_named_and_missing_files_are_not(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(
        "methods:\n  padim: {options: {dims: 0}}\n  efficientad_cdo: {options: {size: XL, device: 'cuda:99'}}\n"
        "  rkde: {options: {device: gpu}}\n"
        "  spade: {options: {weights: later.pth}}\n  patchcore: {options: {weights: timm, backbone: resnet50}}\n"
        "datasets:\n  mvtec: {root: .}\n"
    )
    with pytest.raises(BenchmarkError) as raised:
        read_plan(file)
    assert str(raised.value) == (
        f"{file}: 3 mistakes. "
        f"[1] methods.padim.options: expected dims of at least 1, got 0 ({file}, line 2). "
        f"[2] methods.efficientad_cdo.options: expected size S or M, got XL ({file}, line 3). "
        f"[3] methods.rkde.options.device: expected cpu, cuda or cuda:N, got 'gpu' ({file}, line 4)."
    )


def test_names_of_digits_and_entries_without_options(tmp_path: Path, mean_baseline: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(
        "name: 2026\nmethods: {mean: }\ndatasets: {mvtec: {root: ., categories: [1, a]}}\nsettings: unified\n"
    )
    plan = read_plan(file)
    assert (plan.name, plan.methods[0].options, plan.datasets[0].categories) == ("2026", {}, ("1", "a"))
    assert plan.settings == (("unified", {}),)


@pytest.mark.skipif(importlib.util.find_spec("anomalib") is None, reason="NO ANOMALIB")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("anomalib_cflow", {"patience": 3}, "monitor among image_auroc, pixel_auroc, got 'loss'"),
        ("anomalib_stfpm", {"validation": 0.2}, "expected patience with validation"),
        ("anomalib_stfpm", {"monitor": "pixel_auroc"}, "expected patience with monitor"),
        ("anomalib_stfpm", {"patience": 3, "validation": 2.0}, "validation in 0..0.5"),
        ("anomalib_stfpm", {"patience": 3, "monitor": "val_loss"}, "pixel_auroc"),
    ],
)
def test_when_a_training_stops_is_checked_with_the_plan(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=re.escape(message)):
        parse_plan({"methods": {name: {"options": options}}, "datasets": {"mvtec": {"root": "."}}}, Path())


def test_the_defaults_of_every_baseline_are_of_their_types() -> None:
    for name in zoo.cards():
        defaults = {key: value for key, value in zoo.options(name).items() if value is not inspect.Parameter.empty}
        datasets = {"mvtec": {"root": "."}}
        if lacks_weights(name, {}):
            with pytest.raises(BenchmarkError, match="expected weights, which are not at hand"):
                parse_plan({"methods": {name: {"options": defaults}}, "datasets": datasets}, Path())
            defaults["weights"] = "random"
        if "endpoint" in defaults:
            with pytest.raises(BenchmarkError, match="a service on this computer"):
                parse_plan({"methods": {name: {"options": defaults}}, "datasets": datasets}, Path())
            defaults["endpoint"] = "http://localhost:11434/v1"
        plan = parse_plan({"methods": {name: {"options": defaults}}, "datasets": datasets}, Path())
        assert plan.methods[0].name == name


def test_a_plan_without_jobs_is_refused(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    plan = parse_plan(content(dataset, settings=[{"transfer": {"source": "tiny"}}]), Path())
    with pytest.raises(BenchmarkError, match="tiny: expected a plan that makes at least one job, got none"):
        list(run_plan(plan, tmp_path / "records.jsonl", in_process))
    with pytest.raises(BenchmarkError, match="at least one job"):
        pending(plan, tmp_path / "records.jsonl")


def test_a_plan_may_ask_for_the_published_configuration(dataset: Path, mean_baseline: str) -> None:
    def methods(**entry: Any) -> Any:
        asked = {"baseline": "patchcore", "configuration": "published", **entry}
        return parse_plan(content(dataset, methods={"paper": asked}), Path()).methods[0]

    method = methods(options={"weights": "wrn50.safetensors"})
    assert dict(method.options) == {"backbone": "wide_resnet50_2", "views": "none", "weights": "wrn50.safetensors"}
    # What the plan says itself comes before it.
    assert methods(options={"weights": "random", "views": "hflip"}).options["views"] == "hflip"
    with pytest.raises(BenchmarkError, match=r"methods\.paper\.options: .*published weights \(ImageNet\)"):
        methods()
    # A method that starts from nothing needs none.
    assert methods(baseline="tdg").options == {}


def test_weights_are_fetched_with_permission_only(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    plan = parse_plan(content(dataset, methods={"far": {"baseline": "padim", "options": {"weights": "timm"}}}), Path())
    with pytest.raises(BenchmarkError, match=r"far: .*--allow-download"):
        next(run_plan(plan, tmp_path / "record.jsonl", in_process))
    assert not (tmp_path / "record.jsonl").exists()


def test_a_record_says_in_what_it_departs_from_the_paper(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    methods = {"small": {"baseline": "mean", "options": {"side": 8}}, "mean": {}}
    plan = parse_plan(content(dataset, methods=methods, shots=[2], draws=1), Path())
    records = [record for state in run_plan(plan, tmp_path / "record.jsonl", in_process) for record in state.records]
    departed = {record.method: record.differs for record in records}
    assert departed == {"small": ("side 8 (published: 16)",), "mean": ()}


def test_a_model_of_one_category_is_tested_on_all(dataset: Path, mean_baseline: str, tmp_path: Path) -> None:
    plan = parse_plan(content(dataset, methods={"mean": {}}, settings=["one-category"], shots=[2], draws=1), Path())
    jobs = list(plan.jobs())
    assert [(job.fitted_on, job.categories) for job in jobs] == [
        ("washer", ("washer", "zinc")),
        ("zinc", ("washer", "zinc")),
    ]
    records = [record for state in run_plan(plan, tmp_path / "record.jsonl", in_process) for record in state.records]
    assert {record.status for record in records} == {"done"}, records
    assert {(record.setting, record.category) for record in records} == {
        (f"fitted on {origin}", category) for origin in ("washer", "zinc") for category in ("washer", "zinc")
    }
    for record in records:
        assert len(record.support) == 2
        assert all(record.setting.removeprefix("fitted on ") in name for name in record.support)
    # It is one more question; those without it keep their keys.
    assert len({record.key for record in records}) == 4
    assert not pending(plan, tmp_path / "record.jsonl")


def test_two_entries_of_one_folder_transfer_to_other_categories_only(dataset: Path, mean_baseline: str) -> None:
    entry = {"layout": "mvtec", "root": str(dataset)}
    datasets = {"washers": {**entry, "categories": ["washer"]}, "zincs": {**entry, "categories": ["zinc"]}}
    settings = [{"transfer": {"source": "washers"}}]
    plan = parse_plan(content(dataset, datasets=datasets, settings=settings, shots=[2], draws=1), Path())
    assert {(job.dataset.name, job.categories) for job in plan.jobs()} == {("zincs", ("zinc",))}
    whole = {"washers": datasets["washers"], "all": entry}
    plan = parse_plan(content(dataset, datasets=whole, settings=settings, shots=[2], draws=1), Path())
    assert {(job.dataset.name, job.categories) for job in plan.jobs()} == {("all", ("zinc",))}


@pytest.mark.skipif(importlib.util.find_spec("anomalib") is None, reason="NO ANOMALIB")
def test_zero_shot_is_for_methods_that_need_no_image(dataset: Path, tmp_path: Path) -> None:
    options = {"weights": "random", "image_size": 32, "depth": 1}
    methods = {"vfm": {"baseline": "anomalib_vfm", "options": options}}
    plan = parse_plan(content(dataset, methods=methods, shots=[0], draws=1), Path())
    assert {job.setting for job in plan.jobs()} == {"zero-shot"}
    records = [record for state in run_plan(plan, tmp_path / "record.jsonl", in_process) for record in state.records]
    assert [(record.status, record.setting, record.shots) for record in records] == [("done", "zero-shot", 0)] * 2
    both = {**methods, "mean": {"baseline": "padim"}}
    with pytest.raises(BenchmarkError, match="mean cannot"):
        parse_plan(content(dataset, methods=both, shots=[0]), Path())
    # Beside other numbers of images, it has no rows of none.
    mixed = parse_plan(content(dataset, methods=both, shots=[0, 2], draws=1), Path())
    rows = {(job.method.name, job.setting, job.shots) for job in mixed.jobs()}
    assert rows == {("vfm", "zero-shot", 0), ("vfm", "few-shot", 2), ("mean", "few-shot", 2)}
    with pytest.raises(BenchmarkError, match="mean cannot"):
        parse_plan(content(dataset, methods={"mean": {"baseline": "padim"}}, shots=[0, 2]), Path())


def test_few_abnormal_is_part_of_the_job_and_its_key(dataset: Path, mean_baseline: str) -> None:
    def first(setting: Any) -> Job:
        return next(iter(parse_plan(content(dataset, settings=[setting], shots=[2]), Path()).jobs()))

    job = first({"few-abnormal": {"count": 1, "defect_type": "blot"}})
    assert job.setting_name == "1 abnormal of blot"
    assert first({"few-abnormal": {"count": 2}}).setting_name == "2 abnormal"
    keys = {first(s).key("washer") for s in ("few-shot", *({"few-abnormal": {"count": n}} for n in (1, 2)))}
    assert len({*keys, job.key("washer")}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [({"count": 3}, "expected more than 3"), ({"count": 1, "defect_type": "dent"}, "of defects: blot")],
)
def test_too_few_abnormal_images_are_refused(
    dataset: Path, mean_baseline: str, options: dict[str, Any], message: str
) -> None:
    job = next(iter(parse_plan(content(dataset, settings=[{"few-abnormal": options}]), Path()).jobs()))
    with pytest.raises(BenchmarkError, match=message):
        material(job)
