"""Writes a product for other runtimes: model files, a manifest and a parity report."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fewshot_ad.arguments import flag
from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder.encoder import MAX_ONE_PASS
from fewshot_ad.encoder.weights import encoder_file
from fewshot_ad.errors import ExportError, FewshotADError
from fewshot_ad.export.parity import ExportedModel, ProductParity, check_product_parity, proof_images
from fewshot_ad.host.runtimes import import_onnxruntime, import_openvino, signal_stack_kept
from fewshot_ad.images import Geometry
from fewshot_ad.product import size_of_images
from fewshot_ad.scoring import Measurement, Model, joint_map, joint_score, top_mean_score
from fewshot_ad.search.nearest import Metric
from fewshot_ad.storage import check_folder, replace_folder, write_failure

if TYPE_CHECKING:
    from fewshot_ad.inspector import Inspector

Target: TypeAlias = Literal["openvino", "onnx", "onnx-single"]
TARGETS: tuple[Target, ...] = ("openvino", "onnx", "onnx-single")
MANIFEST_SCHEMA = 2
MANIFEST = "manifest.json"


def export(
    inspector: Inspector,
    folder: str | os.PathLike[str],
    target: Target = "onnx-single",
    *,
    image_hw: tuple[int, int] | None = None,
    images: Sequence[Uint8Array] | None = None,
    force: bool = False,
) -> ProductParity:
    """Write a product as files that run without this package.

    Targets: `onnx-single` is one ONNX file that maps an image to score, decision and map, for any ONNX Runtime.
    `openvino` is the same as OpenVINO IR. `onnx` is the encoder and the memory banks in separate files, for users who
    search the banks themselves.

    Before anything is released, images, their views and copies with drawn defects are inspected with both the product
    and the files; no file is written if the two differ.

    Args:
        inspector: The product.
        folder: Folder to write; created if it does not exist. An earlier export in it is replaced as a whole once the
            new one has passed the parity check; other files in it stay.
        target: What to write.
        image_hw: Height and width of the images to inspect, as a graph is for one size; None = those of the support
            set.
        force: Whether to write into a folder that holds other files and no earlier export.
        images: (H, W, 3) uint8 RGB for the parity check; None = the support images stored in the product.

    Returns:
        The parity report, which is also saved as `parity.json`.

    Raises:
        ExportError: The target or the product's settings do not allow the export, the exported model disagrees with
            the product, an extra is not installed, or the folder cannot be written or must stay as it is.
    """
    flag(force, "force", ExportError)
    if target not in TARGETS:
        raise ExportError(f"expected target among {TARGETS}, got {target!r}.")
    _check_settings(inspector, target)
    image_hw = size_of_images(inspector.references, image_hw, ExportError)
    if inspector.model.roi is not None and not inspector.model.roi.fits(image_hw):
        (height, width), (own_height, own_width) = image_hw, inspector.model.roi.image_hw
        raise ExportError(
            f"expected images of the proportions that the region of interest was drawn on, {own_width} x {own_height}, "
            f"got {width} x {height}. Give a size of the same proportions."
        )
    _check_one_pass(inspector, image_hw)
    images_to_compare = proof_images(inspector, image_hw, images)
    folder = Path(folder)
    check_export_folder(folder, force=force)
    try:
        with replace_folder(folder, _former_files(folder) or (), MANIFEST) as staging:
            model = _WRITERS[target](inspector, staging, image_hw)
            report = check_product_parity(inspector, model, images_to_compare, target)
            (staging / "parity.json").write_text(json.dumps(dataclasses.asdict(report), indent=2) + "\n")
            _write_manifest(inspector, staging, target, image_hw)
    except OSError as error:
        raise ExportError(write_failure(folder, error)) from error
    except RuntimeError as error:
        if isinstance(error, FewshotADError):
            raise
        # ONNX Runtime and OpenVINO raise RuntimeError.
        raise ExportError(f"the exported model cannot be run: {str(error).splitlines()[0]}") from error
    return report


def _check_settings(inspector: Inspector, target: Target) -> None:
    """Whether a product looks at images in a way that a graph can.

    Raises:
        ExportError: It does not.
    """
    if inspector.scoring.image_score != "top_mean":
        raise ExportError(
            f"expected image_score='top_mean', got {inspector.scoring.image_score!r}: its search for neighbors of "
            "neighbors is no fixed graph. Enroll with top_mean."
        )
    if inspector.model.registration is not None:
        raise ExportError(
            "expected a product whose images are inspected as they lie, got one that is registered: the exported graph "
            "would not turn them. Enroll without register=True (command line: without --register)."
        )
    if inspector.model.parts is not None:
        raise ExportError(
            "expected a product whose images are looked at as a whole, got one of several parts, which an exported "
            "graph would not cut out. Enroll without parts='auto' (command line: without --parts)."
        )
    if inspector.model.lighting is not None:
        raise ExportError(
            f"expected a product whose images are inspected in the light they have, got lighting="
            f"{inspector.model.lighting.kind!r}, which the exported graph does not know. Enroll with lighting='off'."
        )
    if inspector.model.roi is not None and target == "onnx":
        raise ExportError(
            "expected a product without a region of interest for target='onnx', which leaves the score to its reader, "
            "got one with. Use target='onnx-single' or 'openvino': they hold the region."
        )


def _check_one_pass(inspector: Inspector, image_hw: tuple[int, int]) -> None:
    height, width = Geometry.fit(image_hw, max(inspector.model.image_sizes), inspector.encoder.spec.multiple).input_hw
    if height * width > MAX_ONE_PASS:
        raise ExportError(
            f"expected a product with an input of at most {MAX_ONE_PASS:,} pixels, as a graph takes the image in one "
            f"pass and not in tiles, got one of {width} x {height}. Enroll with image_size up to 2048."
        )


def check_export_folder(
    folder: str | os.PathLike[str], *, inputs: Sequence[str | os.PathLike[str]] = (), force: bool = False
) -> None:
    """Make sure that an export can be written to a folder without a loss.

    Args:
        folder: The folder.
        inputs: Files that are read, none of which may lie in it.
        force: As for `export`.

    Raises:
        ExportError: It must stay as it is.
    """
    folder = Path(folder)
    check_folder(folder, inputs=inputs, error=ExportError)
    try:
        foreign = folder.is_dir() and any(folder.iterdir()) and _former_files(folder) is None
    except OSError as error:
        raise ExportError(write_failure(folder, error)) from error
    if foreign and not force:
        raise ExportError(
            f"{folder}: expected a new or empty folder, or that of an earlier export, got one that holds other files. "
            "Choose another folder, or give --force (force=True in Python) to write beside them."
        )


def _former_files(folder: Path) -> list[str] | None:
    """Names of the files of an earlier export, as its manifest lists them; None if the folder holds none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if not {"schema", "product", "target"} <= set(manifest):
            return None
        return [MANIFEST, *(str(name) for name in manifest["files"])]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _onnx_graph(inspector: Inspector, path: Path, image_hw: tuple[int, int], at: int | None = None) -> None:
    """The whole inspection as one graph, or the encoder at working scale number `at`."""
    try:
        import onnx

        from fewshot_ad.export.graph import levels_graph, single_graph
    except ImportError as error:
        raise ExportError(
            f"export needs the extra 'onnx' (no module {error.name}): pip install 'fewshot-ad[onnx]'."
        ) from error
    spec, model = inspector.encoder.spec, inspector.model
    file, outputs = encoder_file(inspector.encoder.source), [f"stage{s}" for s in spec.stages]
    if at is None:
        graph = single_graph(file, outputs, spec, model, image_hw)
    else:
        geometry = Geometry.fit(image_hw, model.scales[at].image_size, spec.multiple)
        graph = levels_graph(file, outputs, spec, geometry)
    onnx.save(graph, str(path))


def _write_onnx(inspector: Inspector, folder: Path, image_hw: tuple[int, int]) -> ExportedModel:
    path = folder / "product.onnx"
    _onnx_graph(inspector, path, image_hw)
    session = _session(path)

    def run(image: Uint8Array) -> tuple[float, bool, Float32Array]:
        score, flag, heat = session.run(["score", "is_anomalous", "anomaly_map"], {"photograph": image})
        return float(score[0]), bool(flag[0]), heat

    return run


def _session(path: Path) -> Any:
    try:
        ort = import_onnxruntime()
    except ImportError as error:
        raise ExportError(
            "the parity check of an export needs ONNX Runtime: pip install 'fewshot-ad[onnx]', or use "
            "target='openvino'."
        ) from error
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _write_openvino(inspector: Inspector, folder: Path, image_hw: tuple[int, int]) -> ExportedModel:
    ov = import_openvino()

    path = folder / "product.xml"
    whole = folder / "whole.onnx"
    _onnx_graph(inspector, whole, image_hw)
    ov.save_model(ov.Core().read_model(whole), path, compress_to_fp16=False)
    whole.unlink()
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    with signal_stack_kept():
        compiled = ov.Core().compile_model(path, "CPU", config)

    def run(image: Uint8Array) -> tuple[float, bool, Float32Array]:
        result = compiled([image])
        return float(result["score"][0]), bool(result["is_anomalous"][0]), result["anomaly_map"]

    return run


def _write_encoder_and_banks(inspector: Inspector, folder: Path, image_hw: tuple[int, int]) -> ExportedModel:
    spec, model = inspector.encoder.spec, inspector.model
    sessions = []
    for at, name in enumerate(_encoder_names(model)):
        _onnx_graph(inspector, folder / name, image_hw, at)
        sessions.append(_session(folder / name))
    for i, bank in enumerate(inspector.banks):
        np.save(folder / f"bank{i}.npy", bank.vectors, allow_pickle=False)
    vectors = [np.load(folder / f"bank{i}.npy", allow_pickle=False) for i in range(len(inspector.banks))]
    levels = len(spec.dims)

    def measured(image: Uint8Array, at: int) -> Measurement:
        geometry = Geometry.fit(image_hw, model.scales[at].image_size, spec.multiple)
        outputs = sessions[at].run(None, {"photograph": geometry.to_input(image)[None]})
        banks, divisors = vectors[at * levels : (at + 1) * levels], model.scales[at].level_scale
        score_maps = tuple(
            (_distances(output[0], bank, model.scoring.metric) / divisor).astype(np.float32)
            for output, bank, divisor in zip(outputs, banks, divisors, strict=True)
        )
        measured = Measurement(top_mean_score(score_maps, geometry, model.scoring), score_maps, geometry)
        return measured.divided(model.scales[at].divisor)

    def run(image: Uint8Array) -> tuple[float, bool, Float32Array]:
        scales = [measured(image, at) for at in range(len(sessions))]
        score = joint_score(scales)
        return score, score > model.threshold, joint_map(scales, model.image_sizes, model.scoring.sigma)

    return run


def _encoder_names(model: Model) -> list[str]:
    """The encoder's file for each working scale; a single one has no number."""
    count = len(model.scales)
    return ["encoder.onnx"] if count == 1 else [f"encoder{at}.onnx" for at in range(count)]


def _distances(level: Float32Array, bank: Float32Array, metric: Metric) -> npt.NDArray[np.float64]:
    """Distances (h, w) of a level (h, w, d) to the nearest bank vectors, in double precision."""
    q, b = level.reshape(-1, level.shape[-1]).astype(np.float64), bank.astype(np.float64)
    if metric == "cosine":
        q = q / np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-12)
    squared = (q**2).sum(1) + ((b**2).sum(1) - 2 * q @ b.T).min(1)
    distances = np.sqrt(squared.clip(0)) if metric == "l2" else squared / 2
    return distances.reshape(level.shape[:2])


_WRITERS: dict[Target, Callable[[Inspector, Path, tuple[int, int]], ExportedModel]] = {
    "onnx-single": _write_onnx,
    "openvino": _write_openvino,
    "onnx": _write_encoder_and_banks,
}


def _write_manifest(inspector: Inspector, folder: Path, target: Target, image_hw: tuple[int, int]) -> None:
    info = inspector.info()
    spec, model = inspector.encoder.spec, inspector.model
    geometries = model.geometries(image_hw, spec.multiple)
    whole = target != "onnx"
    manifest = {
        "schema": MANIFEST_SCHEMA,
        "product": inspector.product,
        "target": target,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "files": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.iterdir())
            if path.name != MANIFEST
        },
        "input": {
            "name": "photograph",
            # Of the encoder apart, per working scale.
            "shape": [*image_hw, 3] if whole else [[1, *geometry.input_hw, 3] for geometry in geometries],
            "dtype": "uint8",
            "color": "rgb",
        },
        "outputs": ["score", "threshold", "is_anomalous", "anomaly_map"]
        if whole
        else [f"level{i}" for i in range(len(spec.dims))],
        "preprocessing": {
            **info["preprocessing"],
            "inside_the_graph": whole,
            "content_hw": [list(geometry.content_hw) for geometry in geometries],
            "input_hw": [list(geometry.input_hw) for geometry in geometries],
        },
        # By default, OpenVINO computes in bfloat16 where the processor can: compile with INFERENCE_PRECISION_HINT=f32.
        "inference_precision": "f32",
        "threshold": model.threshold,
        "review_threshold": model.review_threshold,
        "map_scale": dataclasses.asdict(model.map_scale),
        "scoring": info["scoring"],
        "divisors": [scale.divisor for scale in model.scales],
        "level_scale": [list(scale.level_scale) for scale in model.scales],
        "encoder": info["encoder"],
        "versions": info["versions"],
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
