"""Positions of pixels reach the methods that need them, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fewshot_ad.benchmark import record as ledger
from fewshot_ad.benchmark.plan_file import parse_plan
from fewshot_ad.benchmark.run import in_process, run_plan
from fewshot_ad.zoo import Predictions
from fewshot_ad.zoo import method as registry
from tests.benchmark.conftest import write
from tests.benchmark.test_plan import content
from tests.conftest import make_part


class Height:
    """Distance of each pixel's z to the mean of the good images."""

    def fit(self, normal: Sequence[Any], labeled: Sequence[Any] = (), progress: object = None) -> None:
        self._mean = np.mean([image[..., 5] for image in normal], axis=0)

    def predict(self, images: Sequence[Any]) -> Predictions:
        maps = tuple(np.abs(image[..., 5] - self._mean) for image in images)
        return Predictions(np.array([heat.max() for heat in maps], np.float32), maps)

    def model_bytes(self) -> int:
        return int(self._mean.nbytes)


@pytest.fixture
def height_baseline(mean_baseline: str, monkeypatch: pytest.MonkeyPatch) -> str:
    card = replace(registry._REGISTRY[mean_baseline][0], name="height", needs_points=True)
    monkeypatch.setitem(registry._REGISTRY, "height", (card, lambda *, seed=0: Height()))
    return "height"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Parts that all look the same; the defective ones have a hole."""
    root = tmp_path / "mvtec_3d"
    for kind, count in (("train/good", 2), ("test/good", 2), ("test/hole", 2)):
        for i in range(count):
            points = np.random.default_rng(i).normal(1, 0.01, (64, 64, 3)).astype(np.float32)
            if kind == "test/hole":
                points[20:30, 20:30, 2] = 3
                mask = np.zeros((64, 64), np.uint8)
                mask[20:30, 20:30] = 255
                write(root / "bagel" / kind / "gt" / f"{i:03d}.png", mask)
            write(root / "bagel" / kind / "rgb" / f"{i:03d}.png", make_part(0, 64))
            write(root / "bagel" / kind / "xyz" / f"{i:03d}.tiff", points)
    return root


def records_of(root: Path, method: str, out: Path, notes: list[str] | None = None) -> list[ledger.Record]:
    plan = content(root, methods={method: {}}, datasets={"scans": {"layout": "mvtec_3d", "root": str(root)}})
    small = {"shots": [2], "draws": 1, "protocol": {"pixel_side": 32, "bootstrap": 0}}
    notes = [] if notes is None else notes
    for _ in run_plan(parse_plan({**plan, **small}, Path()), out, in_process, note=notes.append):
        pass
    return ledger.read(out)


def test_a_hole_is_found_by_the_method_that_gets_positions(
    scans: Path, height_baseline: str, mean_baseline: str, tmp_path: Path
) -> None:
    figures = [
        records_of(scans, name, tmp_path / f"{name}.jsonl")[0].figures for name in (height_baseline, mean_baseline)
    ]
    assert figures[0]["image_auroc"] == 1.0
    assert figures[0]["pixel_auroc"] > 0.99
    assert figures[1]["image_auroc"] == 0.5


def test_a_dataset_without_positions_is_one_error(scans: Path, height_baseline: str, tmp_path: Path) -> None:
    (scans / "bagel/test/hole/xyz/001.tiff").unlink()
    notes: list[str] = []
    record = records_of(scans, height_baseline, tmp_path / "records.jsonl", notes)[0]
    (note,) = (note for note in notes if note.startswith("height: "))
    assert "which 1 of 6 images of scans do not have" in note
    assert "hole/rgb/001.png" in note
    assert record.status == "failed"
    assert "001.png: expected the position of each pixel" in record.reason
    assert cv2.imread(str(scans / "bagel/test/hole/rgb/001.png")) is not None
