"""The documentation is true: what it shows runs or parses, links lead somewhere, the site needs no network."""

from __future__ import annotations

import html.parser
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
import yaml

from fewshot_ad import Inspector
from fewshot_ad.cli import app
from fewshot_ad.demo import texture_product, write_png
from fewshot_ad.export import export
from tests.one_thread import one_thread  # noqa: F401 - a fixture that these tests all use
from tests.trays import tray

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
# What a script of another kind writes from records is tested with that script.
WRITTEN_BY_SCRIPT = ("results", "notes")
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted(page for page in DOCS.rglob("*.md") if page.relative_to(DOCS).parts[0] not in WRITTEN_BY_SCRIPT),
]
# Pages whose shell blocks run as they stand: they need nothing but a folder of good images and one to inspect.
SHELL_RUNS = [DOCS / "how-to" / "shell.md"]
BASH = shutil.which("bash") or "bash"
PROGRAMS = {"python", "python3", "pip", "make", "torchrun", "pre-commit", ".", "case", "esac", "import", "for"}


@dataclass(frozen=True)
class Block:
    """One fenced block of code on a page."""

    page: Path
    line: int
    language: str
    code: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, from the top; those inside lists lose their indent."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.M | re.S):
        indent, language, code = match.groups()
        lines = [line.removeprefix(indent) for line in code.splitlines()]
        yield Block(page, text[: match.start()].count("\n") + 1, language, "\n".join(lines) + "\n")


def all_blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def identifier(value: object) -> str:
    if isinstance(value, Block):
        return f"{value.page.relative_to(ROOT)}:{value.line}"
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders and files that the pages speak of, made from one of scikit-image's photographs."""
    pytest.importorskip("skimage", reason="NO REAL IMAGES: pip install 'fewshot-ad[demo]'")
    root = tmp_path_factory.mktemp("docs")
    product = texture_product("brick", 8, 0)
    good = [image.pixels for image in product.tests if image.truth == "good"]
    defective = [image.pixels for image in product.tests if image.truth != "good"]
    folders = {
        "good": product.support,
        "line": [*good, *defective],
        "test/good": good[:2],
        "test/bad": defective[:2],
        "more/good": good[2:],
        "more/bad": defective[2:],
        "copy/bracket/ok": good,
        "copy/bracket/nok": defective[:2],
        "trays/good": [tray(seed) for seed in range(2)],
        "trays/line": [tray(2), tray(3, defects=(3,))],
    }
    for folder, images in folders.items():
        (root / folder).mkdir(parents=True)
        for number, pixels in enumerate(images, start=1):
            write_png(root / folder / f"{number:04d}.png", pixels)
    inspector = Inspector.from_support(product.support, product="bracket", views="hflip", image_size=128)
    inspector.save(root / "bracket.fsad")
    export(inspector, root / "exported", "onnx-single")
    return root


@pytest.fixture
def workspace(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of these folders, entered."""
    copy = tmp_path / "workspace"
    shutil.copytree(sample, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page adds to a registry is taken out again."""
    from fewshot_ad.datasets import card
    from fewshot_ad.zoo import method

    monkeypatch.setattr(card, "_REGISTRY", dict(card._REGISTRY))
    monkeypatch.setattr(method, "_REGISTRY", dict(method._REGISTRY))


PYTHON_PAGES = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=identifier)
@pytest.mark.usefixtures("workspace", "registries")
def test_python_blocks_run(page: Path) -> None:
    """All of a page, from the top, in one namespace."""
    namespace: dict[str, object] = {"__name__": "docs"}
    for block in blocks(page):
        if block.language == "python":
            # A traceback then names the line of the page.
            code = "\n" * block.line + block.code
            exec(compile(code, str(page), "exec", dont_inherit=True), namespace)  # noqa: S102


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each command line; continued lines are joined, and what follows a pipe or `>` is left out."""
    code = re.sub(r"\\\n\s*", " ", block.code)
    # Code of another language between quotes is no command.
    code = re.sub(r'-c "\n.*?^"', '-c ""', code, flags=re.M | re.S)
    for line in code.splitlines():
        words = shlex.split(line, comments=True)
        cut = [at for at, word in enumerate(words) if word in ("|", ">", ";;")]
        if words[: min(cut, default=None)]:
            yield words[: min(cut, default=None)]


def check_own_command(words: list[str]) -> None:
    """Let the program parse its arguments, without running it."""
    command = typer.main.get_command(app)
    name = "fewshot-ad"
    while hasattr(command, "commands") and words and words[0] in command.commands:
        name, words = words[0], words[1:]
        command = command.commands[name]
    assert not hasattr(command, "commands") or getattr(command, "invoke_without_command", False), words
    command.make_context(name, list(words))


@pytest.mark.parametrize("block", all_blocks("sh"), ids=identifier)
def test_shell_blocks_parse(block: Block) -> None:
    syntax = subprocess.run([BASH, "-n"], input=block.code, text=True, capture_output=True)
    assert syntax.returncode == 0, syntax.stderr
    project = (ROOT / "pyproject.toml").read_text()
    extras = re.findall(
        r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2].partition("\n[")[0], re.M
    )
    makefile = (ROOT / "Makefile").read_text()
    for words in commands(block):
        program, arguments = words[0], words[1:]
        if program == "fewshot-ad":
            check_own_command(arguments)
        elif "fewshot_ad" in words and "-m" in words:
            check_own_command(words[words.index("fewshot_ad") + 1 :])
        elif program == "make":
            assert all(re.search(rf"^{target}:", makefile, re.M) for target in arguments), words
        elif program == "pip":
            assert set(re.findall(r"\[(.*?)\]", " ".join(arguments))) <= set(extras), words
        elif program in ("python", "python3"):
            for script in [word for word in arguments if word.endswith(".py")]:
                assert (ROOT / script).is_file(), words
        else:
            assert program in PROGRAMS or re.fullmatch(r"[\d*]\)", program), words


@pytest.mark.parametrize("page", SHELL_RUNS, ids=identifier)
def test_shell_blocks_run(page: Path, workspace: Path) -> None:
    """All of a page, each block in a shell of its own; 1 means that an anomaly was found, 2 that something is wrong."""
    # The page begins with the enrollment.
    (workspace / "bracket.fsad").unlink()
    programs = workspace / "programs"
    programs.mkdir()
    launcher = programs / "fewshot-ad"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fewshot_ad "$@"\n')
    launcher.chmod(0o755)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }
    for block in blocks(page):
        if block.language == "sh":
            result = subprocess.run(
                [BASH, "-c", block.code], cwd=workspace, env=environment, text=True, capture_output=True, timeout=300
            )
            assert result.returncode in (0, 1), f"{identifier(block)}: {result.stderr}"
            # On a slow machine, how far long work is.
            said = [
                line for line in result.stderr.splitlines() if not re.search(r": \d+ of \d+(, about .+ left)?$", line)
            ]
            assert not said, f"{identifier(block)}: {result.stderr}"


@pytest.mark.parametrize("block", all_blocks("yaml"), ids=identifier)
def test_plans_are_plans_and_settings_are_settings(block: Block, tmp_path: Path) -> None:
    from fewshot_ad.benchmark.plan_file import parse_plan
    from fewshot_ad.line.settings import StationSettings, parse_settings

    content = yaml.safe_load(block.code)
    if set(content) <= set(StationSettings.model_fields):
        assert parse_settings(content, tmp_path)
    else:
        assert parse_plan(content, tmp_path).methods


@pytest.mark.parametrize("page", PAGES, ids=identifier)
def test_blocks_have_a_language(page: Path) -> None:
    assert all(block.language for block in blocks(page))


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == ROOT], ids=identifier)
def test_links_of_the_root_pages_lead_somewhere(page: Path) -> None:
    """Those of the site are checked by its strict build."""
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith("https://")]
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_readme_opens_with_a_picture_and_is_short() -> None:
    text = README.read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert pictures
    assert text.index(pictures[0]) < text.index("## ")
    assert (ROOT / pictures[0]).stat().st_size < 300_000
    assert len(text.splitlines()) <= 140
    assert "make demo" in text
    assert "make test" in text


def test_architecture_picture_is_what_its_script_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "scripts"))
    import architecture

    assert architecture.OUTPUT.read_text(encoding="utf-8") == architecture.drawing()
    named = re.findall(r"[a-z_]+(?:\.py|/)", " ".join(modules for modules, _ in architecture.LAYERS))
    package = ROOT / "fewshot_ad"
    files = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert sorted(named) == sorted(files | folders)


class Loaded(html.parser.HTMLParser):
    """Collects what a page loads when it is opened; links that a reader may click are no part of that."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in ("canonical", "next", "prev", "edit"):
            return
        names = ["src", "srcset", "data", "poster"] + (["href"] if tag not in ("a", "area") else [])
        self.addresses += [value for name in names if (value := values.get(name))]
        self.addresses += re.findall(r"url\(['\"]?([^)'\"]+)", values.get("style") or "")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="NO SITE: pip install 'fewshot-ad[docs]'")
    folder = tmp_path_factory.mktemp("site")
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "NO_MKDOCS_2_WARNING": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    result = subprocess.run(build, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return folder


def test_site_loads_nothing_from_the_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.addresses
        remote = [address for address in loaded.addresses if re.match(r"(https?:)?//", address)]
        assert remote == [], page
        # Pages name their files relative to themselves, so that they open from the file system.
        local = [address.split("?")[0].split("#")[0] for address in loaded.addresses if ":" not in address]
        absent = [address for address in local if address and not (page.parent / address).exists()]
        # The page for a wrong address is for servers only.
        assert page.name == "404.html" or absent == [], page
    for sheet in site.rglob("*.css"):
        addresses = re.findall(r"(?:url\(|@import )['\"]?(https?:[^)'\"]+)", sheet.read_text(encoding="utf-8"))
        assert addresses == [], sheet


def test_site_can_be_searched_without_a_server(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert "severity" in index
    assert "iframe-worker" in (site / "index.html").read_text(encoding="utf-8")


def test_command_reference_has_every_command(site: Path) -> None:
    page = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    for name, command in typer.main.get_command(app).commands.items():
        assert f"fewshot-ad {name}" in page
        for option in [option for parameter in command.params for option in getattr(parameter, "opts", ())]:
            assert not option.startswith("--") or option in page, option
