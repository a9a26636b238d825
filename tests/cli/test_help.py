from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fewshot_ad.benchmark.plan import DatasetPlan, MethodPlan, Plan, Protocol
from fewshot_ad.benchmark.plan_file import parse_plan
from tests.cli.commands import Command, every_command, parse, shown_help

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [pytest.param(path, command, id=" ".join(path) or "fewshot-ad") for path, command in every_command()]


def fenced(markdown: str) -> str:
    """The text between the fences of code."""
    return "\n".join(markdown.split("```")[1::2])


def examples() -> Iterator[tuple[str, str]]:
    """The command lines that documentation shows, each with its place."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    texts = {str(page.relative_to(ROOT)): fenced(page.read_text(encoding="utf-8")) for page in pages}
    texts |= {" ".join(["help of fewshot-ad", *path]): shown_help(path) for path, _ in every_command()}
    for place, text in texts.items():
        for line in text.replace("\\\n", " ").splitlines():
            if line.strip().startswith("fewshot-ad "):
                yield place, line.strip()


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_help_shows_each_text_whole(path: tuple[str, ...], command: Command) -> None:
    """What looks like a tag of rich's markup, such as [bottle, cable], is not shown unless it is escaped."""
    page = "".join(shown_help(path).split())
    texts = [command.help, *(parameter.help for parameter in command.params)]
    for text in texts:
        assert "".join(text.replace("\\[", "[").split()) in page
    assert shown_help(path, option="-h") == shown_help(path)


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_every_option_and_argument_has_a_help_text(path: tuple[str, ...], command: Command) -> None:
    assert command.help
    assert [parameter.name for parameter in command.params if not (parameter.help or "").endswith(".")] == []


def test_examples_are_taken_from_readme_and_help() -> None:
    places = [place for place, _ in examples()]
    assert places.count("README.md") == 7
    assert sum(place.startswith("docs/") for place in places) >= 20
    assert places.count("help of fewshot-ad") == 2


@pytest.mark.parametrize(("place", "line"), examples())
def test_every_example_is_accepted(place: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = parse(shlex.split(line, comments=True)[1:])
    assert code == 0, f"{place}: {capsys.readouterr().err}"


def test_what_is_no_command_line_is_refused() -> None:
    """The check of the examples itself: it must see a wrong option, value, command and a missing argument."""
    for line in (
        "enroll good/",
        "enroll good/ -o a.fsad --engine abacus",
        "inspekt a.fsad b.png",
        "info a.fsad --loud",
    ):
        assert parse(shlex.split(line)) == 2


@pytest.mark.parametrize("columns", [80, 120])
def test_the_plan_in_the_help_of_benchmark_is_a_plan(columns: int) -> None:
    page = shown_help(("benchmark",), columns)
    text = re.search(r"^ *methods:.*?(?=\n\s*\n)", page, re.DOTALL | re.MULTILINE)
    assert text is not None
    assert parse_plan(yaml.safe_load(text[0]), Path("/")) == Plan(
        name="Benchmark",
        methods=(
            MethodPlan("ours", "fewshot_ad"),
            MethodPlan("patchcore", "patchcore", {"image_size": 256}),
            MethodPlan(
                "as published",
                "anomalib_patchcore",
                {"backbone": "wide_resnet50_2", "weights": "wrn50.safetensors"},
            ),
        ),
        datasets=(DatasetPlan("mvtec", "mvtec", Path("/data/mvtec"), ("bottle", "cable")),),
        shots=(1, 2, 4, 8, "full"),
        draws=3,
        settings=(("few-shot", {}), ("unified", {}), ("noisy", {"noise": 0.1}), ("continual", {"replay": 2})),
        seed=0,
        protocol=Protocol(test_limit=60, pixel_side=256),
    )


@pytest.mark.parametrize("path", [(), ("enroll",), ("train",), ("zoo",), ("benchmark", "run")])
def test_help_waits_for_no_large_library(path: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom fewshot_ad.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'cv2', 'faiss', 'openvino', 'torch', 'yaml'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, *path, "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.splitlines()[-1] == "[]"
