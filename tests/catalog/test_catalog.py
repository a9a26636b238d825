from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import ArgumentError, ArtifactError, ImageError, Inspector, NotEnrolledError
from fewshot_ad.catalog import Catalog
from fewshot_ad.encoder import Encoder
from tests.conftest import make_part


def other_part(seed: int) -> np.ndarray:
    """A striped plate, unlike the washer."""
    rng = np.random.default_rng(seed)
    stripes = (np.sin(np.arange(128) / 3 + rng.uniform(0, 0.2)) * 60 + 130)[None, :, None]
    image = np.broadcast_to(stripes, (128, 128, 3)) * np.array([1.0, 0.8, 0.6])
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, parts: list[np.ndarray], encoder: Encoder) -> Path:
    root = tmp_path_factory.mktemp("catalog")
    settings = {"encoder": encoder, "views": "none", "image_size": 128}
    Inspector.from_support(parts, product="washer", **settings).save(root / "washer.fsad")  # type: ignore[arg-type]
    plates = [other_part(seed) for seed in range(4)]
    Inspector.from_support(plates, product="plate", **settings).save(root / "plate.fsad")  # type: ignore[arg-type]
    (root / "notes.txt").write_text("no product")
    return root


@pytest.fixture
def catalog(folder: Path, encoder: Encoder, tmp_path: Path) -> Catalog:
    return Catalog(shutil.copytree(folder, tmp_path / "own"), encoder=encoder)


def test_it_says_what_the_inspector_says(catalog: Catalog, broken_part: np.ndarray) -> None:
    assert catalog.names == tuple(catalog) == ("plate", "washer")
    assert "plate" in catalog
    assert "notes" not in catalog
    assert catalog.loaded == ()
    own = Inspector.load(catalog.path("washer"))
    for image in (make_part(30), broken_part):
        one, other = catalog.inspect("washer", image), own.inspect(image)
        assert one.score == pytest.approx(other.score, rel=2e-3)
        assert one.is_anomalous is other.is_anomalous
        assert one.threshold == other.threshold
        np.testing.assert_allclose(one.anomaly_map, other.anomaly_map, rtol=2e-2, atol=2e-2)
    assert catalog.inspect("washer", broken_part).regions
    assert catalog.loaded == ("washer",)


def test_close_to_the_threshold_the_verdict_is_that_of_all_bits(catalog: Catalog) -> None:
    part = make_part(34)
    own = catalog.load("washer")
    score = own.inspect(part).score
    for factor in (1 - 2e-4, 1.0, 1 + 2e-4):
        own.threshold = score * factor
        own.save(catalog.path("washer"))
        inspection = catalog.inspect("washer", part)
        assert inspection.score == pytest.approx(score, rel=1e-5)
        assert inspection.is_anomalous is (factor < 1)
    own.threshold = score * 1.1
    own.save(catalog.path("washer"))
    assert catalog.inspect("washer", part).score == pytest.approx(score, rel=2e-3)


def test_it_says_which_product_an_image_shows(catalog: Catalog, broken_part: np.ndarray) -> None:
    assert catalog.route(make_part(31)).name == "washer"
    assert catalog.route(broken_part).name == "washer"
    assert catalog.route(other_part(31)).name == "plate"
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    nothing = catalog.route(noise)
    assert nothing.name is None
    assert all(candidate.reason for candidate in nothing.candidates)
    assert catalog.route(make_part(31), among=["plate"]).name is None
    assert catalog.route(make_part(31), among=[]).candidates == ()


def test_what_is_used_longest_ago_is_dropped_first(folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    own = tmp_path / "many"
    own.mkdir()
    for number in range(6):
        shutil.copy(folder / "washer.fsad", own / f"p{number}.fsad")
    catalog = Catalog(own, encoder=encoder, memory_mb=1)
    part = make_part(32)
    for number in (0, 1, 2, 3, 0, 4, 5):
        catalog.inspect(f"p{number}", part)
    held = catalog.loaded
    assert 1 < len(held) < 6
    assert held[-2:] == ("p4", "p5")
    assert catalog.route(part).name is not None


def test_a_file_that_is_replaced_is_read_anew(catalog: Catalog, parts: list[np.ndarray]) -> None:
    part = make_part(33)
    before = catalog.inspect("washer", part).threshold
    own = catalog.load("washer")
    own.threshold = before * 2
    own.save(catalog.path("washer"))
    assert catalog.inspect("washer", part).threshold == before * 2
    os.remove(catalog.path("washer"))
    with pytest.raises(NotEnrolledError, match="'washer'"):
        catalog.inspect("washer", part)
    assert catalog.route(part).name is None
    assert catalog.loaded == ("plate",)


def test_names_lead_nowhere_else(catalog: Catalog, tmp_path: Path) -> None:
    for name in ("../own/washer", "..", "a/b", "a\\b", "", ".hidden", "x" * 300, "a\0b"):
        with pytest.raises(ArgumentError):
            catalog.inspect(name, make_part(1))
    with pytest.raises(NotEnrolledError, match="expected a folder of products"):
        Catalog(tmp_path / "nowhere")
    with pytest.raises(ArgumentError, match="memory_mb"):
        Catalog(tmp_path, memory_mb=0)


def test_what_is_damaged_is_said(catalog: Catalog) -> None:
    data = bytearray(catalog.path("washer").read_bytes())
    data[-100] ^= 1
    catalog.path("washer").write_bytes(data)
    with pytest.raises(ArtifactError):
        catalog.inspect("washer", make_part(1))
    with pytest.raises(ImageError):
        catalog.inspect("plate", np.zeros((2, 2, 3, 3)))


def test_many_threads_share_it(catalog: Catalog) -> None:
    images = [make_part(40), other_part(40)]
    expected = [catalog.inspect(name, image).score for name, image in zip(("washer", "plate"), images, strict=True)]
    wrong: list[object] = []

    def work(at: int) -> None:
        try:
            for turn in range(10):
                which = (at + turn) % 2
                name = ("washer", "plate")[which]
                score = catalog.inspect(name, images[which]).score
                if abs(score / expected[which] - 1) > 1e-4 or catalog.route(images[which]).name != name:
                    wrong.append((name, score))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_region_and_light_come_along(parts: list[np.ndarray], encoder: Encoder, tmp_path: Path) -> None:
    own = Inspector.from_support(
        parts, encoder=encoder, views="none", image_size=128, roi=(20, 20, 80, 80), lighting="normalized"
    )
    own.save(tmp_path / "p.fsad")
    part = cv2.convertScaleAbs(make_part(50), alpha=0.8)
    assert Catalog(tmp_path, encoder=encoder).inspect("p", part).score == pytest.approx(
        own.inspect(part).score, rel=1e-3
    )
