"""Which encoder a stored product runs on."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.encoder import DEFAULT_ENCODER, Encoder
from fewshot_ad.encoder.weights import weights_folder
from fewshot_ad.errors import ArtifactError, WeightsError
from tests.artifact.conftest import changed


def test_another_encoder_is_refused_with_the_difference(saved: Path, encoder: Encoder) -> None:
    with pytest.raises(ArtifactError, match=r"stages \(4,\) there, \(3,\) here"):
        Inspector.load(saved, encoder=load_encoder(stages=(3,)))
    other = Encoder(dataclasses.replace(encoder.spec, sha256="0" * 64), encoder._engine, "openvino", None)
    with pytest.raises(ArtifactError, match="sha256"):
        Inspector.load(saved, encoder=other)


@pytest.mark.parametrize("stages", [(3,), (9,)])
def test_a_lower_stage_and_one_that_is_not_there_are_another_encoder(saved: Path, stages: tuple[int, ...]) -> None:
    saved.write_bytes(changed(saved.read_bytes(), "encoder.stages", list(stages)))
    with pytest.raises(ArtifactError, match=r"stages|strides"):
        Inspector.load(saved)


@pytest.mark.parametrize(
    "name",
    [
        "hf-hub:timm/resnet18.a1_in1k",
        "hf_hub:timm/resnet18",
        "local-dir:/tmp",
        "https://example.com/model",
        "vit_giant_patch14_dinov2",
        "/etc/hostname.json",
        "../card.json",
        "nothing",
    ],
)
def test_the_name_in_a_file_reaches_neither_timm_nor_disk_nor_network(
    name: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved.write_bytes(changed(changed(saved.read_bytes(), "encoder.name", name), "encoder.sha256", "a" * 64))

    def must_not(*_: object, **__: object) -> None:
        raise AssertionError("a file has decided what is loaded")

    monkeypatch.setattr("fewshot_ad.artifact.allowed_encoder.load_encoder", must_not)
    monkeypatch.setattr("fewshot_ad.artifact.allowed_encoder.exported_card", must_not)
    monkeypatch.setattr("socket.socket", must_not)
    for options in ({}, {"allow_download": True}):
        with pytest.raises(ArtifactError, match=r"sha256 aaaaaaaaaaaa\.\.\.\), which does not ship.*Pass it: encoder="):
            Inspector.load(saved, **options)


def test_a_shipped_name_of_another_hash_is_refused(saved: Path) -> None:
    saved.write_bytes(changed(saved.read_bytes(), "encoder.sha256", "a" * 64))
    with pytest.raises(ArtifactError, match="another state of the encoder lite0_parts"):
        Inspector.load(saved)


def test_the_hash_decides_and_the_path_is_a_hint(
    parts: list[np.ndarray], broken_part: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        for suffix in (".json", ".onnx"):
            shutil.copy(weights_folder() / f"{DEFAULT_ENCODER}{suffix}", folder)
    monkeypatch.chdir(here)
    enrolled = Inspector.from_support(parts, encoder="lite0_parts.json", views="none", image_size=128)
    enrolled.save(tmp_path / "p.fsad")
    monkeypatch.chdir(there.parent)
    score = enrolled.inspect(broken_part).score
    card = there / "lite0_parts.json"
    for encoder in (str(card), card, "there/lite0_parts.json", load_encoder(card), None):
        assert Inspector.load(tmp_path / "p.fsad", encoder=encoder).inspect(broken_part).score == score
    with pytest.raises(ArtifactError, match=r"another encoder \('lite0_parts\.json', sha256 .*got 'resnet18_parts'"):
        Inspector.load(tmp_path / "p.fsad", encoder="resnet18_parts")
    with pytest.raises(WeightsError, match=r"gone\.json: expected a weights card .*Check the path"):
        Inspector.load(tmp_path / "p.fsad", encoder="gone.json")
