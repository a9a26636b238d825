"""Images of several parts: brackets laid on a gray table, each at an angle that is known."""

from __future__ import annotations

import cv2
import numpy as np

GROUND = (190, 185, 180)
HEIGHT, WIDTH = 420, 560
PLACES = ((110, 110), (280, 110), (450, 110), (110, 310), (280, 310), (450, 310))


def bracket(seed: int, defect: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A bracket of one kind, upright: (120, 120, 3) uint8 RGB, and its mask (120, 120) uint8."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((120, 120), np.uint8)
    cv2.rectangle(mask, (25, 30), (60, 95), 255, -1)
    cv2.rectangle(mask, (25, 70), (100, 95), 255, -1)
    picture = np.full((120, 120, 3), (70, 80, 110), np.uint8)
    cv2.circle(picture, (42, 45), 8, (220, 220, 225), -1, cv2.LINE_AA)
    cv2.circle(picture, (85, 83), 5, (20, 20, 25), -1, cv2.LINE_AA)
    if defect:
        cv2.circle(picture, (42, 80), 8, (230, 120, 40), -1, cv2.LINE_AA)
    return np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8), mask


def tray(
    seed: int,
    places: tuple[tuple[int, int], ...] = PLACES,
    *,
    defects: tuple[int, ...] = (),
    turns: tuple[float, ...] | None = None,
) -> np.ndarray:
    """Brackets on the table, (420, 560, 3) uint8 RGB.

    Args:
        seed: Of noise, places and turns.
        places: About where the middle of each is, (x, y).
        defects: Which of them have an orange blot, from 0.
        turns: By how many degrees each is turned, counterclockwise; None for any.
    """
    rng = np.random.default_rng([5, seed])
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    light = (1 - 0.05 * x - 0.04 * y)[..., None]
    out = np.array(GROUND) * light + rng.normal(0, 1.5, (HEIGHT, WIDTH, 1))
    for at, place in enumerate(places):
        picture, mask = bracket(100 * seed + at, at in defects)
        turn = float(rng.uniform(0, 360)) if turns is None else turns[at]
        matrix = cv2.getRotationMatrix2D((60, 60), turn, 1.0)
        matrix[:, 2] += np.array(place) + rng.uniform(-6, 6, 2) - 60
        alpha = cv2.warpAffine(mask, matrix, (WIDTH, HEIGHT)).astype(np.float32)[..., None] / 255
        out += (cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE) - out) * alpha
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)
