"""Weights cards: which encoders ship and where their weights come from; checks that the files are unaltered."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import reprlib
import stat
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fewshot_ad.documents.naming import nearest
from fewshot_ad.errors import WeightsError
from fewshot_ad.storage import write_atomically

# Field names of cards before version 0.2 -> their names today, so that encoders trained then can still be read.
FORMER_FIELDS = {"licence": "license", "initialisation": "initialization"}
# The same inside the text of the recipe.
FORMER_RECIPE = {
    "licences:": "licenses:",
    "init_licence:": "init_license:",
    "generated_photographs:": "generated_images:",
}
DEFAULT_ENCODER = "lite0_parts"
MAX_CARD_BYTES = 200_000
# The first field of an entry of ONNX's `external_data`, as it stands in the file.
_EXTERNAL_DATA = b"\x0a\x08location"


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
            if path.exists() and not path.is_file():
                raise ValueError("it is a folder or no regular file")
            with path.open("rb") as file:
                text = file.read(MAX_CARD_BYTES + 1)
            if len(text) > MAX_CARD_BYTES:
                raise ValueError(f"it is larger than {MAX_CARD_BYTES} bytes")
            fields: dict[str, Any] = json.loads(text)
            if not isinstance(fields, dict):
                raise ValueError("it holds no object")
            card = _checked_card({FORMER_FIELDS.get(name, name): value for name, value in fields.items()})
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise WeightsError(f"{path}: expected a weights card ({reason}). {_advice(path.parent)}") from error
        recipe = re.sub("^[a-z_]+:", lambda name: FORMER_RECIPE.get(name[0], name[0]), card.recipe, flags=re.MULTILINE)
        return dataclasses.replace(card, recipe=recipe)

    def write(self, path: Path) -> None:
        """Write the card as JSON."""
        write_atomically(path, (json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n").encode())


_CARD = TypeAdapter(WeightsCard)


def _checked_card(fields: dict[str, Any]) -> WeightsCard:
    """A card of which every field is of its type.

    Raises:
        ValueError: A field is missing, unknown, or not what it must be; the message names it.
    """
    unknown = sorted(fields.keys() - {field.name for field in dataclasses.fields(WeightsCard)})
    if unknown:
        raise ValueError(f"there is no field {reprlib.repr(unknown[0])}")
    try:
        card = _CARD.validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"field {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not (len(card.stages) == len(card.strides) == len(card.channels) > 0):
        raise ValueError(f"one stride and channel number per stage are expected: {card.stages}, {card.strides}")
    if not (card.default_stages and set(card.default_stages) <= set(card.stages)):
        raise ValueError(f"default_stages {card.default_stages} are not among the stages {card.stages}")
    for name in (card.file, card.tensors):
        # A card speaks of its own folder only.
        if name is not None and (name != Path(name).name or name != PureWindowsPath(name).name):
            raise ValueError(f"{name!r} is no plain file name")
    return card


def _advice(folder: Path) -> str:
    """What to do about a missing or altered file: only what was installed comes back by installing."""
    if folder.resolve() == weights_folder().resolve():
        return "Reinstall fewshot-ad."
    return "Check the path, and copy the card and the files beside it again from where the encoder was trained."


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
        WeightsError: The file is missing or altered, or its weights lie in another file.
    """
    path = (folder or weights_folder()) / card.file
    if _EXTERNAL_DATA in verified_content(card.name, path, card.sha256):
        raise WeightsError(
            f"{path}: expected an ONNX file that holds its own weights, got one that keeps them in another file, which "
            "the card's hash does not cover. Save it as one file (onnx.save with save_as_external_data=False), and its "
            "hash in the card."
        )
    return path


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
        raise WeightsError(
            f"expected a shipped encoder ({', '.join(shipped_encoders())}) or the card of a trained one, which have an "
            f"ONNX file, got {name}, which has none. Enroll with one of those."
        )
    return verified_file(card)


def check_weights_file(path: str | os.PathLike[str]) -> None:
    """Make sure that weights which the caller names lie in a file, before anything large is loaded for them.

    Raises:
        WeightsError: There is none, or it is no regular file, or a product.
    """
    expected = "expected the weights of a timm model (.safetensors, or a .pth state dict)"
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise WeightsError(f"{expected}, but {path} does not exist. Check the path.") from None
    except OSError as error:
        raise WeightsError(f"{expected}, but {path} cannot be read ({error.strerror}). Check the path.") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise WeightsError(f"{expected}, got {kind}: {path}. Name the file itself.")
    if Path(path).suffix.lower() == ".fsad":
        raise WeightsError(f"{expected}, got a product: {path}. Name the file that the model's weights came in.")


def verified_tensors(card: WeightsCard, folder: Path | None = None) -> Path:
    """The path of a card's safetensors file, after checking its hash. Arguments and errors as for `verified_file`."""
    if card.tensors is None or card.tensors_sha256 is None:
        raise WeightsError(f"{card.name} has no tensors of its own: its weights come from {card.source}.")
    path = (folder or weights_folder()) / card.tensors
    verified_content(card.name, path, card.tensors_sha256)
    return path


def initial_weights(name: str, backbone: str) -> Path:
    """The file that a training starts from.

    Args:
        name: A file of weights, or the name of a shipped encoder that has tensors of its own.
        backbone: timm model that it is for.

    Raises:
        WeightsError: There is no such file and no such encoder, it has another backbone, or a shipped file is missing
            or altered.
    """
    if os.path.exists(name):
        return Path(name)
    shipped = shipped_encoders()
    card = shipped.get(name)
    if card is None:
        likely = nearest(name, shipped)
        hint = f" Did you mean {likely!r}?" if likely else ""
        raise WeightsError(
            f"expected a file of weights or a shipped encoder ({', '.join(shipped)}), but {name} does not exist.{hint} "
            "Check the path."
        )
    if card.backbone != backbone:
        raise WeightsError(
            f"expected initial weights of {backbone}, got {name}, which is a {card.backbone}. Take that backbone "
            f"(command line: --set backbone={card.backbone}), or other weights."
        )
    if card.tensors is None:
        raise WeightsError(
            f"{name} has no tensors of its own. Its weights are had as init=bundled (--set init=bundled)."
        )
    return verified_tensors(card)


def verified_content(name: str, path: Path, sha256: str, advice: str | None = None) -> bytes:
    """The content of a file of weights, after checking its hash.

    Args:
        name: Of the network, for messages.
        path: The file.
        sha256: The hash that its card states.
        advice: How to get the right file; None for that of the shipped encoders and of one's own.

    Raises:
        WeightsError: The file is missing or altered.
    """
    advice = advice or _advice(path.parent)
    if not path.is_file():
        raise WeightsError(f"expected the weights of {name} at {path}, found nothing. {advice}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise WeightsError(
            f"{path}: expected sha256 {sha256[:12]}..., got {digest[:12]}...: the file is damaged or was altered. "
            f"{advice}"
        )
    return content
