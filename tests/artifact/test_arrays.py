"""Arrays that no product has are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.artifact import read_artifact, write_artifact
from fewshot_ad.errors import ArtifactError
from tests.robustness.artifact_mutator import png


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bank0.vectors", lambda a: a[:, :-1]),
        ("bank0.vectors", lambda a: np.hstack([a, a[:, :1]])),
        ("bank0.image", lambda a: a[:-1]),
        ("bank0.view", lambda a: np.append(a, a[:1])),
        ("bank0.xy", lambda a: a[:, :1]),
        ("bank0.xy", lambda a: np.hstack([a, a])),
    ],
)
def test_arrays_of_other_shapes_are_refused(
    name: str, change: Callable[[np.ndarray], np.ndarray], inspector: Inspector, tmp_path: Path
) -> None:
    rewritten(inspector, tmp_path / "p.fsad", {name: change})
    with pytest.raises(ArtifactError, match=r"bank0\.\w+: expected .*(I32|F16).* got"):
        Inspector.load(tmp_path / "p.fsad")


def rewritten(inspector: Inspector, path: Path, changes: dict[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    """Save a product with some arrays changed."""
    inspector.save(path)
    tensors, record = read_artifact(path)
    new = {name: change(tensors[name].copy()) for name, change in changes.items()}
    write_artifact(path, {**tensors, **new}, {name: v for name, v in record.items() if name != "sha256"})


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[len(array) // 2] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("bank0.vectors", with_value(np.nan), r"bank0\.vectors: expected values in .*got nan"),
        ("bank0.vectors", with_value(np.inf), r"bank0\.vectors: expected values in .*inf"),
        ("bank0.vectors", lambda a: a.astype(np.float64), r"bank0\.vectors: expected F16 or F32 .*got 'F64'"),
        ("bank0.vectors", lambda a: a[:0], r"bank0\.vectors: expected 1 to 1500 bank vectors \(the budget\), got 0"),
        ("bank0.image", with_value(-1), r"bank0\.image: expected values in 0\.\.4, got -1"),
        ("bank0.image", with_value(5), r"bank0\.image: expected values in 0\.\.4, got 0\.0 to 5"),
        ("bank0.view", with_value(3), r"bank0\.view: expected values in 0\.\.2"),
        ("bank0.xy", with_value(2**31 - 1), r"bank0\.xy: expected values in"),
        ("bank0.xy", lambda a: a.astype(np.int64), r"bank0\.xy: expected I32"),
        ("reference0", lambda a: a[:-20], r"reference0: expected a PNG file"),
        ("reference0", lambda a: np.frombuffer(png(30_000, 30_000), np.uint8), r"128 x 128 pixels, got .*30000, 30000"),
        ("reference0", lambda a: np.frombuffer(png(128, 128, b"\0" * 99), np.uint8), r"expected a whole PNG file"),
        ("reference0", lambda a: np.zeros(2_000_000, np.uint8), r"references: expected at most 1500000 bytes"),
    ],
)
def test_values_that_no_product_has_are_named(
    name: str, change: Callable[[np.ndarray], np.ndarray], says: str, inspector: Inspector, tmp_path: Path
) -> None:
    rewritten(inspector, tmp_path / "p.fsad", {name: change})
    with pytest.raises(ArtifactError, match=says):
        Inspector.load(tmp_path / "p.fsad")
