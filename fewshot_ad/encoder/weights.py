"""Weights cards: which encoders ship, where their weights come from, and that they are unaltered."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from fewshot_ad.errors import WeightsError


@dataclass(frozen=True)
class WeightsCard:
    """What an encoder's weights are, in the manner of timm's pretrained configuration.

    Attributes:
        name: The name users give to `encoder=`.
        file: ONNX file beside the card: `photograph` (N, H, W, 3) uint8 RGB in, one `stage<i>` (N, h, w, C) float32
            out a stage, locally averaged 3x3. Colour scaling is inside the graph.
        sha256: Hash of that file.
        backbone: timm model name.
        stages: Indices into timm's feature_info that the file holds.
        strides: Their strides in pixels.
        channels: Their channels.
        default_stages: The stages that are used unless the user says otherwise.
        mean: Channel means of the colour scaling (of 0..1 values), inside the graph; for the record.
        std: Channel standard deviations, likewise.
        source: Where the weights come from.
        source_sha256: Hash of the source tensors (`Pyramid.sha256` over `stages`).
        licence: SPDX identifier.
        training_data: What they were trained on.
        recipe: How they were trained.
        date: ISO date of the export.
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
    licence: str
    training_data: str
    recipe: str
    date: str

    @classmethod
    def read(cls, path: Path) -> WeightsCard:
        """Read a card; unknown or missing fields are refused."""
        try:
            fields = json.loads(path.read_text())
            fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
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


def verified_file(card: WeightsCard) -> Path:
    """The path of a card's ONNX file, after checking its hash.

    Raises:
        WeightsError: The file is missing or altered.
    """
    path = weights_folder() / card.file
    if not path.is_file():
        raise WeightsError(f"expected the weights of {card.name} at {path}, found nothing. Reinstall fewshot-ad.")
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != card.sha256:
        raise WeightsError(
            f"{path}: expected sha256 {card.sha256[:12]}..., got {got[:12]}...: the file is damaged or was altered. "
            "Reinstall fewshot-ad."
        )
    return path
