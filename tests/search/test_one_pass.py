from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

from fewshot_ad import Inspector, ScoringConfig, load_encoder
from fewshot_ad.encoder import Encoder
from fewshot_ad.encoder.engine import OpenVINOEngine, has_bf16
from fewshot_ad.encoder.weights import encoder_file
from fewshot_ad.images import Geometry
from fewshot_ad.search.nearest import normalize
from fewshot_ad.search.one_pass import OnePass

needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="NO BFLOAT16 on this processor")


@pytest.mark.parametrize("fusion", ["concat", "separate"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("name", ["lite0_parts", "efficientnet_lite0"])
def test_one_graph_says_what_encoder_and_bank_say(
    parts: list[np.ndarray], broken_part: np.ndarray, name: str, metric: str, fusion: str
) -> None:
    inspector = Inspector.from_support(
        parts,
        encoder=name,
        views="hflip",
        image_size=128,
        fusion=fusion,  # type: ignore[arg-type]
        scoring=ScoringConfig(metric=metric),  # type: ignore[arg-type]
    )
    prepared = Geometry.fit(broken_part.shape[:2], 128, 16).to_input(broken_part)  # type: ignore[arg-type]
    got = OnePass(inspector.encoder, inspector.banks)(prepared)
    levels = inspector.encoder.encode(prepared)
    assert len(got) == len(levels)
    for grid, level, bank in zip(got, levels, inspector.banks, strict=True):
        wanted, _ = bank.search(normalize(level.reshape(-1, level.shape[2]), metric))  # type: ignore[arg-type]
        assert grid.shape == level.shape[:2]
        # FAISS, an independent search; near zero the root magnifies rounding.
        np.testing.assert_allclose(grid.ravel(), wanted[:, 0], rtol=2e-3, atol=2e-3)


def test_any_size_and_many_sizes(inspector: Inspector) -> None:
    one_pass = OnePass(inspector.encoder, inspector.banks)
    rng = np.random.default_rng(0)
    for i in range(11):  # more than get a graph of their own
        picture = rng.integers(0, 255, (64 + 16 * i, 96, 3), np.uint8)
        (grid,) = one_pass(picture)
        (level,) = inspector.encoder.encode(picture)
        wanted = inspector.banks[0].nearest(level.reshape(-1, level.shape[2]))
        np.testing.assert_allclose(grid.ravel(), wanted, rtol=2e-3, atol=2e-3)


def test_products_of_an_encoder_share_what_is_compiled(
    parts: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And say what they said alone, whichever of them was asked before."""
    encoder = load_encoder()
    one, other = (
        Inspector.from_support(parts[at : at + 3], encoder=encoder, views="hflip", image_size=128, budget=500)
        for at in (0, 2)
    )
    alone = [
        Inspector.from_support(parts[at : at + 3], views="hflip", image_size=128, budget=500).inspect(parts[4]).score
        for at in (0, 2)
    ]
    assert alone[0] != pytest.approx(alone[1], rel=1e-3)
    one.inspect(parts[4])
    compiled = []
    monkeypatch.setattr("fewshot_ad.encoder.requests.Requests._compile", lambda self, shape: compiled.append(shape))
    for _ in range(3):
        assert [product.inspect(parts[4]).score for product in (one, other)] == pytest.approx(alone, rel=1e-5)
    before = one.inspect(parts[4]).score
    one.accept(parts[4], force=True)
    assert one.inspect(parts[4]).score < before
    assert one.undo().kind == "accept"
    assert one.inspect(parts[4]).score == pytest.approx(before, rel=1e-5)
    assert compiled == []


def test_what_is_compiled_goes_with_the_last_product(parts: list[np.ndarray]) -> None:
    encoder = load_encoder()
    product = Inspector.from_support(parts, encoder=encoder, views="none", image_size=128)
    product.inspect(parts[0])
    kept = list(encoder.engine.searches._known.values())  # type: ignore[attr-defined]
    former = [weakref.ref(one) for one in kept]
    assert former
    del kept, product
    gc.collect()
    assert [one() for one in former] == [None] * len(former)


def test_only_engines_that_make_levels_fit(parts: list[np.ndarray]) -> None:
    exported = load_encoder("efficientnet_lite0")
    assert OnePass.fits(exported)
    assert not OnePass.fits(load_encoder("efficientnet_lite0", engine="torch"))
    # The stages as they are, neither scaled nor joined: not what the bank holds.
    raw = OpenVINOEngine(encoder_file("efficientnet_lite0"), ["stage2", "stage3"], "f32", None)
    encoder = Encoder(exported.spec, raw, "openvino", None)
    assert not OnePass.fits(encoder)
    wanted = Inspector.from_support(parts, encoder=exported, views="hflip", image_size=128)
    got = Inspector.from_support(parts, encoder=encoder, views="hflip", image_size=128)
    assert got.inspect(parts[0]).score == pytest.approx(wanted.inspect(parts[0]).score, rel=1e-3)
    assert got.threshold == pytest.approx(wanted.threshold, rel=1e-3)


@needs_bf16
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_bf16_finds_what_is_in_the_bank(parts: list[np.ndarray], metric: str) -> None:
    inspector = Inspector.from_support(
        parts,
        views="hflip",
        image_size=128,
        precision="bf16",
        budget=100_000,
        scoring=ScoringConfig(metric=metric),  # type: ignore[arg-type]
    )
    # Its own patches are in the bank: a search that rounds its sums would find them a sixth of the threshold away.
    assert inspector.inspect(parts[0]).severity < 0.02


@needs_bf16
def test_bf16_says_what_encoder_and_bank_say(parts: list[np.ndarray], broken_part: np.ndarray) -> None:
    inspector = Inspector.from_support(parts, views="hflip", image_size=128, precision="bf16")
    assert OnePass.fits(inspector.encoder)
    prepared = Geometry.fit(broken_part.shape[:2], 128, 16).to_input(broken_part)  # type: ignore[arg-type]
    (grid,) = OnePass(inspector.encoder, inspector.banks)(prepared)
    (level,) = inspector.encoder.encode(prepared)
    flat = level.reshape(-1, level.shape[2])
    wanted, _ = inspector.banks[0].search(flat)
    lengths = np.linalg.norm(flat - inspector.banks[0].vectors.mean(axis=0), axis=1)
    assert np.abs(grid.ravel() - wanted[:, 0]).max() < lengths.max() * 2**-8


@needs_bf16
def test_bf16_falls_back_to_a_search_of_its_own(parts: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Inspector.from_support(parts, views="hflip", image_size=128, precision="bf16")
    monkeypatch.setattr("fewshot_ad.search.one_pass.searches_in_bf16", lambda: False)
    got = Inspector.from_support(parts, views="hflip", image_size=128, precision="bf16")
    assert wanted.model.scales[0].one_pass is not None
    assert got.model.scales[0].one_pass is None
    assert got.inspect(parts[0]).score == pytest.approx(wanted.inspect(parts[0]).score, rel=0.02)


def test_a_second_size_is_said_once(
    inspector: Inspector, parts: list[np.ndarray], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    inspector.save(tmp_path / "p.fsad")
    # With an encoder of its own, for which nothing is compiled yet.
    twin = Inspector.load(tmp_path / "p.fsad")
    with caplog.at_level("INFO", "fewshot_ad.search"):
        twin.inspect(parts[0])
        assert [record.levelname for record in caplog.records] == ["INFO"]
        twin.inspect(parts[0])
        for side in (96, 144, 200):
            twin.inspect(np.zeros((96, side, 3), np.uint8))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert "warm_up" in caplog.text
    caplog.clear()
    # What another product has compiled is not compiled again.
    copy.copy(twin).inspect(np.zeros((96, 200, 3), np.uint8))
    other = Inspector.load(tmp_path / "p.fsad")
    for side in (96, 144):
        other.warm_up((96, side))
        other.inspect(np.zeros((96, side, 3), np.uint8))
    assert caplog.text == ""
