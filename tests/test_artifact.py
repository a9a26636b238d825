from __future__ import annotations

import dataclasses
import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fewshot_ad import Inspector, ScoringConfig, load_encoder
from fewshot_ad.artifact import FORMAT_VERSION, read_artifact, unpack, write_artifact
from fewshot_ad.encoder import DEFAULT_ENCODER, Encoder
from fewshot_ad.errors import ArtifactError, NotEnrolledError
from tests.conftest import make_part


@pytest.fixture
def saved(tmp_path: Path, inspector: Inspector) -> Path:
    path = tmp_path / "washer.fsad"
    inspector.save(path)
    return path


def test_a_product_is_the_same_after_loading(saved: Path, inspector: Inspector, broken_part: np.ndarray) -> None:
    loaded = Inspector.load(saved)
    for part in (broken_part, make_part(60)):
        before, after = inspector.inspect(part), loaded.inspect(part)
        assert after.score == before.score
        assert after.is_anomalous == before.is_anomalous
        np.testing.assert_array_equal(after.anomaly_map, before.anomaly_map)
    assert loaded.calibration == inspector.calibration
    assert loaded.enrollment == inspector.enrollment
    for ours, theirs in zip(loaded.banks, inspector.banks, strict=True):
        np.testing.assert_array_equal(ours.origin.xy, theirs.origin.xy)


def test_the_same_product_is_saved_as_the_same_bytes(saved: Path, inspector: Inspector, tmp_path: Path) -> None:
    inspector.save(tmp_path / "again.fsad")
    assert (tmp_path / "again.fsad").read_bytes() == saved.read_bytes()


def test_it_is_a_plain_safetensors_file_with_json_inside(saved: Path) -> None:
    tensors = safetensors.numpy.load_file(saved)
    assert tensors["bank0.vectors"].dtype == np.float16
    length = int.from_bytes(saved.read_bytes()[:8], "little")
    record = json.loads(json.loads(saved.read_bytes()[8 : 8 + length])["__metadata__"]["fewshot_ad"])
    assert record["format_version"] == FORMAT_VERSION == 2
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
    with pytest.raises(ArtifactError, match="cannot be read"):
        Inspector.load(tmp_path)


def test_a_newer_format_says_to_update(tmp_path: Path) -> None:
    write_artifact(tmp_path / "new.fsad", {"a": np.zeros(1)}, {"format_version": 99})
    with pytest.raises(ArtifactError, match="Update fewshot-ad"):
        read_artifact(tmp_path / "new.fsad")


def test_another_encoder_is_refused_with_the_difference(saved: Path, encoder: Encoder) -> None:
    with pytest.raises(ArtifactError, match=r"stages \(4,\) there, \(3,\) here"):
        Inspector.load(saved, encoder=load_encoder(stages=(3,)))
    other = Encoder(dataclasses.replace(encoder.spec, sha256="0" * 64), encoder._engine, "openvino", None)
    with pytest.raises(ArtifactError, match="sha256"):
        Inspector.load(saved, encoder=other)


def test_another_preprocessing_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewshot_ad.artifact.SMOOTHING", 0.0)
    with pytest.raises(ArtifactError, match="another preprocessing"):
        Inspector.load(saved)


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


def test_settings_are_stored_as_they_are(parts: list[np.ndarray], encoder: Encoder, tmp_path: Path) -> None:
    scoring = ScoringConfig(metric="cosine", top_fraction=0.05, sigma=3.0)
    inspector = Inspector.from_support(
        parts, encoder=encoder, views={"rotate": [90.0], "gray": [0.0]}, budget=400, seed=7, scoring=scoring
    )
    inspector.save(tmp_path / "p.fsad")
    settings = Inspector.load(tmp_path / "p.fsad", encoder=encoder).enrollment.settings
    assert settings == inspector.enrollment.settings
    assert settings.scoring == scoring
    assert (settings.budget, settings.seed, settings.auto) == (400, 7, ("image_size",))
    assert [str(view) for view in settings.views] == ["rotate=90", "gray"]


def test_a_threshold_set_by_hand_and_its_maps_scale_are_kept(inspector: Inspector, tmp_path: Path) -> None:
    inspector.save(tmp_path / "p.fsad")
    first = Inspector.load(tmp_path / "p.fsad")
    first.threshold = 1.5 * inspector.threshold
    first.save(tmp_path / "p.fsad")
    again = Inspector.load(tmp_path / "p.fsad")
    assert again.threshold == first.threshold
    assert again.calibration == inspector.calibration
    assert again.model.map_scale == first.model.map_scale
    scale, by_hand = inspector.model.map_scale, again.model.map_scale
    assert by_hand.median_good == scale.median_good
    assert by_hand.threshold - by_hand.median_good == pytest.approx(1.5 * (scale.threshold - scale.median_good))


@pytest.mark.parametrize("field", ["encoder", "enrollment", "calibration", "level_scale", "threshold"])
def test_a_missing_field_is_named(field: str, inspector: Inspector, encoder: Encoder, tmp_path: Path) -> None:
    inspector.save(tmp_path / "p.fsad")
    tensors, record = read_artifact(tmp_path / "p.fsad")
    with pytest.raises(ArtifactError, match=f"'{field}'"):
        unpack(tensors, {name: value for name, value in record.items() if name != field}, encoder, "p.fsad")


def test_a_file_of_the_first_format_without_its_fields_is_refused(tmp_path: Path) -> None:
    write_artifact(tmp_path / "p.fsad", {"a": np.zeros(1)}, {"format_version": 1})
    with pytest.raises(ArtifactError, match=r"lacks or has an unexpected field \('enrolment'\)"):
        read_artifact(tmp_path / "p.fsad")


def test_a_file_of_the_first_format_keeps_all_its_settings(tmp_path: Path) -> None:
    inspector = Inspector.load(Path(__file__).parent / "golden" / "brick_v1.fsad")
    enrollment, settings = inspector.enrollment, inspector.enrollment.settings
    assert inspector.product == enrollment.product_name == "brick"
    assert [str(view) for view in settings.views] == ["hflip", "gray", "rotate=90"]
    assert (settings.image_size, settings.budget, settings.seed, settings.precision) == (128, 150, 0, "f32")
    assert settings.auto == ()
    assert settings.scoring == ScoringConfig()
    assert [name for name, _ in enrollment.support] == [f"image[{i}]" for i in range(4)]
    assert enrollment.created.startswith("2026-")
    assert "openvino" in enrollment.versions
    assert inspector.threshold == inspector.calibration.threshold
    inspector.save(tmp_path / "p.fsad")
    assert read_artifact(tmp_path / "p.fsad")[1]["format_version"] == FORMAT_VERSION
    again = Inspector.load(tmp_path / "p.fsad")
    assert again.enrollment == enrollment
    assert again.calibration == inspector.calibration


def test_what_is_said_of_a_product(inspector: Inspector, tmp_path: Path) -> None:
    inspector.save(tmp_path / "p.fsad")
    loaded = Inspector.load(tmp_path / "p.fsad")
    info = loaded.info()
    bank = loaded.banks[0]
    assert info["bank"]["vectors"] == [len(bank)]
    assert info["bank"]["dimensions"] == list(loaded.encoder.spec.dims)
    assert info["bank"]["megabytes"] == pytest.approx(bank.vectors.size * 2 / 1e6, abs=6e-4)
    assert info["threshold_set_by_hand"] is False
    for factor in (0.9, 1.1):
        loaded.threshold = factor * loaded.calibration.threshold
        assert loaded.info()["threshold_set_by_hand"] is True
        assert loaded.info()["threshold"] == loaded.threshold
        assert loaded.info()["calibration"]["threshold"] == loaded.calibration.threshold


@pytest.mark.parametrize("version", [0, -1, None, "2"])
def test_no_other_format_is_read(version: object, tmp_path: Path) -> None:
    write_artifact(tmp_path / "p.fsad", {"a": np.zeros(1)}, {"format_version": version})
    with pytest.raises(ArtifactError, match="expected format version 2, got"):
        read_artifact(tmp_path / "p.fsad")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bank0.vectors", lambda a: a[:, :-1]),
        ("bank0.vectors", lambda a: np.hstack([a, a[:, :1]])),
        ("bank0.image", lambda a: a[:-1]),
        ("bank0.view", lambda a: np.append(a, a[:1])),
        ("bank0.xy", lambda a: a[:, :1]),
        ("bank0.xy", lambda a: np.hstack([a, a])),
    ],
)
def test_arrays_of_other_shapes_are_refused(
    name: str, change: Callable[[np.ndarray], np.ndarray], inspector: Inspector, encoder: Encoder, tmp_path: Path
) -> None:
    inspector.save(tmp_path / "p.fsad")
    tensors, record = read_artifact(tmp_path / "p.fsad")
    with pytest.raises(ArtifactError, match="bank vectors of"):
        unpack({**tensors, name: change(tensors[name])}, record, encoder, "p.fsad")


@pytest.mark.parametrize("stages", [(3,), (5,)])
def test_a_lower_and_a_higher_stage_are_another_encoder(saved: Path, stages: tuple[int, ...]) -> None:
    inspector = Inspector.load(saved)
    tensors, record = read_artifact(saved)
    spec = {**record["encoder"], "stages": list(stages)}
    with pytest.raises(ArtifactError, match="stages"):
        unpack(tensors, {**record, "encoder": spec}, inspector.encoder, saved)


def test_how_much_space_is_needed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r" 4\.0 MB are needed"):
        write_artifact(tmp_path / "p.fsad", {"a": np.zeros(500_000)}, {})


def test_only_the_renamed_view_of_the_first_format_changes(tmp_path: Path) -> None:
    data = (Path(__file__).parent / "golden" / "brick_v1.fsad").read_bytes()
    record = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["fewshot_ad"])
    kinds = ["brightness", "contrast", "grey", "hflip", "rotate", "translate_x", "vflip"]
    record["enrolment"]["views"] = [{"kind": kind, "value": 0.5} for kind in kinds]
    del record["sha256"]
    write_artifact(tmp_path / "p.fsad", safetensors.numpy.load(data), record)
    views = read_artifact(tmp_path / "p.fsad")[1]["enrollment"]["settings"]["views"]
    assert [view["kind"] for view in views] == [kind.replace("grey", "gray") for kind in kinds]
    assert all(view["value"] == 0.5 for view in views)


def test_folders_are_made_for_a_product(inspector: Inspector, tmp_path: Path) -> None:
    inspector.save(tmp_path / "new" / "folder" / "p.fsad")
    assert Inspector.load(tmp_path / "new" / "folder" / "p.fsad").threshold == inspector.threshold


def test_only_a_product_is_replaced_and_only_under_its_suffix(saved: Path, inspector: Inspector) -> None:
    folder = saved.parent
    with pytest.raises(ArtifactError, match=r"ends in \.fsad, got .*p\.png\. Name it .*p\.fsad"):
        inspector.save(folder / "p.png")
    (folder / "notes.fsad").write_text("of the user")
    (folder / "image.fsad").symlink_to(folder / "notes.fsad")
    safetensors.numpy.save_file({"a": np.zeros(3)}, folder / "foreign.fsad")
    for name in ("notes.fsad", "image.fsad", "foreign.fsad"):
        with pytest.raises(ArtifactError, match="expected an older product"):
            inspector.save(folder / name, force=True)
    assert (folder / "notes.fsad").read_text() == "of the user"
    (folder / "empty.fsad").touch()
    inspector.save(folder / "empty.fsad")
    inspector.save(saved)
    assert Inspector.load(folder / "empty.fsad").product == Inspector.load(saved).product == "washer"


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs are those of POSIX")
def test_a_fifo_stays_a_fifo(inspector: Inspector, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.fsad")
    with pytest.raises(ArtifactError, match="got a FIFO"):
        inspector.save(tmp_path / "p.fsad", force=True)
    with pytest.raises(ArtifactError, match="it is a FIFO"):
        write_artifact(tmp_path / "p.fsad", {"a": np.zeros(1)}, {})
    assert stat.S_ISFIFO((tmp_path / "p.fsad").stat().st_mode)


def test_what_others_have_written_meanwhile_is_not_lost(saved: Path, encoder: Encoder) -> None:
    one, other = (Inspector.load(saved, encoder=encoder) for _ in range(2))
    one.threshold *= 2
    one.save(saved)
    one.threshold *= 2
    one.save(saved)
    with pytest.raises(ArtifactError, match="others have changed meanwhile"):
        other.save(saved)
    assert Inspector.load(saved, encoder=encoder).threshold == one.threshold
    other.save(saved.with_name("elsewhere.fsad"))
    other.save(saved, force=True)
    assert Inspector.load(saved, encoder=encoder).threshold == other.threshold
    saved.unlink()
    one.save(saved)


def test_the_true_reason_is_given_why_a_product_cannot_be_written(
    saved: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    for number, advice in ((errno.EBUSY, "mounted by itself"), (errno.EROFS, "read-only"), (errno.ENOSPC, "Free some")):

        def refused(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", refused)
            with pytest.raises(ArtifactError, match=advice) as caught:
                inspector.save(saved)
        assert os.strerror(number) in str(caught.value)
        assert ("Free some space" in str(caught.value)) == (number == errno.ENOSPC)
    assert saved.read_bytes() == before
