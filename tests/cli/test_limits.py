"""`--limits` of enroll and info, and what info says of a product's limits."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.check.sheet import SIDE
from tests.cli.test_products import run


@pytest.fixture
def product(part_folder: Path, tmp_path: Path) -> Path:
    """A product that was enrolled with its picture beside it."""
    folder = tmp_path / "enrolled"
    command = ("enroll", part_folder, "-o", folder / "washer.fsad", "--views", "hflip", "--image-size", 128)
    code, out, _ = run(*command, "--limits", folder / "limits.png")
    assert code == 0
    assert str(folder / "limits.png") in out
    return folder / "washer.fsad"


def test_enroll_and_info_draw_the_same_picture(product: Path, tmp_path: Path) -> None:
    code, out, _ = run("info", product, "--limits", tmp_path / "again.png")
    assert code == 0
    assert str(tmp_path / "again.png") in out
    first, second = (cv2.imread(str(path)) for path in (product.with_name("limits.png"), tmp_path / "again.png"))
    assert first.shape[1] == 4 * SIDE + 8
    assert (first == second).all()
    assert (first == Inspector.load(product).limits_picture()[..., ::-1]).all()


def test_info_says_what_is_found_at_the_threshold_that_holds(product: Path, tmp_path: Path) -> None:
    out = run("info", product)[1]
    assert "\nfinds spots from" in out or "\nfinds not the largest" in out
    inspector = Inspector.load(product)
    inspector.threshold *= 1000
    inspector.save(tmp_path / "tolerant.fsad")
    out = run("info", tmp_path / "tolerant.fsad")[1]
    last = next(line for line in out.splitlines() if line.startswith("at the threshold "))
    assert "set by hand: finds not the largest spots drawn" in last
    assert "0% are caught" in last


def test_info_warns_where_drawn_defects_are_near_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (128, 128, 3), np.uint8) for _ in range(3)]
    Inspector.from_support(noise, product="noise", views="none", image_size=64).save(tmp_path / "noise.fsad")
    out = run("info", tmp_path / "noise.fsad")[1]
    assert "\nwarning: this product hardly sees defects of 3 px" in out


def test_a_picture_of_others_stays(product: Path, part_folder: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    shutil.copy(next(part_folder.iterdir()), photo)
    before = photo.read_bytes()
    code, _, err = run("info", product, "--limits", photo)
    assert code == 2
    assert "--force" in err
    enroll = ("enroll", part_folder, "-o", tmp_path / "new.fsad", "--limits")
    assert run(*enroll, photo)[0] == 2
    assert run(*enroll, part_folder / "limits.png")[0] == 2
    assert not (tmp_path / "new.fsad").exists()
    assert photo.read_bytes() == before
    for _ in range(2):
        assert run("info", product, "--limits", photo, "--force")[0] == 0
    assert run("info", product, "--limits", photo)[0] == 0


def test_a_product_of_an_earlier_version_says_so(tmp_path: Path) -> None:
    old = Path(__file__).parents[1] / "golden" / "brick_v1.fsad"
    code, _, err = run("info", old, "--limits", tmp_path / "limits.png")
    assert code == 2
    assert "Enroll it again" in err
    assert not (tmp_path / "limits.png").exists()
