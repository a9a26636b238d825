"""Descriptions of former formats, in today's form."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fewshot_ad.artifact.schema import FORMAT_VERSION, refused, shown
from fewshot_ad.enrollment.presets import MIN_DEFECT

_KEPT = ("support", "notes", "reasons", "created", "versions")
_SETTINGS = ("image_size", "budget", "seed")


def from_version_1(record: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    """The description of a file written before version 0.2, in the form of version 2; its values are yet to be checked.

    Args:
        record: The description.
        path: Of the file, for messages.

    Raises:
        ArtifactError: A part that was renamed is missing or no object.
    """
    former, scoring, encoder = (_object(record, name, path) for name in ("enrolment", "scoring", "encoder"))
    if "neighbours" in scoring:
        scoring["neighbors"] = scoring.pop("neighbours")
    settings = {
        **{name: former[name] for name in _SETTINGS if name in former},
        "views": [_view(view) for view in former["views"]] if isinstance(former.get("views"), list) else None,
        "precision": encoder.get("precision"),
        "scoring": scoring,
        # It was not on record which of them were chosen.
        "auto": [],
    }
    kept = {name: former[name] for name in _KEPT if name in former}
    rest = {name: value for name, value in record.items() if name not in ("enrolment", "scoring")}
    return {
        **rest,
        "format_version": 2,
        "enrollment": {"product_name": former.get("product"), "settings": settings, **kept},
    }


def from_version_2(record: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    """The description of a file with a single working scale in today's form; its values are yet to be checked.

    Args:
        record: The description.
        path: Of the file, for messages.

    Raises:
        ArtifactError: A part that has changed is missing or no object.
    """
    enrollment, preprocessing = (_object(record, name, path) for name in ("enrollment", "preprocessing"))
    settings = _object(enrollment, "settings", path, "enrollment.")
    for fields in (settings, preprocessing):
        if "image_size" in fields:
            fields["image_sizes"] = [fields.pop("image_size")]
    settings = {"min_defect": MIN_DEFECT, "max_ms": None, "max_false_reject": None, **settings}
    enrollment["settings"] = settings
    return {
        **record,
        "format_version": FORMAT_VERSION,
        "divisors": [1.0],
        "enrollment": enrollment,
        "preprocessing": preprocessing,
    }


def _object(record: Mapping[str, Any], name: str, path: str | os.PathLike[str], within: str = "") -> dict[str, Any]:
    if not isinstance(record.get(name), dict):
        raise refused(path, within + name, "an object", shown(record[name]) if name in record else "nothing")
    return dict(record[name])


def _view(view: Any) -> Any:
    return {**view, "kind": "gray"} if isinstance(view, dict) and view.get("kind") == "grey" else view
