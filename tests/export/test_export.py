from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector, ScoringConfig, load_encoder
from fewshot_ad.encoder import DEFAULT_ENCODER
from fewshot_ad.encoder.weights import weights_folder
from fewshot_ad.errors import ExportError
from fewshot_ad.images import Geometry
from tests.conftest import make_part

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from fewshot_ad.export import TARGETS, export  # noqa: E402
from fewshot_ad.export import graph as graph_module  # noqa: E402

CONSUMERS = Path(__file__).resolve().parents[2] / "examples" / "consumers"


@pytest.fixture(scope="module")
def single(inspector: Inspector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    export(inspector, folder)
    return folder


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_says_what_the_product_says(inspector: Inspector, tmp_path: Path, target: str) -> None:
    report = export(inspector, tmp_path / "out", target)  # type: ignore[arg-type]
    assert report.decision_flips == 0
    assert report.score_difference < 1e-4
    assert report.map_difference < 1e-3
    assert 0 < report.anomalous < report.images
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["threshold"] == inspector.threshold
    assert set(manifest["files"]) | {"manifest.json"} == {path.name for path in (tmp_path / "out").iterdir()}
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["target"] == target


@pytest.mark.parametrize(
    ("image_hw", "settings"),
    [
        ((300, 1000), {"image_size": 160}),  # padded, odd halvings, area
        ((90, 70), {"image_size": 128}),  # enlarged
        ((256, 512), {"encoder": "efficientnet_lite0", "image_size": 128}),  # stages joined in the graph
        ((256, 256), {"encoder": "efficientnet_lite0", "image_size": 128, "fusion": "separate"}),
        ((256, 256), {"image_size": 128, "roi": [(30, 30), (220, 50), (128, 230)]}),
        (
            (200, 300),
            {"image_size": 128, "roi": (40, 10, 200, 150), "encoder": "efficientnet_lite0", "fusion": "separate"},
        ),
        # A share of fewer patches than there are
        ((256, 256), {"image_size": 128, "scoring": ScoringConfig(top_fraction=0.1, max_patches=100)}),
    ],
)
def test_the_graph_prepares_images_as_the_product_does(
    tmp_path: Path, image_hw: tuple[int, int], settings: dict[str, object]
) -> None:
    good = [cv2.resize(make_part(seed, 256), image_hw[::-1], interpolation=cv2.INTER_AREA) for seed in range(3)]
    inspector = Inspector.from_support(good, views="hflip", **settings)  # type: ignore[arg-type]
    export(inspector, tmp_path)
    session = ort.InferenceSession(str(tmp_path / "product.onnx"))
    image = cv2.resize(make_part(9, 256, defect=True), image_hw[::-1], interpolation=cv2.INTER_AREA)
    score, flag, heat = session.run(["score", "is_anomalous", "anomaly_map"], {"photograph": image})
    expected = inspector.inspect(image)
    assert score[0] == pytest.approx(expected.score, rel=5e-3)
    assert bool(flag[0]) == expected.is_anomalous
    np.testing.assert_allclose(heat, expected.working_map, atol=0.02 * expected.working_map.max())


def test_the_card_of_ones_own_encoder_is_found_from_another_folder(
    parts: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in (".json", ".onnx"):
        shutil.copy(weights_folder() / f"{DEFAULT_ENCODER}{suffix}", tmp_path)
    monkeypatch.chdir(tmp_path)
    inspector = Inspector.from_support(parts, encoder=f"{DEFAULT_ENCODER}.json", views="none", image_size=128)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert export(inspector, "out").decision_flips == 0


def test_tampered_preprocessing_is_refused_and_nothing_is_left(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = graph_module.to_input

    def swapped(b: graph_module.Builder, image: str, geometry: Geometry) -> str:
        # Red and blue the other way round: the commonest slip of all.
        return honest(b, b.op("Gather", image, b.ints(2, 1, 0), axis=2), geometry)

    monkeypatch.setattr(graph_module, "to_input", swapped)
    with pytest.raises(ExportError, match="Nothing was released"):
        export(inspector, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    # A blur of another width is a smaller fault, and is detected as well.
    monkeypatch.setattr(graph_module, "to_input", honest)
    monkeypatch.setattr(graph_module, "SMOOTHING", 1.5)
    with pytest.raises(ExportError, match="differ by up to"):
        export(inspector, tmp_path / "out")


def test_what_cannot_be_exported_is_said(inspector: Inspector, parts: list[np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="expected target among"):
        export(inspector, tmp_path, "tflite")  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="expected images of 128 x 200"):
        export(inspector, tmp_path, image_hw=(200, 128), images=parts)
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export(inspector, blocker / "out")


def test_python_consumer(inspector: Inspector, single: Path, broken_part: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", broken_part)
    consumer = CONSUMERS / "onnxruntime_consumer.py"
    assert len(consumer.read_text().splitlines()) <= 60
    run = subprocess.run(
        [sys.executable, str(consumer), str(single), str(tmp_path / "image.npy")],
        capture_output=True,
        text=True,
        check=True,
    )
    word, _, score, _, threshold, *_ = run.stdout.split()
    expected = inspector.inspect(broken_part)
    assert word == "ANOMALY"
    assert float(score) == pytest.approx(expected.score, rel=1e-4)
    assert float(threshold) == pytest.approx(expected.threshold, rel=1e-5)


def test_cpp_consumer(inspector: Inspector, single: Path, broken_part: np.ndarray, tmp_path: Path) -> None:
    import openvino

    home = Path(openvino.__file__).parent
    libraries = sorted((home / "libs").glob("libopenvino.so*"))
    compiler = shutil.which("g++")
    if compiler is None or not libraries or not (home / "include" / "openvino" / "openvino.hpp").is_file():
        pytest.skip("NO C++ TOOL CHAIN: g++ or OpenVINO's headers are absent")
    source = CONSUMERS / "openvino_consumer.cpp"
    assert len(source.read_text().splitlines()) <= 60
    binary = tmp_path / "consumer"
    paths = [f"-I{home / 'include'}", f"-L{home / 'libs'}", f"-l:{libraries[0].name}", f"-Wl,-rpath,{home / 'libs'}"]
    subprocess.run([compiler, "-std=c++17", str(source), *paths, "-o", str(binary)], check=True)
    for name, part, code in (("bad", broken_part, 1), ("good", make_part(0), 0)):
        part.tofile(tmp_path / f"{name}.rgb")
        run = subprocess.run(
            [str(binary), str(single / "product.onnx"), str(tmp_path / f"{name}.rgb")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == code, run.stderr
        assert float(run.stdout.split()[2]) == pytest.approx(inspector.inspect(part).score, rel=1e-4)


def test_reweighted_has_no_fixed_graph(parts: list[np.ndarray], tmp_path: Path) -> None:
    inspector = Inspector.from_support(
        parts,
        encoder=load_encoder(),
        views="hflip",
        image_size=128,
        scoring=ScoringConfig(image_score="reweighted"),
    )
    with pytest.raises(ExportError, match="top_mean"):
        export(inspector, tmp_path)


def test_what_the_graph_cannot_do_to_an_image_is_refused(parts: list[np.ndarray], tmp_path: Path) -> None:
    common = {"views": "none", "image_size": 128}
    lit = Inspector.from_support(parts[:2], lighting="normalized", **common)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="lighting='normalized'"):
        export(lit, tmp_path / "lit")
    within = Inspector.from_support(parts[:2], roi=(10, 10, 100, 100), **common)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="region of interest"):
        export(within, tmp_path / "within", "onnx")
    assert export(within, tmp_path / "within", "openvino").map_difference < 1e-3


def test_exporting_again_leaves_nothing_of_the_last_one(inspector: Inspector, tmp_path: Path) -> None:
    export(inspector, tmp_path)
    (tmp_path / "mine.txt").write_text("not of the export")
    export(inspector, tmp_path, "openvino")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"product.xml", "product.bin", "parity.json", "manifest.json", "mine.txt"}


@pytest.mark.parametrize("image_hw", [(0, 0), (1024, -5), (100_000, 100_000)])
def test_impossible_sizes_are_refused(inspector: Inspector, tmp_path: Path, image_hw: tuple[int, int]) -> None:
    with pytest.raises(ExportError, match=r"expected .*, got .*\."):
        export(inspector, tmp_path, image_hw=image_hw)


def test_a_smoothing_wider_than_the_graph_is_said(parts: list[np.ndarray], tmp_path: Path) -> None:
    wide = [cv2.resize(part, (640, 40)) for part in parts]
    inspector = Inspector.from_support(wide, views="hflip", image_size=128, scoring=ScoringConfig(sigma=20))
    with pytest.raises(ExportError, match="smaller sigma"):
        export(inspector, tmp_path)


def test_a_product_whose_images_take_tiles_is_refused(inspector: Inspector, tmp_path: Path) -> None:
    (scale,) = inspector.model.scales
    model = dataclasses.replace(inspector.model, scales=(dataclasses.replace(scale, image_size=3500),))
    large = Inspector(inspector.encoder, dataclasses.replace(inspector._product, model=model))
    with pytest.raises(
        ExportError, match=r"at most 5,000,000 pixels.*got one of 4096 x 3008\. .*image_size up to 2048"
    ):
        export(large, tmp_path / "out", image_hw=(3000, 4096))
    assert not (tmp_path / "out").exists()
