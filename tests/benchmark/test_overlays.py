"""Pictures of single results: three panels, or five where a threshold is known."""

from __future__ import annotations

import cv2
import numpy as np

from fewshot_ad.benchmark.overlays import Overlays

SIDE = 64


def decoded(content: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def offered(count: int) -> Overlays:
    """A defective and a good result; the map is high in the upper left quarter of the defective one."""
    overlays = Overlays(count)
    image = np.full((SIDE, SIDE, 3), 128, np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[: SIDE // 2, : SIDE // 2] = True
    overlays.offer(image, mask, mask.astype(np.float32), 1)
    overlays.offer(image, np.zeros_like(mask), np.zeros((SIDE, SIDE), np.float32), 0)
    return overlays


def test_five_panels_with_the_predicted_mask() -> None:
    files = offered(2).pictures("key", 0.5)
    assert list(files) == ["overlays/key-0.jpg", "overlays/key-1.jpg"]
    bad, good = (decoded(content) for content in files.values())
    side = bad.shape[0]
    assert bad.shape == good.shape == (side, 5 * side, 3)
    predicted = bad[:, 3 * side : 4 * side].mean(2)
    assert predicted[: side // 2 - 4, : side // 2 - 4].min() > 200
    assert predicted[side // 2 + 4 :].max() < 60
    # On a good image nothing is outlined, and its mask is black.
    assert good[:, 3 * side : 4 * side].max() < 60
    assert np.ptp(good[:, 4 * side :].astype(int)) < 12
    red = bad[:, 4 * side :].astype(int)
    assert (red[..., 0] - red[..., 1]).max() > 100


def test_three_panels_where_no_threshold_is_known() -> None:
    content = next(iter(offered(2).pictures("key").values()))
    height, width = decoded(content).shape[:2]
    assert width == 3 * height


def test_none_is_asked_for() -> None:
    assert offered(0).pictures("key", 0.5) == {}
