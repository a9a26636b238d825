"""Images in, verdicts out, in order: one at a time from a stream, read ahead from a list."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import FewshotADError, ImageError
from fewshot_ad.host.lifetime import fork_count, native_work
from fewshot_ad.images import ColorOrder, ImageSource, expand_sources, image_name, read_image
from fewshot_ad.scoring import Prepared, PreparedParts

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
    prepared: Prepared | PreparedParts | None = None


def read(source: ImageSource | ImageError, color: ColorOrder) -> Reading:
    """Read an image in any form `images.read_image` takes; an error stands for one that was not even found."""
    if isinstance(source, ImageError):
        return Reading("", source, 0.0)
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
    prepare: Callable[[Uint8Array], Prepared | PreparedParts],
    judge: Callable[[Reading], Result],
) -> Iterator[Result]:
    """Judge images in order.

    Args:
        images: See `Inspector.inspect_batch`.
        color: Channel order of arrays.
        prepare: Makes the encoder's input, or raises an `ImageError`; called on another thread.
        judge: Gives the verdict.
    """

    @native_work()
    def ready(source: ImageSource | ImageError) -> Reading:
        reading = read(source, color)
        if isinstance(reading.pixels, ImageError):
            return reading
        try:
            return dataclasses.replace(reading, prepared=prepare(reading.pixels))
        except ImageError as error:
            return dataclasses.replace(reading, pixels=error)

    if isinstance(images, Iterator) and not hasattr(images, "read"):  # a file object is an image
        # A stream (a camera) must get each verdict before it is asked for the next image.
        for entry in images:
            for source in expand_sources([entry], keep_errors=True):
                yield judge(ready(source))
        return

    sources = iter(expand_sources(images, keep_errors=True))
    forks = fork_count()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="fewshot-ad-decode") as pool:
        ahead = deque(_begin(pool, ready, source) for source in islice(sources, AHEAD))
        while ahead:
            if forks != fork_count():
                raise FewshotADError(
                    "expected the process that began this inspect_batch, got one forked from it, where the thread "
                    "that reads the images is missing. Call inspect_batch in the child itself."
                )
            reading = ahead.popleft().result()
            ahead.extend(_begin(pool, ready, source) for source in islice(sources, 1))
            yield judge(reading)


def _begin(
    pool: ThreadPoolExecutor, ready: Callable[[ImageSource | ImageError], Reading], source: ImageSource | ImageError
) -> Future[Reading]:
    try:
        return pool.submit(ready, source)
    except RuntimeError:
        # Python starts no thread any more: the process ends, and this is one of its daemon threads or `atexit`
        # functions.
        done: Future[Reading] = Future()
        done.set_result(ready(source))
        return done
