"""Changes of a product, each with what leads back to the very bytes before it.

A step back holds the former description, and of the arrays only what the later product lacks: most vectors of a bank
that has grown are still in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from fewshot_ad.arrays import Int32Array, Uint8Array
from fewshot_ad.artifact.arrays import ArrayForm, array_forms, check_forms, check_values
from fewshot_ad.artifact.packing import pack, unpack
from fewshot_ad.artifact.schema import FORMAT_VERSION, checked_description
from fewshot_ad.encoder import Encoder, EncoderSpec
from fewshot_ad.errors import ArtifactError
from fewshot_ad.product import Product
from fewshot_ad.product.history import MAX_CHANGES, NO_LINK, UNDO_BYTES, Change, ChangeKind
from fewshot_ad.product.product import now

_BANK_PARTS = ("vectors", "image", "view", "xy")
# A description is a few kilobytes; no more than this is unpacked.
_MAX_TEXT = 1 << 22


def recorded(spec: EncoderSpec, before: Product, after: Product, kind: ChangeKind, text: str) -> Product:
    """The product after a change, with the change on record.

    Thresholds that are set one after the other are one change.

    Args:
        spec: Of the product's encoder.
        before: The product as it was, with its history.
        after: The product as it is; its own history counts for nothing.
        kind: What was done.
        text: The same in words.
    """
    history = before.history
    if kind == "threshold" and history and history[-1].kind == "threshold" and history[-1].can_be_undone:
        # The arrays are the same, and a step back brings the whole description along.
        change = dataclasses.replace(history[-1], time=now(), text=text)
        return dataclasses.replace(after, history=(*history[:-1], change))
    former, later = (pack(spec, dataclasses.replace(product, history=())) for product in (before, after))
    undo = _step_back(former, later[0])
    if undo.nbytes > UNDO_BYTES:
        text += f" (cannot be undone: that would take {undo.nbytes >> 20} MiB of the file)"
    change = Change(
        kind=kind,
        time=now(),
        text=text,
        before=state_hash(*former),
        previous=history[-1].link if history else NO_LINK,
        undo=undo,
        undo_sha256=hashlib.sha256(undo.tobytes()).hexdigest(),
    )
    return dataclasses.replace(after, history=_bounded((*history, change)))


def undone(spec: EncoderSpec, product: Product, encoder: Encoder) -> tuple[Product, Change]:
    """The product before its last change, and that change.

    Raises:
        ArtifactError: Nothing has been changed, what leads back was dropped, or it does not lead there.
    """
    if not product.history:
        raise ArtifactError(
            f"expected a product that was changed since it was enrolled, got {product.enrollment.product_name!r} as "
            "enrolled: there is nothing to undo."
        )
    *earlier, last = product.history
    if last.undo is None:
        raise ArtifactError(
            f"expected a change that can be undone, got one whose step back was dropped ({last.text}): a file keeps "
            f"{UNDO_BYTES >> 20} MiB of them. Enroll again."
        )
    tensors, record = _applied(last.undo, pack(spec, dataclasses.replace(product, history=()))[0])
    if state_hash(tensors, record) != last.before:
        raise ArtifactError(
            f"expected the step back of {last.text!r} to lead to the product before it, got another one. The history "
            "was altered, or the product was changed by an earlier version. Enroll again."
        )
    former = unpack(tensors, record, encoder, f"product {product.enrollment.product_name!r}")
    return dataclasses.replace(former, history=tuple(earlier)), last


def state_hash(tensors: Mapping[str, npt.NDArray[Any]], record: Mapping[str, Any]) -> str:
    """SHA-256 hash of a packed product without its history, over the fields that the version has which packed it."""
    digest = hashlib.sha256(_text({key: value for key, value in record.items() if key not in _OUTSIDE}))
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# Of a description, what is no part of the product's state.
_OUTSIDE = ("history", "format_version", "sha256")


def _text(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True).encode()


def _bounded(history: tuple[Change, ...]) -> tuple[Change, ...]:
    """The last changes, of which the last ones can be undone."""
    kept, left = [], UNDO_BYTES
    for change in reversed(history[-MAX_CHANGES:]):
        left -= change.undo.nbytes if change.undo is not None else UNDO_BYTES
        kept.append(change if left >= 0 else dataclasses.replace(change, undo=None))
    return tuple(reversed(kept))


def _step_back(
    former: tuple[dict[str, npt.NDArray[Any]], dict[str, Any]], later: Mapping[str, npt.NDArray[Any]]
) -> Uint8Array:
    """What leads from the arrays of a product to a former one, in one array of bytes."""
    tensors, record = former
    text = zlib.compress(_text({"record": record, "arrays": sorted(tensors)}), 9)
    step: dict[str, npt.NDArray[Any]] = {"record": np.frombuffer(text, np.uint8)}
    changed = [name for name, array in tensors.items() if name not in later or not _same(array, later[name])]
    for bank in sorted({name.partition(".")[0] for name in changed}):
        if f"{bank}.vectors" in later:
            rows = _rows_of(tensors, later, bank)
            step[f"{bank}.rows"] = rows
            step |= {f"{bank}.{part}": tensors[f"{bank}.{part}"][rows < 0] for part in _BANK_PARTS}
        else:
            step |= {name: tensors[name] for name in changed if name.partition(".")[0] == bank}
    return np.frombuffer(safetensors.numpy.save(step), np.uint8)


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)


def _rows_of(former: Mapping[str, npt.NDArray[Any]], later: Mapping[str, npt.NDArray[Any]], bank: str) -> Int32Array:
    """For each vector of a former bank its number in the later one, -1 where that lacks it, (n,) int32."""
    if former[f"{bank}.vectors"].dtype != later[f"{bank}.vectors"].dtype:
        return np.full(len(former[f"{bank}.vectors"]), -1, np.int32)
    place = {row: at for at, row in enumerate(_row_bytes(later, bank))}
    return np.array([place.get(row, -1) for row in _row_bytes(former, bank)], np.int32)


def _row_bytes(tensors: Mapping[str, npt.NDArray[Any]], bank: str) -> list[bytes]:
    parts = [np.ascontiguousarray(tensors[f"{bank}.{part}"]) for part in _BANK_PARTS]
    flat = [part.reshape(len(part), -1).view(np.uint8) for part in parts]
    return [row.tobytes() for row in np.concatenate(flat, axis=1)]


def _applied(
    undo: Uint8Array, later: Mapping[str, npt.NDArray[Any]]
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The arrays and the description before a change; as those of a file they are checked before memory is taken."""
    place = "the step back"
    try:
        step = safetensors.numpy.load(undo.tobytes())
        content = json.loads(zlib.decompressobj().decompress(step["record"].tobytes(), _MAX_TEXT))
        record, names = dict(content["record"]), list(content["arrays"])
        fields = {**record, "format_version": FORMAT_VERSION, "sha256": NO_LINK}
        description = checked_description(fields, place)
        forms = {name: _former_form(name, step, later) for name in names}
        if len(forms) != len(names):
            raise ValueError("an array is named twice")
        check_forms(forms, description, place)
        former = {name: _former_array(name, step, later) for name in names}
        check_values(former, description, place)
    except (
        *(SafetensorError, zlib.error, ValueError, KeyError, TypeError, AttributeError, IndexError),
        *(RecursionError, MemoryError),
    ) as error:
        raise ArtifactError(
            f"expected a step back as it was written, got something else ({error}): the history was altered. Enroll "
            "again."
        ) from error
    return former, record


def _former_form(name: str, step: Mapping[str, npt.NDArray[Any]], later: Mapping[str, npt.NDArray[Any]]) -> ArrayForm:
    """What an array before a change is, by the parts that it is put together of."""
    bank, _, part = name.partition(".")
    rows = step.get(f"{bank}.rows")
    if rows is None or part not in _BANK_PARTS:
        return array_forms({name: step[name] if name in step else later[name]})[name]
    missing, there = step[name], later[name]
    if rows.dtype != np.int32 or rows.ndim != 1 or not len(rows) or rows.min() < -1 or rows.max() >= len(there):
        raise ValueError(f"rows of {bank} that are none")
    if missing.shape != (int((rows < 0).sum()), *there.shape[1:]):
        raise ValueError(f"vectors of {bank} that are not those it lacks")
    return array_forms({name: missing})[name].model_copy(update={"shape": (len(rows), *missing.shape[1:])})


def _former_array(
    name: str, step: Mapping[str, npt.NDArray[Any]], later: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    bank, _, part = name.partition(".")
    rows = step.get(f"{bank}.rows")
    if rows is None or part not in _BANK_PARTS:
        return step[name] if name in step else later[name]
    missing = step[name]
    array = np.empty((len(rows), *missing.shape[1:]), missing.dtype)
    array[rows < 0] = missing
    array[rows >= 0] = later[name][rows[rows >= 0]]
    return array
