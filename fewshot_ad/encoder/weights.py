"""Weights cards: which encoders ship and where their weights come from; checks that the files are unaltered."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot_ad.errors import WeightsError
from fewshot_ad.storage import write_atomically

# Field names of cards before version 0.2 -> their names today, so that encoders trained then can still be read.
FORMER_FIELDS = {"licence": "license", "initialisation": "initialization"}


@dataclass(frozen=True)
class WeightsCard:
    """Description of an encoder's weights, similar to timm's pretrained configuration.

    Attributes:
        name: The name to pass as `encoder=`.
        file: ONNX file beside the card: input `photograph` (N, H, W, 3) uint8 RGB, per stage one output `stage<i>`
            (N, h, w, C) float32, locally averaged 3x3. Color scaling is inside the graph. The embedding of a trained
            encoder counts as the stage after the last.
        sha256: Hash of that file.
        backbone: timm model name.
        stages: The stages that the file holds: indices into timm's feature_info.
        strides: Strides of the stages in pixels.
        channels: Numbers of channels of the stages.
        default_stages: The stages to use by default.
        mean: Channel means (of values in 0..1) of the color scaling inside the graph; for information only.
        std: Channel standard deviations, likewise.
        source: Where the weights come from.
        source_sha256: Hash of the source tensors (`Pyramid.sha256` over `stages`).
        license: SPDX identifier.
        training_data: The data that the weights were trained on.
        recipe: How the weights were trained.
        date: ISO date of the export.
        tensors: safetensors file beside the card, for the engine `torch` and for further training; None for a frozen
            backbone whose weights come from another package.
        tensors_sha256: Hash of that file.
        architecture: Fields of `siamese.Architecture`, for a trained encoder.
        embedding: Number of the stage that is the embedding.
        initialization: What training started from, with its license.
        data: Names, counts and licenses of the training data.
        measured: Results on the shared board (mean of its six products, K = 4, 256 pixels, flips): `image_auroc`,
            `pixel_auroc`, `au_pro`, 0..1; and `encoder_ms`, milliseconds of the encoder alone at 256 pixels on two
            cores.
    """

    name: str
    file: str
    sha256: str
    backbone: str
    stages: tuple[int, ...]
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    default_stages: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    source_sha256: str
    license: str
    training_data: str
    recipe: str
    date: str
    tensors: str | None = None
    tensors_sha256: str | None = None
    architecture: dict[str, Any] | None = None
    embedding: int | None = None
    initialization: str | None = None
    data: tuple[dict[str, Any], ...] = ()
    measured: dict[str, float] | None = None

    @classmethod
    def read(cls, path: Path) -> WeightsCard:
        """Read a card.

        Raises:
            WeightsError: The file cannot be read, or a field is unknown or missing.
        """
        try:
            fields = json.loads(path.read_text())
            fields = {FORMER_FIELDS.get(k, k): tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
            return cls(**fields)
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(f"{path}: expected a weights card ({error}). Reinstall fewshot-ad.") from error

    def write(self, path: Path) -> None:
        """Write the card as JSON."""
        write_atomically(path, (json.dumps(dataclasses.asdict(self), indent=2) + "\n").encode())


def weights_folder() -> Path:
    """The folder of the shipped weights: inside an installed package, beside the package in a source checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "shipped_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def shipped_encoders() -> dict[str, WeightsCard]:
    """The cards of all shipped encoders, by name."""
    cards = (WeightsCard.read(path) for path in sorted(weights_folder().glob("*.json")))
    return {card.name: card for card in cards}


def verified_file(card: WeightsCard, folder: Path | None = None) -> Path:
    """The path of a card's ONNX file, after checking its hash.

    Args:
        card: The card.
        folder: Folder of the card; None = the folder of shipped weights.

    Raises:
        WeightsError: The file is missing or altered.
    """
    return _verified(card, (folder or weights_folder()) / card.file, card.sha256)


def encoder_file(name: str) -> Path:
    """The path of an encoder's ONNX file, after checking its hash.

    Args:
        name: Name of a shipped encoder, or path of the card (`.json`) of another encoder.

    Raises:
        WeightsError: The encoder is a timm model, which has no ONNX file, or the file is missing or altered.
    """
    if name.endswith(".json"):
        return verified_file(WeightsCard.read(Path(name)), Path(name).parent)
    card = shipped_encoders().get(name)
    if card is None:
        raise WeightsError(f"{name} is a timm model and has no ONNX file. Enroll with a shipped or trained encoder.")
    return verified_file(card)


def verified_tensors(card: WeightsCard, folder: Path | None = None) -> Path:
    """The path of a card's safetensors file, after checking its hash. Arguments and errors as for `verified_file`."""
    if card.tensors is None or card.tensors_sha256 is None:
        raise WeightsError(f"{card.name} has no tensors of its own: its weights come from {card.source}.")
    return _verified(card, (folder or weights_folder()) / card.tensors, card.tensors_sha256)


def _verified(card: WeightsCard, path: Path, sha256: str) -> Path:
    if not path.is_file():
        raise WeightsError(f"expected the weights of {card.name} at {path}, found nothing. Reinstall fewshot-ad.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != sha256:
        raise WeightsError(
            f"{path}: expected sha256 {sha256[:12]}..., got {digest[:12]}...: the file is damaged or was altered. "
            "Reinstall fewshot-ad."
        )
    return path
