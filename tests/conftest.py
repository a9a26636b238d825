"""What the tests share: images that always exist, the shared data where it does, one encoder."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.encoder import Encoder

# What tests make anew must not be kept in the user's own folder of caches.
os.environ["FEWSHOT_AD_CACHE"] = tempfile.mkdtemp(prefix="fewshot_ad_tests_")
atexit.register(shutil.rmtree, os.environ["FEWSHOT_AD_CACHE"], ignore_errors=True)
SHARED = Path(os.environ.get("FEWSHOT_AD_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return load_encoder()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real products in MVTec layout."""
    if not (SHARED / "bottle").is_dir():
        pytest.skip(f"NO REAL IMAGES: {SHARED} is absent; set FEWSHOT_AD_DATA to a folder of MVTec-layout products")
    return SHARED


@pytest.fixture(scope="session")
def bottle(shared_data: Path) -> Path:
    """One of them."""
    return shared_data / "bottle"


def image_of_bricks() -> np.ndarray:
    """A real image, (512, 512) uint8, from scikit-image's wheel."""
    absent = "NO REAL IMAGES: scikit-image is not installed: pip install 'fewshot-ad[demo]'"
    return pytest.importorskip("skimage.data", reason=absent).brick()


@pytest.fixture(scope="session")
def brick() -> np.ndarray:
    return image_of_bricks()


def real_part(place: int, size: int = 96, defect: bool = False) -> np.ndarray:
    """A crop of that image, (size, size, 3) uint8: 16 places that do not overlap up to 128 pixels.

    The defect is a dark blot where `make_part` has its own: a quarter of the size right of the center.
    """
    y, x = (128 * v for v in divmod(place, 4))
    crop = cv2.cvtColor(image_of_bricks()[y : y + size, x : x + size], cv2.COLOR_GRAY2RGB)
    if defect:
        cv2.circle(crop, (size // 2 + size // 4, size // 2), size // 14, (20, 20, 20), -1, cv2.LINE_AA)
    return crop


def make_part(seed: int, size: int = 128, defect: bool = False) -> np.ndarray:
    """A made-up part: a washer on a textured table, (size, size, 3) uint8."""
    rng = np.random.default_rng(seed)
    table = cv2.GaussianBlur(rng.normal(110, 25, (size, size, 3)).astype(np.float32), (0, 0), 1.5)
    center = tuple(int(v) for v in size / 2 + rng.uniform(-2, 2, 2))
    cv2.circle(table, center, size // 3, (190, 185, 180), -1, cv2.LINE_AA)
    cv2.circle(table, center, size // 7, (60, 60, 65), -1, cv2.LINE_AA)
    if defect:
        x, y = center
        cv2.circle(table, (x + size // 4, y), size // 14, (30, 20, 140), -1, cv2.LINE_AA)
    return np.clip(table + rng.normal(0, 2, table.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def parts() -> list[np.ndarray]:
    return [make_part(seed) for seed in range(5)]


@pytest.fixture(scope="session")
def broken_part() -> np.ndarray:
    return make_part(100, defect=True)


@pytest.fixture(scope="session")
def inspector(parts: list[np.ndarray], encoder: Encoder) -> Inspector:
    return Inspector.from_support(parts, product="washer", encoder=encoder, views="hflip,vflip", image_size=128)


@pytest.fixture
def part_folder(tmp_path: Path, parts: list[np.ndarray]) -> Path:
    folder = tmp_path / "washer" / "good"
    folder.mkdir(parents=True)
    for i, part in enumerate(parts):
        cv2.imwrite(str(folder / f"{i}.png"), cv2.cvtColor(part, cv2.COLOR_RGB2BGR))
    return folder
