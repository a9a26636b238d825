"""Writes a trained network as files that `load_encoder` reads: tensors, ONNX, parity report and card."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from fewshot_ad.arguments import flag
from fewshot_ad.arrays import Uint8Array
from fewshot_ad.encoder import DEFAULT_NORM_POWER, EncoderSpec
from fewshot_ad.encoder.engine import OnnxRuntimeEngine, OpenVINOEngine, TorchEngine
from fewshot_ad.encoder.export import export_onnx, halve_constants
from fewshot_ad.encoder.pyramid import Pyramid
from fewshot_ad.encoder.siamese import Outputs, SiameseEncoder
from fewshot_ad.encoder.state_dict import read_state_dict
from fewshot_ad.encoder.weights import WeightsCard
from fewshot_ad.errors import TrainingError
from fewshot_ad.images import read_image
from fewshot_ad.storage import check_output, temporary_folder, write_failure
from fewshot_ad.training.pairs import draw_defects
from fewshot_ad.training.parity import check_encoder_parity
from fewshot_ad.training.run import RECIPE

# Number of images that the parity check reads or generates.
PARITY_IMAGES = 12
# Of the files of an encoder.
SUFFIXES = (".safetensors", ".onnx", ".parity", ".json")


def publish(
    network: SiameseEncoder | Pyramid,
    folder: str | Path,
    name: str,
    *,
    recipe: Any,
    data: Sequence[dict[str, Any]],
    initialization: str,
    license: str,
    source: str,
    images: Sequence[str | Path] = (),
    replace: bool = False,
) -> WeightsCard:
    """Write `name.safetensors`, `name.onnx`, `name.parity` (JSON) and the card `name.json`.

    Args:
        network: A trained encoder, or a distilled backbone. One in half precision (`network.half()`) is stored so, in
            half the size; so are those values of the ONNX file that are the same after rounding.
        folder: Folder to write into; created if it does not exist.
        name: Name of the encoder.
        recipe: The recipe, a dataclass; stored in the card.
        data: Names, counts and licenses of the training data.
        initialization: What training started from, with its license.
        license: SPDX identifier of the license of the encoder.
        source: A sentence on where the encoder comes from.
        images: Files of real images for the parity check; without any, it uses generated parts.
        replace: Whether an older encoder of that name may be replaced.

    Returns:
        The card.

    Raises:
        WeightsError: The ONNX file does not agree with torch; nothing is written then.
        TrainingError: The folder cannot be written, or holds files of these names.
    """
    folder = Path(folder)
    flag(replace, "replace", TrainingError)
    check_encoder_files(folder, name, replace=replace)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder) as staging:
            card = _write_encoder(
                network,
                staging,
                name,
                recipe=recipe,
                data=data,
                initialization=initialization,
                license=license,
                source=source,
                images=images,
            )
            move_in(staging, folder, f"{name}.json")
    except OSError as error:
        raise TrainingError(write_failure(folder, error)) from error
    return card


def check_encoder_files(folder: Path, name: str, *, inputs: Iterable[str | Path] = (), replace: bool = False) -> None:
    """Make sure that an encoder can be written without a loss; nothing is changed on disk.

    Args:
        folder: Folder to write into.
        name: Name of the encoder.
        inputs: Files that are read, none of which may be replaced.
        replace: Whether an older encoder of that name may be replaced.

    Raises:
        TrainingError: Something is there that must stay.
    """
    check_files(
        [folder / f"{name}{suffix}" for suffix in SUFFIXES],
        "expected no encoder of that name, got one. Choose another --name, or give --force to replace it "
        "(replace=True in Python).",
        inputs=inputs,
        replace=replace,
    )


def check_files(
    paths: Sequence[Path], refusal: str, *, inputs: Iterable[str | Path] = (), replace: bool = False
) -> None:
    """Make sure that the files of a network can be written without a loss; nothing is changed on disk.

    Args:
        paths: The files, in one folder.
        refusal: What is said where they stand there already.
        inputs: Files that are read, none of which may be replaced.
        replace: Whether an older network may be replaced.

    Raises:
        TrainingError: Something is there that must stay.
    """

    def obstacle(path: Path) -> str | None:
        # Without a card, in the folder of a run, it is what a killed run has left.
        if replace or (path.suffix != ".json" and (path.parent / RECIPE).is_file()):
            return None
        return refusal

    inputs = list(inputs)
    for path in paths:
        check_output(path, inputs=inputs, obstacle=obstacle, error=TrainingError)


def move_in(staging: Path, folder: Path, card: str) -> None:
    """Move finished files into a folder; the card vouches for the others, so it leaves first and comes last."""
    (folder / card).unlink(missing_ok=True)
    for path in sorted(staging.iterdir(), key=lambda path: path.name == card):
        os.replace(path, folder / path.name)


def _write_encoder(
    network: SiameseEncoder | Pyramid,
    folder: Path,
    name: str,
    *,
    recipe: Any,
    data: Sequence[dict[str, Any]],
    initialization: str,
    license: str,
    source: str,
    images: Sequence[str | Path],
) -> WeightsCard:
    network = copy.deepcopy(network).cpu().eval()
    tensors = {k: v.clone().contiguous() for k, v in network.state_dict().items() if not k.startswith("P.")}
    halved = any(v.dtype is torch.float16 for v in tensors.values())
    network.float()
    # Half precision has rounded the color scaling, too, which is not stored: whoever loads the tensors has it exactly.
    (network if isinstance(network, Pyramid) else network.pyramid).set_colors()
    pyramid = network if isinstance(network, Pyramid) else network.pyramid
    stages, strides, channels = pyramid.stages, pyramid.strides, pyramid.channels
    embedding, default = None, tuple(s for s, stride in zip(stages, strides, strict=True) if stride in (8, 16))
    if isinstance(network, SiameseEncoder):
        embedding = stages[-1] + 1
        stages, strides, channels = (
            (*stages, embedding),
            (*strides, network.stride),
            (*channels, network.channels),
        )
        # As published, E reads the last stage only, which is too coarse to locate a defect, so the stages at strides 8
        # and 16 are used as well.
        default = (embedding,) if network.architecture.embed == "fused" else (*default, embedding)
    if isinstance(network, Pyramid):
        tensors = {k.removeprefix("backbone."): v for k, v in tensors.items()}
    weights = folder / f"{name}.safetensors"
    save_file(tensors, weights)
    onnx = folder / f"{name}.onnx"
    export_onnx(copy.deepcopy(network if isinstance(network, Pyramid) else Outputs(network, stages)), onnx)
    if halved:
        halve_constants(onnx)
    # What the parity is of: the network as anyone will load it from the file.
    reloaded = _reloaded(network, weights, stages)

    sha256 = hashlib.sha256(onnx.read_bytes()).hexdigest()
    deepest_stride = max(strides) if embedding is not None else 1
    spec = EncoderSpec(
        name, sha256, stages, strides, channels, "separate", "f32", DEFAULT_NORM_POWER, embedding, deepest_stride
    )
    good, defective = _parity_images(images)
    outputs = [f"stage{s}" for s in stages]
    report = check_encoder_parity(
        spec,
        TorchEngine(reloaded, "f32", None),  # type: ignore[arg-type]
        {
            "openvino": lambda: OpenVINOEngine(onnx, outputs, "f32", None),
            "onnxruntime": lambda: OnnxRuntimeEngine(onnx, outputs, "f32", None),
        },
        good,
        defective,
    )
    kind = "images" if images else "generated parts"
    parity = json.dumps({"on": kind, **report.to_dict()}, indent=2, allow_nan=False)
    (folder / f"{name}.parity").write_text(parity + "\n")
    card = WeightsCard(
        name=name,
        file=onnx.name,
        sha256=sha256,
        backbone=pyramid.backbone_name,
        stages=stages,
        strides=strides,
        channels=channels,
        default_stages=default,
        mean=pyramid.mean,
        std=pyramid.std,
        source=source,
        source_sha256=pyramid.sha256(),
        license=license,
        training_data="; ".join(f"{d['name']} ({d['images']} images, {d['license']})" for d in data),
        recipe=yaml.safe_dump(_without_folders(dataclasses.asdict(recipe)), sort_keys=False),
        date=datetime.date.today().isoformat(),
        tensors=weights.name,
        tensors_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        architecture=dataclasses.asdict(network.architecture) if isinstance(network, SiameseEncoder) else None,
        embedding=embedding,
        initialization=initialization,
        data=tuple(data),
    )
    card.write(folder / f"{name}.json")
    return card


def _reloaded(network: SiameseEncoder | Pyramid, weights: Path, stages: Sequence[int]) -> Pyramid | Outputs:
    state = read_state_dict(weights)
    if isinstance(network, Pyramid):
        pyramid = Pyramid(network.backbone_name, network.stages)
        pyramid.load_weights(state)
        return pyramid
    encoder = SiameseEncoder(network.architecture)
    encoder.load_state_dict(state, strict=False)  # the predictor is not in the file
    return Outputs(encoder, stages)


def _without_folders(fields: dict[str, Any]) -> dict[str, Any]:
    """A recipe with every path replaced by its last component, so that the card tells nothing of the machine."""

    def short(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return [short(v) for v in value]
        return Path(value).name if isinstance(value, str) and "/" in value else value

    return {k: short(v) for k, v in fields.items()}


def _parity_images(paths: Sequence[str | Path]) -> tuple[list[Uint8Array], list[Uint8Array]]:
    """Good images, and copies of their second half with drawn defects."""
    if paths:
        good = [read_image(path) for path in paths[:PARITY_IMAGES]]
    else:
        from fewshot_ad.training.parts import render

        good = [render("gear", n, 256) for n in range(PARITY_IMAGES)]
    rng = np.random.default_rng(0)
    return good, [draw_defects(image, rng)[0] for image in good[len(good) // 2 :]]
