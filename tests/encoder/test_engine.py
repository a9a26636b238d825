"""One number everywhere: the three engines agree on real images."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector, load_encoder
from fewshot_ad.arrays import Float32Array
from fewshot_ad.encoder import FUSIONS, Encoder, Fusion
from fewshot_ad.encoder.engine import EngineName, has_bf16
from fewshot_ad.encoder.requests import MAX_FIXED_SIZES
from fewshot_ad.encoder.weights import shipped_encoders
from fewshot_ad.errors import WeightsError

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
LevelsOf: TypeAlias = Callable[[str, tuple[int, ...], Fusion], tuple[Float32Array, ...]]


def available(engine: str) -> bool:
    try:
        load_encoder(engine=engine)  # type: ignore[arg-type]
    except WeightsError:
        return False
    return True


OTHERS = [
    pytest.param(e, marks=pytest.mark.skipif(not available(e), reason=f"{e} is not installed"))
    for e in ("onnxruntime", "torch")
]


@pytest.fixture(scope="module")
def images(brick: np.ndarray) -> list[np.ndarray]:
    data = pytest.importorskip("skimage.data")
    crops = [cv2.cvtColor(brick[y : y + 160, x : x + 200], cv2.COLOR_GRAY2RGB) for y in (0, 170, 340) for x in (0, 250)]
    return [*crops, data.coffee(), data.chelsea(), data.rocket()]


@pytest.mark.parametrize("engine", OTHERS)
def test_embeddings_agree(engine: str, images: list[np.ndarray]) -> None:
    ours, theirs = load_encoder(stages=(1, 2, 3)), load_encoder(engine=engine, stages=(1, 2, 3))  # type: ignore[arg-type]
    assert ours.spec == theirs.spec
    for image in images:
        picture = cv2.resize(image, (192, 160))
        np.testing.assert_allclose(ours.encode(picture)[0], theirs.encode(picture)[0], atol=2e-4)


@pytest.mark.parametrize("engine", OTHERS)
def test_scores_agree_and_no_decision_flips(engine: str, images: list[np.ndarray], tmp_path: Path) -> None:
    """Largest relative difference of image scores at most 1e-3."""
    inspector = Inspector.from_support(images[:4], views="hflip,vflip", image_size=192)
    inspector.save(tmp_path / "p.fsad")
    other = Inspector.load(tmp_path / "p.fsad", engine=engine)  # type: ignore[arg-type]
    for image in images:
        a, b = inspector.inspect(image), other.inspect(image)
        assert b.score == pytest.approx(a.score, rel=1e-3, abs=2e-3 * inspector.threshold)
        assert a.is_anomalous == b.is_anomalous
    for image in images[4:]:
        assert other.inspect(image).score == pytest.approx(inspector.inspect(image).score, rel=1e-3)


@pytest.mark.parametrize("engine", OTHERS)
def test_scores_agree_on_real_bottles(engine: str, bottle: Path, tmp_path: Path) -> None:
    support = sorted((bottle / "train" / "good").iterdir())[:4]
    inspector = Inspector.from_support(support, views="hflip", image_size=256)
    inspector.save(tmp_path / "p.fsad")
    other = Inspector.load(tmp_path / "p.fsad", engine=engine)  # type: ignore[arg-type]
    for path in [
        *sorted((bottle / "test" / "good").iterdir())[:8],
        *sorted((bottle / "test" / "broken_small").iterdir())[:8],
    ]:
        a, b = inspector.inspect(path), other.inspect(path)
        assert b.score == pytest.approx(a.score, rel=1e-3)
        assert a.is_anomalous == b.is_anomalous


def test_sizes_beyond_the_compiled_ones_give_the_same_numbers(images: list[np.ndarray]) -> None:
    fresh, used = load_encoder(), load_encoder()
    for i in range(MAX_FIXED_SIZES):
        used.encode(np.zeros((64 + 16 * i, 64, 3), np.uint8))
    picture = cv2.resize(images[0], (176, 208))
    np.testing.assert_allclose(used.encode(picture)[0], fresh.encode(picture)[0], atol=2e-4)
    picture = cv2.resize(images[1], (320, 96))
    np.testing.assert_allclose(used.encode(picture)[0], fresh.encode(picture)[0], atol=2e-4)


@pytest.mark.parametrize("engine", OTHERS)
def test_the_order_stages_are_named_in_does_not_matter(engine: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    ours, theirs = load_encoder(stages=(3, 2)), load_encoder(engine=engine, stages=(3, 2, 2))  # type: ignore[arg-type]
    assert ours.spec == theirs.spec == load_encoder(stages=(2, 3)).spec
    np.testing.assert_allclose(ours.encode(picture)[0], theirs.encode(picture)[0], atol=2e-4)


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("name", shipped_encoders())
def test_every_choice_of_stages_agrees(name: str, engine: EngineName, levels_of: LevelsOf) -> None:
    for stages in choices(name):
        loaded = load_encoder(name, stages=stages, engine=engine)
        for fusion in FUSIONS:
            # Only OpenVINO joins the stages inside its graph, so the other engines are the same for both.
            spec = dataclasses.replace(loaded.spec, fusion=fusion)
            others = Encoder(spec, loaded.engine, engine, None).encode(PICTURE)
            levels = levels_of(name, stages, fusion)
            shapes = [(64 // s, 96 // s, d) for s, d in zip(spec.level_strides, spec.dims, strict=True)]
            assert [level.shape for level in levels] == shapes, (stages, fusion)
            for level, other in zip(levels, others, strict=True):
                limit = 5e-4 * max(1, np.abs(other).max())
                np.testing.assert_allclose(level, other, atol=limit, err_msg=f"{stages}, {fusion}")


def choices(name: str) -> list[tuple[int, ...]]:
    """Choices of stages: all, or the smallest and largest of encoders with transformers, whose graphs load slowly."""
    card = shipped_encoders()[name]
    counts = (1, len(card.stages)) if name.endswith("_siamese") else range(1, len(card.stages) + 1)
    return [stages for count in counts for stages in itertools.combinations(card.stages, count)]


@pytest.fixture(scope="module")
def levels_of() -> LevelsOf:
    """Levels of the picture on OpenVINO, computed once for all engines they are compared with."""

    @functools.cache
    def levels(name: str, stages: tuple[int, ...], fusion: Fusion) -> tuple[Float32Array, ...]:
        return load_encoder(name, stages=stages, fusion=fusion).encode(PICTURE)

    return levels


def test_read_only_and_strided_pictures_are_fine() -> None:
    encoder = load_encoder()
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = encoder.encode(picture)[0]
    frozen = picture.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(encoder.encode(frozen)[0], expected)
    np.testing.assert_array_equal(encoder.encode(np.asfortranarray(picture))[0], expected)


@pytest.mark.skipif(not has_bf16(), reason="NO BFLOAT16 on this processor")
def test_bf16_stays_near_and_is_named() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    exact, rough = load_encoder(), load_encoder(precision="bf16")
    assert (exact.spec.precision, rough.spec.precision) == ("f32", "bf16")
    a, b = exact.encode(picture)[0], rough.encode(picture)[0]
    assert np.any(a != b)
    assert np.abs(a - b).mean() < 0.1 * np.abs(a).mean()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"engine": "abacus"}, "expected engine among"),
        ({"precision": "int4"}, "expected precision among"),
        ({"fusion": "sum"}, "expected fusion among"),
        ({"norm_power": 2}, "norm_power as a finite number of at least 0 and at most 1, got 2"),
        ({"stages": (7,)}, "expected stages among"),
        ({"stages": ()}, "expected stages=None"),
        ({"stages": "23"}, "expected stages=None"),
        ({"stages": [2.0]}, "each of stages as a whole number of at least 0, got 2.0"),
        ({"stages": 2}, "expected stages=None"),
        ({"norm_power": "1"}, "norm_power .* got '1'"),
        ({"norm_power": float("nan")}, "norm_power .* got nan"),
        ({"threads": 0}, r"threads as a whole number in 1\.\.1024, got 0\. Or None"),
        ({"threads": "2"}, "threads as a whole number .* got '2'"),
        ({"threads": 10**9}, "threads as a whole number .* got 1000000000"),
        ({"precision": []}, "expected precision among"),
        ({"name": ""}, "expected the name of an encoder"),
        ({"name": None}, "expected the name of an encoder .*got None"),
        ({"name": 3}, "expected the name of an encoder .*got 3"),
        ({"name": "nowhere.json"}, r"nowhere\.json: expected a weights card \(No such file.*Check the path"),
        ({"weights": 3}, "expected weights as the name of a file, as text or Path, got 3"),
        ({"name": "resnet18", "weights": "gone.pth"}, r"gone\.pth does not exist"),
        ({"weights": "x.pth"}, "ships with its weights"),
        ({"name": "resnet18", "engine": "openvino"}, "engine='torch' only"),
        ({"engine": "onnxruntime", "precision": "bf16"}, "f32|ONNX Runtime"),
    ],
)
def test_wrong_options_are_refused(options: dict, says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        load_encoder(**options)


@pytest.mark.parametrize("engine", [None, "onnxruntime", "torch"])
def test_without_a_gpu_the_cpu_stands_in_and_says_so(engine: str | None, caplog: pytest.LogCaptureFixture) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("THERE IS A GPU")
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    with caplog.at_level("WARNING"):
        encoder = load_encoder(engine=engine, device="cuda")  # type: ignore[arg-type]
    assert "Going on with the CPU" in caplog.text
    np.testing.assert_allclose(encoder.encode(picture)[0], load_encoder().encode(picture)[0], atol=1e-3)


def test_openvino_does_not_claim_a_gpu() -> None:
    with pytest.raises(WeightsError, match="runs on the CPU"):
        load_encoder(engine="openvino", device="cuda")
    with pytest.raises(WeightsError, match="expected device among"):
        load_encoder(device="tpu")  # type: ignore[arg-type]


def test_onnx_runtime_takes_the_gpu_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in, which says it has a GPU and computes on the CPU."""
    ort = pytest.importorskip("onnxruntime")
    asked: list[Any] = []

    class Session:
        def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
            asked.append(providers)
            self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

    stand_in = types.SimpleNamespace(
        SessionOptions=ort.SessionOptions,
        InferenceSession=Session,
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr("fewshot_ad.encoder.engine.import_onnxruntime", lambda: stand_in)
    encoder = load_encoder(device="cuda")
    assert (encoder.device, encoder.engine_name) == ("cuda", "onnxruntime")
    assert asked == [[("CUDAExecutionProvider", {"use_tf32": 0}), "CPUExecutionProvider"]]
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    np.testing.assert_allclose(encoder.encode(picture)[0], load_encoder().encode(picture)[0], atol=1e-3)
