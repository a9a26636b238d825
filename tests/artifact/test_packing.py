"""A product comes back from its file as it was."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector, ScoringConfig
from fewshot_ad.artifact import describe, pack, unpack
from fewshot_ad.encoder import Encoder
from fewshot_ad.errors import ArtifactError
from tests.conftest import make_part


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


def test_another_preprocessing_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewshot_ad.artifact.packing.SMOOTHING", 0.0)
    with pytest.raises(ArtifactError, match="another preprocessing"):
        Inspector.load(saved)


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
    explanation = again.info()["calibration"]["explanation"]
    assert explanation.startswith(f"threshold {again.threshold:.4g} (set by hand)")
    assert f"{inspector.threshold:.4g}" in explanation
    # Set to the calibration's own, it is set all the same.
    again.threshold = inspector.threshold
    again.save(tmp_path / "p.fsad")
    assert Inspector.load(tmp_path / "p.fsad").threshold_set_by_hand


def test_a_file_that_does_not_say_whether_its_threshold_was_set_by_hand(inspector: Inspector) -> None:
    tensors, record = pack(inspector.encoder.spec, inspector._product)
    del record["threshold_set_by_hand"]
    assert describe(tensors, record)["threshold_set_by_hand"] is False
    assert describe(tensors, {**record, "threshold": 9.0})["threshold_set_by_hand"] is True


def test_what_could_not_be_loaded_again_is_not_saved(parts: list[np.ndarray], encoder: Encoder, tmp_path: Path) -> None:
    inspector = Inspector.from_support(parts[:2], encoder=encoder, views="none", image_size=128)
    with pytest.raises(ArtifactError, match=r"threshold: .*at most 1e\+30.*cannot be saved with it"):
        Inspector(encoder, inspector._product.with_threshold(1e31)).save(tmp_path / "p.fsad")
    assert not (tmp_path / "p.fsad").exists()


def test_numbers_of_numpy_are_stored_as_numbers(parts: list[np.ndarray], tmp_path: Path) -> None:
    scoring = ScoringConfig(sigma=np.float32(2), neighbors=np.int64(3), edge_weight=np.float32(0.5))  # type: ignore[arg-type]
    inspector = Inspector.from_support(
        parts[:2], views="none", image_size=128, scoring=scoring, norm_power=np.float32(0.5), budget=np.int64(50)
    )  # type: ignore[arg-type]
    inspector.save(tmp_path / "p.fsad")
    assert Inspector.load(tmp_path / "p.fsad").scoring == ScoringConfig(sigma=2.0, neighbors=3, edge_weight=0.5)


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


def test_a_file_without_a_limit_of_patches_averages_a_share_of_all(inspector: Inspector) -> None:
    tensors, record = pack(inspector.encoder.spec, inspector._product)
    record["enrollment"]["settings"]["scoring"].pop("max_patches")
    assert unpack(tensors, record, inspector.encoder, "p.fsad").model.scoring.max_patches is None
