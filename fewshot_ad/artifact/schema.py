"""A product's description, checked before anything of it is used; `forms` says what its fields are."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fewshot_ad.artifact.forms import CalibrationForm, Description, PartLayoutForm, ViewForm
from fewshot_ad.enrollment.calibration import FURTHER_METHODS
from fewshot_ad.enrollment.views import VIEW_KINDS
from fewshot_ad.errors import ArtifactError
from fewshot_ad.images import MAX_PIXELS
from fewshot_ad.product.history import UNDO_BYTES

FORMAT_VERSION = 3
# Sides of a part's own image, as multiples of how far a part extends.
MAX_WINDOW = 4
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 80
_SHOWN.maxlevel = 3


def checked_description(
    fields: Mapping[str, Any], path: str | os.PathLike[str], advice: str = "Copy the file again, or enroll again."
) -> dict[str, Any]:
    """A description of which every field is of the expected type and range: the fields as they came, in their order.

    Args:
        fields: As read from a file, or about to be written.
        path: Of the file, for messages.
        advice: What to do about a field that is refused.

    Raises:
        ArtifactError: A field is missing, unknown, of another type, out of range, or contradicts another.
    """
    try:
        description = Description.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        got = "nothing" if first["type"] == "missing" else shown(first["input"])
        raise refused(path, _place(first["loc"]), _expected(first), got, advice) from None
    for field, expected, got in _contradictions(description):
        raise refused(path, field, expected, got, advice)
    return {"references": [], **fields}


def set_by_hand(record: Mapping[str, Any]) -> bool:
    """Whether the threshold of a product was set by hand: as it says, or since it is not the calibration's.

    Files of earlier versions say nothing.
    """
    return bool(record.get("threshold_set_by_hand")) or record["threshold"] != record["calibration"]["threshold"]


def refused(
    path: str | os.PathLike[str],
    field: str,
    expected: str,
    got: str,
    advice: str = "Copy the file again, or enroll again.",
) -> ArtifactError:
    """The error about one field or array of a file."""
    return ArtifactError(f"{path}: {field}: expected {expected}, got {got}. {advice}")


def shown(value: object) -> str:
    """A value of a file for a message, cut to a readable length."""
    return _SHOWN.repr(value)


def _expected(error: ErrorDetails) -> str:
    for bound, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
        limit = error.get("ctx", {}).get(bound)
        if limit is not None:
            return f"{words} {limit if isinstance(limit, int) else format(limit, 'g')}"
    if error["type"] == "missing":
        return "this field"
    if error["type"] == "extra_forbidden":
        return "no field of this name"
    return error["msg"].removeprefix("Input should be ")


def _place(location: tuple[int | str, ...]) -> str:
    place = ""
    for part in location:
        if isinstance(part, int):
            place += f"[{part}]"
        else:
            # Names of fields are known, names in the file may be anything.
            place += f"{'.' if place else ''}{part if part.isidentifier() and len(part) < 40 else shown(part)}"
    return place or "the description"


def _contradictions(description: Description) -> Iterator[tuple[str, str, str]]:
    """What fields say of each other: field, expected, got."""
    encoder, settings = description.encoder, description.enrollment.settings
    for name, values in (("strides", encoder.strides), ("channels", encoder.channels)):
        if len(values) != len(encoder.stages):
            yield f"encoder.{name}", f"one per stage ({len(encoder.stages)})", f"{len(values)}"
    sizes = settings.image_sizes
    if list(sizes) != sorted(set(sizes)):
        yield "enrollment.settings.image_sizes", "ascending numbers", f"{list(sizes)}"
    if len(description.divisors) != len(sizes):
        yield "divisors", f"one per working scale ({len(sizes)})", f"{len(description.divisors)}"
    levels = len(sizes) * (1 if encoder.fusion == "concat" else len(encoder.channels))
    if len(description.level_scale) != levels:
        yield "level_scale", f"one divisor per level and working scale ({levels})", f"{len(description.level_scale)}"
    if settings.precision != encoder.precision:
        yield "enrollment.settings.precision", f"the encoder's ({encoder.precision})", settings.precision
    yield from _contradictions_of_views(settings.views)
    yield from _contradictions_of_calibration(description.calibration, len(description.enrollment.support))
    yield from _contradictions_of_extras(description)
    if settings.parts is not None:
        yield from _contradictions_of_parts(settings.parts)


def _contradictions_of_parts(parts: PartLayoutForm) -> Iterator[tuple[str, str, str]]:
    place = "enrollment.settings.parts"
    if max(parts.size) > MAX_WINDOW * parts.reach:
        yield f"{place}.size", f"at most {MAX_WINDOW} times the reach ({MAX_WINDOW * parts.reach:g})", f"{parts.size}"
    # Nothing reaches less far than a disc, up to the pixels of its edge.
    if parts.area > 4 * parts.reach**2:
        yield f"{place}.area", f"at most 4 times the square of the reach ({4 * parts.reach**2:g})", f"{parts.area}"


def _contradictions_of_extras(description: Description) -> Iterator[tuple[str, str, str]]:
    kept = sum(change.undo_bytes for change in description.history)
    if kept > UNDO_BYTES:
        yield "history", f"at most {UNDO_BYTES} bytes of steps back", f"{kept}"
    if len(description.references) > len(description.enrollment.support):
        yield (
            "references",
            f"at most one per support image ({len(description.enrollment.support)})",
            (f"{len(description.references)}"),
        )
    for i, (height, width) in enumerate(description.references):
        if height * width > MAX_PIXELS:
            yield f"references[{i}]", f"at most {MAX_PIXELS} pixels", f"{height} x {width}"


def _contradictions_of_views(views: tuple[ViewForm, ...]) -> Iterator[tuple[str, str, str]]:
    for i, view in enumerate(views):
        place = f"enrollment.settings.views[{i}]"
        if view.kind not in VIEW_KINDS:
            yield f"{place}.kind", f"one of {', '.join(VIEW_KINDS)}", shown(view.kind)
            continue
        low, high = VIEW_KINDS[view.kind].valid
        if not low <= view.value <= high:
            yield f"{place}.value", f"a strength of {view.kind} in {low}..{high}", f"{view.value}"


def _contradictions_of_calibration(calibration: CalibrationForm, images: int) -> Iterator[tuple[str, str, str]]:
    on_further = calibration.method in FURTHER_METHODS
    limit = len(calibration.further_scores) if on_further else min(images, len(calibration.scores))
    if calibration.n > limit:
        yield "calibration.n", f"at most {limit} images, as there are scores of such images", f"{calibration.n}"
    for name, expected in (("further_scores", on_further), ("bad_scores", calibration.method == "labeled")):
        count = len(getattr(calibration, name))
        if expected != bool(count):
            counts = "one at least" if expected else "none"
            yield f"calibration.{name}", f"{counts} for the method {calibration.method}", f"{count}"
    if len(calibration.map_peaks) not in (0, len(calibration.scores)):
        yield "calibration.map_peaks", f"one per score ({len(calibration.scores)})", f"{len(calibration.map_peaks)}"
    scale = calibration.map_scale
    if not scale.threshold - scale.median_good >= 1e-12:
        yield "calibration.map_scale.threshold", f"more than median_good ({scale.median_good})", f"{scale.threshold}"
