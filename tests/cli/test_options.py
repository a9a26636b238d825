from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from fewshot_ad.cli import app
from fewshot_ad.encoder import Fusion
from fewshot_ad.encoder.engine import Device, EngineName, Precision
from fewshot_ad.enrollment.presets import PresetName
from fewshot_ad.export import Target
from fewshot_ad.line.journal.exporting import EXPORT_FORMATS
from fewshot_ad.line.settings import KeepPictures
from fewshot_ad.product import LIGHTING_CHOICES, ForegroundChoice, PartsChoice
from fewshot_ad.scoring import ImageScore
from fewshot_ad.search.nearest import Metric
from fewshot_ad.zoo.components.curves import Monitor
from tests.cli.commands import every_command, shown_help

CHOICES = {
    "device": get_args(Device),
    "engine": get_args(EngineName),
    "format": EXPORT_FORMATS,
    "keep": get_args(KeepPictures),
    "foreground": get_args(ForegroundChoice),
    "fusion": get_args(Fusion),
    "image-score": get_args(ImageScore),
    "lighting": LIGHTING_CHOICES,
    "metric": get_args(Metric),
    "monitor": (*get_args(Monitor), "none"),
    "parts": get_args(PartsChoice),
    "precision": (*get_args(Precision), "auto"),
    "preset": get_args(PresetName),
    "runner": ("in-process", "processes", "ray"),
    "target": get_args(Target),
}


def test_options_offer_what_the_package_takes_and_nothing_else() -> None:
    offers = [
        (option, set(choices.split("|")))
        for path, _ in every_command()
        for option, choices in re.findall(r"--([a-z-]+) +[<[]([\w-]+(?:\|[\w-]+)+)[]>]", shown_help(path))
    ]
    assert {option for option, _ in offers} == set(CHOICES)
    for option, choices in offers:
        assert choices == set(CHOICES[option]), option


def test_choices_reach_the_package_as_its_own_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def load(*_: object, **options: object) -> None:
        calls.append(options)
        raise ValueError("enough")

    monkeypatch.setattr("fewshot_ad.inspector.Inspector.load", load)
    monkeypatch.setattr("fewshot_ad.inspector.Inspector.from_support", load)
    CliRunner().invoke(app, ["inspect", "a.fsad", "b.png", "--engine", "onnxruntime", "--device", "cuda"])
    CliRunner().invoke(app, ["enroll", "good", "-o", "a.fsad", "--metric", "cosine", "--precision", "auto"])
    loading, enrolling = calls
    assert (loading["engine"], loading["device"]) == ("onnxruntime", "cuda")
    assert (enrolling["precision"], enrolling["preset"], enrolling["fusion"]) == ("auto", "balanced", "concat")
    assert enrolling["scoring"].metric == "cosine"
    assert type(loading["engine"]) is str
