from __future__ import annotations

import subprocess
import sys
from itertools import product

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector, ScoringConfig, load_encoder
from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.encoder import encoder as encoder_module
from fewshot_ad.encoder.encoder import EncoderSpec
from fewshot_ad.encoder.tiling import Tiling, is_local
from fewshot_ad.errors import WeightsError

SIDE = 512


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of at most 512 pixels, so that inputs need not be large."""
    fit = Tiling.fit.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Tiling, "fit", classmethod(lambda cls, hw, multiple: fit(cls, hw, multiple, SIDE)))


def table_top(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A textured surface, (height, width, 3) uint8."""
    noise = np.random.default_rng(seed).normal(0, 60, (height, width, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 2) * 3 + 120, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(1344, 1344), (3008, 4096), (128, 16000), (1600, 1312), (5000, 352)])
@pytest.mark.parametrize("multiple", [8, 16, 32])
def test_tiles_of_one_size_cover_the_input_once(height: int, width: int, multiple: int) -> None:
    height, width = height // multiple * multiple, width // multiple * multiple
    tiling = Tiling.fit((height, width), multiple)
    assert tiling is not None
    assert tiling.tile_hw[0] % multiple == tiling.tile_hw[1] % multiple == 0
    assert max(tiling.tile_hw) <= 1280
    assert Tiling.fit(tiling.tile_hw, multiple) is None
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    shapes = set()

    def run(tile: Uint8Array) -> tuple[Float32Array, ...]:
        shapes.add(tile.shape)
        fine = tile[::4, ::4].astype(np.float32)
        coarse = tile[::multiple, ::multiple, 0].astype(np.float32)
        return fine, coarse

    fine, coarse = tiling.run(image, run)
    np.testing.assert_array_equal(fine, image[::4, ::4])
    np.testing.assert_array_equal(coarse, image[::multiple, ::multiple, 0])
    assert shapes == {(*tiling.tile_hw, 3)}


@pytest.mark.parametrize("input_hw", [(1280, 1280), (1024, 1024), (800, 2048), (64, 16000)])
def test_what_takes_one_pass_is_not_tiled(input_hw: tuple[int, int]) -> None:
    assert Tiling.fit(input_hw, 16) is None


@pytest.mark.parametrize(
    ("name", "fusion", "tolerance"),
    [
        ("lite0_parts", "concat", 1e-4),
        ("lite0_tuned", "concat", 1e-4),
        ("efficientnet_lite0", "concat", 1e-4),
        ("efficientnet_lite0", "separate", 1e-4),
        ("resnet18_parts", "concat", 1e-4),
        ("convnext_atto_parts", "concat", 1e-3),
    ],
)
def test_tiles_give_the_embeddings_of_one_pass(name: str, fusion: str, tolerance: float) -> None:
    encoder = load_encoder(name, fusion=fusion)  # type: ignore[arg-type]
    image = table_top(560, 608)
    tiling = Tiling.fit((560, 608), 16, SIDE)
    assert tiling is not None
    assert tiling.count == 4
    whole = encoder.encode(image)
    for tiled, level in zip(tiling.run(image, encoder.encode), whole, strict=True):
        assert tiled.shape == level.shape
        # At every patch: inside, at the seams and at the edges.
        off = np.linalg.norm(tiled - level, axis=2) / np.linalg.norm(level, axis=2)
        assert off.max() < tolerance


def test_too_narrow_a_halo_would_show_at_the_seams(encoder: Encoder) -> None:
    image = table_top(560, 560)
    narrow = Tiling((560, 560), (320, 320), 32)
    whole, tiled = encoder.encode(image)[0], narrow.run(image, encoder.encode)[0]
    assert (np.linalg.norm(tiled - whole, axis=2) / np.linalg.norm(whole, axis=2)).max() > 0.1


@pytest.fixture(scope="module")
def surfaces(encoder: Encoder) -> Inspector:
    images = [table_top(448, 560, seed) for seed in range(3)]
    return Inspector.from_support(images, product="table", encoder=encoder, views="hflip", image_size=501, budget=500)


def blot(y: int, x: int) -> np.ndarray:
    image = table_top(560, 704, seed=9)
    cv2.circle(image, (x, y), 9, (20, 20, 20), -1, cv2.LINE_AA)
    return image


def test_a_defect_scores_the_same_wherever_the_seam_lies(surfaces: Inspector) -> None:
    network = surfaces.model.scales[0].one_pass
    assert network is not None
    tilings = [Tiling.fit((560, 704), 16, side) for side in (448, 480, 544, 608)]
    seams = {span.end for tiling in tilings if tiling for span in tiling._spans(1)} - {704}
    assert len(seams) > 2
    for y, x in product([280], sorted(seams)[:2]):
        image = blot(y, x)
        (whole,) = network(image)
        assert whole.max() > 1.5 * np.median(whole)
        for tiling in tilings:
            assert tiling is not None
            (tiled,) = tiling.run(image, network)
            np.testing.assert_allclose(tiled, whole, rtol=2e-3, atol=2e-3)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("image_score", ["top_mean", "reweighted"])
def test_the_verdict_is_that_of_one_pass(encoder: Encoder, image_score: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [table_top(448, 700, seed) for seed in range(2)]
    broken = cv2.circle(images[1].copy(), (350, 200), 9, (20, 20, 20), -1)

    def verdict() -> tuple[float, float, np.ndarray]:
        inspector = Inspector.from_support(
            images,
            product="table",
            encoder=encoder,
            views="none",
            image_size=560,
            budget=400,
            scoring=ScoringConfig(image_score=image_score),  # type: ignore[arg-type]
        )
        result = inspector.inspect(broken)
        assert result.is_anomalous
        return inspector.threshold, result.score, result.working_map

    tiled = verdict()
    monkeypatch.undo()
    whole = verdict()
    assert tiled[0] == pytest.approx(whole[0], rel=1e-3)
    assert tiled[1] == pytest.approx(whole[1], rel=1e-3)
    np.testing.assert_allclose(tiled[2], whole[2], rtol=1e-2, atol=2e-3)


@pytest.mark.usefixtures("small_tiles")
def test_warm_up_compiles_for_the_tiles(surfaces: Inspector) -> None:
    inspector = Inspector.from_support(
        [table_top(448, 700, seed) for seed in range(2)],
        product="t",
        encoder=surfaces.encoder,
        image_size=560,
        views="none",
    )
    network = inspector.model.scales[0].one_pass
    assert network is not None
    inspector.warm_up((448, 700))
    sizes = network.sizes
    assert [max(size) <= SIDE for size in sizes] == [True]
    inspector.inspect(table_top(448, 700))
    network.compile(sizes)
    assert network.sizes == sizes


class WholeImage:
    """An engine whose embeddings depend on the whole image, as with squeeze-and-excitation."""

    makes_levels = True
    device = "cpu"

    def run(self, image: Uint8Array) -> list[Float32Array]:
        """Means of cells, times the mean of all."""
        cells = cv2.resize(image, (image.shape[1] // 16, image.shape[0] // 16), interpolation=cv2.INTER_AREA)
        return [cells.astype(np.float32) * np.float32(image.mean())]


def whole_image_encoder() -> Encoder:
    spec = EncoderSpec("attentive", "0" * 64, (0,), (16,), (3,), "concat", "f32", 0.0)
    return Encoder(spec, WholeImage(), "torch", None)  # type: ignore[arg-type]


def test_an_encoder_that_looks_at_the_whole_image_is_not_tiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = whole_image_encoder()
    image = table_top(1312, 1312)
    (level,) = encoder.encode(image)
    np.testing.assert_array_equal(level, WholeImage().run(image)[0])
    encoder.encode(image)
    assert [record.message for record in caplog.records if "attentive looks at the whole image" in record.message]
    assert len(caplog.records) == 1
    monkeypatch.setattr(encoder_module, "MAX_ONE_PASS", 1_000_000)
    with pytest.raises(WeightsError, match=r"input of 1312 x 1312 .* got attentive, .*Choose image_size up to 2048"):
        encoder.encode(image)


@pytest.mark.parametrize(
    ("name", "local"), [("resnet18", True), ("efficientnet_b0", False), ("vit_tiny_patch16_224", False)]
)
def test_attention_and_squeeze_are_noticed(name: str, local: bool) -> None:
    torch = pytest.importorskip("torch", reason="NO TORCH: pip install 'fewshot-ad[torch]'")
    from fewshot_ad.encoder.pyramid import Pyramid

    torch.manual_seed(0)
    pyramid = Pyramid(name, [0] if name == "resnet18" else None)

    def run(image: Uint8Array) -> tuple[Float32Array, ...]:
        with torch.inference_mode():
            return tuple(stage[0].numpy() for stage in pyramid(torch.from_numpy(image)[None]))

    assert is_local(run, pyramid.multiple) is local


@pytest.mark.parametrize("angle", [0.0, 4.0])
def test_registration_is_noticed(angle: float) -> None:
    torch = pytest.importorskip("torch", reason="NO TORCH: pip install 'fewshot-ad[torch]'")
    from fewshot_ad.encoder.siamese import Architecture, Outputs, SiameseEncoder

    torch.manual_seed(0)
    network = SiameseEncoder(Architecture("resnet18", registration="rotation"))
    with torch.no_grad():
        for transformer in network.registration:
            # Without training it is the identity; with a bias it turns every image by the same angle.
            list(transformer.parameters())[-1].fill_(np.deg2rad(angle))
    outputs = Outputs(network, (network.pyramid.stages[-1] + 1,))

    def run(image: Uint8Array) -> tuple[Float32Array, ...]:
        with torch.inference_mode():
            return tuple(stage[0].numpy() for stage in outputs(torch.from_numpy(image)[None]))

    assert is_local(run, 16) is (angle == 0)


PEAK = """
import resource
import numpy as np
from fewshot_ad import load_encoder
from fewshot_ad.inspection.regions import MapScale
from fewshot_ad.scoring import Model, Scale, ScoringConfig, inspect_image
from fewshot_ad.search.memory_bank import MemoryBank, Origin
from fewshot_ad.search.one_pass import OnePass

image = np.random.default_rng(0).integers(0, 256, (3000, 4096, 3), np.uint8)
encoder = load_encoder(threads=1)
vectors = np.random.default_rng(1).standard_normal((500, encoder.spec.dims[0]), dtype=np.float32)
zeros = np.zeros(500, np.int32)
bank = MemoryBank(vectors, Origin(zeros, zeros, np.zeros((500, 2), np.int32)), "l2", 1)
network = OnePass(encoder, [bank])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = Model((Scale(2600, (bank,), (1.0,), one_pass=network),), ScoringConfig(), 1.0, MapScale(0.5, 1.0))
assert inspect_image(image, encoder, model, "part").is_anomalous
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_memory_is_bounded_at_twelve_megapixels() -> None:
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    # One pass takes 1,000 MB; regions and map alone take some 100.
    assert float(run.stdout) < 550
