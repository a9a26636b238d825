"""Weights cards: which encoders ship, where their weights come from, and that they are unaltered."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot_ad.errors import WeightsError

# What fields of a card were called before version 0.2; encoders trained then can still be read.
FORMER_FIELDS = {"licence": "license", "initialisation": "initialization"}


@dataclass(frozen=True)
class WeightsCard:
    """What an encoder's weights are, in the manner of timm's pretrained configuration.

    Attributes:
        name: The name users give to `encoder=`.
        file: ONNX file beside the card: `photograph` (N, H, W, 3) uint8 RGB in, one `stage<i>` (N, h, w, C) float32
            out a stage, locally averaged 3x3. Color scaling is inside the graph. The embedding of a trained encoder
            counts as the stage after the last.
        sha256: Hash of that file.
        backbone: timm model name.
        stages: Indices into timm's feature_info that the file holds.
        strides: Their strides in pixels.
        channels: Their channels.
        default_stages: The stages that are used unless the user says otherwise.
        mean: Channel means of the color scaling (of 0..1 values), inside the graph; for the record.
        std: Channel standard deviations, likewise.
        source: Where the weights come from.
        source_sha256: Hash of the source tensors (`Pyramid.sha256` over `stages`).
        license: SPDX identifier.
        training_data: What they were trained on.
        recipe: How they were trained.
        date: ISO date of the export.
        tensors: safetensors file beside the card, for the engine `torch` and for further training; None for a frozen
            backbone whose weights come from a package.
        tensors_sha256: Hash of that file.
        architecture: Fields of `siamese.Architecture`, for a trained encoder.
        embedding: Number of the stage that is the embedding.
        initialization: What training started from, with its license.
        data: Names, counts and licenses of the training data.
        measured: Figures on the shared board (mean of its six products, K = 4, 256 pixels, flips): `image_auroc`,
            `pixel_auroc`, `au_pro`, 0..1; and `encoder_ms`, the encoder alone at 256 pixels on two cores.
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
        """Read a card; unknown or missing fields are refused."""
        try:
            fields = json.loads(path.read_text())
            fields = {FORMER_FIELDS.get(k, k): tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
            return cls(**fields)
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(f"{path}: expected a weights card ({error}). Reinstall fewshot-ad.") from error

    def write(self, path: Path) -> None:
        """Write the card as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def weights_folder() -> Path:
    """The folder of shipped weights: inside an installed package, or beside it in a source checkout."""
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
        folder: Where the card lies; None is the folder of shipped weights.

    Raises:
        WeightsError: The file is missing or altered.
    """
    return _verified(card, (folder or weights_folder()) / card.file, card.sha256)


def encoder_file(name: str) -> Path:
    """The verified ONNX file of a shipped encoder, or of the card (`.json`) of one's own.

    Raises:
        WeightsError: It is a timm model, which has none, or the file is missing or altered.
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
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != sha256:
        raise WeightsError(
            f"{path}: expected sha256 {sha256[:12]}..., got {got[:12]}...: the file is damaged or was altered. "
            "Reinstall fewshot-ad."
        )
    return path
