"""Cases of `watch`: a damaged product is loaded and gives finite verdicts, or is refused, never anything else."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.encoder import Encoder
from fewshot_ad.errors import FewshotADError
from tests.conftest import make_part
from tests.robustness.artifact_mutator import mutations


def case(seed: int, number: int) -> dict[str, Any]:
    """Load one damaged product, and inspect with it if it loads."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.fsad"
        path.write_bytes(damaged(seed, number))
        try:
            inspector = Inspector.load(path, encoder=_encoder())
            result = inspector.inspect(make_part(7, 96))
        except FewshotADError as error:
            return {"outcome": "refused", "detail": str(error)[-200:]}
        except BaseException as error:
            return {"outcome": "foreign exception", "detail": f"{type(error).__name__}: {error}"[:300]}
    finite = np.isfinite([result.score, result.threshold, result.severity]).all()
    if not (finite and np.isfinite(result.anomaly_map).all()):
        return {"outcome": "non-finite", "detail": f"{result.score} {result.threshold} {result.severity}"}
    return {"outcome": "loaded"}


def damaged(seed: int, number: int) -> bytes:
    """The damaged file of a case; of every third, the hash is made right again."""
    return mutations(_artifact(), np.random.default_rng((seed, number)), repair=number % 3 == 0)


@functools.cache
def _encoder() -> Encoder:
    return load_encoder()


@functools.cache
def _artifact() -> bytes:
    descriptor, name = tempfile.mkstemp(suffix=".fsad")
    os.close(descriptor)
    os.unlink(name)
    parts = [make_part(seed, 96) for seed in range(3)]
    Inspector.from_support(parts, views="hflip", image_size=96, encoder=_encoder()).save(name)
    data = Path(name).read_bytes()
    os.unlink(name)
    return data
