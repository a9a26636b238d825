"""benchmarks/rgbd_parts.py draws a dataset of color and depth that the reader of MVTec 3D-AD reads."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fewshot_ad.datasets import open_dataset
from fewshot_ad.datasets.points import read_points
from fewshot_ad.images import read_image

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which draws one image for each sort into a folder of its own."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("rgbd_parts", "boards"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("rgbd_parts")
    for name, value in {"ROOT": tmp_path, "TRAIN": 1, "GOOD": 1, "DEFECTIVE": 1}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_every_image_has_its_positions_and_every_defect_its_mask(script: ModuleType, tmp_path: Path) -> None:
    script.draw("tablet", script.PRODUCTS["tablet"])
    samples = list(open_dataset("mvtec_3d", tmp_path).samples())
    assert {(one.split, one.defect_type) for one in samples} == {
        ("train", "good"),
        *(("test", kind) for kind in ("good", *script.KINDS)),
    }
    for one in samples:
        image = read_image(one.path)
        assert one.points is not None
        points = read_points(one.points, image.shape[:2])
        seen = points.any(axis=2)
        assert 0.05 < seen.mean() < 0.95, "the part has positions, the ground has none"
        x, y, z = points[seen].T
        assert abs(float(z.mean()) - script.DISTANCE) < script.UNIT
        # As far as the part reaches, in pixels across and down, so it does in meters.
        rows, columns = np.nonzero(seen)
        assert np.ptp(x) / np.ptp(y) == pytest.approx(np.ptp(columns) / np.ptp(rows), rel=0.02)
        for path in one.mask_paths:
            mask = read_image(path)[..., 0] > 0
            assert 0 < mask.mean() < 0.1
            assert seen[mask].all(), "a defect is on the part"


def test_a_stain_leaves_the_relief_alone_and_a_dent_lowers_it(script: ModuleType) -> None:
    parts = {
        kind: script.render_placed("tablet", 7, script.SIZE, variant=90_001, damage=script.Damage(kind, 7))
        for kind in script.KINDS
    }
    good = script.render_placed("tablet", 7, script.SIZE, variant=90_001)
    assert np.array_equal(parts["stain"].height, good.height)
    assert not np.array_equal(parts["stain"].image, good.image)
    assert (parts["dent"].height - good.height).min() < -0.03
    assert (parts["bump"].height - good.height).max() > 0.03
