"""YOLO detectors: boxes from masks, training offline, scores and maps of the image's size."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fewshot_ad import zoo
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import Labeled
from fewshot_ad.zoo.yolo import boxes_of
from tests.conftest import make_part, real_part

NAMES = [name for name, card in zoo.cards().items() if card.source == "ultralytics"]
# Not importorskip: importing ultralytics as it comes asks the network and writes into the home folder.
installed = pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="ultralytics is not installed")


def labeled(seed: int, part: Callable[..., np.ndarray] = make_part) -> Labeled:
    """A part with its defect's mask."""
    good, bad = part(seed, 64), part(seed, 64, defect=True)
    return Labeled(bad, np.abs(good.astype(int) - bad).max(2) > 40)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a detector tried to use the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_boxes_of_connected_components() -> None:
    mask = np.zeros((40, 80), bool)
    mask[10:20, 20:40] = True
    mask[30:34, 60:64] = True
    mask[0, 0] = True
    np.testing.assert_allclose(
        boxes_of(mask, min_area=4), [[30 / 80, 15 / 40, 20 / 80, 10 / 40], [62 / 80, 32 / 40, 4 / 80, 4 / 40]]
    )
    assert boxes_of(np.zeros((8, 8), bool)).shape == (0, 4)


def test_cards_state_the_license() -> None:
    assert len(NAMES) == 6
    for name in NAMES:
        card = zoo.cards()[name]
        assert (card.license, card.supervision, card.needs_masks) == ("AGPL-3.0", "labeled defects", True)


@installed
@pytest.mark.parametrize("name", NAMES)
def test_trains_and_predicts_offline(name: str, offline: None) -> None:
    good, bad = [real_part(place, 64) for place in range(2)], [labeled(place, real_part) for place in (2, 3)]
    images = [real_part(4, 64), real_part(5, 96)[:, :80]]
    environment, state, read = dict(os.environ), torch.get_rng_state(), cv2.imread
    runs = []
    for _ in range(2):
        method = zoo.create(name, seed=1, image_size=64, epochs=1, batch_size=2)
        method.fit(good, bad)
        runs.append(method.predict(images))
    first, second = runs
    assert first.maps is not None
    assert second.maps is not None
    assert [m.shape for m in first.maps] == [(64, 64), (96, 80)]
    assert [float(m.max()) for m in first.maps] == first.scores.tolist()
    assert ((first.scores >= 0) & (first.scores <= 1)).all()
    np.testing.assert_array_equal(first.scores, second.scores)
    for heat, again in zip(first.maps, second.maps, strict=True):
        np.testing.assert_array_equal(heat, again)
    assert method.model_bytes() > 1_000_000
    assert dict(os.environ) == environment
    assert torch.equal(torch.get_rng_state(), state)
    assert cv2.imread is read


@installed
def test_learns_where_the_defect_is() -> None:
    method = zoo.create("yolov8", seed=0, image_size=64, epochs=80, batch_size=8)
    method.fit([make_part(s, 64) for s in range(8)], [labeled(s) for s in range(100, 108)])
    unseen = labeled(200)
    predictions = method.predict([unseen.image, make_part(201, 64), make_part(202, 64)])
    assert predictions.scores[0] > predictions.scores[1:].max()
    assert predictions.maps is not None
    assert predictions.maps[0][unseen.mask].mean() > predictions.maps[0][~unseen.mask].mean()


@installed
def test_errors_say_what_to_do() -> None:
    with pytest.raises(ZooError, match="masks of defects"):
        zoo.create("yolov8", image_size=64, epochs=1).fit([make_part(0, 64)])
    with pytest.raises(ZooError, match="size among"):
        zoo.create("yolov10", size="q")
    with pytest.raises(ZooError, match="32 divides"):
        zoo.create("yolov8", image_size=100)


def test_without_ultralytics_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(ZooError, match=r"fewshot-ad\[yolo\]"):
        zoo.create("yolov5")
