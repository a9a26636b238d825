"""Without any extra, every command and every example works, or says which extra it needs and exits with 2."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.cli.commands import every_command

tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")

ROOT = Path(__file__).resolve().parents[2]
# A name of the package in its own requirements: what is installed may be another version of it.
OWN = "fewshot-ad"
CHILD = """
import contextlib, io, json, runpy, sys

given, answers_file = sys.argv[1:]
blocked, commands, examples = json.load(open(given))

class Without:
    # Not one that raises: whoever asks whether a library is there gets None for an absent one.
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]

def outcome(call):
    text, code = io.StringIO(), 0
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            call()
        except SystemExit as end:
            # Of a text Python makes a line on stderr and exit code 1.
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
    return code, text.getvalue()

def command(arguments):
    from fewshot_ad.cli import app
    app(arguments, prog_name="fewshot-ad")

def example(script, arguments):
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")

answers = [outcome(lambda: command(arguments)) for arguments in commands]
answers += [outcome(lambda: example(script, arguments)) for script, arguments in examples]
json.dump(answers, open(answers_file, "w"))
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def base_distributions() -> set[str]:
    """What an installation without extras brings along, by the requirements of pyproject and of each that follows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting, closure = list(project["dependencies"]), {OWN}
    while waiting:
        requirement = Requirement(waiting.pop())
        name = normal(requirement.name)
        if name in closure or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        closure.add(name)
        try:
            waiting += importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
    return closure


def blocked_packages() -> list[str]:
    """The packages that none of those distributions has."""
    base = base_distributions()
    packages = importlib.metadata.packages_distributions()
    return sorted(name for name, owners in packages.items() if not {normal(owner) for owner in owners} & base)


def cases(tmp_path: Path, good: Path, dataset: Path) -> dict[tuple[str, ...], tuple[list[object], str | None]]:
    """Arguments of each command that would work with all extras, and the extra that it cannot work without."""
    product, image = tmp_path / "p.fsad", good / "0.png"
    plan, record = tmp_path / "plan.yaml", ROOT / "benchmarks" / "records" / "shared_board.jsonl"
    content = {"methods": {"fewshot_ad": {}}, "datasets": {"mvtec": {"root": str(dataset)}}, "shots": [2]}
    plan.write_text(yaml.safe_dump(content))
    return {
        ("enroll",): ([good, "-o", product, "--views", "none", "--image-size", 64], None),
        ("add",): ([product, image], None),
        ("accept",): ([product, image], None),
        ("reject",): ([product, image], None),
        ("undo",): ([product], None),
        ("history",): ([product], None),
        ("diff",): ([product, product], None),
        ("route",): ([tmp_path, image], None),
        ("report",): ([product, image, "-o", tmp_path / "page.html"], None),
        ("reinspect",): ([product, good, "-o", tmp_path / "again.jsonl"], None),
        ("serve",): (["--catalog", tmp_path, "--port", 0], "line"),
        ("journal", "export"): ([record, "-o", tmp_path / "all.csv"], "line"),
        ("journal", "events"): ([record], "line"),
        ("journal", "replicate"): ([record, tmp_path / "shared.db"], "line"),
        ("backup",): ([tmp_path, record, "-o", tmp_path / "b.tar"], "line"),
        ("restore",): ([record, tmp_path / "restored"], "line"),
        ("fleet", "push"): ([tmp_path, tmp_path / "store"], "line"),
        ("fleet", "pull"): ([tmp_path / "store", tmp_path], "line"),
        ("drift",): ([product, image], None),
        ("roi",): ([product, "--ignore", "0,0,16,16"], None),
        ("inspect",): ([product, image], None),
        ("check",): ([product, "--good", image], None),
        ("calibrate",): ([product, "--good", image], None),
        ("info",): ([product], None),
        ("export",): ([product, tmp_path / "exported"], "onnx"),
        ("bench",): ([product], None),
        ("doctor",): ([], None),
        ("demo",): (["-o", tmp_path / "demo"], "demo"),
        ("encoders",): ([], None),
        ("train",): ([good, "-o", tmp_path / "encoder", "--recipe", "parts"], "export"),
        ("distill",): ([good, "-o", tmp_path / "backbone"], "export"),
        ("train-pose",): ([good, "-o", tmp_path / "pose"], "export"),
        ("parts",): (["-o", tmp_path / "parts", "--category", "gear", "--count", 1, "--size", 64], None),
        ("zoo",): ([], "zoo"),
        ("zoo", "patchcore"): ([], "zoo"),
        ("fit",): (["padim", good, "-o", tmp_path / "model"], "zoo"),
        ("predict",): ([tmp_path / "model", image], "zoo"),
        ("datasets",): ([], None),
        ("datasets", "show"): (["mvtec"], None),
        ("datasets", "check"): (["mvtec", dataset, "--no-decode"], None),
        ("datasets", "get"): (["visa", tmp_path / "visa"], None),
        ("datasets", "draw"): ([good, "-o", tmp_path / "drawn"], "zoo"),
        ("benchmark", "run"): ([plan, "-o", tmp_path / "r.jsonl"], "zoo"),
        ("benchmark", "run", "--dry-run"): ([plan, "-o", tmp_path / "r.jsonl"], "zoo"),
        ("benchmark", "run", "--runner", "ray"): ([plan, "-o", tmp_path / "r.jsonl"], "zoo"),
        ("benchmark", "report"): ([record], None),
        ("benchmark", "report", "--plan", str(plan)): ([record], "zoo"),
        ("benchmark", "report", "--html", str(tmp_path / "page.html")): ([record], None),
        ("benchmark", "lists"): (["mvtec", dataset, "-o", tmp_path / "lists.txt"], None),
        ("benchmark", "schema"): ([], None),
        ("benchmark", "schema", "record"): ([], None),
        ("benchmark", "schema", "recipe"): ([], "export"),
        ("enroll", "--engine", "onnxruntime"): ([good, "-o", tmp_path / "o.fsad"], "onnx"),
        ("enroll", "--engine", "torch"): ([good, "-o", tmp_path / "o.fsad"], "torch"),
        ("enroll", "--encoder", "resnet18", "--allow-download"): ([good, "-o", tmp_path / "o.fsad"], "torch"),
    }


def test_every_command_and_example(tmp_path: Path, part_folder: Path, dataset: Path) -> None:
    listed = cases(tmp_path, part_folder, dataset)
    for path, command in every_command():
        if path and path not in listed and not hasattr(command, "commands"):
            needed = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
            listed[path] = ([part_folder for parameter in needed if parameter.required], None)
    examples: list[tuple[Path, list[object], str | None]] = [
        (ROOT / "examples" / "enroll_and_inspect.py", [part_folder, part_folder, "--output", tmp_path / "out"], None),
        (ROOT / "examples" / "watch_folder.py", [tmp_path / "p.fsad", tmp_path / "in", "--idle", 1], None),
        (ROOT / "examples" / "camera_loop.py", [tmp_path / "p.fsad", tmp_path / "no.avi"], None),
        (ROOT / "examples" / "compare_methods.py", [part_folder, part_folder, part_folder, "spade"], "zoo"),
    ]
    (tmp_path / "in").mkdir()
    given = [[*path, *map(str, arguments)] for path, (arguments, _) in listed.items()]
    scripts = [(str(script), [str(one) for one in arguments]) for script, arguments, _ in examples]
    (tmp_path / "given.json").write_text(json.dumps([blocked_packages(), given, scripts]))
    child = [sys.executable, "-c", CHILD, str(tmp_path / "given.json"), str(tmp_path / "answers.json")]
    subprocess.run(child, check=True, timeout=300, cwd=tmp_path)
    answers = json.loads((tmp_path / "answers.json").read_text())
    extras = [*(extra for _, extra in listed.values()), *(extra for *_, extra in examples)]
    names = [" ".join(one) for one in given] + [Path(script).name for script, _ in scripts]
    wrong = [
        f"{name}: exit {code}, {text[-600:]}"
        for name, (code, text), extra in zip(names, answers, extras, strict=True)
        if not is_answer(code, text, extra)
    ]
    assert not wrong, "\n\n".join(wrong)


def is_answer(code: object, text: str, extra: str | None) -> bool:
    if code not in (0, 1, 2) or "Traceback" in text or "ModuleNotFoundError" in text:
        return False
    if extra is not None:
        return code == 2 and f"fewshot-ad[{extra}]" in text
    return "fewshot-ad[" not in text or code != 2


def test_what_is_blocked_is_what_the_extras_bring() -> None:
    blocked = blocked_packages()
    assert {"torch", "timm", "kornia", "onnx", "onnxruntime", "skimage", "sklearn"} <= set(blocked)
    assert not {"numpy", "cv2", "faiss", "openvino", "yaml", "typer", "rich", "pydantic", "fewshot_ad"} & set(blocked)
