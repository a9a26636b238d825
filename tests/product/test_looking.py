from __future__ import annotations

import base64
import copy
import dataclasses
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import ArgumentError, ArtifactError, ImageError, Inspector, SupportSetError
from fewshot_ad.artifact import pack, read_artifact, unpack
from fewshot_ad.artifact.arrays import check_values
from fewshot_ad.cli.limits import stored_limits
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.embedding import embed_support, places_to_draw, scale_image
from fewshot_ad.enrollment.presets import enrollment_settings
from fewshot_ad.enrollment.probes import DrawnDefect
from fewshot_ad.enrollment.support import read_support
from fewshot_ad.images import RegionOfInterest, drawn_weights
from fewshot_ad.product.looking import Where, region_of_interest
from fewshot_ad.registration import Framing, Registration, pose_estimator
from fewshot_ad.scoring import patch_weights
from tests.conftest import make_part

# Around the washer, off the table's corners.
BOX = (32, 32, 64, 64)


def clutter(image: np.ndarray, at: tuple[int, int] = (4, 4)) -> np.ndarray:
    """The same with something bright outside of the box."""
    changed = image.copy()
    cv2.circle(changed, (at[0] + 8, at[1] + 8), 8, (250, 40, 250), -1)
    return changed


@pytest.fixture(scope="module")
def within(parts: list[np.ndarray], encoder: Encoder) -> Inspector:
    return Inspector.from_support(
        parts, product="washer", encoder=encoder, views="hflip,vflip", image_size=128, roi=BOX
    )


def test_what_lies_outside_changes_no_score_and_no_map(
    within: Inspector, inspector: Inspector, broken_part: np.ndarray
) -> None:
    part = make_part(50)
    whole = inspector.inspect(clutter(part))
    assert whole.is_anomalous
    one, other = within.inspect(part), within.inspect(clutter(part))
    # What a patch sees reaches beyond its own pixels.
    assert other.score == pytest.approx(one.score, rel=0.1)
    assert (not one.is_anomalous, not other.is_anomalous) == (True, True)
    for inspection in (one, other, within.inspect(broken_part)):
        outside = np.ones((128, 128), bool)
        outside[32:96, 32:96] = False
        assert (inspection.anomaly_map[outside] == 0).mean() > 0.95
        assert inspection.anomaly_map[40:88, 40:88].min() > 0
    found = within.inspect(broken_part)
    assert found.is_anomalous
    x, y, width, height = found.regions[0].box
    assert (x + width / 2, y + height / 2) == pytest.approx((96, 64), abs=16)


def test_limits_of_a_narrowed_product_are_not_shown_elsewhere(within: Inspector, tmp_path: Path) -> None:
    narrowed = copy.deepcopy(within)
    narrowed.narrow_roi(ignore=(32, 32, 30, 30))
    with pytest.raises(ArtifactError, match="narrowed since"):
        narrowed.limits_picture()
    narrowed.save(tmp_path / "p.fsad")
    tensors, record = read_artifact(tmp_path / "p.fsad")
    with pytest.raises(ArtifactError, match="narrowed since"):
        stored_limits(tensors, record)
    narrowed.undo()
    assert narrowed.limits_picture().shape[2] == 3


def test_no_patch_from_outside_is_in_the_bank(within: Inspector) -> None:
    for bank in within.banks:
        assert bank.origin.xy.min() >= 32 - 4
        assert bank.origin.xy.max() < 96 + 4


def test_drawn_defects_lie_within(parts: list[np.ndarray], encoder: Encoder) -> None:
    corner = Inspector.from_support(
        parts, encoder=encoder, views="none", image_size=128, roi=(0, 0, 40, 40), min_defect=0.1
    )
    part, settings = parts[0], corner.enrollment.settings
    places = places_to_draw(part, settings)
    assert places is not None
    for defect in corner.calibration.defects:
        drawn = DrawnDefect(defect.image, defect.kind, defect.size, defect.seed).draw(part, places)
        changed = np.argwhere(np.abs(drawn.astype(int) - part).max(axis=2) > 8)
        if len(changed):
            assert changed.min(axis=0).max() < 44
    assert corner.limits_picture().ndim == 3


def test_stored_loaded_and_pickled_it_judges_the_same(
    within: Inspector, broken_part: np.ndarray, tmp_path: Path
) -> None:
    within.save(tmp_path / "p.fsad")
    expected = within.inspect(broken_part)
    for same in (Inspector.load(tmp_path / "p.fsad"), copy.deepcopy(within)):
        again = same.inspect(broken_part)
        assert again.score == expected.score
        np.testing.assert_array_equal(again.anomaly_map, expected.anomaly_map)
    found = within.info()["roi"]
    assert (found["share"], found["box"], found["size"]) == (0.25, list(BOX), [128, 128])


def test_the_overlay_shows_the_region(within: Inspector) -> None:
    part = make_part(51)
    overlay = within.inspect(part).overlay()
    assert overlay[5, 5].mean() < 0.6 * part[5, 5].mean()
    np.testing.assert_array_equal(overlay[64, 64], part[64, 64])


def test_one_call_may_look_at_less(inspector: Inspector, within: Inspector, broken_part: np.ndarray) -> None:
    assert inspector.inspect(broken_part).is_anomalous
    left = (0, 0, 64, 128)
    assert not inspector.inspect(broken_part, roi=left).is_anomalous
    assert inspector.inspect(broken_part, roi=[(64, 20), (127, 20), (127, 110), (64, 110)]).is_anomalous
    for batch in ([broken_part] * 2, iter([broken_part] * 2)):
        assert [r.is_anomalous for r in inspector.inspect_batch(batch, roi=left)] == [False, False]  # type: ignore[union-attr]
    with pytest.raises(ImageError, match="without any"):
        within.inspect(broken_part, roi=(0, 0, 10, 10))
    failed = list(within.inspect_batch([broken_part], roi=(0, 0, 10, 10), errors="return"))
    assert isinstance(failed[0], ImageError)
    with pytest.raises(ArgumentError, match="expected a region"):
        within.inspect(broken_part, roi=(0, 0, 10))
    with pytest.raises(ArgumentError, match="expected a region"):
        within.inspect_batch([broken_part], roi=(0, 0, 10))


def test_what_is_too_small_to_judge_is_not_called_good(inspector: Inspector, broken_part: np.ndarray) -> None:
    inspection = inspector.inspect(broken_part, roi=(60, 60, 2, 2))
    assert inspection.verdict == "not_inspectable"
    assert inspection.is_anomalous
    assert "smaller than a patch" in inspection.reason


def test_an_image_of_other_proportions_is_not_judged(within: Inspector) -> None:
    wide = cv2.resize(make_part(52), (256, 128))
    assert "other proportions" in within.inspect(wide).reason
    assert within.inspect(cv2.resize(make_part(52), (256, 256))).reason == ""


def test_a_region_that_cannot_be_enrolled_is_refused(parts: list[np.ndarray], encoder: Encoder) -> None:
    with pytest.raises(SupportSetError, match="at least 9 patches"):
        Inspector.from_support(parts, encoder=encoder, image_size=128, roi=(0, 0, 9, 9))
    with pytest.raises(SupportSetError, match=r"image\[1\]: expected an image with the proportions"):
        Inspector.from_support([parts[0], cv2.resize(parts[1], (160, 128))], encoder=encoder, image_size=128, roi=BOX)
    with pytest.raises(ArgumentError, match="foreground among"):
        Inspector.from_support(parts, encoder=encoder, foreground="yes")  # type: ignore[arg-type]


def test_a_view_that_is_held_out_is_looked_at_where_it_was_turned_to(parts: list[np.ndarray], encoder: Encoder) -> None:
    settings = enrollment_settings(views="hflip,vflip", image_size=128)
    roi = RegionOfInterest.of(drawn_weights((0, 0, 50, 30), None, (128, 128)), (128, 128))
    support = read_support(parts[:1], "rgb", None).images
    embedded = embed_support(support, dataclasses.replace(settings, roi=roi), 128, encoder)
    own = [stand_in.geometry.cares() for stand_in in embedded.stand_ins]
    np.testing.assert_array_equal(own[1], own[0][:, ::-1])
    np.testing.assert_array_equal(own[2], own[0][::-1])


def test_narrowed_later_and_taken_back(inspector: Inspector, broken_part: np.ndarray, tmp_path: Path) -> None:
    inspector.save(tmp_path / "p.fsad")
    before = (tmp_path / "p.fsad").read_bytes()
    own = Inspector.load(tmp_path / "p.fsad")
    assert own.inspect(broken_part).is_anomalous
    (note,) = own.narrow_roi(ignore=(64, 0, 64, 128))
    assert "50% of the image counts now" in note
    assert not own.inspect(broken_part).is_anomalous
    own.narrow_roi(roi=(0, 0, 128, 64))
    assert own.info()["roi"]["share"] == pytest.approx(0.25)
    assert [change.kind for change in own.history()] == ["roi", "roi"]
    with pytest.raises(ArgumentError, match="without any"):
        own.narrow_roi(roi=(64, 64, 64, 64))
    with pytest.raises(ArgumentError, match="got neither"):
        own.narrow_roi()
    own.undo()
    own.undo()
    own.save(tmp_path / "p.fsad")
    assert (tmp_path / "p.fsad").read_bytes() == before
    assert own.inspect(broken_part).is_anomalous


def test_images_are_added_and_accepted_within(within: Inspector, encoder: Encoder) -> None:
    own = Inspector(encoder, within._product)
    own.add([make_part(60), make_part(61)])
    own.accept(make_part(62), force=True)
    assert own.roi is not None
    for bank in own.banks:
        assert 28 <= bank.origin.xy.min() <= bank.origin.xy.max() < 100
    own.reject(make_part(63, defect=True))
    with pytest.raises(SupportSetError, match="nothing is left"):
        own.reject(make_part(64, defect=True), region=(0, 0, 10, 10))


def test_a_soft_mask_weighs(parts: list[np.ndarray], encoder: Encoder, broken_part: np.ndarray) -> None:
    mask = np.full((128, 128), 255, np.uint8)
    mask[:, 64:] = 64
    soft = Inspector.from_support(parts, encoder=encoder, views="none", image_size=128, roi=mask)
    full = Inspector.from_support(parts, encoder=encoder, views="none", image_size=128)
    geometry = soft.model.geometries((128, 128), encoder.spec.multiple)[0]
    weights = patch_weights(geometry, (16, 16), 1.0)
    assert weights[:, 8:] == pytest.approx(64 / 255, abs=0.01)
    # The defect lies where only a quarter counts.
    assert soft.inspect(broken_part).severity < full.inspect(broken_part).severity


def test_a_crafted_region_is_one_error(within: Inspector, encoder: Encoder) -> None:
    tensors, record = pack(encoder.spec, within._product)

    def bomb(width: int, height: int, color: int = 0) -> str:
        def part(kind: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

        header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
        content = zlib.compress(b"\0" * 100)
        png = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", content) + part(b"IEND", b"")
        return base64.b64encode(png).decode()

    for png in ("", "!!", base64.b64encode(b"no png").decode(), bomb(60000, 60000), bomb(10, 10), bomb(4, 4, 2)):
        settings = {
            **record["enrollment"]["settings"],
            "roi": {"image_hw": [128, 128], "png": png, "box": [0.0, 0.0, 1.0, 1.0]},
        }
        crafted = {**record, "enrollment": {**record["enrollment"], "settings": settings}}
        with pytest.raises(ArtifactError, match=r"roi\.png"):
            check_values(tensors, crafted, "p.fsad")
    assert unpack(tensors, record, encoder, "p.fsad").model.roi == within.model.roi


def plain_part(seed: int, size: int = 128, defect: bool = False) -> np.ndarray:
    """A washer on a plain gray table under light that falls off, at a place that differs a little."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(200, 150, size)[None, :, None] + np.zeros((size, size, 3))
    image = ramp + rng.normal(0, 1, ramp.shape)
    x, y = (int(v) for v in size / 2 + rng.uniform(-4, 4, 2))
    cv2.circle(image, (x, y), size // 4, (80, 60, 50), -1, cv2.LINE_AA)
    cv2.circle(image, (x, y), size // 10, (180, 170, 160), -1, cv2.LINE_AA)
    if defect:
        cv2.circle(image, (x + size // 6, y), size // 20, (200, 30, 30), -1, cv2.LINE_AA)
    return np.clip(image, 0, 255).astype(np.uint8)


def test_the_part_on_a_plain_background_is_found(encoder: Encoder, parts: list[np.ndarray]) -> None:
    plain = [plain_part(seed) for seed in range(4)]
    alone = Inspector.from_support(plain, encoder=encoder, views="none", image_size=128, foreground="part")
    assert alone.roi is not None
    weights = cv2.resize(alone.roi, (128, 128))
    assert (weights[36:92, 36:92] == 255).all()
    assert weights[:16, :16].max() == 0
    assert (weights == 0).mean() > 0.2
    assert not alone.inspect(plain_part(10)).is_anomalous
    assert alone.inspect(plain_part(11, defect=True)).is_anomalous
    assert any(reason.startswith("foreground: the part") for reason in alone.enrollment.reasons)
    auto = Inspector.from_support(plain, encoder=encoder, views="none", image_size=128, foreground="auto")
    assert any("drawn defects stand out" in reason for reason in auto.enrollment.reasons)
    textured = [
        cv2.resize(np.random.default_rng(s).integers(0, 255, (16, 16, 3), np.uint8), (128, 128)) for s in (1, 2)
    ]
    with pytest.raises(SupportSetError, match="expected a part on a plain background"):
        Inspector.from_support(textured, encoder=encoder, views="none", image_size=128, foreground="part")


def test_a_registered_region_follows_the_part(encoder: Encoder, parts: list[np.ndarray]) -> None:
    support = read_support(parts, "rgb", None).images
    registration = Registration(pose_estimator(encoder.threads).sha256, 1, 0.0, None)
    settings = dataclasses.replace(enrollment_settings(image_size=128), registration=registration)
    drawn = np.zeros((128, 128), np.uint8)
    drawn[20:60, 64:110] = 255
    roi, _ = region_of_interest(support, settings, Where(drawn), encoder)
    assert roi is not None
    # On the image that it was drawn on it lies where it was drawn, whatever the pose of the support set.
    geometry = scale_image(support[0].pixels, 128, encoder, Framing(registration, roi)).geometry
    lies = geometry.cares_as_it_lies()
    seen = geometry.unseen()
    assert 0 <= seen < 0.5
    inside = cv2.erode(drawn, np.ones((5, 5), np.uint8)) > 0
    assert lies is not None
    assert (lies[inside] > 128).mean() > 0.8
    assert (lies[cv2.dilate(drawn, np.ones((7, 7), np.uint8)) == 0] > 128).mean() < 0.02
