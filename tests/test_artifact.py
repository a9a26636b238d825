from __future__ import annotations

import copy
import dataclasses
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import safetensors.numpy
from pydantic import BaseModel

from fewshot_ad import Inspector, ScoringConfig, load_encoder
from fewshot_ad.artifact import FORMAT_VERSION, read_artifact, schema, write_artifact
from fewshot_ad.encoder import DEFAULT_ENCODER, Encoder, EncoderSpec
from fewshot_ad.encoder.weights import weights_folder
from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.support import View
from fewshot_ad.errors import ArtifactError, NotEnrolledError, WeightsError
from fewshot_ad.inspection import MapScale
from fewshot_ad.product import Enrollment
from tests.conftest import make_part
from tests.robustness.artifact_mutator import Raw, png, put_together, replaced, taken_apart


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
    with pytest.raises(ArtifactError, match=r"got an image.*inspect PRODUCT\.fsad IMAGES"):
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


def test_another_encoder_is_refused_with_the_difference(saved: Path, encoder: Encoder) -> None:
    with pytest.raises(ArtifactError, match=r"stages \(4,\) there, \(3,\) here"):
        Inspector.load(saved, encoder=load_encoder(stages=(3,)))
    other = Encoder(dataclasses.replace(encoder.spec, sha256="0" * 64), encoder._engine, "openvino", None)
    with pytest.raises(ArtifactError, match="sha256"):
        Inspector.load(saved, encoder=other)


def test_another_preprocessing_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewshot_ad.artifact.packing.SMOOTHING", 0.0)
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


FIRST = Path(__file__).parent / "golden" / "brick_v1.fsad"
ABSENT = object()


def changed(data: bytes, field: str, value: object) -> bytes:
    """A product with another value in one field, and the hash that goes with it."""
    header, record, tensors = taken_apart(data)
    path = tuple(int(part) if part.isdigit() else part for part in field.split("."))
    record = replaced(record, path, value)
    if value is ABSENT:
        inner: Any = record
        for part in path[:-1]:
            inner = inner[part]
        del inner[path[-1]]
    return put_together(header, record, tensors)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        *(
            (name, ABSENT, f": {name}: expected this field, got nothing")
            for name in ("encoder", "enrollment", "calibration", "level_scale", "threshold", "preprocessing")
        ),
        ("threshold", Raw("1e999"), r"threshold: expected a finite number, got inf"),
        ("threshold", 0, r"threshold: expected at least 1e-30, got 0"),
        ("threshold", "2", r"threshold: expected a valid number, got '2'"),
        ("threshold", True, r"threshold: expected a valid number, got True"),
        ("level_scale", [0.0], r"level_scale\[0\]: expected at least 1e-12, got 0"),
        ("level_scale", [1.0, 1.0], r"level_scale: expected one divisor per level \(1\), got 2"),
        ("calibration.n", 0, r"calibration\.n: expected at least 1"),
        ("calibration.n", 2**70, r"calibration\.n: expected less than 2147483648"),
        ("calibration.n", 6, r"calibration\.n: expected at most 5 images"),
        ("calibration.scores", [], r"calibration\.scores: .*at least 1 item"),
        ("calibration.scores.0", -1.0, r"calibration\.scores\[0\]: expected at least 0"),
        ("calibration.false_reject_rate", 0.001, r"false_reject_rate: expected 1 / \(n \+ 1\) = 0\.1667, got 0\.001"),
        ("calibration.map_peaks", [1.0], r"calibration\.map_peaks: expected one per score \(5\), got 1"),
        ("calibration.map_scale.threshold", 1e-9, r"map_scale\.threshold: expected more than median_good"),
        ("calibration.status", "final", r"calibration\.status: expected 'provisional', got 'final'"),
        ("encoder.stages", [], r"encoder\.stages: .*at least 1 item"),
        ("encoder.channels", [152, 152], r"encoder\.channels: expected one per stage \(1\), got 2"),
        ("encoder.norm_power", 2, r"encoder\.norm_power: expected at most 1, got 2"),
        ("enrollment.settings.image_size", 4096, r"image_size: expected at most 2048, got 4096"),
        ("enrollment.settings.budget", 0, r"settings\.budget: expected at least 1"),
        ("enrollment.settings.budget", 10, r"bank0\.vectors: expected 1 to 10 bank vectors"),
        ("enrollment.settings.seed", -1, r"settings\.seed: expected at least 0"),
        ("enrollment.settings.precision", "bf16", r"settings\.precision: expected the encoder's \(f32\)"),
        ("enrollment.settings.scoring.sigma", 1e9, r"scoring\.sigma: expected at most 64, got"),
        ("enrollment.settings.scoring.metric", "l1", r"scoring\.metric: expected 'l2' or 'cosine', got 'l1'"),
        ("enrollment.settings.views.0.kind", "zoom", r"views\[0\]\.kind: expected one of gray, .*got 'zoom'"),
        ("enrollment.settings.views", [{"kind": "rotate", "value": 1e9}], r"strength of rotate in -360\.\.360"),
        ("enrollment.settings.views", [], r"bank0\.view: expected values in 0\.\.0"),
        ("enrollment.support", [["a", "0" * 64]] * 4, r"calibration\.n: expected at most 4"),
        ("enrollment.support.0", ["a"], r"enrollment\.support\[0\]\[1\]: expected this field"),
        ("enrollment.product_name", "x" * 5000, r"product_name: .*at most 4096 characters"),
        ("references.0", [1, 128], r"references\[0\]\[0\]: expected at least 16, got 1"),
        ("references.0", [128, 200], r"reference0: expected a PNG file, RGB, 8 bits, of 160 x 102 pixels"),
        ("references", [], r"'reference0': expected no array of this name, got one"),
        ("surprise", 1, r"surprise: expected no field of this name, got 1"),
    ],
)
def test_a_field_that_no_product_has_is_named(field: str, value: object, says: str, saved: Path) -> None:
    saved.write_bytes(changed(saved.read_bytes(), field, value))
    with pytest.raises(ArtifactError, match=says):
        Inspector.load(saved)
    with pytest.raises(ArtifactError, match=says):
        read_artifact(saved)


@pytest.mark.parametrize("field", ["enrolment", "scoring", "encoder"])
def test_a_file_of_the_first_format_without_its_fields_is_refused(field: str, tmp_path: Path) -> None:
    for value, got in ((ABSENT, "nothing"), ([1], r"\[1\]")):
        (tmp_path / "p.fsad").write_bytes(changed(FIRST.read_bytes(), field, value))
        with pytest.raises(ArtifactError, match=f": {field}: expected an object, got {got}"):
            read_artifact(tmp_path / "p.fsad")
    (tmp_path / "p.fsad").write_bytes(changed(FIRST.read_bytes(), "enrolment.seed", ABSENT))
    with pytest.raises(ArtifactError, match=r"enrollment\.settings\.seed: expected this field, got nothing"):
        read_artifact(tmp_path / "p.fsad")


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


def test_what_could_not_be_loaded_again_is_not_saved(parts: list[np.ndarray], encoder: Encoder, tmp_path: Path) -> None:
    inspector = Inspector.from_support(parts[:2], encoder=encoder, views="none", image_size=128)
    with pytest.raises(ArtifactError, match=r"threshold: .*at most 1e\+30.*cannot be saved with it"):
        Inspector(encoder, inspector._product.with_threshold(1e31)).save(tmp_path / "p.fsad")
    assert not (tmp_path / "p.fsad").exists()


@pytest.mark.parametrize("threshold", [1e-30, 1e30])
def test_whatever_threshold_is_taken_can_be_saved(inspector: Inspector, tmp_path: Path, threshold: float) -> None:
    changed = copy.copy(inspector)
    changed.threshold = threshold
    changed.save(tmp_path / "p.fsad")
    assert Inspector.load(tmp_path / "p.fsad").threshold == threshold


def test_names_of_files_that_are_no_utf8_are_stored(parts: list[np.ndarray], encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"bottle\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    for number, part in enumerate(parts[:2]):
        (folder / os.fsdecode(b"\xfe%d.png" % number)).write_bytes(cv2.imencode(".png", part)[1].tobytes())
    Inspector.from_support(folder, encoder=encoder, views="none", image_size=128).save(tmp_path / "p.fsad")
    info = Inspector.load(tmp_path / "p.fsad").info()
    assert info["product"] == r"bottle\xff"
    assert [image["name"] for image in info["support"]] == [r"\xfe0.png", r"\xfe1.png"]


def test_a_file_of_the_first_format_keeps_all_its_settings(tmp_path: Path) -> None:
    inspector = Inspector.load(FIRST)
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
    name: str, change: Callable[[np.ndarray], np.ndarray], inspector: Inspector, tmp_path: Path
) -> None:
    rewritten(inspector, tmp_path / "p.fsad", {name: change})
    with pytest.raises(ArtifactError, match=r"bank0\.\w+: expected .*(I32|F16).* got"):
        Inspector.load(tmp_path / "p.fsad")


def rewritten(inspector: Inspector, path: Path, changes: dict[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    """Save a product with some arrays changed."""
    inspector.save(path)
    tensors, record = read_artifact(path)
    new = {name: change(tensors[name].copy()) for name, change in changes.items()}
    write_artifact(path, {**tensors, **new}, {name: v for name, v in record.items() if name != "sha256"})


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[len(array) // 2] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("bank0.vectors", with_value(np.nan), r"bank0\.vectors: expected values in .*got nan"),
        ("bank0.vectors", with_value(np.inf), r"bank0\.vectors: expected values in .*inf"),
        ("bank0.vectors", lambda a: a.astype(np.float64), r"bank0\.vectors: expected F16 or F32 .*got 'F64'"),
        ("bank0.vectors", lambda a: a[:0], r"bank0\.vectors: expected 1 to 2000 bank vectors \(the budget\), got 0"),
        ("bank0.image", with_value(-1), r"bank0\.image: expected values in 0\.\.4, got -1"),
        ("bank0.image", with_value(5), r"bank0\.image: expected values in 0\.\.4, got 0\.0 to 5"),
        ("bank0.view", with_value(3), r"bank0\.view: expected values in 0\.\.2"),
        ("bank0.xy", with_value(2**31 - 1), r"bank0\.xy: expected values in"),
        ("bank0.xy", lambda a: a.astype(np.int64), r"bank0\.xy: expected I32"),
        ("reference0", lambda a: a[:-20], r"reference0: expected a PNG file"),
        ("reference0", lambda a: np.frombuffer(png(30_000, 30_000), np.uint8), r"128 x 128 pixels, got .*30000, 30000"),
        ("reference0", lambda a: np.frombuffer(png(128, 128, b"\0" * 99), np.uint8), r"expected a whole PNG file"),
        ("reference0", lambda a: np.zeros(2_000_000, np.uint8), r"references: expected at most 1500000 bytes"),
    ],
)
def test_values_that_no_product_has_are_named(
    name: str, change: Callable[[np.ndarray], np.ndarray], says: str, inspector: Inspector, tmp_path: Path
) -> None:
    rewritten(inspector, tmp_path / "p.fsad", {name: change})
    with pytest.raises(ArtifactError, match=says):
        Inspector.load(tmp_path / "p.fsad")


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


def test_how_much_space_is_needed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r" 4\.0 MB are needed"):
        write_artifact(tmp_path / "p.fsad", {"a": np.zeros(500_000)}, {})


def test_only_the_renamed_view_of_the_first_format_changes(tmp_path: Path) -> None:
    strengths = {"brightness": 0.5, "contrast": 0.5, "grey": 0.0, "hflip": 0.0, "rotate": 0.5, "translate_x": 0.5}
    views = [{"kind": kind, "value": value} for kind, value in strengths.items()]
    (tmp_path / "p.fsad").write_bytes(changed(FIRST.read_bytes(), "enrolment.views", views))
    read = read_artifact(tmp_path / "p.fsad")[1]["enrollment"]["settings"]["views"]
    assert read == [{**view, "kind": str(view["kind"]).replace("grey", "gray")} for view in views]


FORMS = {
    schema.EncoderForm: EncoderSpec,
    schema.MapScaleForm: MapScale,
    schema.CalibrationForm: Calibration,
    schema.ViewForm: View,
    schema.ScoringForm: ScoringConfig,
    schema.SettingsForm: EnrollmentSettings,
    schema.EnrollmentForm: Enrollment,
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_the_file_has_the_fields_of_what_it_becomes(form: type[BaseModel]) -> None:
    assert set(form.model_fields) == {field.name for field in dataclasses.fields(FORMS[form])}


def test_the_published_schema_is_that_of_the_program(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "docs" / "scripts"))
    import fsad_schema

    assert fsad_schema.OUTPUT.read_text(encoding="utf-8") == fsad_schema.schema()
    published = json.loads(fsad_schema.schema())
    assert set(published["required"]) <= set(read_artifact(saved)[1]) == set(published["properties"])


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
