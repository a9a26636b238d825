"""A tiny dataset in MVTec layout, and a baseline that needs no time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import Card, Labeled, Predictions
from fewshot_ad.zoo import method as registry
from tests.conftest import make_part

CATEGORIES = ("washer", "zinc")


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products of 64 x 64: five good to fit on; three good and three defective ones with masks to test on."""
    root = tmp_path_factory.mktemp("mvtec")
    for number, category in enumerate(CATEGORIES):
        for i in range(5):
            write(root / category / "train/good" / f"{i:03d}.png", make_part(100 * number + i, 64))
        for i in range(3):
            write(root / category / "test/good" / f"{i:03d}.png", make_part(100 * number + 50 + i, 64))
            write(root / category / "test/blot" / f"{i:03d}.png", make_part(100 * number + 70 + i, 64, defect=True))
            mask = np.zeros((64, 64), np.uint8)
            cv2.circle(mask, (48, 32), 5, 255, -1)
            write(root / category / "ground_truth/blot" / f"{i:03d}_mask.png", mask)
    return root


class Mean:
    """Distance from the mean good image."""

    def __init__(self, side: int, fail: bool, seed: int) -> None:
        self._side, self._fail, self._seed = side, fail, seed
        self.seen: list[float] = []

    def _small(self, image: Uint8Array) -> np.ndarray[Any, Any]:
        return cv2.resize(image, (self._side, self._side), interpolation=cv2.INTER_AREA).astype(np.float32)

    def fit(self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: object = None) -> None:
        if self._fail:
            raise ZooError("told to fail")
        self._mean = np.mean([self._small(image) for image in normal], axis=0)

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        maps = []
        for image in images:
            distance = np.abs(self._small(image) - self._mean).mean(axis=2)
            maps.append(cv2.resize(distance, image.shape[1::-1]))
        scores = np.array([heat.max() for heat in maps], np.float32)
        return Predictions(scores, tuple(maps), scores > 40)

    def model_bytes(self) -> int:
        return int(self._mean.nbytes)


@pytest.fixture
def mean_baseline(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a registered baseline for as long as a test runs."""
    card = Card(
        name="mean",
        title="Mean image",
        paper="none",
        year=2026,
        family="distribution",
        supervision="good images",
        source="fewshot_ad",
        license="Apache-2.0",
        maps=True,
        needs_masks=False,
        needs_internet=False,
        trains=False,
        weights="none",
    )

    def factory(*, seed: int = 0, side: int = 16, fail: bool = False) -> Mean:
        return Mean(side, fail, seed)

    monkeypatch.setitem(registry._REGISTRY, "mean", (card, factory))
    return "mean"
