"""Every command with arguments missing, swapped, misspelled and of a wrong kind: each answer helps, and ends with 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fewshot_ad.cli import app
from fewshot_ad.inspector import Inspector
from tests.cli.commands import Command, every_command
from tests.conftest import make_part
from tests.test_package import BLOCK, EXTRAS

NONSENSE = "nonsense"
COMMANDS = [
    pytest.param(path, id=" ".join(path)) for path, command in every_command() if not hasattr(command, "commands")
]
# Command -> arguments, with names of `workplace` in braces, and what the answer must hold. What no answer may hold, and
# that it says what was expected, is asked of all.
MISUSES: dict[str, list[tuple[str, str]]] = {
    "enroll": [
        ("{gone} -o {new}", "nothing matches"),
        ("{empty} -o {new}", "the folder is empty"),
        ("{text} -o {new}", "expected 2 to 8 good images"),
        ("{product} -o {new}", "fewshot-ad add {product} IMAGES"),
        ("'' -o {new}", "an empty text"),
        ("{good} -o {new} --encoder lite0_prts", "lite0_parts"),
        ("{good} -o {new} --views sideways", "got 'sideways'"),
        ("{good} -o {new} --views hfilp", "Did you mean hflip?"),
        ("{good} -o {new} --views none,hflip", "views='none' alone"),
        ("{good} -o {new} --views rotate=x", "got 'x'"),
        ("{good} -o {new} --image-size big", "auto or whole numbers of pixels, such as 384 or 256,512, got 'big'"),
        ("{good} -o {new} --image-size 3", "in 64..4096, got 3"),
        ("{good} -o {new} --preset balancd", "did you mean balanced?"),
        ("{good} -o {new} --budget 0", "at least 1, got '0'"),
        ("{good} -o {new} --seed -1", "at least 0, got '-1'"),
        ("{good} -o {new} --top-fraction 0", "above 0 and at most 1, got 0"),
        ("{good} -o {new} --sigma -3", "sigma as a finite number of at least 0 and at most 64, got -3"),
        ("{good} -o {new} --sigma nan", "got nan"),
        ("{good} -o {new} --stages a,b", "such as 2,3, got 'a,b'"),
        ("{good} -o {new} --stages 9", "got (9,)"),
        ("{good} -o {new} --threads 0", "at least 1, got '0'"),
        ("{good} -o {new} --engine openvno", "did you mean openvino?"),
        ("{good} -o {new} --weights {gone}", "weights"),
        ("{good} -o {new} --encoder resnet18 --weights {product}", "got a product: {product}"),
    ],
    "add": [
        ("{good} {product}", "swapped. Try: fewshot-ad add {product} {good}"),
        ("{good} {line}", "got the folder {good}"),
        ("{product} {product}", "further products"),
        ("{product} {gone}", "nothing matches"),
        ("{product} {good}", "identical to"),
        ("{gone} {good}", "Enroll it first"),
        ("{text} {good}", ".fsad file"),
    ],
    "inspect": [
        ("{line} {product}", "swapped. Try: fewshot-ad inspect {product} {line}"),
        ("{line}/0.png {product}", "swapped. Try: fewshot-ad inspect {product} {line}/0.png"),
        ("{line} {good}", "got the folder {line}"),
        ("{product} {product}", "further products"),
        ("{product} {gone}", "nothing matches"),
        ("{product} {empty}", "the folder is empty"),
        ("{product} ''", "an empty text"),
        ("{product} {text}", "{text}: expected an image"),
        ("{gone} {line}", "Enroll it first"),
        ("{text} {line}", ".fsad file"),
        ("{product} {line} --threshold -1", "threshold as a finite number of at least 1e-30 and at most 1e+30, got -1"),
        ("{product} {line} --threshold nan", "got nan"),
        ("{product} {line} --warm-up 99999x99999", "--warm-up: expected at most 200 megapixels"),
        ("{product} {line} --warm-up 0x0", "--warm-up: expected at least 16 x 16 pixels, got 0 x 0"),
        ("{product} {line} --threads 4000", "--threads: expected a number of at most 1024, got '4000'"),
        ("{product} {line} --threshold 1e-320", "got 1e-320"),
        ("{product} {line} --csv ''", "expected a value after --csv, got an empty text"),
        ("{product} {line} --device tpu", "expected one of cpu, cuda, got 'tpu'"),
    ],
    "check": [
        ("{good} --good {line}", "got the folder {good}"),
        ("{gone} --good {line}", "Enroll it first"),
        ("{text} --good {line}", ".fsad file"),
        ("{product}", "--good"),
        ("{product} {line} --good {line}", "no further argument"),
        ("{product} --good {gone}", "nothing matches"),
        ("{product} --good {empty}", "the folder is empty"),
        ("{product} --good {line} --bad {gone}", "nothing matches"),
        ("{product} --good {good}", "in the support set"),
        ("{product} --good {line} --bad {line}", "Take it out of one of them"),
        ("{product} --good {text}", "{text}: expected an image"),
        ("{product} --good {line} --threshold nan", "got nan"),
        ("{product} --good {line} --sheet {product}", "this command reads"),
        ("{product} --good {line} --csv {text}", "expected an older output of this kind"),
    ],
    "calibrate": [
        ("{good} --good {line}", "got the folder {good}"),
        ("{gone} --good {line}", "Enroll it first"),
        ("{text} --good {line}", ".fsad file"),
        ("{product}", "--good"),
        ("{product} --good {gone}", "nothing matches"),
        ("{product} --good {good}", "in the support set"),
        ("{product} --good {line} --bad {line}", "Take it out of one of them"),
        ("{product} --good {line} --max-false-reject 1", "of at least 0.0001 and at most 0.5, got 1"),
    ],
    "accept": [
        ("{line}/0.png {product}", "swapped. Try: fewshot-ad accept {product} {line}/0.png"),
        ("{gone} {line}/0.png", "Enroll it first"),
        ("{text} {line}/0.png", ".fsad file"),
        ("{product}", "image"),
        ("{product} {gone}", "nothing matches"),
        ("{product} {text}", "{text}: expected an image"),
        ("{product} {good}", "expected one image"),
        ("{product} {good}/0.png", "which is: as 0.png"),
    ],
    "reject": [
        ("{line}/0.png {product}", "swapped. Try: fewshot-ad reject {product} {line}/0.png"),
        ("{gone} {line}/0.png", "Enroll it first"),
        ("{product} {gone}", "nothing matches"),
        ("{product} {good}/0.png", "as a good one"),
        ("{product} {line}/0.png --region 1,2,3", "as x, y, width, height"),
        ("{product} {line}/0.png --region a,b,c,d", "--region: expected X,Y,WIDTH,HEIGHT"),
        ("{product} {line}/0.png --region 9000,0,5,5", "expected a region within the image"),
    ],
    "roi": [
        ("{good}", "got the folder {good}"),
        ("{gone}", "Enroll it first"),
        ("{product} --roi 1,2,3", "expected X,Y,WIDTH,HEIGHT"),
        ("{product} --roi {gone}", "does not exist"),
        ("{product} --draw --roi 1,1,9,9", "got both"),
        ("{product} --mask m.png", "got it alone"),
    ],
    "drift": [
        ("{good} {line}", "got the folder {good}"),
        ("{gone} {line}", "Enroll it first"),
        ("{line} {product}", "swapped. Try: fewshot-ad drift {product} {line}"),
    ],
    "report": [
        ("{good} {line} -o page.html", "got the folder {good}"),
        ("{gone} {line} -o page.html", "Enroll it first"),
        ("{line} {product} -o page.html", "swapped. Try: fewshot-ad report {product} {line}"),
        ("{product} {line} -o {product}", "expected"),
    ],
    "serve": [
        ("{gone}", "settings in YAML"),
        ("{product}", "UTF-8"),
        ("--catalog {gone}", "expected a folder at"),
        ("--catalog {good} --host 0.0.0.0", "token_file"),
        ("--catalog {good} --token-file {gone}", "a token"),
        ("--catalog {good} --journal {text} --port 0", "expected a journal, got another file"),
        ("--catalog {good} --keep some", "rejects"),
        ("--catalog {good} --port 99999", "at most 65535"),
    ],
    "reinspect": [
        ("{gone} {line} -o {new}", "Enroll it first"),
        ("{product} {gone} -o {new}", "expected a folder of images"),
        ("{product} {empty} -o {new}", "expected images in"),
        ("{product} {line} -o {text}", "expected a record"),
        ("{product} {line} -o {new} --chunk 0", "at least 1"),
    ],
    "journal": [
        ("export {gone} -o a.csv", "expected a journal at"),
        ("export {text} -o a.csv", "got another file"),
        ("export {text} -o a.txt", ".csv, .parquet, .html"),
        ("export {text} -o a.csv --format xlsx", "parquet"),
        ("export {text} -o a.csv --verdict bad", "anomalous"),
        ("events {gone}", "expected a journal at"),
        ("replicate {gone} b.db", "expected a journal at"),
    ],
    "backup": [
        ("{gone} {text} -o b.tar", "folder of products"),
        ("{good} {gone} -o b.tar", "expected a journal at"),
        ("{good} {text} -o b.tar", "got another file"),
    ],
    "restore": [
        ("{gone} out", "expected a backup at"),
        ("{text} out", "expected a backup"),
        ("{text} {good}", "empty"),
    ],
    "fleet": [
        ("push {gone} store", "folder of products"),
        ("push {good} nosuch://x", "package"),
        ("pull {gone} {good}", "expected a store"),
        ("pull {good} {gone}", "folder of products"),
    ],
    "route": [
        ("{gone} {line}", "expected a folder of products"),
        ("{good} {line}", "expected products in"),
    ],
    "diff": [
        ("{good} {product}", "got the folder {good}"),
        ("{gone} {product}", "Enroll it first"),
    ],
    "undo": [
        ("{good}", "got the folder {good}"),
        ("{gone}", "Enroll it first"),
        ("{product}", "there is nothing to undo"),
    ],
    "history": [
        ("{good}", "got the folder {good}"),
        ("{gone}", "Enroll it first"),
        ("{product} {product}", "no further argument"),
    ],
    "info": [
        ("{good}", "got the folder {good}"),
        ("{gone}", "Enroll it first"),
        ("{text}", ".fsad file"),
        ("{line}/0.png", "got an image. Name the file that `fewshot-ad enroll` wrote"),
        ("{product} {product}", "no further argument"),
    ],
    "export": [
        ("{out} {product}", "swapped. Try: fewshot-ad export {product} {out}"),
        ("{good} {out}", "got the folder {good}"),
        ("{gone} {out}", "Enroll it first"),
        ("{product} {out} --size 640", "WIDTHxHEIGHT in pixels, such as 640x480, got '640'"),
        ("{product} {out} --size 128/axb", "got '128/axb'"),
        ("{product} {out} --size 4x4", "got 4 x 4"),
        ("{product} {out} --images {gone}", "nothing matches"),
        ("{product} {out} --images ''", "an empty text"),
        ("{product} {out} --target onyx", "did you mean onnx?"),
    ],
    "bench": [
        ("{good}", "got the folder {good}"),
        ("{gone}", "Enroll it first"),
        ("{product} --minutes -1", "at least 0, got '-1'"),
        ("{product} --minutes inf", "seconds as a finite number of at least 0, got inf"),
        ("{product} --images {gone}", "nothing matches"),
        ("{product} --images ''", "an empty text"),
        ("{product} --images {text}", "{text}: expected an image"),
    ],
    "doctor": [("{product}", "no further argument")],
    "demo": [
        ("--data {gone} -o {out}", "expected the MVTec layout"),
        ("--data {good} -o {out}", "expected the MVTec layout"),
        ("--shots 0 -o {out}", "at least 1, got '0'"),
        ("--seed -1 -o {out}", "at least 0, got '-1'"),
    ],
    "encoders": [("lite0_parts", "no further argument")],
}
# Their own arguments are misused in tests/cli/test_misuse_tools.py.
ELSEWHERE = {"train", "distill", "train-pose", "parts", "zoo", "fit", "predict", "datasets", "benchmark"}


def test_every_command_is_misused() -> None:
    words = {path[0] for path, _ in every_command() if path}
    assert words == set(MISUSES) | ELSEWHERE


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Names for `MISUSES`, and what they stand for."""
    root = tmp_path_factory.mktemp("misuse")
    for name, seeds in {"good": range(2), "line": range(5, 6)}.items():
        (root / name).mkdir()
        for number, seed in enumerate(seeds):
            cv2.imwrite(str(root / name / f"{number}.png"), make_part(seed, 64))
    (root / "empty").mkdir()
    (root / "notes.txt").write_text("no picture and no product")
    Inspector.from_support(root / "good", product="p", views="none", image_size=64).save(root / "p.fsad")
    names = {"good": "good", "line": "line", "empty": "empty", "text": "notes.txt", "product": "p.fsad"}
    names |= {"gone": "gone", "new": "new.fsad", "out": "out"}
    return {key: str(root / name) for key, name in names.items()}


def words_of(command: str, text: str, workplace: dict[str, str]) -> list[str]:
    words = text.replace("''", "{nothing}").split()
    return [command, *(word.format(**workplace, nothing="") for word in words)]


def check_answer(answer: str) -> None:
    """What holds for every message."""
    assert "expected" in answer
    for foreign in ("Traceback", "FEWSHOT_AD_DEBUG", "[Errno", "Value error", "Input should", ".. ", "Error:"):
        assert foreign not in answer


CASES = [
    pytest.param(command, text, answer, id=f"{command} {text}")
    for command, cases in MISUSES.items()
    for text, answer in cases
]


@pytest.mark.parametrize(("command", "text", "answer"), CASES)
def test_the_answer_helps(command: str, text: str, answer: str, workplace: dict[str, str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(workplace["good"]).parent.rglob("*")}
    words = words_of(command, text, workplace)
    plain = CliRunner().invoke(app, words)
    assert plain.exit_code == 2, plain.output
    assert answer.format(**workplace) in plain.stderr
    check_answer(plain.stderr)
    in_json = CliRunner().invoke(app, [*words, "--json"])
    assert in_json.exit_code == 2
    assert not in_json.stderr
    [line] = in_json.stdout.splitlines()
    fields = json.loads(line)
    assert fields["schema"] == "fewshot-ad/error/1"
    assert f"error: {fields['error']}" == plain.stderr.strip()
    # Nothing is left behind by what did not happen.
    assert {path: path.stat().st_mtime_ns for path in Path(workplace["good"]).parent.rglob("*")} == before


def test_the_answers_are_the_same_without_extras(workplace: dict[str, str]) -> None:
    """Where a library is absent its extra is named; no answer is an ImportError."""
    commands = [words_of(command, text, workplace) for command, cases in MISUSES.items() for text, _ in cases]
    code = BLOCK.format(blocked=EXTRAS | {"anomalib", "ultralytics", "ray", "matplotlib", "jsonschema"}) + (
        "import json\n"
        "from typer.testing import CliRunner\n"
        "from fewshot_ad.cli import app\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    result = CliRunner().invoke(app, words)\n"
        "    print(json.dumps([words, result.exit_code, result.stderr]))\n"
    )
    child = [sys.executable, "-c", code, json.dumps(commands)]
    done = subprocess.run(child, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(commands)
    for words, exit_code, stderr in results:
        assert exit_code == 2, words
        assert "ModuleNotFoundError" not in stderr
        assert "expected" in stderr or "pip install 'fewshot-ad[" in stderr, (words, stderr)


def answer_to(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int | str | None, str, str]:
    """Exit code, output and errors of the program with all arguments parsed and none of its work done."""
    program = get_command(app)
    for _, command in every_command(program):
        command.callback = lambda **_: None
    with pytest.raises(SystemExit) as end:
        program.main(words, prog_name="fewshot-ad")
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


def check_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The command line is refused with one message, and with --json with one object."""
    code, out, err = answer_to(words, capsys)
    assert (code, out) == (2, ""), words
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    check_answer(err)
    assert "--help`." in err
    code, out, silence = answer_to([*words, "--json"], capsys)
    assert (code, silence) == (2, ""), words
    assert json.loads(out) == {"schema": "fewshot-ad/error/1", "error": err.removeprefix("error: ").rstrip("\n")}
    return err


def required(command: Command) -> list[list[str]]:
    """What a command must be given, each with a value."""
    needed = [parameter for parameter in command.params if parameter.required]
    return [["x"] if p.param_type_name == "argument" else [p.opts[0], "x"] for p in needed]


@pytest.mark.parametrize("path", COMMANDS)
def test_what_is_missing_misspelled_or_too_much_is_told(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    command = next(command for words, command in every_command() if words == path)
    parts = required(command)
    complete = [*path, *(word for part in parts for word in part)]
    assert answer_to(complete, capsys)[0] == 0
    for left_out in parts:
        words = [*path, *(word for part in parts if part is not left_out for word in part)]
        assert "got none" in check_refused(words, capsys)
    assert "got --nonsense" in check_refused([*complete, "--nonsense"], capsys)
    if any("--json" in parameter.opts for parameter in command.params):
        assert "did you mean --json?" in check_refused([*complete, "--jsn"], capsys)
    takes_more = any(p.param_type_name == "argument" and (p.nargs == -1 or not p.required) for p in command.params)
    if not takes_more:
        assert "no further argument" in check_refused([*complete, "y", "z z"], capsys)
    misspelled = [*path[:-1], f"{path[-1][:-1]}{path[-1][-1]}x"]
    assert f"did you mean {path[-1]!r}?" in check_refused(misspelled, capsys)


@pytest.mark.parametrize("path", COMMANDS)
def test_a_value_of_a_wrong_kind_is_shown(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    command = next(command for words, command in every_command() if words == path)
    complete = [*path, *(word for part in required(command) for word in part)]
    options = [p for p in command.params if p.param_type_name == "option" and not p.is_flag]
    for option in options:
        words = [*complete, option.opts[0], NONSENSE]
        if answer_to(words, capsys)[0] == 0:
            continue  # it takes any text
        message = check_refused(words, capsys)
        assert option.opts[0] in message
        assert f"got '{NONSENSE}'" in message


def test_kinds_of_values_are_checked_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    """The test above itself: it must have seen numbers and choices."""
    refused = 0
    for path, command in every_command():
        for parameter in command.params:
            takes_value = parameter.param_type_name == "option" and not getattr(parameter, "is_flag", False)
            if takes_value and not hasattr(command, "commands"):
                complete = [*path, *(word for part in required(command) for word in part)]
                refused += answer_to([*complete, parameter.opts[0], NONSENSE], capsys)[0] == 2
    assert refused > 30


def takes_path(parameter: Command) -> bool:
    described = getattr(parameter, "type_descriptor", None)
    return "Path" in str(described.annotation) if described is not None else parameter.type.name == "path"


def test_a_path_is_no_empty_text(capsys: pytest.CaptureFixture[str]) -> None:
    """It would be the working folder."""
    seen = 0
    for path, command in every_command():
        for parameter in command.params:
            if hasattr(command, "commands") or not takes_path(parameter):
                continue
            complete = [*path, *(word for part in required(command) for word in part)]
            is_option = parameter.param_type_name == "option"
            if not is_option and len(command.params) and parameter is not command.params[0]:
                continue  # its place depends on others
            words = [*complete, parameter.opts[0], ""] if is_option else [*path, "", *complete[len(path) + 1 :]]
            assert "got an empty text" in check_refused(words, capsys)
            seen += 1
    assert seen > 20


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("--json inspect p.fsad a.png", "fewshot-ad: expected --json after the command, got it before. See"),
        ("benchmark --json report r.jsonl", "expected --json after the command, got it before. See"),
        ("datasets --json show mvtec", "--json: expected after the command, got before it. See"),
        ("inspect p.fsad a.png --json=1", "expected --json without a value, got one. See `fewshot-ad inspect --help`"),
        ("inspect p.fsad a.png -json", "got -json (did you mean --json?). See `fewshot-ad inspect --help`"),
    ],
)
def test_json_in_a_wrong_place_or_form_is_answered_in_json(words: str, answer: str) -> None:
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 2
    assert not result.stderr
    assert answer in json.loads(result.stdout)["error"]


def test_an_option_without_its_value_names_the_command() -> None:
    for words, command in (
        ("inspect p.fsad a.png --csv", "fewshot-ad inspect"),
        ("benchmark report r --csv", "fewshot-ad benchmark report"),
    ):
        answer = CliRunner().invoke(app, words.split()).stderr
        assert answer == f"error: {command}: expected a value after --csv, got none. See `{command} --help`.\n"


def test_json_after_two_dashes_is_an_argument() -> None:
    result = CliRunner().invoke(app, ["info", "a", "b", "--", "--json"])
    assert not result.stdout
    assert result.stderr.startswith("error: ")


def test_flags_show_no_type() -> None:
    for path, _ in every_command():
        assert "bool" not in CliRunner().invoke(app, [*path, "--help"]).stdout.lower()


def test_an_empty_argument_is_never_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ["inspect", "p.fsad", "line", "--heatmaps", ""],
        ["inspect", "p.fsad", "line", "--csv="],
        ["enroll", "good", "-o", ""],
        ["info", ""],
    ):
        result = CliRunner().invoke(app, command)
        assert (result.exit_code, "got an empty text" in result.stderr) == (2, True), (command, result.stderr)
    assert list(tmp_path.iterdir()) == []
