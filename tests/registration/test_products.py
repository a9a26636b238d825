"""A product whose images are brought into one pose, from enrollment to verdict."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.artifact import pack, unpack
from fewshot_ad.encoder import Encoder
from fewshot_ad.errors import ArtifactError, ExportError
from fewshot_ad.export import export
from fewshot_ad.images import Geometry, inside_patches
from fewshot_ad.training.parts import render, render_placed

SIDE = 192


def free(seed: int, height: int = SIDE) -> np.ndarray:
    """A key at any angle; wider than high if asked for."""
    image = render("key", seed, SIDE, variant=90_000, placement="free")
    cut = (SIDE - height) // 2
    return np.ascontiguousarray(image[cut : SIDE - cut])


@pytest.fixture(scope="module")
def registered(encoder: Encoder) -> Inspector:
    support = [free(seed) for seed in range(5)]
    return Inspector.from_support(support, product="key", encoder=encoder, image_size=SIDE, register=True)


def test_a_defect_is_found_where_it_lies_on_the_image(registered: Inspector) -> None:
    for seed in (20, 21, 22):
        placed = render_placed("key", seed, SIDE, variant=90_000, placement="free")
        # The middle of the part, in the image's pixels.
        linear, shift = placed.transform[:, :2], placed.transform[:, 2]
        x, y = (np.linalg.solve(linear, -shift) + 1) * SIDE / 2
        bad = placed.image.copy()
        cv2.circle(bad, (round(x), round(y)), 9, (250, 40, 200), -1)
        result = registered.inspect(bad)
        assert result.is_anomalous
        assert not result.reason
        row, column = np.unravel_index(result.anomaly_map.argmax(), result.anomaly_map.shape)
        assert np.hypot(column - x, row - y) < 12
        region = max(result.regions, key=lambda region: region.severity)
        left, top, width, height = region.box
        assert left <= x <= left + width
        assert top <= y <= top + height


def test_good_parts_at_other_angles_pass(registered: Inspector) -> None:
    passed = [not registered.inspect(free(seed)).is_anomalous for seed in range(30, 38)]
    assert sum(passed) >= 5
    assert "registration: images are turned" in registered.enrollment.reasons[0]


def test_it_comes_back_from_its_file(registered: Inspector, encoder: Encoder, tmp_path: Path) -> None:
    registered.save(tmp_path / "key.fsad")
    loaded = Inspector.load(tmp_path / "key.fsad", encoder=encoder)
    assert loaded.enrollment == registered.enrollment
    image = free(40)
    before, after = registered.inspect(image), loaded.inspect(image)
    assert after.score == before.score
    np.testing.assert_array_equal(after.anomaly_map, before.anomaly_map)


def test_another_pose_network_is_refused(registered: Inspector, encoder: Encoder) -> None:
    tensors, record = pack(encoder.spec, registered._product)
    record["enrollment"]["settings"]["registration"]["sha256"] = "1" * 64
    with pytest.raises(ArtifactError, match="another pose network"):
        unpack(tensors, record, encoder, "key.fsad")


def test_an_export_would_not_turn_images_and_is_refused(registered: Inspector, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="without register=True"):
        export(registered, tmp_path / "out")


def test_stored_images_lie_as_they_were_photographed(registered: Inspector) -> None:
    reference = registered.references[0].content
    # At the working scale, smoothed, but not turned.
    assert np.abs(reference.astype(int) - free(0)).mean() < 4


def test_what_was_not_seen_is_told(registered: Inspector, inspector: Inspector) -> None:
    result = registered.inspect(free(31))
    assert 0.02 < result.unseen < 0.5
    assert result.as_dict()["unseen"] == round(result.unseen, 4)
    assert "% not seen" in result._caption().finding
    assert "unseen" not in inspector.inspect(free(31)).as_dict()


def test_views_that_cover_open_turns_are_told(encoder: Encoder) -> None:
    nuts = [render("hex_nut", seed, SIDE, variant=90_000, placement="free") for seed in range(4)]
    inspector = Inspector.from_support(nuts, encoder=encoder, image_size=SIDE, views="none", register=True)
    registration = inspector.enrollment.settings.registration
    assert registration is not None
    assert registration.order == 6
    assert [str(view) for view in inspector.enrollment.settings.views] == [f"rotate={60 * k}" for k in range(1, 6)]
    assert any("added; registration leaves these turns open" in reason for reason in inspector.enrollment.reasons)


def test_further_images_are_taken_in_the_same_pose(encoder: Encoder) -> None:
    support = [free(seed) for seed in range(4)]
    inspector = Inspector.from_support(support, encoder=encoder, image_size=SIDE, register=True)
    before = inspector.enrollment.settings.registration
    inspector.add([free(50)])
    assert inspector.enrollment.settings.registration == before
    assert len(inspector.enrollment.support) == 5


def test_origins_lie_inside_the_image(encoder: Encoder) -> None:
    support = [free(seed, 144) for seed in range(3)]
    inspector = Inspector.from_support(support, encoder=encoder, image_size=SIDE, register=True)
    assert inspector.enrollment.settings.registration is not None
    for bank in inspector.banks:
        assert (bank.origin.xy >= -8).all()
        assert (bank.origin.xy <= np.array([SIDE, 144]) + 8).all()
    assert inspector.inspect(free(60, 144)).anomaly_map.shape == (144, SIDE)


def test_parts_without_a_pose_are_enrolled_as_they_lie_and_said_so(encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(60, 190, (96, 96, 3), dtype=np.uint8) for _ in range(3)]
    inspector = Inspector.from_support(noise, encoder=encoder, image_size=96, register=True)
    assert inspector.enrollment.settings.registration is None
    assert any(note.startswith("registration: none") for note in inspector.enrollment.notes)


def test_what_is_turned_out_of_the_image_counts_for_nothing() -> None:
    geometry = Geometry.fit((128, 128), 128, 16)
    matrix = cv2.getRotationMatrix2D((63.5, 63.5), 45, 1.0)
    turned = geometry.with_turn(matrix)
    inside = inside_patches(turned.content_mask(), (16, 16))
    assert not inside[0, 0]
    assert inside[8, 8]
    everywhere = turned.crop(np.ones((128, 128), np.float32))
    assert everywhere[64, 64] == 1
    assert everywhere[1, 1] == 0  # this corner left the registered image
    assert dataclasses.replace(turned, turned=None) == geometry
