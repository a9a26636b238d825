"""Cases of `watch`: a damaged image is read as an image or refused, never anything else."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np

from fewshot_ad import Inspector, read_image
from fewshot_ad.errors import FewshotADError
from tests.conftest import make_part
from tests.robustness.corpus import variants
from tests.robustness.image_mutator import mutated

# A larger image is read, but not inspected, to have many cases.
INSPECTED_PIXELS = 1_000_000


def case(seed: int, number: int) -> dict[str, Any]:
    """Read one damaged image, and inspect it if it is read."""
    name, data = damaged(seed, number)
    try:
        pixels = read_image(data)
        again = read_image(data)
    except FewshotADError as error:
        return {"variant": name, "outcome": "refused", "detail": str(error)[:120]}
    except BaseException as error:
        return {"variant": name, "outcome": "foreign exception", "detail": f"{type(error).__name__}: {error}"[:300]}
    if not np.array_equal(pixels, again):
        return {"variant": name, "outcome": "other pixels"}
    if pixels.shape[0] * pixels.shape[1] <= INSPECTED_PIXELS:
        result = _inspector().inspect(pixels)
        if not (np.isfinite(result.score) and np.isfinite(result.severity)):
            return {"variant": name, "outcome": "non-finite", "detail": f"{result.score} {result.severity}"}
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
    return {"variant": name, "outcome": "read", "digest": f"{pixels.shape} {digest}"}


def damaged(seed: int, number: int) -> tuple[str, bytes]:
    """The name of the variant and the damaged file of a case."""
    files = list(variants().items())
    rng = np.random.default_rng((seed, number))
    name, data = files[number % len(files)]
    return name, mutated(data, files[int(rng.integers(len(files)))][1], rng)


@functools.cache
def _inspector() -> Inspector:
    parts = [make_part(seed, 96) for seed in range(3)]
    return Inspector.from_support(parts, views="none", image_size=96)
