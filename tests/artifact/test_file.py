"""The file of a product: written whole, and refused where it is not what was written."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fewshot_ad import Inspector
from fewshot_ad.artifact import FORMAT_VERSION, read_artifact, write_artifact
from fewshot_ad.encoder import DEFAULT_ENCODER
from fewshot_ad.errors import ArtifactError, NotEnrolledError
from tests.artifact.conftest import changed
from tests.robustness.artifact_mutator import Raw, put_together, taken_apart


def test_the_same_product_is_saved_as_the_same_bytes(saved: Path, inspector: Inspector, tmp_path: Path) -> None:
    inspector.save(tmp_path / "again.fsad")
    assert (tmp_path / "again.fsad").read_bytes() == saved.read_bytes()


def test_it_is_a_plain_safetensors_file_with_json_inside(saved: Path) -> None:
    tensors = safetensors.numpy.load_file(saved)
    assert tensors["bank0.vectors"].dtype == np.float16
    length = int.from_bytes(saved.read_bytes()[:8], "little")
    record = json.loads(json.loads(saved.read_bytes()[8 : 8 + length])["__metadata__"]["fewshot_ad"])
    assert record["format_version"] == FORMAT_VERSION == 3
    assert record["encoder"]["name"] == DEFAULT_ENCODER
    assert record["preprocessing"]["color"] == "rgb"
    assert record["enrollment"]["support"][0][0] == "image[0]"


@pytest.mark.parametrize("keep", [0, 5, 100, 0.3, 0.5, 0.999])
def test_a_cut_file_is_refused(saved: Path, keep: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(keep if keep >= 1 or keep == 0 else keep * len(data))])
    with pytest.raises(ArtifactError, match=r"part of one|does not match"):
        Inspector.load(saved)


def test_one_changed_byte_is_refused_wherever_it_is(saved: Path) -> None:
    data = saved.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    positions = [
        0,
        7,
        9,
        *np.linspace(8, header - 1, 40).astype(int),
        *np.linspace(header, len(data) - 1, 40).astype(int),
    ]
    for position in positions:
        changed = bytearray(data)
        changed[position] ^= 0x01
        saved.write_bytes(bytes(changed))
        with pytest.raises(ArtifactError):
            read_artifact(saved)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotEnrolledError, match="Enroll it first"):
        Inspector.load(tmp_path / "none.fsad")
    (tmp_path / "text.fsad").write_text("hello" * 100)
    with pytest.raises(ArtifactError, match=r"expected a whole \.fsad"):
        Inspector.load(tmp_path / "text.fsad")
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "foreign.fsad")
    with pytest.raises(ArtifactError, match="expected a whole"):
        Inspector.load(tmp_path / "foreign.fsad")
    with pytest.raises(ArtifactError, match="got a folder"):
        Inspector.load(tmp_path)
    with pytest.raises(ArtifactError, match="path as the name of a file"):
        Inspector.load("a\0.fsad")
    with pytest.raises(ArtifactError, match="expected path as the name of a file, as text or Path, got None"):
        Inspector.load(None)  # type: ignore[arg-type]


def test_a_file_that_is_not_regular_or_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.fsad").open("wb") as file:
        file.truncate(12 << 30)
    with pytest.raises(ArtifactError, match=r"at most 1024 MiB, got 12288 MiB"):
        Inspector.load(tmp_path / "sparse.fsad")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.fsad")
        with pytest.raises(ArtifactError, match="pipe, socket or device"):
            Inspector.load(tmp_path / "pipe.fsad")


def test_an_image_in_the_place_of_a_product_is_called_an_image(part_folder: Path) -> None:
    with pytest.raises(ArtifactError, match=r"got an image.*enroll. wrote; images come after it"):
        Inspector.load(part_folder / "0.png")


def test_a_newer_format_says_to_update(tmp_path: Path) -> None:
    write_artifact(tmp_path / "new.fsad", {"a": np.zeros(1)}, {"format_version": 99})
    with pytest.raises(ArtifactError, match=r"newer\. Update fewshot-ad"):
        read_artifact(tmp_path / "new.fsad")


def test_an_older_format_says_to_enroll_again(tmp_path: Path) -> None:
    write_artifact(tmp_path / "old.fsad", {"a": np.zeros(1)}, {"format_version": 0})
    with pytest.raises(ArtifactError, match=r"older .*enroll again") as refused:
        read_artifact(tmp_path / "old.fsad")
    assert "pdate fewshot" not in str(refused.value)


def test_a_full_disk_leaves_the_old_product_whole(
    saved: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        inspector.save(saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_folder_that_cannot_be_written(tmp_path: Path, inspector: Inspector) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(ArtifactError, match="choose a folder you may write to"):
        inspector.save(blocker / "p.fsad")
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o555)
        with pytest.raises(ArtifactError, match="Permission denied"):
            inspector.save(locked / "p.fsad")


def test_a_process_killed_while_saving_leaves_the_old_product_whole(saved: Path) -> None:
    before = saved.read_bytes()
    script = (
        "import os, sys, numpy as np\n"
        "from fewshot_ad import artifact\n"
        "os.replace = lambda *a: os._exit(9)\n"
        "artifact.write_artifact(sys.argv[1], {'a': np.zeros(1000)}, {})\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(saved)], check=False).returncode == 9
    assert saved.read_bytes() == before
    assert Inspector.load(saved).product == "washer"


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_of_json_is_refused(text: str, saved: Path) -> None:
    saved.write_bytes(changed(saved.read_bytes(), "threshold", Raw(text)))
    with pytest.raises(ArtifactError, match=f"{text} is no number of JSON"):
        Inspector.load(saved)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Raw("[" + "[]," * 100_000 + "[]]"), r"support\[0\]\[0\]: expected this field"),
        (Raw("[" + "1," * 100_000 + "1]"), r"support\[0\]: expected a valid tuple, got 1"),
        (Raw("{" + ",".join(f'"{i}":1' for i in range(50_000)) + "}"), "an object of 50000 fields"),
        (Raw("[" * 100_000 + "]" * 100_000), "recursion depth"),
        (Raw("9" * 100_000), "digits"),
        (Raw('"' + "a" * 5_000_000 + '"'), "a header of 4 MiB"),
    ],
    ids=["lists", "numbers", "fields", "depth", "digits", "length"],
)
def test_a_description_of_a_hundred_thousand_faults_has_one_message(value: Raw, says: str, saved: Path) -> None:
    saved.write_bytes(changed(saved.read_bytes(), "enrollment.support", value))
    with pytest.raises(ArtifactError, match=says) as refused:
        read_artifact(saved)
    assert len(str(refused.value)) < 600


def test_a_field_that_stands_there_twice_is_refused(saved: Path) -> None:
    saved.write_bytes(put_together(*taken_apart(saved.read_bytes()), twice='"threshold": 1e9, '))
    with pytest.raises(ArtifactError, match="'threshold' stands there twice"):
        Inspector.load(saved)


def test_a_text_of_zeros_does_not_take_the_place_of_the_hash(inspector: Inspector, tmp_path: Path) -> None:
    product = inspector._product
    named = dataclasses.replace(product, enrollment=dataclasses.replace(product.enrollment, product_name="0" * 64))
    Inspector(inspector.encoder, named).save(tmp_path / "p.fsad")
    assert Inspector.load(tmp_path / "p.fsad", encoder=inspector.encoder).product == "0" * 64


@pytest.mark.parametrize("version", [0, -1, None, "3"])
def test_no_other_format_is_read(version: object, tmp_path: Path) -> None:
    write_artifact(tmp_path / "p.fsad", {"a": np.zeros(1)}, {"format_version": version})
    with pytest.raises(ArtifactError, match="expected format version 3, got"):
        read_artifact(tmp_path / "p.fsad")


def test_how_much_space_is_needed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r" 4\.0 MB are needed"):
        write_artifact(tmp_path / "p.fsad", {"a": np.zeros(500_000)}, {})
