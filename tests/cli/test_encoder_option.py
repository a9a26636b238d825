"""A product whose encoder does not ship, and a broken product, on the command line."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewshot_ad.cli import app
from fewshot_ad.encoder.weights import weights_folder
from tests.robustness.artifact_mutator import put_together, replaced, taken_apart

runner = CliRunner()


def run(*args: object) -> tuple[int, str, str]:
    result = runner.invoke(app, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def own_encoder(folder: Path) -> Path:
    """A card whose hash is no shipped encoder's; its network is one."""
    onnx = pytest.importorskip("onnx")
    folder.mkdir()
    card = json.loads((weights_folder() / "lite0_parts.json").read_text())
    model = onnx.load(str(weights_folder() / card["file"]))
    model.doc_string = "my own"
    onnx.save(model, str(folder / "own.onnx"))
    card |= {
        "name": "own",
        "file": "own.onnx",
        "sha256": hashlib.sha256((folder / "own.onnx").read_bytes()).hexdigest(),
    }
    (folder / "own.json").write_text(json.dumps(card))
    return folder / "own.json"


def test_a_product_of_an_own_encoder_goes_on_when_the_card_has_moved(part_folder: Path, tmp_path: Path) -> None:
    card, path = own_encoder(tmp_path / "there"), tmp_path / "washer.fsad"
    enroll = ("enroll", part_folder, "-o", path, "--encoder", card, "--views", "none", "--image-size", 128)
    assert run(*enroll)[0] == 0
    here = shutil.move(tmp_path / "there", tmp_path / "here") / card.name
    for command in (("inspect", path, part_folder), ("add", path, part_folder), ("bench", path)):
        code, _, err = run(*command)
        assert code == 2
        assert "which does not ship with fewshot-ad" in err
        assert "--encoder" in err
    code, out, err = run("inspect", path, part_folder, "--encoder", here)
    assert code == 0, err
    assert "5 good, 0 anomalous" in out
    before = here.read_bytes()
    code, _, err = run("inspect", path, part_folder, "--encoder", here, "--csv", here, "--force")
    assert (code, here.read_bytes()) == (2, before)
    assert "one that this command reads" in err
    code, _, err = run("inspect", path, part_folder, "--encoder", "resnet18_parts")
    assert code == 2
    assert "it was enrolled with another encoder" in err
    assert run("info", path)[0] == 0


def test_info_and_inspect_say_the_same_of_a_broken_product(part_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "washer.fsad"
    assert run("enroll", part_folder, "-o", path, "--views", "none", "--image-size", 128)[0] == 0
    header, record, tensors = taken_apart(path.read_bytes())
    path.write_bytes(put_together(header, replaced(record, ("threshold",), -1.0), tensors))
    says = "threshold: expected at least 1e-30, got -1.0"
    for command in (("info", path), ("inspect", path, part_folder)):
        code, out, err = run(*command)
        assert (code, out) == (2, "")
        assert says in " ".join(err.split())
    code, out, _ = run("info", path, "--json")
    assert code == 2
    assert says in json.loads(out)["error"]
