"""A product as arrays and a description, and back."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.artifact.arrays import array_forms, check_forms
from fewshot_ad.artifact.schema import FORMAT_VERSION, checked_description, refused, set_by_hand, shown
from fewshot_ad.encoder import Encoder, EncoderSpec, is_exported
from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.embedding import Reference
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.sensitivity import sensitivity
from fewshot_ad.enrollment.views import View
from fewshot_ad.errors import ArtifactError
from fewshot_ad.images import SMOOTHING, RegionOfInterest
from fewshot_ad.inspection.inspectability import Expectations
from fewshot_ad.product import Enrollment, Product
from fewshot_ad.product.history import Change, KnownDefect
from fewshot_ad.registration import Registration, pose_estimator
from fewshot_ad.scoring import Model, Scale
from fewshot_ad.search.compact_bank import CompactBank
from fewshot_ad.search.memory_bank import MemoryBank, Origin, stored_dtype

# Of a change, what stands in the description; the step back itself is an array.
CHANGE_FIELDS = ("kind", "time", "text", "before", "previous", "undo_sha256")


def pack(spec: EncoderSpec, product: Product) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """A product as arrays and a JSON-able description, for `write_artifact`.

    Raises:
        ArtifactError: A setting is out of the range that a file may have; the message names it.
    """
    model, product_name = product.model, f"product {product.enrollment.product_name!r}"
    tensors: dict[str, npt.NDArray[Any]] = {}
    for i, bank in enumerate(bank for scale in model.scales for bank in scale.banks):
        tensors[f"bank{i}.vectors"] = bank.vectors.astype(bank.stored_dtype)
        tensors[f"bank{i}.image"] = bank.origin.image
        tensors[f"bank{i}.view"] = bank.origin.view
        tensors[f"bank{i}.xy"] = bank.origin.xy
    for i, reference in enumerate(product.references):
        tensors[f"reference{i}"] = reference.png
    for i, defect in enumerate(product.known_defects):
        for at, patches in enumerate(defect.patches):
            tensors[f"defect{i}.{at}"] = patches.astype(stored_dtype(patches))
            if defect.region is not None:
                tensors[f"defect{i}.top{at}"] = defect.top[at].astype(stored_dtype(defect.top[at]))
    for i, change in enumerate(product.history):
        if change.undo is not None:
            tensors[f"undo{i}"] = change.undo
    record = {
        "encoder": dataclasses.asdict(spec),
        "preprocessing": _preprocessing(spec, model.image_sizes),
        "divisors": [scale.divisor for scale in model.scales],
        "level_scale": [divisor for scale in model.scales for divisor in scale.level_scale],
        "threshold": model.threshold,
        "threshold_set_by_hand": product.threshold_set_by_hand,
        "calibration": dataclasses.asdict(product.calibration),
        "enrollment": dataclasses.asdict(product.enrollment),
        "expectations": None if model.expectations is None else dataclasses.asdict(model.expectations),
        "references": [list(reference.image_hw) for reference in product.references],
        "known_defects": [
            {"name": defect.name, "sha256": defect.sha256, "region": defect.region, "factor": defect.factor}
            for defect in product.known_defects
        ],
        "history": [
            {
                **{name: getattr(change, name) for name in CHANGE_FIELDS},
                "link": change.link,
                "undo_bytes": 0 if change.undo is None else change.undo.nbytes,
            }
            for change in product.history
        ],
    }
    # What cannot be read again is not written.
    whole = {"format_version": FORMAT_VERSION, "sha256": "0" * 64, **record}
    advice = "The product cannot be saved with it."
    checked_description(whole, product_name, advice)
    check_forms(array_forms(tensors), whole, product_name)
    return tensors, record


def _preprocessing(spec: EncoderSpec, image_sizes: Sequence[int]) -> dict[str, Any]:
    """What `images.Geometry` does to an image; a product enrolled with anything else is refused."""
    return {
        "color": "rgb",
        "image_sizes": list(image_sizes),
        "multiple": spec.multiple,
        "shrink": "halving, then area",
        "enlarge": "bilinear",
        "smoothing": SMOOTHING,
        "padding": "mirror right and bottom",
    }


def checked_spec(record: Mapping[str, Any], path: str | os.PathLike[str]) -> EncoderSpec:
    """The encoder that a stored product needs, if its preprocessing is this version's; before any encoder is loaded.

    Args:
        record: The description of the artifact, checked.
        path: Of the file, for messages.

    Raises:
        ArtifactError: It was enrolled with another preprocessing.
    """
    spec = EncoderSpec.from_dict(record["encoder"])
    expected = _preprocessing(spec, record["enrollment"]["settings"]["image_sizes"])
    if record["preprocessing"] != expected:
        raise ArtifactError(
            f"{path}: it was enrolled with another preprocessing ({record['preprocessing']}) than this version's "
            f"({expected}), so its scores would mean something else. Install that version, or enroll again."
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
        tensors: The arrays of the artifact, as `read_artifact` returns them.
        record: Its description, likewise.
        encoder: The encoder to go on with.
        path: Of the file, for messages.

    Raises:
        ArtifactError: It is another encoder, or another preprocessing.
    """
    spec = checked_spec(record, path)
    check_encoder(spec, encoder.spec, path)
    enrollment = _enrollment(record["enrollment"])
    check_registration(enrollment.settings.registration, encoder.threads, path)
    metric, levels = enrollment.settings.scoring.metric, len(spec.dims)
    scales = _scales(record, levels, lambda level: MemoryBank(*_bank_arrays(tensors, level), metric, encoder.threads))
    return Product.assemble(
        encoder,
        scales,
        Calibration.from_dict(record["calibration"]),
        enrollment,
        unpacked_references(tensors, record),
        record["threshold"] if set_by_hand(record) else None,
        Expectations.from_dict(expected) if (expected := record.get("expectations")) else None,
        unpacked_history(tensors, record, path),
        tuple(
            _known_defect(tensors, i, fields, len(scales) * levels)
            for i, fields in enumerate(record.get("known_defects", ()))
        ),
    )


def unpack_compact(
    tensors: Mapping[str, npt.NDArray[Any]],
    record: Mapping[str, Any],
    encoder: Encoder,
    path: str | os.PathLike[str],
    *,
    exact: bool = False,
) -> tuple[Model, int]:
    """What a stored product decides with, in little memory, and how many bytes its banks take.

    Its scores are those of `unpack` to 2e-3 of them. Arguments and errors as there.

    Args:
        tensors: The arrays of the artifact.
        record: Its description.
        encoder: The encoder to go on with.
        path: Of the file, for messages.
        exact: Whether the vectors stay as they are stored, and the scores those of `unpack`.
    """
    spec = checked_spec(record, path)
    check_encoder(spec, encoder.spec, path)
    settings = EnrollmentSettings.from_dict(record["enrollment"]["settings"])
    check_registration(settings.registration, encoder.threads, path)
    calibration = Calibration.from_dict(record["calibration"])
    threshold = record["threshold"] if set_by_hand(record) else calibration.threshold
    banks: list[CompactBank] = []

    def bank(level: int) -> CompactBank:
        vectors = tensors[f"bank{level}.vectors"]
        banks.append(CompactBank(vectors, settings.scoring.metric, encoder.threads, exact=exact))
        return banks[-1]

    model = Model(
        scales=tuple(_scales(record, len(spec.dims), bank)),
        scoring=settings.scoring,
        threshold=threshold,
        map_scale=calibration.map_scale_at(threshold),
        expectations=Expectations.from_dict(expected) if (expected := record.get("expectations")) else None,
        registration=settings.registration,
        roi=settings.roi,
        lighting=settings.lighting,
        parts=settings.parts,
        review_threshold=calibration.review_below(threshold),
    )
    return model, sum(bank.nbytes for bank in banks)


def _scales(record: Mapping[str, Any], levels: int, bank: Callable[[int], MemoryBank]) -> list[Scale]:
    """The working scales of a description, with the bank of each level."""
    scales = []
    for at, image_size in enumerate(record["enrollment"]["settings"]["image_sizes"]):
        own = range(at * levels, (at + 1) * levels)
        level_scale = tuple(record["level_scale"][level] for level in own)
        scales.append(Scale(image_size, tuple(bank(level) for level in own), level_scale, record["divisors"][at]))
    return scales


def _known_defect(
    tensors: Mapping[str, npt.NDArray[Any]], number: int, fields: Mapping[str, Any], levels: int
) -> KnownDefect:
    def patches(part: str) -> tuple[npt.NDArray[Any], ...]:
        return tuple(tensors[f"defect{number}.{part}{at}"].astype(np.float32) for at in range(levels))

    region, shown = fields["region"], patches("")
    top = shown if region is None else patches("top")
    return KnownDefect(fields["name"], fields["sha256"], region and tuple(region), shown, top, fields["factor"])


def unpacked_history(
    tensors: Mapping[str, npt.NDArray[Any]], record: Mapping[str, Any], path: str | os.PathLike[str]
) -> tuple[Change, ...]:
    """What was done to a stored product, from its arrays and its description; needs no encoder.

    Raises:
        ArtifactError: A change does not follow on the one before, or a step back is not the one that was written.
    """
    history: list[Change] = []
    for i, fields in enumerate(record.get("history", ())):
        undo = tensors[f"undo{i}"] if fields["undo_bytes"] else None
        change = Change(**{name: fields[name] for name in CHANGE_FIELDS}, undo=undo)
        follows = change.link == fields["link"] and (not history or change.previous == history[-1].link)
        if not follows or (undo is not None and hashlib.sha256(undo.tobytes()).hexdigest() != change.undo_sha256):
            raise refused(path, f"history[{i}]", "a change that follows on the one before", "one that was altered")
        history.append(change)
    return tuple(history)


def unpacked_references(tensors: Mapping[str, npt.NDArray[Any]], record: Mapping[str, Any]) -> list[Reference]:
    """The stored support images of an artifact, from its arrays and its description; needs no encoder."""
    sizes = record["references"]
    return [Reference(tensors[f"reference{i}"], (height, width)) for i, (height, width) in enumerate(sizes)]


def _bank_arrays(tensors: Mapping[str, npt.NDArray[Any]], level: int) -> tuple[npt.NDArray[Any], Origin]:
    origin = Origin(*(tensors[f"bank{level}.{part}"] for part in ("image", "view", "xy")))
    return tensors[f"bank{level}.vectors"], origin


def _enrollment(fields: Mapping[str, Any]) -> Enrollment:
    typed: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    typed["settings"] = EnrollmentSettings.from_dict(fields["settings"])
    typed["support"] = tuple((name, sha256) for name, sha256 in fields["support"])
    return Enrollment(**typed)


def _layout(stored: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a product says of several parts on an image; the picture in it by its hash."""
    if stored is None:
        return None
    sha256 = hashlib.sha256(stored["template"].encode()).hexdigest()
    return {**{name: value for name, value in stored.items() if name != "template"}, "template_sha256": sha256}


def check_encoder(spec: EncoderSpec, here: EncoderSpec, path: str | os.PathLike[str]) -> None:
    """Whether an encoder is the one that an artifact was enrolled with.

    The hash decides. The name of an encoder with a card is no more than where it lay when the product was enrolled.

    Args:
        spec: The encoder that the product was enrolled with.
        here: The encoder at hand.
        path: Of the file, for messages.

    Raises:
        ArtifactError: It is another; the message names what differs.
    """
    differing = [
        f"{f.name} {shown(getattr(spec, f.name))} there, {shown(getattr(here, f.name))} here"
        for f in dataclasses.fields(spec)
        if getattr(spec, f.name) != getattr(here, f.name)
        and (f.name != "name" or _hash_covers_tensors_only(spec, here))
    ]
    if differing:
        raise ArtifactError(
            f"{path}: it was enrolled with another encoder ({'; '.join(differing)}), so its scores would mean "
            "something else. Use the same encoder and weights, or enroll again."
        )


def check_registration(registration: Registration | None, threads: int | None, path: str | os.PathLike[str]) -> None:
    """Whether the pose network that a product was registered with is the one that ships here.

    Raises:
        ArtifactError: It is another.
        WeightsError: The one here is missing or altered.
    """
    if registration is not None and registration.sha256 != (here := pose_estimator(threads).sha256):
        raise ArtifactError(
            f"{path}: it was registered with another pose network (sha256 {registration.sha256[:12]}... there, "
            f"{here[:12]}... here), so its images would be turned differently. Install the version that enrolled it, "
            "or enroll again."
        )


def _hash_covers_tensors_only(spec: EncoderSpec, here: EncoderSpec) -> bool:
    # The hash of a timm model says nothing of what is computed with its tensors: tf_efficientnet_lite0 takes those of
    # efficientnet_lite0 and pads otherwise. There, the name belongs to the model.
    return not is_exported(spec.name) and not is_exported(here.name)


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
    by_hand = set_by_hand(record)
    return {
        "product": enrollment["product_name"],
        "encoder": record["encoder"],
        "image_sizes": list(settings["image_sizes"]),
        "views": [str(View(**view)) for view in settings["views"]],
        "registration": settings.get("registration"),
        "roi": _region(settings.get("roi")),
        "lighting": settings.get("lighting"),
        "parts": _layout(settings.get("parts")),
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
            "explanation": calibration.explain(threshold if by_hand else None),
            "false_reject_bound": calibration.false_reject_bound,
            "distinct": calibration.distinct,
            "further_scores": list(calibration.further_scores),
            "bad_scores": list(calibration.bad_scores),
            "threshold_interval": calibration.threshold_interval and list(calibration.threshold_interval),
            "escape_rate": calibration.escape_rate,
            "escape_bound": calibration.escape_bound,
            "review_threshold": calibration.review_threshold,
            "review_rate": calibration.review_rate,
        },
        "sensitivity": _sensitivity(record, calibration, threshold),
        "max_false_reject": settings["max_false_reject"],
        "max_ms": settings["max_ms"],
        "seed": settings["seed"],
        "created": enrollment["created"],
        "versions": enrollment["versions"],
        "history": [
            {"kind": change.kind, "time": change.time, "text": change.text, "can_be_undone": change.can_be_undone}
            for change in unpacked_history(tensors, record, f"product {enrollment['product_name']!r}")
        ],
        "known_defects": [
            {"name": defect["name"], "sha256": defect["sha256"], "region": defect["region"] and list(defect["region"])}
            for defect in record.get("known_defects", ())
        ],
    }


def _region(stored: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The region of interest without its picture: its share of the image, and the box around it."""
    if stored is None:
        return None
    roi = RegionOfInterest.from_dict(stored)
    (height, width), (h, w) = roi.image_hw, roi.weights.shape
    x, y, across, down = cv2.boundingRect(roi.weights)
    left, top, right, bottom = x * width / w, y * height / h, (x + across) * width / w, (y + down) * height / h
    box = [round(left), round(top), round(right - left), round(bottom - top)]
    sha256 = hashlib.sha256(roi.png.encode()).hexdigest()
    return {"share": round(roi.share, 4), "box": box, "size": [width, height], "sha256": sha256}


def _sensitivity(record: Mapping[str, Any], calibration: Calibration, threshold: float) -> dict[str, Any] | None:
    found = sensitivity(calibration, threshold, record["enrollment"]["settings"]["min_defect"])
    if found is None:
        return None
    image_hw = tuple(record["references"][0]) if record["references"] else None
    texts = {"explanation": found.explain(image_hw), "warning": found.warning(image_hw)}
    return {**dataclasses.asdict(found), "is_blind": found.is_blind, **texts}
