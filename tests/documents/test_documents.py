from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field

from fewshot_ad.documents import yaml_text
from fewshot_ad.documents.fields import Entry, check, check_dataclass, words
from fewshot_ad.documents.json_text import parse_json
from fewshot_ad.documents.naming import nearest, unknown
from fewshot_ad.documents.reading import MAX_BYTES, Document
from fewshot_ad.documents.yaml_text import parse_yaml, read_yaml
from fewshot_ad.errors import BenchmarkError, TrainingError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture(params=["libyaml", "python"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML: not every installation has libyaml."""
    if request.param == "python":
        monkeypatch.setattr(yaml_text, "_LOADER", yaml_text.loader_of(yaml.SafeLoader))
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.skip("PyYAML without libyaml")


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "line 1, column 4: expected YAML, got something else .the anchor or alias 'a'"),
        ("a: *b\n", "line 1, column 4: .*the anchor or alias 'b'"),
        ("a: " + "[" * 100_000, "line 1, column [0-9]+: .*(more than 32 levels|maximum nesting depth)"),
        ("\n".join(" " * n + "a:" for n in range(2000)), "line 33, column [0-9]+: .*more than 32 levels"),
        ("a: 1\nb:\n  c: 2\n  c: 3\n", "line 4, column 3: .*the name 'c' again, which stands in line 3 already"),
        ("methods: {x: [1\n", "line 2, column 1: "),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1, column 4: .*tag !!python/object/apply:os.system"),
        ("a: !!binary aGVsbG8=\n", "line 1, column 4: .*tag !!binary"),
        ("a: !!set {b, c}\n", "line 1, column 4: .*tag !!set"),
        ("a: .inf\n", "line 1, column 4: .*not finite, .inf"),
        ("a: 1\nb: .NaN\n", "line 2, column 4: .*not finite"),
        ("a: " + "9" * 5000, "line 1, column 4: .*a number that cannot be read"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: "),
        ("? [a]\n: 1\n", "line 1, column 3: .*a list or names as a name"),
        ("a: 1\nb: \x1b[31m\n", "line 2: .*a character that YAML does not allow"),
        ("a:\n\t- b\n", "line 2, column 1: "),
    ],
)
def test_what_is_no_plain_yaml(text: str, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(BenchmarkError, match=f"^plan.yaml, {message}"):
        parse_yaml(text, "plan.yaml", BenchmarkError)
    # A bound against minutes, not a measurement.
    assert time.monotonic() - start < 30


@pytest.mark.usefixtures("loader")
def test_names_are_as_written_and_values_are_plain() -> None:
    document = parse_yaml("on: true\n01: 2026-01-02\nnull: [1, 2.5, ~, a b]\n", "f", BenchmarkError)
    assert document.content == {"on": True, "01": "2026-01-02", "null": [1, 2.5, None, "a b"]}
    assert document.lines["null", 1] == (3, 11)
    assert document.where(("null", 9, "x")) == "f, line 3"
    assert parse_yaml("", "f", BenchmarkError).content is None


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize("text", ["1:30", "1:30.5", "yes", "No", "on", "OFF", "010", "0b1", "1_000", "=", "<<"])
def test_what_yaml_once_took_for_something_else_is_text(text: str) -> None:
    assert parse_yaml(f"a: {text}\n", "f", BenchmarkError).content == {"a": text}


@pytest.mark.usefixtures("loader")
def test_numbers_and_booleans() -> None:
    values = "[0, -7, +7, 0x1F, 1., .5, -2.5, 1e3, 2.5E-3, true, FALSE, null, ]"
    expected = [0, -7, 7, 31, 1.0, 0.5, -2.5, 1000.0, 0.0025, True, False, None]
    content = parse_yaml(values, "f", BenchmarkError).content
    assert content == expected
    assert list(map(type, content)) == list(map(type, expected))


def test_files_that_are_no_text_or_too_large(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(file, BenchmarkError, "a plan").content == {"a": 1}
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(BenchmarkError, match="line 2: expected a plan, got bytes that are no UTF-8"):
        read_yaml(file, BenchmarkError, "a plan")
    file.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(BenchmarkError, match="expected a plan of at most 1,000,000 bytes"):
        read_yaml(file, BenchmarkError, "a plan")
    with pytest.raises(TrainingError, match=r"expected a recipe at .*cannot read it"):
        read_yaml(tmp_path, TrainingError, "a recipe")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b": {"c": 1, "c": 2}}', 'line 2, column 16: .*the name "c" stands twice'),
        ('{"a": 1, "\\u0061": 2}', "stands twice"),
        ("[1e999]", "1e999 is no finite number"),
        ("[" * 100_000, "line 1, column 33: .*more than 32 levels"),
        ('{"a": ' * 100_000, "line 1, column [0-9]+: .*more than 32 levels"),
        ('{"a": NaN}', "NaN is no finite number"),
        ('{"a": -Infinity}', "-Infinity is no finite number"),
        ('{"a": 1', "line 1, column 8: "),
        ('"' + '\\"' * 200_000, "line 1, column 1: "),
        ("[" + "9" * 5000 + "]", "expected a list, got something else"),
    ],
)
def test_what_is_no_json(text: str, message: str) -> None:
    with pytest.raises(BenchmarkError, match=f"^f.*{message}"):
        parse_json(text, "f", BenchmarkError, "a list")


def test_json_that_only_looks_suspicious() -> None:
    text = '{"a": "[[[{\\"a\\": ", "b": [{"a": 1}, {"a": 1}], "c\\u0041": "b"}'
    assert parse_json(text, "f", BenchmarkError, "a list") == {"a": '[[[{"a": ', "b": [{"a": 1}, {"a": 1}], "cA": "b"}


class Part(Entry):
    size: Annotated[int, Field(ge=32)]
    kind: Literal["a", "b"] = "a"


class Whole(Entry):
    parts: dict[str, Part]
    weights: list[float | None] = Field(default_factory=list)


def test_all_mistakes_are_named_with_field_and_line() -> None:
    text = "parts:\n  one: {size: big}\n  a b: {size: 5, kin: a}\n  c: {kind: x}\nweights: [1, yes, 2]\nwight: 1\n"
    with pytest.raises(BenchmarkError) as raised:
        check(Whole, parse_yaml(text, "f.yaml", BenchmarkError), BenchmarkError)
    assert str(raised.value) == (
        "f.yaml: 7 mistakes. "
        "[1] parts.one.size: expected a whole number from 32, got 'big' (f.yaml, line 2). "
        "[2] parts['a b'].size: expected a whole number from 32, got 5 (f.yaml, line 3). "
        "[3] parts['a b'].kin: expected a name among kind, size, got 'kin' (did you mean 'kind'?) (f.yaml, line 3). "
        "[4] parts.c.size: expected a whole number from 32, got nothing (f.yaml, line 4). "
        "[5] parts.c.kind: expected one of a, b, got 'x' (f.yaml, line 4). "
        "[6] weights[1]: expected a number, or null, got 'yes' (f.yaml, line 5). "
        "[7] wight: expected a name among parts, weights, got 'wight' (did you mean 'weights'?) (f.yaml, line 6)."
    )


def test_many_mistakes_are_counted() -> None:
    content = {"parts": {str(n): {"size": "\x1b" * 1000} for n in range(5000)}}
    with pytest.raises(BenchmarkError, match=r"5000 mistakes.* And 4990 more") as raised:
        check(Whole, Document("f", content), BenchmarkError)
    assert len(str(raised.value)) < 3000
    assert "\x1b" not in str(raised.value)


@dataclasses.dataclass(frozen=True)
class Recipe:
    epochs: int = 1
    scales: tuple[float, float] = (1, 2)
    folders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise TrainingError("expected at least one epoch.")


def test_dataclasses_are_checked_alike() -> None:
    fields = {"epochs": 3, "scales": [1, 2.5], "folders": ["a"]}
    assert check_dataclass(Recipe, Document("f", fields), TrainingError) == Recipe(3, (1, 2.5), ("a",))
    for content, message in (
        ({"epochs": "3"}, "epochs: expected a whole number, got '3'"),
        ({"epochs": 3.0}, "epochs: expected a whole number, got 3.0"),
        ({"epochs": True}, "epochs: expected a whole number, got True"),
        ({"epoch": 3}, "epoch: expected a name among epochs, folders, scales, got 'epoch' .did you mean 'epochs'"),
        ({"folders": "a"}, "folders: expected a list, each text, got 'a'"),
        ({"epochs": 0}, "at least one epoch"),
        (None, "expected names and values, got null"),
        ([1], r"expected names and values, got \[1\]"),
    ):
        with pytest.raises(TrainingError, match=message):
            check_dataclass(Recipe, Document("f", content), TrainingError)


def test_words_and_names() -> None:
    assert words(int | Literal["auto"] | None) == "a whole number, or `auto`, or null"
    assert words(list[str]) == "a list, each text"
    assert nearest("patchkore", ["padim", "patchcore"]) == "patchcore"
    assert nearest("imagenet", ["manifest"]) is None
    assert nearest("Winclip", ["anomalib_winclip", "anomalib_winclip_large"]) == "anomalib_winclip"
    assert nearest("ad", ["padim"]) is None
    many = unknown("zzz", [f"name_{number:02}" for number in range(40)])
    assert many.startswith("expected a name among name_00, ")
    assert "name_11 and 28 more, got 'zzz'" in many
    assert unknown("neighbours", ["neighbors"], "an option", {"neighbours": "neighbors"}).startswith(
        "expected 'neighbors', as it is called since version 0.2"
    )
