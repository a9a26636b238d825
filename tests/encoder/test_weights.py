from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from fewshot_ad.encoder import weights
from fewshot_ad.encoder.weights import WeightsCard, check_weights_file, shipped_encoders, verified_file, weights_folder
from fewshot_ad.errors import WeightsError


def test_every_shipped_file_has_a_card_and_is_unaltered() -> None:
    cards = shipped_encoders()
    assert "efficientnet_lite0" in cards
    assert {p.name for p in weights_folder().glob("*.onnx")} == {card.file for card in cards.values()}
    for name, card in cards.items():
        assert card.name == name
        assert card.license
        assert card.training_data
        assert verified_file(card).stat().st_size < 25e6
    files = [path for path in weights_folder().rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 25e6
    assert sum(path.stat().st_size for path in files) < 80e6


def test_the_package_holds_all_of_the_shipped_and_nothing_restricted() -> None:
    root = Path(__file__).resolve().parents[2]
    if not (root / "weights").is_dir():
        pytest.skip("not a source checkout")
    text = (root / "pyproject.toml").read_text()
    packed = set(re.findall(r'^"weights/([^"]+)" =', text, re.MULTILINE))
    files = (path.relative_to(root / "weights") for path in (root / "weights").rglob("*") if path.is_file())
    assert packed == {path.as_posix() for path in files}
    assert {card.license for card in shipped_encoders().values()} == {"Apache-2.0"}
    assert sum(p.stat().st_size for p in (root / "weights").rglob("*") if p.is_file()) < 80e6


def test_altered_or_missing_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = shipped_encoders()["efficientnet_lite0"]
    shutil.copytree(weights_folder(), tmp_path / "weights")
    monkeypatch.setattr(weights, "weights_folder", lambda: tmp_path / "weights")
    file = tmp_path / "weights" / card.file
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="damaged or was altered"):
        verified_file(card)
    file.unlink()
    with pytest.raises(WeightsError, match="Reinstall"):
        verified_file(card)


def test_a_card_survives_the_file_and_refuses_unknown_fields(tmp_path: Path) -> None:
    card = shipped_encoders()["efficientnet_lite0"]
    card.write(tmp_path / "card.json")
    assert WeightsCard.read(tmp_path / "card.json") == card
    (tmp_path / "card.json").write_text('{"name": "x", "color": "blue"}')
    with pytest.raises(WeightsError, match="expected a weights card"):
        WeightsCard.read(tmp_path / "card.json")
    with pytest.raises(WeightsError, match=r"there is no field 'color'\)\. Check the path"):
        WeightsCard.read(tmp_path / "card.json")
    assert set(dataclasses.asdict(card)) >= {"sha256", "license", "training_data", "recipe", "source"}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("stages", "1", "field stages: Input should be a valid tuple"),
        ("stages", ["a"], r"field stages\.0: Input should be a valid integer"),
        ("strides", [8], "one stride and channel number per stage"),
        ("default_stages", [9], r"default_stages \(9,\) are not among the stages"),
        ("default_stages", [], "are not among the stages"),
        ("file", "../other/lite0_parts.onnx", "is no plain file name"),
        ("file", "/etc/hostname", "is no plain file name"),
        ("file", "..\\lite0_parts.onnx", "is no plain file name"),
        ("tensors", "a/b.safetensors", "is no plain file name"),
        ("sha256", None, "field sha256"),
    ],
)
def test_a_card_speaks_of_files_beside_it_in_fields_of_its_form(
    field: str, value: object, says: str, tmp_path: Path
) -> None:
    fields = json.loads((weights_folder() / "lite0_parts.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**fields, field: value}))
    with pytest.raises(WeightsError, match=says):
        WeightsCard.read(tmp_path / "card.json")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"a": 1' + " " * 2_000_000 + "}"])
def test_what_is_no_card_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(WeightsError, match="expected a weights card"):
        WeightsCard.read(tmp_path / "card.json")
    with pytest.raises(WeightsError, match="a folder or no regular file"):
        WeightsCard.read(tmp_path)


def test_weights_that_the_hash_does_not_cover_are_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    card = shipped_encoders()["efficientnet_lite0"]
    model = onnx.load(str(weights_folder() / card.file))
    path = tmp_path / card.file
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin")
    altered = dataclasses.replace(card, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(WeightsError, match="holds its own weights, got one that keeps them in another file"):
        verified_file(altered, tmp_path)


def test_recipes_are_shown_with_the_names_of_today() -> None:
    recipe = shipped_encoders()["lite0_parts"].recipe
    assert "init_license: ''" in recipe
    assert "generated_images: 8" in recipe
    assert "licence" not in recipe


def test_weights_that_are_no_file_are_refused_by_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "p.FSAD").write_bytes(b"")
    for name, answer in (("gone", "does not exist"), ("", "got a folder"), ("p.FSAD", "got a product")):
        with pytest.raises(WeightsError, match=answer):
            check_weights_file(tmp_path / name)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(WeightsError, match="got a pipe or a device"):
            check_weights_file(tmp_path / "pipe")
