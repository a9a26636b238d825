"""What differs between two products, and whether all that a file says of itself is true."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from fewshot_ad.artifact.allowed_encoder import load_allowed
from fewshot_ad.artifact.file import read_artifact
from fewshot_ad.artifact.history import undone
from fewshot_ad.artifact.packing import checked_spec, describe, unpack
from fewshot_ad.encoder import Encoder
from fewshot_ad.errors import ArtifactError, FewshotADError
from fewshot_ad.product import Product

# Of a product's description: what is compared field by field. Times and versions differ from enrollment to enrollment.
COMPARED = (
    *("product", "encoder", "image_sizes", "views", "registration", "roi", "lighting", "parts", "preprocessing"),
    "scoring",
    *("bank", "threshold", "threshold_set_by_hand", "max_false_reject", "max_ms", "seed"),
)
CALIBRATION = ("method", "n", "threshold", "status", "false_reject_rate", "false_reject_bound", "escape_rate")


class Difference(NamedTuple):
    """A field in which two products differ.

    Attributes:
        field: Its name, with a point before what lies inside another.
        first: What it is in the first; None where it is not there.
        second: The same of the second.
    """

    field: str
    first: Any
    second: Any


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """What differs between two products, from what `describe` says of them: settings, threshold, support, history.

    Support images are told by their content, and named; of the history, what the two have in common is left out.

    Args:
        first: The one.
        second: The other.
    """
    found: list[Difference] = []
    for field in COMPARED:
        found += _compared(field, first[field], second[field])
    for field in CALIBRATION:
        found += _compared(f"calibration.{field}", first["calibration"][field], second["calibration"][field])
    images = [{one["sha256"]: one["name"] for one in record["support"]} for record in (first, second)]
    for sha256 in sorted(images[0].keys() ^ images[1].keys()):
        found.append(Difference("support", images[0].get(sha256), images[1].get(sha256)))
    defects = [
        {(one["sha256"], str(one["region"])): one["name"] for one in record["known_defects"]}
        for record in (first, second)
    ]
    for key in sorted(defects[0].keys() ^ defects[1].keys()):
        found.append(Difference("known_defects", defects[0].get(key), defects[1].get(key)))
    changes = [[(one["kind"], one["time"], one["text"]) for one in record["history"]] for record in (first, second)]
    common = 0
    for one, other in zip(*changes, strict=False):
        if one != other:
            break
        common += 1
    for at, of in enumerate(changes):
        for kind, time, text in of[common:]:
            said = f"{time} {kind}: {text}"
            found.append(Difference("history", *((said, None) if at == 0 else (None, said))))
    return found


def _compared(field: str, first: Any, second: Any) -> list[Difference]:
    if first == second:
        return []
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return [
            difference
            for name in sorted(first.keys() | second.keys())
            for difference in _compared(f"{field}.{name}", first.get(name), second.get(name))
        ]
    return [Difference(field, first, second)]


class Verified(NamedTuple):
    """One thing that was looked at.

    Attributes:
        what: In words.
        problem: What is wrong; empty if nothing is.
    """

    what: str
    problem: str


def verify(
    path: str | os.PathLike[str], encoder: str | os.PathLike[str] | Encoder | None = None, **options: Any
) -> list[Verified]:
    """Whether all that a product's file says of itself is true, and whether it can be used here.

    Its hash, every field and every array; that its encoder is at hand in the same state; that the chain of its changes
    holds together, and that each step back leads to the product that it says.

    Args:
        path: The `.fsad` file.
        encoder: The encoder it was enrolled with, if that does not ship; see `Inspector.load`.
        options: Further arguments of `load_encoder`.

    Returns:
        What was looked at, the last with what is wrong if anything is.
    """
    done: list[Verified] = []

    def failed(what: str, error: FewshotADError) -> list[Verified]:
        return [*done, Verified(what, str(error))]

    try:
        tensors, record = read_artifact(path)
        describe(tensors, record)
    except FewshotADError as error:
        return failed("every byte has the hash that it had when it was written, and every field its form", error)
    done.append(
        Verified(f"every byte is as it was written (sha256 {record['sha256'][:12]}...), every field in range", "")
    )
    try:
        network = load_allowed(checked_spec(record, path), encoder, path, options.pop("weights", None), **options)
        product = unpack(tensors, record, network, path)
    except FewshotADError as error:
        return failed("its encoder is at hand", error)
    done.append(Verified(f"its encoder {network.spec.name} is at hand (sha256 {network.spec.sha256[:12]}...)", ""))
    try:
        steps = _steps_back(product, network)
    except ArtifactError as error:
        return failed("its steps back lead where they should", error)
    kept = f", {steps} of them lead back to the very product before" if record.get("history") else ""
    done.append(Verified(f"{len(record.get('history', ()))} change(s) on record form one chain{kept}", ""))
    return done


def _steps_back(product: Product, encoder: Encoder) -> int:
    """How many changes can be taken back, each tried.

    Raises:
        ArtifactError: One leads elsewhere.
    """
    steps = 0
    while product.history and product.history[-1].can_be_undone:
        product, _ = undone(encoder.spec, product, encoder)
        steps += 1
    return steps
