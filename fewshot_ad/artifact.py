"""The .fsad file: one product, one safetensors file, hashed, written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from fewshot_ad.encoder import Encoder, EncoderSpec
from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.embedding import Reference
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.support import View
from fewshot_ad.errors import ArtifactError, NotEnrolledError
from fewshot_ad.images import SMOOTHING
from fewshot_ad.product import Enrollment, Product
from fewshot_ad.search.memory_bank import MemoryBank, Origin
from fewshot_ad.storage import check_output, write_atomically, write_failure

SUFFIX = ".fsad"
FORMAT_VERSION = 2
_KEY = "fewshot_ad"
_NO_HASH = "0" * 64


def write_artifact(path: str | os.PathLike[str], tensors: dict[str, npt.NDArray[Any]], record: dict[str, Any]) -> str:
    """Write a product, whole or not at all; see `storage.write_atomically`.

    Args:
        path: The `.fsad` file; an older one is replaced only once the new one is whole on disk.
        tensors: Arrays by name.
        record: JSON-able description.

    Returns:
        The SHA-256 hash that the file bears, in hexadecimal.

    Raises:
        ArtifactError: The file cannot be written; what was there before is untouched.
    """
    # One metadata entry only: safetensors writes several in no fixed order.
    text = json.dumps({"format_version": FORMAT_VERSION, "sha256": _NO_HASH, **record}, sort_keys=True)
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    data = safetensors.numpy.save(contiguous, {_KEY: text})
    # The hash covers every byte of the file, itself taken as zeros.
    digest = hashlib.sha256(data).hexdigest()
    data = data.replace(_NO_HASH.encode(), digest.encode(), 1)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ArtifactError(
            f"{write_failure(path, error, len(data))} Nothing that was there before is changed."
        ) from error
    return digest


def check_product_file(path: str | os.PathLike[str], *, replace: bool = True) -> None:
    """Make sure that a product can be written to a file without a loss; nothing is changed on disk.

    Args:
        path: The file.
        replace: Whether an older product there may be replaced; what is no product never is.

    Raises:
        ArtifactError: Its name does not end in `.fsad`, or something is there that must stay.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise ArtifactError(
            f"expected the name of a product's file, which ends in {SUFFIX}, got {path}. Name it "
            f"{path.with_suffix(SUFFIX) if path.name else 'product' + SUFFIX}."
        )

    def obstacle(path: Path) -> str | None:
        if stored_hash(path) is None:
            return "expected an older product to replace, or no file, got something else. Choose another name."
        return None if replace else f"{_standing(path)} is there. Choose another name, or give --force to replace it."

    check_output(path, obstacle=obstacle, error=ArtifactError)


def stored_hash(path: str | os.PathLike[str]) -> str | None:
    """The hash that a product's file bears, of which the head alone is read; None if it is no product."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            head = file.read(length) if length < os.fstat(file.fileno()).st_size else b""
        digest = json.loads(json.loads(head)["__metadata__"][_KEY])["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return digest if isinstance(digest, str) else None


def _standing(path: Path) -> str:
    """What a product is that stands in the way: its name, when it was enrolled, and what came to it since."""
    try:
        enrollment = read_artifact(path)[1]["enrollment"]
        name, created = enrollment["product_name"], enrollment["created"]
        grown = _added_images([name for name, _ in enrollment["support"]], enrollment["reasons"])
        since = f" and grown by {grown} image(s) since" if grown else ""
        return f"the product {name!r}, enrolled {created} from {len(enrollment['support']) - grown} image(s){since},"
    except (ArtifactError, KeyError, TypeError, ValueError):
        return "a product that cannot be read (damaged, or of another version)"


def _added_images(names: list[str], reasons: list[str]) -> int:
    """How many of the support images `add` has brought, the last of them; each call has left a reason."""
    first = len(names)
    for reason in reversed(reasons):
        _, marker, listed = reason.partition(": added ")
        if marker:
            # A name may hold a comma, so the names are compared, not counted.
            first = next((n for n in range(first) if f"{', '.join(names[n:first])}." == listed), first)
    return len(names) - first


def read_artifact(path: str | os.PathLike[str]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read a product and check that no byte of it has changed.

    Returns:
        The arrays by name, and the description.

    Raises:
        NotEnrolledError: There is no such file.
        ArtifactError: It is no artifact, truncated, altered, or of a newer format.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotEnrolledError(
            f"expected an enrolled product at {path}, but there is no such file. Enroll it first: "
            f"fewshot-ad enroll GOOD_IMAGES -o {path.name}"
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}). Check the path and permissions.") from error
    record = _record(data, path)
    digest = str(record["sha256"])
    if hashlib.sha256(data.replace(digest.encode(), _NO_HASH.encode(), 1)).hexdigest() != digest:
        raise ArtifactError(
            f"{path}: the content does not match its own hash: the file was damaged or altered after it was written. "
            "Copy it again or enroll again."
        )
    version = record.get("format_version")
    if version == 1:
        with _fields_of(path):
            record = _from_version_1(record)
    elif version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: expected format version {FORMAT_VERSION}, got {version}. "
            "Update fewshot-ad (pip install -U fewshot-ad), or enroll again."
        )
    return dict(safetensors.numpy.load(data)), record


def _from_version_1(record: dict[str, Any]) -> dict[str, Any]:
    """The description of a file written before version 0.2, in today's form."""
    former, scoring = record["enrolment"], dict(record["scoring"])
    if "neighbours" in scoring:
        scoring["neighbors"] = scoring.pop("neighbours")
    settings = {
        "views": [{**view, "kind": "gray"} if view["kind"] == "grey" else view for view in former["views"]],
        "image_size": former["image_size"],
        "budget": former["budget"],
        "precision": record["encoder"]["precision"],
        "scoring": scoring,
        "seed": former["seed"],
        # It was not on record which of them were chosen.
        "auto": [],
    }
    kept = {name: former[name] for name in ("support", "notes", "reasons", "created", "versions")}
    rest = {name: value for name, value in record.items() if name not in ("enrolment", "scoring")}
    return {
        **rest,
        "format_version": FORMAT_VERSION,
        "enrollment": {"product_name": former["product"], "settings": settings, **kept},
    }


def _record(data: bytes, path: Path) -> dict[str, Any]:
    try:
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > len(data) - 8:
            raise ValueError(f"{len(data)} bytes are too few")
        header = json.loads(data[8 : 8 + length])
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        if len(data) != 8 + length + end:
            raise ValueError(f"expected {8 + length + end} bytes, got {len(data)}")
        safetensors.numpy.load(data)
        if _KEY not in header.get("__metadata__", {}):
            raise ValueError("a safetensors file, but not written by fewshot-ad")
        record: dict[str, Any] = json.loads(header["__metadata__"][_KEY])
        if len(record["sha256"]) != len(_NO_HASH):
            raise ValueError("its hash is not one")
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: expected a whole .fsad file, got something else or a part of one ({error}). "
            "Copy it again or enroll again."
        ) from error
    return record


def pack(spec: EncoderSpec, product: Product) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """A product as arrays and a JSON-able description, for `write_artifact`."""
    model = product.model
    tensors: dict[str, npt.NDArray[Any]] = {}
    for i, bank in enumerate(model.banks):
        tensors[f"bank{i}.vectors"] = bank.vectors.astype(bank.stored_dtype)
        tensors[f"bank{i}.image"] = bank.origin.image
        tensors[f"bank{i}.view"] = bank.origin.view
        tensors[f"bank{i}.xy"] = bank.origin.xy
    for i, reference in enumerate(product.references):
        tensors[f"reference{i}"] = reference.png
    return tensors, {
        "encoder": dataclasses.asdict(spec),
        "preprocessing": _preprocessing(spec, model.image_size),
        "level_scale": list(model.level_scale),
        "threshold": model.threshold,
        "calibration": dataclasses.asdict(product.calibration),
        "enrollment": dataclasses.asdict(product.enrollment),
        "references": [list(reference.image_hw) for reference in product.references],
    }


def _preprocessing(spec: EncoderSpec, image_size: int) -> dict[str, Any]:
    """What `images.Geometry` does to an image; a product enrolled with anything else is refused."""
    return {
        "color": "rgb",
        "image_size": image_size,
        "multiple": spec.multiple,
        "shrink": "halving, then area",
        "enlarge": "bilinear",
        "smoothing": SMOOTHING,
        "padding": "mirror right and bottom",
    }


def checked_spec(
    tensors: Mapping[str, npt.NDArray[Any]], record: Mapping[str, Any], path: str | os.PathLike[str]
) -> EncoderSpec:
    """The encoder that a stored product needs, if its preprocessing and its arrays fit; before any encoder is loaded.

    Args:
        tensors: The arrays of the artifact.
        record: Its description.
        path: Of the file, for messages.

    Raises:
        ArtifactError: A field or an array is absent or not of the expected form.
    """
    with _fields_of(path):
        spec = EncoderSpec.from_dict(record["encoder"])
        expected = _preprocessing(spec, record["enrollment"]["settings"]["image_size"])
        banks = [_bank_arrays(tensors, level) for level in range(len(spec.dims))]
    if record.get("preprocessing") != expected:
        raise ArtifactError(
            f"{path}: it was enrolled with another preprocessing ({record.get('preprocessing')}) than this version's "
            f"({expected}), so its scores would mean something else. Install that version, or enroll again."
        )
    for dims, (vectors, origin) in zip(spec.dims, banks, strict=True):
        n = len(vectors)
        shapes = [vectors.shape, origin.image.shape, origin.view.shape, origin.xy.shape]
        if shapes != [(n, dims), (n,), (n,), (n, 2)]:
            raise ArtifactError(
                f"{path}: expected {n} bank vectors of {dims} dimensions for {spec.name}, with their origins, got "
                f"arrays of {shapes}. Enroll again."
            )
    return spec


def unpack(
    tensors: Mapping[str, npt.NDArray[Any]],
    record: Mapping[str, Any],
    encoder: Encoder,
    path: str | os.PathLike[str],
) -> Product:
    """The inverse of `pack`.

    Args:
        tensors: The arrays of the artifact.
        record: Its description.
        encoder: The encoder to go on with.
        path: Of the file, for messages.

    Raises:
        ArtifactError: A field or an array is absent or not of the expected form, or it is another encoder.
    """
    spec = checked_spec(tensors, record, path)
    _check_encoder(spec, encoder.spec, path)
    with _fields_of(path):
        enrollment = _enrollment(record["enrollment"])
        metric = enrollment.settings.scoring.metric
        arrays = (_bank_arrays(tensors, level) for level in range(len(spec.dims)))
        return Product.assemble(
            encoder,
            [MemoryBank(vectors, origin, metric, encoder.threads) for vectors, origin in arrays],
            tuple(float(value) for value in record["level_scale"]),
            Calibration.from_dict(record["calibration"]),
            enrollment,
            [
                Reference(tensors[f"reference{i}"], (int(height), int(width)))
                for i, (height, width) in enumerate(record.get("references", ()))
            ],
            float(record["threshold"]),
        )


def _bank_arrays(tensors: Mapping[str, npt.NDArray[Any]], level: int) -> tuple[npt.NDArray[Any], Origin]:
    origin = Origin(*(tensors[f"bank{level}.{part}"] for part in ("image", "view", "xy")))
    return tensors[f"bank{level}.vectors"], origin


@contextlib.contextmanager
def _fields_of(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: the description lacks or has an unexpected field ({error}). Enroll again or update."
        ) from error


def _enrollment(fields: Mapping[str, Any]) -> Enrollment:
    typed: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    typed["settings"] = EnrollmentSettings.from_dict(fields["settings"])
    typed["support"] = tuple((name, sha256) for name, sha256 in fields["support"])
    return Enrollment(**typed)


def _check_encoder(spec: EncoderSpec, here: EncoderSpec, path: str | os.PathLike[str]) -> None:
    """Whether the encoder at hand is the one an artifact was enrolled with.

    Raises:
        ArtifactError: It is another; the message names what differs.
    """
    differing = [
        f"{f.name} {getattr(spec, f.name)!r} there, {getattr(here, f.name)!r} here"
        for f in dataclasses.fields(spec)
        if getattr(spec, f.name) != getattr(here, f.name)
    ]
    if differing:
        raise ArtifactError(
            f"{path}: it was enrolled with another encoder ({'; '.join(differing)}), so its scores would mean "
            "something else. Use the same encoder and weights, or enroll again."
        )


def describe(tensors: Mapping[str, npt.NDArray[Any]], record: Mapping[str, Any]) -> dict[str, Any]:
    """What an artifact says of its product, as plain JSON types; needs no encoder.

    Args:
        tensors: The arrays of the artifact.
        record: Its description.
    """
    enrollment, calibration = record["enrollment"], Calibration.from_dict(record["calibration"])
    settings = enrollment["settings"]
    vectors = [tensors[name] for name in sorted(tensors) if name.endswith(".vectors")]
    threshold = float(record["threshold"])
    by_hand = threshold != calibration.threshold
    return {
        "product": enrollment["product_name"],
        "encoder": record["encoder"],
        "image_size": settings["image_size"],
        "views": [str(View(**view)) for view in settings["views"]],
        "reasons": list(enrollment["reasons"]),
        "preprocessing": record["preprocessing"],
        "scoring": settings["scoring"],
        "bank": {
            "vectors": [len(v) for v in vectors],
            "dimensions": [v.shape[1] for v in vectors],
            "megabytes": round(sum(v.nbytes for v in vectors) / 1e6, 3),
        },
        "support": [{"name": name, "sha256": sha256} for name, sha256 in enrollment["support"]],
        "notes": list(enrollment["notes"]),
        "threshold": threshold,
        "threshold_set_by_hand": by_hand,
        "calibration": {
            "method": calibration.method,
            "n": calibration.n,
            "threshold": calibration.threshold,
            "status": calibration.status,
            "false_reject_rate": calibration.false_reject_rate,
            "held_out_scores": list(calibration.scores),
            "explanation": calibration.explain(),
        },
        "seed": settings["seed"],
        "created": enrollment["created"],
        "versions": enrollment["versions"],
    }
