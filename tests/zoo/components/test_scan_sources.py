"""A method that needs the position of each pixel is fitted and predicts from files and from arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fewshot_ad.cli import app
from fewshot_ad.datasets.points import positions_beside
from fewshot_ad.enrollment.views import parse_views
from fewshot_ad.errors import ImageError, SupportSetError
from fewshot_ad.zoo.components.scan_sources import read_scan, read_scans
from fewshot_ad.zoo.components.score_scale import _varied
from fewshot_ad.zoo.fitted import Baseline
from tests.conftest import make_part
from tests.zoo.anomalib.test_cfm import NAME, TINY, scan

SETTINGS = TINY | {"points_weights": "random"}


def write_scan(folder: Path, name: str, pixels: np.ndarray) -> Path:
    """Write one in MVTec 3D-AD's layout."""
    for kind, ending, content in (("rgb", "png", pixels[..., 2::-1]), ("xyz", "tiff", pixels[..., :2:-1])):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / kind / f"{name}.{ending}"), content.astype(np.uint8 if kind == "rgb" else "f4"))
    return folder / "rgb" / f"{name}.png"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for seed in range(4):
        write_scan(tmp_path / "good", f"{seed:03d}", scan(seed))
    return tmp_path / "good/rgb"


def test_a_file_and_an_array_say_the_same(good: Path) -> None:
    from_file, from_array = read_scan(good / "001.png", "rgb"), read_scan(scan(1), "rgb")
    np.testing.assert_array_equal(from_file[0].pixels, from_array[0].pixels)
    np.testing.assert_allclose(from_file[1], from_array[1])  # type: ignore[arg-type]
    assert from_file[0].name == "001.png"


def test_positions_are_found_where_the_two_datasets_have_them(good: Path, tmp_path: Path) -> None:
    assert positions_beside(good / "000.png") == good.parent / "xyz/000.tiff"
    assert positions_beside(good / "absent.png") is None
    (tmp_path / "07_depth.png").touch()
    assert positions_beside(tmp_path / "07_image_5.png") == tmp_path / "07_depth.png"
    assert positions_beside(tmp_path / "07.png") is None


def test_one_without_positions_is_left_out_and_noted(good: Path) -> None:
    (good.parent / "xyz/002.tiff").unlink()
    (good.parent / "xyz/003.tiff").write_bytes(b"damaged")
    support, scans = read_scans(good, "rgb")
    assert [image.name for image in support.images] == ["000.png", "001.png"]
    assert len(scans) == 2
    missing, damaged = (note for note in support.notes if note.startswith("left out, unusable"))
    assert "002.png: expected the position of each pixel beside the image" in missing
    assert "003.tiff: expected float32 positions of (64, 64, 3), got no image" in damaged
    for name in ("000", "001"):
        (good.parent / f"xyz/{name}.tiff").unlink()
    with pytest.raises(SupportSetError, match=r"none of 4 image\(s\) can be used: .*000_depth.png.*And 1 more\."):
        read_scans(good, "rgb")


def test_a_bad_array_is_left_out_by_its_number() -> None:
    support, scans = read_scans([scan(0), np.full((64, 64, 6), np.nan), scan(1)], "rgb")
    assert len(scans) == 2
    assert any("image[1]: expected R, G, B" in note for note in support.notes)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (make_part(0, 64), r"\(H, W, 6\).*uint8 \(64, 64, 3\)"),
        (b"bytes", r"\(H, W, 6\).*bytes"),
        (np.full((8, 8, 6), 300.0), r"R, G, B in 0\.\.255"),
        (np.full((8, 8, 6), np.nan), r"R, G, B in 0\.\.255"),
        (np.full((8, 8, 6), 0.5), r"got 0\.\.1\. Multiply them by 255"),
        (np.full((8, 8, 6), 5.0 + 0j), "complex128"),
        (np.zeros((0, 8, 6)), r"\(0, 8, 6\)"),
        (np.dstack([make_part(0, 64), np.full((64, 64, 3), np.nan)]), "got none: all are 0, or not finite"),
        (np.dstack([make_part(0, 64), np.full((64, 64, 3), 1e30)]), r"within 1e\+09, got 1e\+30"),
    ],
)
def test_other_sources_are_refused(source: Any, message: str) -> None:
    reading, pixels = read_scan(source, "rgb")
    assert pixels is None
    with pytest.raises(ImageError, match=message):
        raise reading.pixels  # type: ignore[misc]
    with pytest.raises(SupportSetError, match=message):
        read_scans([source], "rgb")


def test_positions_go_with_their_pixels() -> None:
    image = scan(1)
    (shift,) = parse_views("translate_x=0.125")
    varied = _varied(image, shift)
    np.testing.assert_array_equal(varied[:, 8:, 3:], image[:, :-8, 3:])
    np.testing.assert_array_equal(varied[:, 8:, :3], image[:, :-8, :3])
    assert not varied[:, :8, 3:].any()
    assert varied.dtype == np.float32


def test_fit_and_predict_from_the_shell(good: Path, tmp_path: Path) -> None:
    sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    fitted = CliRunner().invoke(app, ["fit", NAME, str(good), "-o", str(tmp_path / "model"), "--json", *sets])
    assert fitted.exit_code == 0, fitted.output
    said = json.loads(fitted.stdout)
    assert said["support"] == ["000.png", "001.png", "003.png"]
    assert "random weights: its verdicts mean nothing" in said["notes"]

    blank = scan(9)
    blank[..., 3:] = 0
    write_scan(tmp_path / "line", "blank", blank)
    blank[4, 4, 3:] = 1
    write_scan(tmp_path / "line", "few", blank)
    write_scan(tmp_path / "line", "whole", scan(10))
    (write_scan(tmp_path / "line", "zcolor", scan(11)).parents[1] / "xyz/zcolor.tiff").unlink()
    judged = CliRunner().invoke(app, ["predict", str(tmp_path / "model"), str(tmp_path / "line/rgb"), "--json"])
    verdicts = {Path(v["file"]).name: v for v in map(json.loads, judged.stdout.splitlines())}
    assert verdicts.keys() == {"blank.png", "few.png", "whole.png", "zcolor.png"}
    assert "line/rgb/blank.png: expected the position of each pixel, got none" in verdicts["blank.png"]["error"]
    assert "line/rgb/few.png: anomalib_cfm: expected at least 32 positions" in verdicts["few.png"]["error"]
    assert "position of each pixel beside the image" in verdicts["zcolor.png"]["error"]
    again = Baseline.load(tmp_path / "model").inspect(scan(10))
    assert again.score == pytest.approx(verdicts["whole.png"]["score"], rel=1e-5)
    assert again.image.shape == (64, 64, 3)
