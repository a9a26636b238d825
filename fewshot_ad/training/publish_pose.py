"""Writes a trained pose network as the files that `registration.pose_estimator` reads."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save

from fewshot_ad.encoder.export import save_program
from fewshot_ad.errors import TrainingError, WeightsError
from fewshot_ad.registration import POSE_SIDE, PoseEstimator, squared
from fewshot_ad.registration.estimator import NAME
from fewshot_ad.storage import temporary_folder, write_atomically, write_failure
from fewshot_ad.training.pose import PoseRecipe, PoseTraining
from fewshot_ad.training.publish import check_files, move_in

SUFFIXES = (".safetensors", ".onnx", ".json")
# Largest difference of any output between torch and OpenVINO; outputs are of size 1.
TOLERANCE = 1e-3
PARITY_PARTS = 12


def publish_pose(
    training: PoseTraining, recipe: PoseRecipe, folder: str | Path, *, license: str, source: str, replace: bool = False
) -> dict[str, Any]:
    """Write `pose.safetensors`, `pose.onnx` and the card `pose.json`.

    Args:
        training: The trained network, and what it was trained on.
        recipe: The recipe; stored in the card.
        folder: Folder to write into.
        license: SPDX identifier of the license of the network.
        source: A sentence on where the network comes from.
        replace: Whether an older network may be replaced.

    Returns:
        The card.

    Raises:
        WeightsError: The ONNX file does not agree with torch; nothing is written then.
        TrainingError: The folder cannot be written, or holds files of these names.
    """
    folder = Path(folder)
    check_pose_files(folder, replace=replace)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder) as staging:
            network = training.network.cpu().float().eval()
            tensors = save({k: v.contiguous() for k, v in network.state_dict().items()})
            write_atomically(staging / f"{NAME}.safetensors", tensors)
            onnx = staging / f"{NAME}.onnx"
            example = torch.zeros((1, POSE_SIDE, POSE_SIDE, 3), dtype=torch.uint8)
            names = {"input_names": ["photograph"], "output_names": ["pose"]}
            save_program(torch.onnx.export(network, (example,), dynamo=True, verbose=False, **names), onnx)
            hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in staging.iterdir()}
            card = {
                "name": NAME,
                "file": onnx.name,
                "sha256": hashes[onnx.name],
                "tensors": f"{NAME}.safetensors",
                "tensors_sha256": hashes[f"{NAME}.safetensors"],
                "license": license,
                "source": source,
                "training_data": "; ".join(
                    f"{d['name']} ({d['images']} images, {d['license']})" for d in training.data
                ),
                "recipe": yaml.safe_dump(_plain(recipe), sort_keys=False),
                "date": datetime.date.today().isoformat(),
                "parity": {"openvino": _difference(network, onnx, hashes[onnx.name])},
            }
            write_atomically(staging / f"{NAME}.json", (json.dumps(card, indent=2) + "\n").encode())
            move_in(staging, folder, f"{NAME}.json")
    except OSError as error:
        raise TrainingError(write_failure(folder, error)) from error
    return card


def check_pose_files(folder: Path, *, replace: bool = False) -> None:
    """Make sure that a pose network can be written without a loss; nothing is changed on disk.

    Raises:
        TrainingError: Something is there that must stay.
    """
    check_files(
        [folder / f"{NAME}{suffix}" for suffix in SUFFIXES],
        "expected no pose network there, got one. Choose another folder, or give --force (replace=True).",
        replace=replace,
    )


def _difference(network: torch.nn.Module, onnx: Path, sha256: str) -> float:
    """Largest difference between torch and OpenVINO on generated parts.

    Raises:
        WeightsError: It is above `TOLERANCE`.
    """
    from fewshot_ad.training.parts import CATEGORIES, render

    parts = [render(name, 0, 2 * POSE_SIDE, variant=777) for name in list(CATEGORIES)[:PARITY_PARTS]]
    found = PoseEstimator(onnx, sha256)(parts)
    with torch.inference_mode():
        expected = network(torch.from_numpy(np.stack([squared(part, POSE_SIDE) for part in parts]))).numpy()
    moments = np.stack([found.moments.real, found.moments.imag], axis=2).reshape(len(parts), -1)
    outputs = np.column_stack([found.center, np.log(found.spread), moments])
    difference = float(np.abs(outputs - expected).max())
    if not difference <= TOLERANCE:
        raise WeightsError(
            f"{onnx.name}: expected OpenVINO to agree with torch to {TOLERANCE:g}, got a difference of {difference:g}. "
            "Report this with the versions of torch and openvino."
        )
    return difference


def _plain(recipe: PoseRecipe) -> dict[str, Any]:
    """The recipe's fields, every path by its last component, so that the card tells nothing of the machine."""
    fields = dataclasses.asdict(recipe)
    fields["folders"] = [Path(folder).name for folder in recipe.folders]
    fields["licenses"] = list(recipe.licenses)
    return fields
