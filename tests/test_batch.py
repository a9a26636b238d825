from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.batch import AHEAD, Reading, verdicts
from fewshot_ad.errors import ImageError
from fewshot_ad.images import Geometry
from fewshot_ad.scoring import EncoderInput, Prepared


def prepare(pixels: Uint8Array) -> Prepared:
    return Prepared((EncoderInput(pixels, Geometry.fit((32, 32), 64, 16), pixels),), 0.0)


def test_a_list_is_read_ahead_and_keeps_its_order() -> None:
    pictures = [np.full((32, 32, 3), i, np.uint8) for i in range(3 * AHEAD)]
    prepared: list[int] = []

    def counted(pixels: Uint8Array) -> Prepared:
        prepared.append(int(pixels[0, 0, 0]))
        return prepare(pixels)

    results = verdicts(pictures, "rgb", counted, lambda reading: reading)
    first = next(results)
    assert first.prepared is not None
    assert len(prepared) <= AHEAD + 1
    rest = [first, *results]
    assert [int(r.pixels[0, 0, 0]) for r in rest if isinstance(r, Reading)] == list(range(3 * AHEAD))  # type: ignore[index]
    assert prepared == list(range(3 * AHEAD))


def test_a_stream_is_asked_only_after_each_verdict() -> None:
    asked: list[int] = []

    def camera() -> object:
        for i in range(3):
            asked.append(i)
            yield np.full((32, 32, 3), i, np.uint8)

    for i, _ in enumerate(verdicts(camera(), "rgb", prepare, lambda reading: reading)):  # type: ignore[arg-type]
        assert asked == list(range(i + 1))


def test_what_cannot_be_read_stays_in_its_place() -> None:
    sources = [np.zeros((32, 32, 3), np.uint8), np.zeros((2, 2, 7), np.uint8), np.zeros((32, 32, 3), np.uint8)]
    kinds = [isinstance(r.pixels, ImageError) for r in verdicts(sources, "rgb", prepare, lambda reading: reading)]
    assert kinds == [False, True, False]


@pytest.mark.parametrize("count", [0, 1])
def test_few_images(count: int) -> None:
    sources = [np.zeros((32, 32, 3), np.uint8)] * count
    assert len(list(verdicts(sources, "rgb", prepare, lambda reading: reading))) == count


def test_a_file_object_is_an_image_and_no_stream() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 7, np.uint8)).save(buffer, "PNG")
    buffer.seek(0)
    (reading,) = verdicts(buffer, "rgb", prepare, lambda reading: reading)
    assert int(reading.pixels[0, 0, 0]) == 7  # type: ignore[index]
