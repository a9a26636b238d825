"""The files of the page: words in both languages, and nothing that a page of a station must not hold."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import get_args

import pytest

from fewshot_ad.inspection.drift import DriftKind
from fewshot_ad.line.journal.entries import CorrectionAction, EventKind
from fewshot_ad.line.record import RECORD_VERDICTS
from fewshot_ad.line.settings import KeepPictures

PAGE = resources.files("fewshot_ad.line") / "page"
FILES = {entry.name: entry.read_text(encoding="utf-8") for entry in PAGE.iterdir()}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith(".js")}
TEXTS: dict[str, dict[str, str]] = json.loads(FILES["texts.json"])
ALL_SCRIPTS = "\n".join(SCRIPTS.values())
# Keys that are put together from parts, `verdict.${verdict}`, as patterns.
PATTERNS = [
    r"[\w-]+".join(map(re.escape, re.split(r"\$\{[^}]*\}", text)))
    for text in re.findall(r"\bt(?:n|Or)?\(`([^`]+)`", ALL_SCRIPTS)
]
LITERALS = set(re.findall(r'"([a-z_]+(?:\.[a-z_-]+)*)"', ALL_SCRIPTS))


def base(key: str) -> str:
    """A key without its number, `photographs.one`."""
    return re.sub(r"\.(one|other)$", "", key)


def test_german_says_everything_that_english_says() -> None:
    assert list(TEXTS) == ["en", "de"]
    assert list(TEXTS["en"]) == list(TEXTS["de"])
    for language, texts in TEXTS.items():
        assert [key for key, text in texts.items() if not text.strip()] == [], language
    for key, text in TEXTS["en"].items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", TEXTS["de"][key])), key


def test_what_counts_is_said_of_one_and_of_several() -> None:
    for key in re.findall(r'\btn\("([^"]+)"', ALL_SCRIPTS):
        assert {f"{key}.one", f"{key}.other"} <= set(TEXTS["en"]), key


def test_every_word_is_used() -> None:
    patterns = [re.compile(pattern) for pattern in PATTERNS]
    unused = [
        key
        for key in TEXTS["en"]
        if not (
            {key, base(key)} & LITERALS or any(one.fullmatch(name) for one in patterns for name in (key, base(key)))
        )
    ]
    assert unused == []


def test_every_word_that_is_used_is_there() -> None:
    keys = {*TEXTS["en"], *map(base, TEXTS["en"])}
    asked = set(re.findall(r'\bt(?:n|Or)?\("([^"]+)"', ALL_SCRIPTS))
    asked |= {text for text in LITERALS if "." in text}
    assert asked - keys == set()
    for pattern in PATTERNS:
        assert any(re.fullmatch(pattern, key) for key in keys), pattern


def test_whatever_the_station_may_say_has_its_words() -> None:
    expected = {f"verdict.{verdict}" for verdict in RECORD_VERDICTS}
    expected |= {f"drift.kind.{kind}" for kind in get_args(DriftKind)}
    expected |= {f"keep.{keep}" for keep in get_args(KeepPictures)}
    expected |= {f"event.{kind}" for kind in get_args(EventKind)}
    said = [action for action in get_args(CorrectionAction) if action != "undo"]
    expected |= {f"corrected.{action}" for action in said}
    expected |= {f"correct.{action}.{what}" for action in said for what in ("title", "text", "yes", "done")}
    expected |= {f"product.{status}.{form}" for status in ("provisional", "calibrated") for form in ("one", "other")}
    assert expected - set(TEXTS["en"]) == set()


def test_every_answer_to_a_verdict_has_its_words() -> None:
    table = re.search(r"const ACTIONS = \{(.*?)\};", SCRIPTS["correct.js"], re.DOTALL)
    assert table is not None
    rows = re.findall(r"(\w+): \[(.*?)\]", table[1])
    assert [verdict for verdict, _ in rows] == list(RECORD_VERDICTS)
    for verdict, actions in rows:
        for action in re.findall(r'"(\w+)"', actions):
            assert f"correct.{action}.{verdict}" in TEXTS["en"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_file_loads_from_elsewhere_or_runs_text(name: str) -> None:
    text = FILES[name].replace("http://www.w3.org/2000/svg", "")
    forbidden = (
        r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\bstyle=|<script>"
    )
    assert re.findall(forbidden, text) == []


def test_each_script_has_one_job() -> None:
    assert {name: len(text.splitlines()) for name, text in SCRIPTS.items() if len(text.splitlines()) > 350} == {}


def test_every_script_is_loaded() -> None:
    imported = set(re.findall(r'from "\./([\w.]+)"', ALL_SCRIPTS)) | {"main.js"}
    assert imported == set(SCRIPTS)
