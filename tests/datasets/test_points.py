from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad.datasets import DatasetError, open_dataset
from fewshot_ad.datasets.points import read_points
from tests.datasets.drawing import image, mask


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


def write_depth(
    folder: Path, number: str, depths: np.ndarray, info: str = "normalization: {min: 0.5, max: 1.5}\n"
) -> Path:
    (folder / f"{number}_info_depth.yaml").write_text(info)
    return write(folder / f"{number}_depth.png", depths)


def test_a_depth_image_is_where_the_camera_saw_its_pixels(tmp_path: Path) -> None:
    depths = np.full((4, 6), 65535, np.uint16)
    depths[0, 0] = 0
    points = read_points(write_depth(tmp_path, "000", depths), (4, 6))
    np.testing.assert_allclose(points[2, 3], [0, 0, 1.5])
    # One pixel to the right and two down, at 1.5 m of a camera whose focal length is 711.11 pixels.
    np.testing.assert_allclose(points[3, 5], [2 * 1.5 / 711.11, 1.5 / 711.11, 1.5], rtol=1e-6)
    np.testing.assert_allclose(points[0, 0], [-3 * 0.5 / 711.11, -2 * 0.5 / 711.11, 0.5], rtol=1e-6)
    assert points.dtype == np.float32


@pytest.mark.parametrize("info", ["", "normalization: 3\n", "normalization: {min: near, max: far}\n", "min: [\n"])
def test_a_depth_image_without_its_range_is_refused(tmp_path: Path, info: str) -> None:
    path = write_depth(tmp_path, "000", np.zeros((4, 6), np.uint16), info)
    with pytest.raises(DatasetError, match=r"000_info_depth\.yaml.*expected"):
        read_points(path, (4, 6))
    (tmp_path / "000_info_depth.yaml").unlink()
    with pytest.raises(DatasetError, match=r"000_info_depth\.yaml"):
        read_points(path, (4, 6))


def test_a_depth_image_of_8_bits_is_refused(tmp_path: Path) -> None:
    path = write_depth(tmp_path, "000", np.zeros((4, 6), np.uint8))
    with pytest.raises(DatasetError, match="expected uint16 positions"):
        read_points(path, (4, 6))


def test_samples_of_eyecandies_name_their_depth(tmp_path: Path) -> None:
    folder = tmp_path / "Lollipop" / "train" / "data"
    for number in ("000", "001"):
        image(folder / f"{number}_image_5.png")
    image(tmp_path / "Lollipop/test_public/data/00_image_5.png")
    mask(tmp_path / "Lollipop/test_public/data/00_mask.png", where=None)
    path = write_depth(folder, "001", np.zeros((4, 6), np.uint16))
    assert [sample.points for sample in open_dataset("eyecandies", tmp_path).samples()] == [None, path, None]
