"""Images in, verdicts out, in order: one at a time from a stream, read ahead from a list."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images import ColorOrder, ImageSource, expand_sources, image_name, read_image
from fewshot_ad.scoring import Prepared

# Images that are read while one is inspected; more would only take memory.
AHEAD = 4
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Reading:
    """An image that was read, or why it could not be.

    Attributes:
        name: File name; empty for one from memory.
        pixels: (H, W, 3) uint8 RGB, or the error.
        milliseconds: What reading took.
        prepared: The encoder's input, if it was made ahead.
    """

    name: str
    pixels: Uint8Array | ImageError
    milliseconds: float
    prepared: Prepared | None = None


def read(source: ImageSource, color: ColorOrder) -> Reading:
    """Read an image in any form `images.read_image` takes."""
    start = time.perf_counter()
    name = image_name(source, 0) if isinstance(source, (str, os.PathLike)) else ""
    try:
        pixels: Uint8Array | ImageError = read_image(source, color)
    except ImageError as error:
        pixels = error
    return Reading(name, pixels, (time.perf_counter() - start) * 1e3)


def verdicts(
    images: ImageSource | Iterable[ImageSource],
    color: ColorOrder,
    prepare: Callable[[Uint8Array], Prepared],
    judge: Callable[[Reading], Result],
) -> Iterator[Result]:
    """Judge images in order.

    Args:
        images: See `Inspector.inspect_batch`.
        color: Channel order of arrays.
        prepare: Makes the encoder's input; called on another thread.
        judge: Gives the verdict.
    """
    if isinstance(images, Iterator) and not hasattr(images, "read"):  # a file object is an image
        # A stream (a camera) must get each verdict before it is asked for the next image.
        for source in images:
            yield judge(read(source, color))
        return

    def ready(source: ImageSource) -> Reading:
        reading = read(source, color)
        if isinstance(reading.pixels, ImageError):
            return reading
        return dataclasses.replace(reading, prepared=prepare(reading.pixels))

    sources = iter(expand_sources(images))
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="fewshot-ad-decode") as pool:
        ahead = deque(pool.submit(ready, source) for source in islice(sources, AHEAD))
        while ahead:
            reading = ahead.popleft().result()
            ahead.extend(pool.submit(ready, source) for source in islice(sources, 1))
            yield judge(reading)
