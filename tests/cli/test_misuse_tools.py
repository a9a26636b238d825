"""Wrong calls of the commands around datasets, benchmarks, training and zoo: each answer names what is expected."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from fewshot_ad.cli import app
from tests.cli.commands import every_command
from tests.one_thread import one_thread  # noqa: F401 - a fixture that these tests all use

HERE = ("benchmark", "datasets", "train", "distill", "train-pose", "parts", "encoders", "zoo", "fit", "predict")
# Words of the call -> what its answer must say; DATASET, PLAN, RECORD, PICTURE and EMPTY are files and folders.
CALLS: list[tuple[str, tuple[str, ...]]] = [
    # datasets
    ("datasets shwo mvtec", ("expected a command", "did you mean 'show'?")),
    ("datasets show", ("got none", "NAME")),
    ("datasets show mvtek", ("expected a dataset", "got 'mvtek'", "did you mean 'mvtec'?")),
    ("datasets show DATASET", ("expected a dataset among",)),
    ("datasets check", ("got none", "NAME")),
    ("datasets check mvtec", ("got none", "ROOT")),
    ("datasets check DATASET mvtec", ("expected a dataset among",)),
    ("datasets check mvtec nowhere", ("expected the folder of MVTec AD", "nothing is there")),
    ("datasets check mvtec PICTURE", ("expected the folder of MVTec AD", "a file is there")),
    ("datasets check mvtec EMPTY", ("expected the layout of MVTec AD", "it holds nothing")),
    ("datasets check mvtec DATASET --category washr", ("expected a category among", "got 'washr'")),
    ("datasets check mvtec DATASET --kategory washer", ("expected one of its options", "did you mean --category?")),
    ("datasets get visa", ("got none", "ROOT")),
    ("datasets get vasi EMPTY", ("expected a dataset among", "visa", "got 'vasi'")),
    ("datasets get visa EMPTY", ("expected the license", "--accept-license")),
    ("datasets get mvtec EMPTY --accept-license", ("cannot. Get it from",)),
    ("datasets get visa DATASET --accept-license", ("expected a new or empty folder",)),
    ("datasets draw", ("got none", "GOOD")),
    ("datasets draw DATASET/washer/train/good", ("got none", "--output")),
    ("datasets draw nowhere -o OUT", ("nowhere",)),
    ("datasets draw EMPTY -o OUT", ("found none",)),
    ("datasets draw DATASET/washer/train/good -o DATASET", ("expected a new or empty folder",)),
    ("datasets draw DATASET/washer/train/good -o OUT --test-share 2", ("test_share", "at least 0.05")),
    ("datasets draw DATASET/washer/train/good -o OUT --category ../up", ("the name of a folder",)),
    ("zoo padim --survey", ("got both",)),
    ("fit mkd DATASET/washer/train/good -o OUT --curves OUT --monitor none", ("--monitor",)),
    ("fit mkd DATASET/washer/train/good -o OUT --monitor pencil", ("tensorboard", "pencil")),
    ("fit mkd DATASET/washer/train/good -o OUT --monitor csv --curves PICTURE", ("expected a folder",)),
    # fitted baselines
    ("fit padim DATASET/washer/train/good -o OUT --device gpu", ("cpu, cuda or cuda:n", "'gpu'")),
    ("fit padim DATASET/washer/train/good -o OUT --precision half", ("precision", "f32", "'half'")),
    ("fit padim DATASET/washer/train/good -o OUT --device cpu --set device=cpu", ("expected it once",)),
    ("predict OUT PICTURE --device gpu", ("cpu, cuda or cuda:n", "'gpu'")),
    ("fit padim DATASET -o OUT --layout mvtec --category nut", ("--category", "washer", "'nut'")),
    ("fit padim DATASET/washer/train/good -o OUT --category nut", ("--layout",)),
    ("fit padim DATASET DATASET -o OUT --layout mvtec", ("one folder",)),
    ("fit padim EMPTY -o OUT --layout mvtec", ("expected the layout of",)),
    ("fit", ("got none", "METHOD")),
    ("fit padim", ("got none", "GOOD")),
    ("fit padim DATASET/washer/train/good", ("got none", "--output")),
    ("fit pading DATASET/washer/train/good -o OUT", ("expected a baseline", "did you mean 'padim'?")),
    ("fit fewshot_ad DATASET/washer/train/good -o OUT", ("enroll products of it",)),
    ("fit padim nowhere -o OUT", ("nowhere",)),
    ("fit padim EMPTY -o OUT", ("found none",)),
    ("fit padim DATASET/washer/train/good -o PICTURE", ("it is a file",)),
    ("fit padim DATASET/washer/train/good -o DATASET", ("which this command reads",)),
    ("fit padim DATASET/washer/train/good -o OUT --set dimms=3", ("did you mean 'dims'?",)),
    ("fit padim DATASET/washer/train/good -o OUT --set dims", ("expected name=value",)),
    ("fit padim DATASET/washer/train/good -o OUT --set weights=timm", ("--allow-download",)),
    ("fit patchcore DATASET/washer/train/good -o OUT --published", ("published weights (imagenet)",)),
    ("fit padim DATASET/washer/train/good -o OUT --max-false-reject 2", ("max_false_reject",)),
    ("fit yolov8 DATASET/washer/train/good -o OUT --defects DATASET/washer/test/scratch", ("or with --boxes",)),
    ("fit yolov8 DATASET/washer/train/good -o OUT --boxes OUT", ("--defects together",)),
    ("fit yolov8 DATASET/washer/train/good -o OUT --defects DATASET/washer/test/blot --boxes EMPTY", ("a box",)),
    ("fit yolov8 DATASET/washer/train/good -o OUT", ("--defects and --masks",)),
    ("fit padim DATASET/washer/train/good -o OUT --set image_size=abc", ("image_size", "whole number", "'abc'")),
    (
        "fit padim DATASET/washer/train/good -o OUT --set image_size=0",
        ("expected an image_size of at least 16 pixels, got 0",),
    ),
    ("fit padim DATASET/washer/train/good -o OUT --set dims=3 --set dims=4", ("dims twice",)),
    ("fit padim DATASET/washer/train/good -o OUT --set seed=4", ("--seed",)),
    ("fit padim DATASET/washer/train/good -o OUT --threshold -3", ("above the median score",)),
    ("fit padim DATASET/washer/train/good -o OUT --threshold nan", ("threshold",)),
    ("predict", ("got none", "MODEL")),
    ("predict EMPTY", ("got none", "IMAGES")),
    ("predict EMPTY PICTURE", ("expected a folder that `fewshot-ad fit` wrote",)),
    ("predict nowhere PICTURE", ("expected a folder that `fewshot-ad fit` wrote",)),
    # benchmark
    ("benchmark", ("Usage",)),
    ("benchmark rum PLAN -o OUT", ("expected a command", "did you mean 'run'?")),
    ("benchmark run -o OUT", ("got none", "PLAN")),
    ("benchmark run PLAN", ("got none", "--out")),
    ("benchmark run nowhere.yaml -o OUT", ("expected a plan in YAML at nowhere.yaml", "No such file")),
    ("benchmark run DATASET -o OUT", ("expected a plan in YAML", "Is a directory")),
    ("benchmark run PICTURE -o OUT", ("expected a plan in YAML", "no UTF-8")),
    ("benchmark run RECORD -o OUT", ("expected a name among datasets, draws, methods", "line 1")),
    ("benchmark run EMPTYFILE -o OUT", ("expected names and values, got null",)),
    ("benchmark run NOJOB -o OUT", ("at least one job, got none",)),
    ("benchmark run PLAN -o DATASET", ("got a folder",)),
    ("benchmark run PLAN -o PLAN", ("line 1: expected a benchmark record",)),
    ("benchmark run PLAN -o OUT --runner rai", ("--runner", "'rai'")),
    ("benchmark run PLAN -o OUT --workers 0", ("--workers",)),
    ("benchmark run PLAN -o OUT --workers two", ("--workers",)),
    ("benchmark run PLAN -o OUT --limit -1", ("--limit: expected seconds above 0, got -1",)),
    ("benchmark run PLAN -o OUT --limit nan", ("--limit: expected seconds above 0, got nan",)),
    ("benchmark run PLAN -o OUT --runner in-process --limit 5", ("expected --limit with --runner processes only",)),
    ("benchmark run PLAN -o OUT --cpus 2", ("expected --cpus with --runner ray only, got it with processes",)),
    ("benchmark run PLAN -o OUT --memory 0", ("--memory",)),
    ("benchmark report", ("got none", "RECORD")),
    ("benchmark report nowhere.jsonl", ("expected a record file at nowhere.jsonl, got nothing",)),
    ("benchmark report DATASET", ("expected a record file",)),
    ("benchmark report PLAN", ("line 1: expected a benchmark record, got something else",)),
    ("benchmark report PICTURE", ("line 1: expected a benchmark record, got something else",)),
    ("benchmark report EMPTYFILE", ("expected records in", "found none that count")),
    ("benchmark report NEWER", ("expected a record of schema 1, got 99", "update this one")),
    ("benchmark report WRONGFIELD", ("draw: expected a whole number, got 'first'", "line 1")),
    ("benchmark report RECORD --plan PLAN", ("expected records in", "found none that count")),
    ("benchmark report RECORD --by-category", ("expected --by-category with --csv FILE or --json",)),
    ("benchmark lists", ("got none", "LAYOUT")),
    ("benchmark lists mvtec", ("got none", "ROOT")),
    ("benchmark lists mvtec DATASET", ("got none", "--out")),
    ("benchmark lists DATASET mvtec -o OUT", ("expected a dataset among",)),
    ("benchmark lists mvtec DATASET -o EMPTY", ("got a folder", "Name a new file")),
    ("benchmark lists mvtec DATASET -o OUT --draws none", ("--draws",)),
    ("benchmark schema plans", ("'plans'")),
    # the zoo
    ("zoo patchkore", ("expected a baseline, got 'patchkore' (did you mean 'patchcore'?)",)),
    ("zoo DATASET", ("expected a baseline among",)),
    ("zoo patchcore padim", ("expected no further argument",)),
    # training
    ("encoders lite0", ("expected no further argument",)),
    ("train nowhere -o OUT --recipe parts", ("expected a folder of good images", "nowhere")),
    ("train PICTURE -o OUT --recipe parts", ("expected a folder of good images",)),
    ("train EMPTY -o OUT --recipe parts", ("expected images",)),
    ("train DATASET/washer/test/good -o OUT --recipe parts", ("belongs to a test split",)),
    # Before anything is fetched: the recipe is the published one.
    ("train nowhere -o OUT --allow-download", ("expected a folder of good images", "nowhere")),
    ("train DATASET -o OUT", ("--allow-download", "init: timm")),
    (
        "train DATASET -o OUT --recipe part",
        ("expected a recipe file, or a recipe among parts, published, siamese, tuned", "'part'"),
    ),
    ("train DATASET -o OUT --recipe PICTURE", ("expected a recipe in YAML", "no UTF-8")),
    ("train DATASET -o OUT --recipe PLAN", ("methods: expected a name among", "line")),
    ("train DATASET -o OUT --set epochs", ("--set: expected name=value", "got 'epochs'")),
    ("train DATASET -o OUT --set epoch=3", ("--set epoch=3: expected a field of the recipe", "did you mean 'epochs'?")),
    ("train DATASET -o OUT --set epochs=abc", ("epochs: expected a whole number, got 'abc'",)),
    ("train DATASET -o OUT --set epochs=[", ("--set epochs=[, line", "expected YAML")),
    ("train DATASET -o OUT --set epochs=0", ("expected epochs of at least 1", "got 0")),
    ("train DATASET -o OUT --set learning_rate=.nan", ("not finite",)),
    ("train DATASET -o OUT --set registration=spin", ("registration: expected one of rotation", "got 'spin'")),
    ("train DATASET -o OUT --device tpu", ("--device", "'tpu'")),
    ("train-pose nowhere -o OUT", ("expected a folder of good images", "nowhere")),
    ("train-pose DATASET -o OUT --set step=3", ("did you mean 'steps'?",)),
    ("train-pose DATASET -o OUT --recipe parts", ("recipe",)),
    ("distill nowhere -o OUT", ("expected a folder of good images", "nowhere")),
    ("distill DATASET -o OUT --recipe parts", ("recipe",)),
    ("distill DATASET -o OUT --set scales=[1]", ("scales[1]: expected a number, got nothing",)),
    ("distill DATASET -o OUT --teacher resnet18 --teacher-weights nowhere.pth", ("nowhere.pth",)),
    ("parts", ("got none", "--output")),
    ("parts -o OUT --category gears", ("expected a category among", "got 'gears'")),
    ("parts -o PICTURE --category gear", ("cannot be written", "choose a folder")),
    ("parts -o OUT --size 8", ("--size",)),
    ("parts -o OUT --count many", ("--count",)),
]


@pytest.fixture
def places(tmp_path: Path, dataset: Path) -> dict[str, str]:
    """What the words in capitals of `CALLS` stand for."""
    record = Path(__file__).resolve().parents[2] / "benchmarks" / "records" / "shared_board.jsonl"
    first = json.loads(record.read_text().splitlines()[0])
    empty, picture = tmp_path / "empty", tmp_path / "picture.png"
    empty.mkdir()
    shutil.copy(dataset / "washer/train/good/000.png", picture)
    plan = {"methods": {"padim": {}}, "datasets": {"mvtec": {"root": str(dataset)}}, "shots": [2]}
    texts = {
        "PLAN": yaml.safe_dump(plan),
        "NOJOB": yaml.safe_dump({**plan, "settings": [{"transfer": {"source": "mvtec"}}]}),
        "RECORD": json.dumps(first) + "\n",
        "NEWER": json.dumps({**first, "schema": 99}) + "\n",
        "WRONGFIELD": json.dumps({**first, "draw": "first"}) + "\n",
        "EMPTYFILE": "",
    }
    for name, text in texts.items():
        (tmp_path / name.lower()).write_text(text)
    files = {name: str(tmp_path / name.lower()) for name in texts}
    return {
        **files,
        "DATASET": str(dataset),
        "PICTURE": str(picture),
        "EMPTY": str(empty),
        "OUT": str(tmp_path / "out"),
    }


def invoke(call: str, places: dict[str, str]) -> tuple[int, str]:
    # The longest name first: one is the start of another.
    names = "|".join(sorted(places, key=len, reverse=True))
    words = [re.sub(f"^({names})(?=/|$)", lambda match: places[match[1]], word) for word in call.split()]
    result = CliRunner().invoke(app, words, prog_name="fewshot-ad", env={"COLUMNS": "1000", "NO_COLOR": "1"})
    # A frame around usage errors, and the colors in it, are no part of the answer.
    return result.exit_code, " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", result.output).split())


@pytest.mark.parametrize(("call", "answers"), CALLS, ids=[call for call, _ in CALLS])
def test_a_wrong_call(call: str, answers: tuple[str, ...], places: dict[str, str]) -> None:
    code, output = invoke(call, places)
    assert code == 2, output
    assert all(answer.lower() in output.lower() for answer in answers), output
    for leak in ("Traceback", "FEWSHOT_AD_DEBUG", "pydantic", "'NoneType'"):
        assert leak not in output, output
    assert ".. " not in output or output.startswith("Usage"), output


def test_every_command_is_called_wrongly() -> None:
    called = {tuple(call.split()) for call, _ in CALLS}
    for path, command in every_command():
        if path and path[0] in HERE and not hasattr(command, "commands"):
            assert any(words[: len(path)] == path for words in called), path


@pytest.mark.parametrize("call", ["datasets show mvtek", "benchmark run nowhere.yaml -o OUT", "zoo patchkore"])
def test_with_json_the_answer_is_one_object(call: str, places: dict[str, str]) -> None:
    code, output = invoke(f"{call} --json", places)
    assert code == 2
    assert json.loads(output)["error"]


def test_a_line_cut_short_is_named(places: dict[str, str]) -> None:
    record = Path(places["RECORD"])
    record.write_text(record.read_text() + record.read_text()[:300] + "\n")
    code, output = invoke("benchmark report RECORD", places)
    assert code == 0
    assert "line 2: cut short or damaged" in output
