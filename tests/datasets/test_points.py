from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad.datasets import DatasetError, open_dataset
from fewshot_ad.datasets.points import read_points
from tests.datasets.drawing import image


def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(6, 8, 3)).astype(np.float32)


def write(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), values)
    return path


def test_channels_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    expected = points()
    # OpenCV takes channels in the opposite order, and writes them as x, y, z.
    path = write(tmp_path / "000.tiff", expected[..., ::-1])
    np.testing.assert_array_equal(read_points(path, (6, 8)), expected)


def test_a_position_that_is_not_finite_is_none(tmp_path: Path) -> None:
    values = points()
    values[2, 3, 1] = np.nan
    read = read_points(write(tmp_path / "000.tiff", values), (6, 8))
    assert not read[2, 3].any()
    assert read[2, 4].all()


@pytest.mark.parametrize("damage", ["absent", "text", "size", "bytes"])
def test_what_does_not_fit_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "000.tiff"
    if damage == "text":
        path.write_text("point cloud")
    elif damage == "size":
        write(path, points()[1:])
    elif damage == "bytes":
        write(path, points().astype(np.uint8))
    with pytest.raises(DatasetError, match=r"000.tiff: expected"):
        read_points(path, (6, 8))


def test_samples_of_mvtec_3d_name_their_file(tmp_path: Path) -> None:
    for name in ("train/good/rgb/000.png", "train/good/rgb/001.png", "test/good/rgb/000.png"):
        image(tmp_path / "bagel" / name)
    path = write(tmp_path / "bagel/train/good/xyz/000.tiff", points())
    samples = list(open_dataset("mvtec_3d", tmp_path).samples())
    assert [sample.points for sample in samples] == [path, None, None]
