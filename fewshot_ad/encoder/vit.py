"""A vision transformer's middle blocks as an OpenVINO graph, built from its tensors: no torch, any input size.

Source: Dosovitskiy et al. 2021 (ViT); Touvron et al. 2021 (layer scale); Oquab et al. 2024 (DINOv2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewshot_ad.arrays import Float32Array
from fewshot_ad.encoder.engine import Levels, OpenVINOEngine, Precision
from fewshot_ad.host.runtimes import import_openvino

HEAD_DIMS = 64
EPSILON = 1e-6


class ViTEngine(OpenVINOEngine):
    """A vision transformer on OpenVINO.

    Args:
        state: float32 tensors under timm's names for `vit_*_dinov2`, at least up to the last of the blocks.
        blocks: Numbers of the blocks whose tokens are given, before any final norm.
        mean: Channel means of the color scaling, of values in 0..1.
        std: Channel standard deviations, likewise.
        precision: See `OpenVINOEngine`.
        threads: See `OpenVINOEngine`.
        levels: See `OpenVINOEngine`.
    """

    def __init__(
        self,
        state: Mapping[str, Float32Array],
        blocks: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        precision: Precision,
        threads: int | None,
        levels: Levels | None = None,
    ) -> None:
        self._state = state
        self._blocks = tuple(blocks)
        self._mean, self._std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        super().__init__(None, [f"stage{block}" for block in blocks], precision, threads, levels)

    def _read(self) -> Any:
        ops, state = self._ov.opset13, self._state
        photograph = ops.parameter([-1, -1, -1, 3], np.uint8, name="photograph")
        scaled = ops.multiply(ops.convert(photograph, np.float32), _row(1 / (255 * self._std)))
        x = ops.transpose(ops.add(scaled, _row(-self._mean / self._std)), _order(0, 3, 1, 2))
        kernel = state["patch_embed.proj.weight"]
        channels, side = kernel.shape[0], kernel.shape[2]
        patches = ops.convolution(x, kernel, [side, side], [0, 0], [0, 0], [1, 1])
        patches = ops.add(patches, state["patch_embed.proj.bias"][None, :, None, None])
        grid = _part(ops.shape_of(patches), 2, 4)
        tokens = _tokens(ops.add(patches, self._positions(grid)), channels)
        # The class token takes part in the attention; nothing reads it afterwards.
        first = state["cls_token"] + state["pos_embed"][:, :1]
        count = _part(ops.shape_of(patches), 0, 1)
        shape = ops.concat([count, ops.constant(np.array([1, channels]))], 0)
        tokens = ops.concat([ops.broadcast(first, shape), tokens], 1)
        outputs = []
        for block in range(max(self._blocks) + 1):
            tokens = self._block(tokens, f"blocks.{block}.", channels)
            if block in self._blocks:
                outputs.append(_map(tokens, grid, channels, f"stage{block}"))
        return self._ov.Model(outputs, [photograph])

    def _positions(self, grid: Any) -> Any:
        """The learned positions, resampled to the grid of the input, as timm does: bicubic, without aliasing."""
        positions = self._state["pos_embed"][0, 1:]
        side = round(len(positions) ** 0.5)
        maps = np.ascontiguousarray(positions.T.reshape(1, -1, side, side))
        return self._ov.opset13.interpolate(
            maps, grid, "bicubic_pillow", "sizes", cube_coeff=-0.5, axes=np.array([2, 3])
        )

    def _block(self, x: Any, name: str, channels: int) -> Any:
        ops, state = self._ov.opset13, self._state
        normed = self._norm(x, f"{name}norm1.")
        split = np.array([0, -1, channels // HEAD_DIMS, HEAD_DIMS])
        weights = np.split(state[f"{name}attn.qkv.weight"], 3)
        biases = np.split(state[f"{name}attn.qkv.bias"], 3)
        query, key, value = (
            ops.transpose(ops.reshape(_linear(normed, weight, bias), split, True), _order(0, 2, 1, 3))
            for weight, bias in zip(weights, biases, strict=True)
        )
        attended = ops.scaled_dot_product_attention(query, key, value)
        joined = ops.reshape(ops.transpose(attended, _order(0, 2, 1, 3)), np.array([0, -1, channels]), True)
        x = ops.add(x, self._scaled(joined, f"{name}attn.proj.", f"{name}ls1.gamma"))
        hidden = _linear(
            self._norm(x, f"{name}norm2."), *(state[f"{name}mlp.fc1.{part}"] for part in ("weight", "bias"))
        )
        return ops.add(x, self._scaled(ops.gelu(hidden, "erf"), f"{name}mlp.fc2.", f"{name}ls2.gamma"))

    def _norm(self, x: Any, name: str) -> Any:
        ops = self._ov.opset13
        normed = ops.mvn(x, np.array([-1]), True, EPSILON, "inside_sqrt")
        return ops.add(ops.multiply(normed, self._state[f"{name}weight"]), self._state[f"{name}bias"])

    def _scaled(self, x: Any, layer: str, scale: str) -> Any:
        """A linear layer and the layer scale after it, folded into one."""
        gamma = self._state[scale]
        return _linear(x, self._state[f"{layer}weight"] * gamma[:, None], self._state[f"{layer}bias"] * gamma)


def _linear(x: Any, weight: Float32Array, bias: Float32Array) -> Any:
    ops = import_openvino().opset13
    return ops.add(ops.matmul(x, np.ascontiguousarray(weight), False, True), np.ascontiguousarray(bias))


def _tokens(x: Any, channels: int) -> Any:
    """(N, C, h, w) -> (N, h w, C)."""
    ops = import_openvino().opset13
    return ops.transpose(ops.reshape(x, np.array([0, channels, -1]), True), _order(0, 2, 1))


def _map(tokens: Any, grid: Any, channels: int, name: str) -> Any:
    """(N, 1 + h w, C) -> (N, h, w, C), locally averaged as by `pyramid.local_average`."""
    ops = import_openvino().opset13
    patches = ops.transpose(_slice(tokens, 1, np.iinfo(np.int64).max, 1), _order(0, 2, 1))
    x = ops.reshape(patches, ops.concat([ops.constant(np.array([0, channels])), grid], 0), True)
    averaged = ops.avg_pool(x, [1, 1], [1, 1], [1, 1], [3, 3], True)
    output = ops.transpose(averaged, _order(0, 2, 3, 1))
    output.output(0).set_names({name})
    return ops.result(output, name=f"result_{name}")


def _slice(x: Any, start: int, stop: int, axis: int) -> Any:
    return import_openvino().opset13.slice(x, *(np.array([n]) for n in (start, stop, 1, axis)))


def _part(shape: Any, start: int, stop: int) -> Any:
    return _slice(shape, start, stop, 0)


def _row(values: Any) -> Float32Array:
    return np.asarray(values, np.float32).reshape(1, 1, 1, 3)


def _order(*axes: int) -> Any:
    return np.array(axes)
