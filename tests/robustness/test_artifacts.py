"""Broken products with hashes that are right again: loaded with finite verdicts, or refused with the reason."""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.encoder import Encoder
from fewshot_ad.errors import ArtifactError, NotEnrolledError
from tests.conftest import make_part
from tests.robustness.artifact_mutator import mutations, put_together, replaced, taken_apart

FIRST = Path(__file__).parents[1] / "golden" / "brick_v1.fsad"
RUNS = 150


@pytest.fixture(scope="module")
def product(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("product") / "washer.fsad"
    parts = [make_part(seed) for seed in range(3)]
    Inspector.from_support(parts, encoder=encoder, views="hflip,rotate=45", image_size=128, budget=60).save(path)
    return path.read_bytes()


def check_verdict(inspector: Inspector, image: np.ndarray) -> None:
    result = inspector.inspect(image)
    assert math.isfinite(result.score)
    assert math.isfinite(result.severity)
    assert np.isfinite(result.anomaly_map).all()
    assert all(math.isfinite(region.severity) for region in result.regions)


def test_taken_apart_and_put_together_it_is_the_same(product: bytes) -> None:
    for data in (product, FIRST.read_bytes()):
        header, record, tensors = taken_apart(data)
        again = taken_apart(put_together(header, record, tensors))
        assert again[0].keys() == header.keys()
        assert again[1] | {"sha256": ""} == record | {"sha256": ""}
        assert again[2] == tensors


def test_a_broken_product_is_refused_or_gives_finite_verdicts(
    product: bytes, encoder: Encoder, broken_part: np.ndarray, tmp_path: Path
) -> None:
    sources = (product, product, FIRST.read_bytes())
    outcomes = {"loaded": 0, "refused": 0}
    messages: list[str] = []
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        path = tmp_path / f"{seed}.fsad"
        path.write_bytes(mutations(sources[seed % 3], rng, repair=seed % 5 != 4))
        try:
            inspector = Inspector.load(path, encoder=encoder)
        except (ArtifactError, NotEnrolledError) as error:
            outcomes["refused"] += 1
            messages.append(str(error).replace(str(path), ""))
        else:
            outcomes["loaded"] += 1
            assert seed % 5 != 4, f"seed {seed}: a file whose hash does not fit was loaded"
            check_verdict(inspector, broken_part)
        path.unlink()
    # A few lines for the terminal, whatever the file holds.
    assert max(len(message) for message in messages) < 800
    assert not any("\x1b" in message for message in messages)
    assert outcomes["refused"] > RUNS / 2
    assert outcomes["loaded"] > 0


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_in_range_gives_finite_verdicts(
    seed: int, product: bytes, encoder: Encoder, broken_part: np.ndarray, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    header, record, tensors = taken_apart(product)
    values = {
        ("threshold",): (1e-30, 1e-9, 1e30),
        ("level_scale",): ([1e-12], [1e12]),
        ("calibration", "threshold"): (1e-30, 1e30),
        ("calibration", "map_scale"): (
            {"median_good": 0, "threshold": 1e-12},
            {"median_good": 0.0, "threshold": 1e30},
            {"median_good": 9e29, "threshold": 1e30},
        ),
        ("enrollment", "settings", "scoring", "image_score"): ("reweighted", "top_mean"),
        ("enrollment", "settings", "scoring", "neighbors"): (2, 2**31 - 1),
        ("enrollment", "settings", "scoring", "top_fraction"): (1e-300, 1.0),
        ("enrollment", "settings", "scoring", "max_patches"): (None, 1, 2**31 - 1),
        ("enrollment", "settings", "scoring", "edge_weight"): (0, 1),
        ("enrollment", "settings", "scoring", "sigma"): (0, 64),
        ("enrollment", "settings", "budget"): (60, 2**31 - 1),
        ("enrollment", "settings", "seed"): (0, 2**63 - 1),
    }
    for place, choice in values.items():
        if rng.random() < 0.7:
            record = replaced(record, place, choice[int(rng.integers(len(choice)))])
    (tmp_path / "p.fsad").write_bytes(put_together(header, record, tensors))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        check_verdict(Inspector.load(tmp_path / "p.fsad", encoder=encoder), broken_part)


def test_the_name_of_the_encoder_in_the_file_does_not_matter(product: bytes, encoder: Encoder, tmp_path: Path) -> None:
    header, record, tensors = taken_apart(product)
    (tmp_path / "p.fsad").write_bytes(
        put_together(header, replaced(record, ("encoder", "name"), "hf-hub:a/b"), tensors)
    )
    assert Inspector.load(tmp_path / "p.fsad").encoder.spec == encoder.spec
    other = dataclasses.replace(encoder.spec, name="elsewhere/card.json")
    moved = Encoder(other, encoder.engine, "openvino", None)
    assert Inspector.load(tmp_path / "p.fsad", encoder=moved).encoder is moved
