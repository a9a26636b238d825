"""A product as one ONNX graph: image -> score, decision and map. Needs the extra `onnx`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnx.compose
import onnx.utils
from onnx import TensorProto, helper, numpy_helper

from fewshot_ad.arrays import Float32Array
from fewshot_ad.encoder import EncoderSpec
from fewshot_ad.errors import ExportError
from fewshot_ad.images import SMOOTHING, Geometry
from fewshot_ad.scoring import Model, Scale, ScoringConfig, patch_weights, smoothing_within, top_count
from fewshot_ad.search.memory_bank import MemoryBank

OPSET = 20


def single_graph(
    encoder_file: Path, outputs: Sequence[str], spec: EncoderSpec, model: Model, image_hw: tuple[int, int]
) -> Any:
    """The whole inspection as an ONNX model.

    Input `photograph` (H, W, 3) uint8 RGB. Outputs: `score` (1,) float32, `threshold` (1,) float32, `is_anomalous` (1,)
    bool, `anomaly_map` (h, w) float32 at the working scale.

    Args:
        encoder_file: The encoder's ONNX file.
        outputs: Names of the encoder's outputs that the product uses.
        spec: The encoder's specification.
        model: The enrolled product; its image score must be `top_mean`.
        image_hw: Height and width of the images to inspect.

    Raises:
        ExportError: The smoothing of the map reaches farther than the map is wide.
    """
    geometries = model.geometries(image_hw, spec.multiple)
    prepare, prepared = Builder(), []
    for at, geometry in enumerate(geometries):
        to_input(prepare, "photograph", geometry)
        prepare.nodes[-1].output[0] = f"prepared{at}"
        prepared.append(helper.make_tensor_value_info(f"prepared{at}", TensorProto.UINT8, [1, *geometry.input_hw, 3]))
    photograph = helper.make_tensor_value_info("photograph", TensorProto.UINT8, [*image_hw, 3])
    whole = onnx.compose.add_prefix(_to_model(prepare, [photograph], prepared), "prepare_")
    # Undo the prefix of the input's name.
    _rename(whole, "prepare_photograph", "photograph")
    judge, values, names, score_maps = Builder(), list[Any](), list[str](), []
    for at, (scale, geometry) in enumerate(zip(model.scales, geometries, strict=True)):
        stages = [f"encoder{at}_{name}" for name in outputs]
        score_maps.append(_distances(judge, stages, spec, scale, geometry))
        values += _stage_values(stages, spec, geometry)
        names += stages
        network = onnx.compose.add_prefix(encoder_graph(encoder_file, outputs), f"encoder{at}_")
        whole = onnx.compose.merge_models(whole, network, [(f"prepare_prepared{at}", f"encoder{at}_photograph")])
    _verdict(judge, score_maps, model, geometries, spec)
    geometry = geometries[-1]
    after = _to_model(
        judge,
        values,
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("threshold", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("is_anomalous", TensorProto.BOOL, [1]),
            helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, list(geometry.content_hw)),
        ],
    )
    whole = onnx.compose.merge_models(whole, after, [(name, name) for name in names])
    onnx.checker.check_model(whole)
    return whole


def levels_graph(encoder_file: Path, outputs: Sequence[str], spec: EncoderSpec, geometry: Geometry) -> Any:
    """The encoder as an ONNX model, for one size of images.

    Input `photograph` (1, h, w, 3) uint8 RGB at the working scale. Outputs: per level, `level<i>` (1, h, w, d) float32.

    Args:
        encoder_file: The encoder's ONNX file.
        outputs: Names of the encoder's outputs that the product uses.
        spec: The encoder's specification.
        geometry: From the images to the encoder's input.
    """
    network = onnx.compose.add_prefix(encoder_graph(encoder_file, outputs), "encoder_")
    _rename(network, "encoder_photograph", "photograph")
    stages = [f"encoder_{name}" for name in outputs]
    join = Builder()
    levels, grid_hws = _levels(join, stages, spec, geometry)
    names = []
    for i, level in enumerate(levels):
        join.op("Identity", level)
        names.append(f"level{i}")
        join.nodes[-1].output[0] = names[-1]
    shapes = [[1, *grid_hw, dims] for grid_hw, dims in zip(grid_hws, spec.dims, strict=True)]
    after = _to_model(
        join,
        _stage_values(stages, spec, geometry),
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)],
    )
    whole = onnx.compose.merge_models(network, after, [(name, name) for name in stages])
    onnx.checker.check_model(whole)
    return whole


def to_input(b: Builder, image: str, geometry: Geometry) -> str:
    """`Geometry.to_input` as nodes: (H, W, 3) uint8 -> (1, h, w, 3) uint8, to within one gray level."""
    x = b.op("Cast", image, to=TensorProto.FLOAT)
    x = b.op("Transpose", x, perm=[2, 0, 1])
    height, width = geometry.image_hw
    to_height, to_width = geometry.content_hw
    while height >= 2 * to_height and width >= 2 * to_width:
        if height % 2 == 0 and width % 2 == 0:
            x = b.op("Unsqueeze", x, b.ints(0))
            x = b.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            x = b.op("Squeeze", x, b.ints(0))
            x = b.op("Floor", b.op("Add", x, b.constant(0.5)))
        else:
            x = _resized(b, x, (height, width), (height // 2, width // 2), cv2.INTER_AREA)
        height, width = height // 2, width // 2
    if (height, width) != geometry.content_hw:
        shrinks = to_height * to_width < geometry.image_hw[0] * geometry.image_hw[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        x = _resized(b, x, (height, width), geometry.content_hw, method)
    x = b.op("Unsqueeze", x, b.ints(1))
    # With OpenCV's 8-bit kernel and rounding, OpenVINO and ONNX Runtime compute exactly OpenCV's gray levels.
    kernel = np.rint(cv2.getGaussianKernel(5, SMOOTHING).ravel() * 256)
    kernel[2] += 256 - kernel.sum()
    x = b.op("Floor", b.op("Add", _filtered(b, x, kernel / 256, geometry.content_hw), b.constant(0.5)))
    bottom, right = (a - c for a, c in zip(geometry.input_hw, geometry.content_hw, strict=True))
    if bottom or right:
        x = b.op("Pad", x, b.ints(0, 0, 0, 0, 0, 0, bottom, right), mode="reflect")
    x = b.op("Squeeze", x, b.ints(1))
    x = b.op("Transpose", x, perm=[1, 2, 0])
    x = b.op("Unsqueeze", x, b.ints(0))
    return b.op("Cast", x, to=TensorProto.UINT8)


def encoder_graph(encoder_file: Path, outputs: Sequence[str]) -> Any:
    """The ONNX model of an encoder, reduced to the nodes that some of its outputs need."""
    network = onnx.load(str(encoder_file))
    extractor = onnx.utils.Extractor(network)
    return extractor.extract_model(["photograph"], list(outputs))


class Builder:
    """Collects ONNX nodes and constants; every method returns the name of a value."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant tensor."""
        name = f"constant{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node and return the name of its last output; the names of its outputs end in `_0`, `_1` and so on."""
        names = [f"{kind.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[-1]

    def ints(self, *values: int) -> str:
        """Add a constant int64 vector, for shapes, axes and the like."""
        return self.constant(values, np.int64)


def _stage_values(stages: Sequence[str], spec: EncoderSpec, geometry: Geometry) -> list[Any]:
    return [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *_grid(geometry, stride), channels])
        for name, stride, channels in zip(stages, spec.strides, spec.channels, strict=True)
    ]


def _to_model(builder: Builder, inputs: list[Any], outputs: list[Any]) -> Any:
    graph = helper.make_graph(builder.nodes, "fewshot_ad", inputs, outputs, builder.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _rename(model: Any, old: str, new: str) -> None:
    for value in model.graph.input:
        if value.name == old:
            value.name = new
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def _grid(geometry: Geometry, stride: int) -> tuple[int, int]:
    return geometry.input_hw[0] // stride, geometry.input_hw[1] // stride


def _resized(b: Builder, x: str, from_hw: tuple[int, int], to_hw: tuple[int, int], method: int) -> str:
    """(C, H, W) -> (C, h, w), rounded, as two matrix products, since OpenCV's resize is linear along each side."""
    columns = cv2.resize(np.eye(from_hw[1], dtype=np.float32), (from_hw[1], to_hw[1]), interpolation=method)
    if method == cv2.INTER_AREA:
        rows = cv2.resize(np.eye(from_hw[0], dtype=np.float32), (from_hw[0], to_hw[0]), interpolation=method)
        x = b.op("MatMul", b.constant(rows), x)
        return b.op("Round", b.op("MatMul", x, b.constant(columns.T)))
    # OpenCV interpolates gray levels in fixed point: weights in 1/2048, and the products of the two rows are rounded
    # down separately.
    x = b.op("Floor", b.op("MatMul", x, b.constant(np.rint(columns.T * 2048) / 16)))
    position = (np.arange(to_hw[0]) + 0.5) * from_hw[0] / to_hw[0] - 0.5
    above, fraction = np.floor(position).astype(int), position - np.floor(position)
    taps = []
    for row, weight in ((above, 1 - fraction), (above + 1, fraction)):
        matrix = np.zeros((to_hw[0], from_hw[0]))
        matrix[np.arange(to_hw[0]), row.clip(0, from_hw[0] - 1)] = np.rint(weight * 2048) / 65536
        taps.append(b.op("Floor", b.op("MatMul", b.constant(matrix), x)))
    total = b.op("Add", b.op("Add", *taps), b.constant(2))
    return b.op("Floor", b.op("Mul", total, b.constant(0.25)))


def _filtered(b: Builder, x: str, kernel: npt.NDArray[np.float64], shape_hw: tuple[int, int]) -> str:
    """(N, 1, H, W) convolved with a kernel along both sides, with mirrored borders."""
    half = len(kernel) // 2
    if half >= min(shape_hw):
        raise ExportError(
            f"expected a smoothing of the map that reaches less than the shorter side of the working scale, "
            f"{min(shape_hw)} pixels, got {half} pixels. Enroll with a smaller sigma."
        )
    x = b.op("Pad", x, b.ints(0, 0, half, half, 0, 0, half, half), mode="reflect")
    x = b.op("Conv", x, b.constant(kernel.reshape(1, 1, -1, 1)))
    return b.op("Conv", x, b.constant(kernel.reshape(1, 1, 1, -1)))


def _levels(
    b: Builder, stages: Sequence[str], spec: EncoderSpec, geometry: Geometry
) -> tuple[list[str], list[tuple[int, int]]]:
    """`Encoder.encode` as nodes: the encoder's feature maps -> levels (1, h, w, d), and the (h, w) of each."""
    levels = []
    for stage, number in zip(stages, spec.stages, strict=True):
        level = stage
        if spec.norm_power > 0 and number != spec.embedding:
            squared = b.op("ReduceSum", b.op("Mul", stage, stage), b.ints(3))
            length = b.op("Pow", b.op("Max", squared, b.constant(1e-12)), b.constant(-spec.norm_power / 2))
            level = b.op("Mul", stage, length)
        levels.append(level)
    grid_hws = [_grid(geometry, stride) for stride in spec.strides]
    if spec.fusion == "concat" and len(levels) > 1:
        finest = max(grid_hws)
        joined = []
        for level, grid_hw, channels in zip(levels, grid_hws, spec.channels, strict=True):
            if grid_hw != finest:
                level = b.op("Transpose", level, perm=[0, 3, 1, 2])
                level = _enlarged(b, level, (1, channels, *finest))
                level = b.op("Transpose", level, perm=[0, 2, 3, 1])
            joined.append(level)
        levels, grid_hws = [b.op("Concat", *joined, axis=3)], [finest]
    return levels, grid_hws


def _distances(b: Builder, stages: Sequence[str], spec: EncoderSpec, scale: Scale, geometry: Geometry) -> list[str]:
    """The encoder's feature maps -> patch distances (h, w) per level, on the common scale of the levels."""
    levels, grid_hws = _levels(b, stages, spec, geometry)
    return [
        _nearest(b, level, bank, grid_hw, divisor * scale.divisor)
        for level, bank, grid_hw, divisor in zip(levels, scale.banks, grid_hws, scale.level_scale, strict=True)
    ]


def _enlarged(b: Builder, x: str, shape: Sequence[int]) -> str:
    return b.op("Resize", x, "", "", b.ints(*shape), mode="linear", coordinate_transformation_mode="half_pixel")


def _nearest(b: Builder, level: str, bank: MemoryBank, grid_hw: tuple[int, int], scale: float) -> str:
    """`MemoryBank.nearest` as nodes: level (1, h, w, d) -> distances (h, w), divided by the level's scale."""
    q = b.op("Reshape", level, b.ints(-1, bank.vectors.shape[1]))
    if bank.metric == "cosine":
        length = b.op("Sqrt", b.op("ReduceSum", b.op("Mul", q, q), b.ints(1)))
        q = b.op("Div", q, b.op("Max", length, b.constant(1e-12)))
    mean = bank.vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    vectors: Float32Array = bank.vectors - mean
    q = b.op("Sub", q, b.constant(mean[None]))
    product = b.op("MatMul", q, b.constant(-2 * vectors.T))
    product = b.op("Add", product, b.constant(np.einsum("ij,ij->i", vectors, vectors)[None]))
    smallest = b.op("ReduceMin", product, b.ints(1))
    squared = b.op("Relu", b.op("Add", smallest, b.op("ReduceSum", b.op("Mul", q, q), b.ints(1))))
    distance = b.op("Sqrt", squared) if bank.metric == "l2" else b.op("Mul", squared, b.constant(0.5))
    return b.op("Div", b.op("Reshape", distance, b.ints(*grid_hw)), b.constant(scale))


def _verdict(
    b: Builder,
    score_maps: Sequence[Sequence[str]],
    model: Model,
    geometries: Sequence[Geometry],
    spec: EncoderSpec,
) -> None:
    """Patch distances per working scale and level -> the outputs, as `scoring.joint_score` and `joint_map` do."""
    scores, maps = [], []
    for scale, levels, geometry in zip(model.scales, score_maps, geometries, strict=True):
        scores += _scores(b, levels, model.scoring, geometry, spec)
        maps.append(_map(b, levels, model.scoring.sigma * scale.image_size / 256, geometry, spec))
        if geometry is not geometries[-1]:
            maps[-1] = _enlarged(b, maps[-1], (1, 1, *geometries[-1].content_hw))
    score = _largest(b, scores)
    threshold = b.constant([model.threshold])
    for kind, inputs, name in (
        ("Identity", [score], "score"),
        ("Identity", [threshold], "threshold"),
        ("Greater", [score, threshold], "is_anomalous"),
        ("Reshape", [b.op("Mean", *maps), b.ints(*geometries[-1].content_hw)], "anomaly_map"),
    ):
        b.op(kind, *inputs)
        b.nodes[-1].output[0] = name


def _largest(b: Builder, values: Sequence[str]) -> str:
    return b.op("Max", *values)


def _grid_of_level(spec: EncoderSpec, level: int, geometry: Geometry) -> tuple[int, int]:
    return _grid(geometry, min(spec.strides) if spec.fusion == "concat" else spec.strides[level])


def _scores(
    b: Builder, levels: Sequence[str], scoring: ScoringConfig, geometry: Geometry, spec: EncoderSpec
) -> list[str]:
    """`scoring.top_mean_score` of each level, (1,)."""
    scores = []
    for i, score_map in enumerate(levels):
        weights = patch_weights(geometry, _grid_of_level(spec, i, geometry), scoring.edge_weight)
        counted = b.op("Reshape", b.op("Mul", score_map, b.constant(weights)), b.ints(-1))
        b.op("TopK", counted, b.ints(top_count(weights, scoring)), outputs=2, axis=0)
        scores.append(b.op("ReduceMean", b.nodes[-1].output[0], b.ints(0), keepdims=1))
    return scores


def _map(b: Builder, levels: Sequence[str], sigma: float, geometry: Geometry, spec: EncoderSpec) -> str:
    """`scoring.anomaly_map`, (1, 1, h, w)."""
    grids = [_grid_of_level(spec, at, geometry) for at in range(len(levels))]
    if geometry.roi is None:
        heat = _smoothed(
            b, _largest(b, [_on_input(b, *one, geometry) for one in zip(levels, grids, strict=True)]), sigma, geometry
        )
        return b.op("Slice", heat, b.ints(0, 0), b.ints(*geometry.content_hw), b.ints(2, 3))
    within = []
    for level, grid in zip(levels, grids, strict=True):
        cares, share = smoothing_within(geometry, grid, sigma)
        counted = b.op("Mul", level, b.constant(cares))
        heat = _smoothed(b, _on_input(b, counted, grid, geometry), sigma, geometry)
        within.append(b.op("Div", heat, b.constant(share[None, None])))
    heat = b.op("Slice", _largest(b, within), b.ints(0, 0), b.ints(*geometry.content_hw), b.ints(2, 3))
    return b.op("Mul", heat, b.constant((geometry.roi.at(geometry.content_hw) > 0).astype(np.float32)[None, None]))


def _on_input(b: Builder, score_map: str, grid_hw: tuple[int, int], geometry: Geometry) -> str:
    """Patch distances at the size of the encoder's input, (1, 1, H, W)."""
    return _enlarged(b, b.op("Reshape", score_map, b.ints(1, 1, *grid_hw)), (1, 1, *geometry.input_hw))


def _smoothed(b: Builder, heat: str, sigma: float, geometry: Geometry) -> str:
    if sigma <= 0:
        return heat
    # OpenCV's choice of the kernel's size for float images.
    kernel = cv2.getGaussianKernel(int(np.rint(sigma * 8 + 1)) | 1, sigma).ravel()
    return _filtered(b, heat, kernel, geometry.input_hw)
