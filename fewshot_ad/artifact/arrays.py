"""A product's arrays: names, types, shapes and values, checked against its description."""

from __future__ import annotations

import base64
import binascii
import os
import struct
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import numpy.typing as npt
from pydantic import BaseModel, Field

from fewshot_ad.artifact.forms import FIRST_ERROR
from fewshot_ad.artifact.schema import refused, shown
from fewshot_ad.encoder import EncoderSpec
from fewshot_ad.enrollment.embedding import REFERENCE_BYTES
from fewshot_ad.enrollment.presets import MAX_IMAGE_SIZE
from fewshot_ad.errors import ArgumentError
from fewshot_ad.images import MAX_PIXELS, MIN_SIDE, Geometry
from fewshot_ad.images.region_of_interest import LONGEST
from fewshot_ad.product.history import MAX_PATCHES
from fewshot_ad.registration.template import TEMPLATE_SIDE, Template

# Embeddings are of the order of 1 to 1,000. Up to here no distance of them overflows float32.
LARGEST_VALUE = 1e9
# The longest side that an image of the largest allowed size can have.
_LONGEST = MAX_PIXELS // MIN_SIDE
_DTYPES = {"float16": "F16", "float32": "F32", "int32": "I32", "uint8": "U8"}
_PNG = b"\x89PNG\r\n\x1a\n"


class ArrayForm(BaseModel):
    """What the header of a safetensors file says of one array."""

    dtype: str
    shape: Annotated[tuple[int, ...], FIRST_ERROR, Field(max_length=8)]
    data_offsets: tuple[int, int]


def check_forms(forms: Mapping[str, ArrayForm], description: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Whether the arrays are exactly those that a description calls for; before any memory is taken for them.

    Args:
        forms: What the file's header says of its arrays, by name.
        description: The checked description.
        path: Of the file, for messages.

    Raises:
        ArtifactError: An array is missing, unexpected, or of another type or shape.
    """
    expected = _expected_forms(forms, description, path)
    for name in sorted(expected.keys() ^ forms.keys()):
        there = "an array of this name" if name in expected else "no array of this name"
        raise refused(path, name if name in expected else shown(name), there, "none" if name in expected else "one")
    for name, (dtypes, shape) in expected.items():
        form = forms[name]
        if form.dtype not in dtypes or form.shape != shape or not shape:
            raise refused(
                path, name, f"{' or '.join(dtypes)} {shape or '(bytes,)'}", f"{shown(form.dtype)} {shown(form.shape)}"
            )
    total = sum(form.shape[0] for name, form in forms.items() if name.startswith("reference"))
    if total > REFERENCE_BYTES:
        raise refused(path, "references", f"at most {REFERENCE_BYTES} bytes of images", f"{total}")


# Types and shape that an array must have.
_Form: TypeAlias = tuple[tuple[str, ...], tuple[int, ...]]


def _expected_forms(
    forms: Mapping[str, ArrayForm], description: Mapping[str, Any], path: str | os.PathLike[str]
) -> dict[str, _Form]:
    """What a description calls for; lengths that it does not give are those in the file, if they are in range."""

    def length(name: str, most: int, what: str) -> int:
        n = forms[name].shape[0] if name in forms and forms[name].shape else 0
        if name in forms and not 1 <= n <= most:
            raise refused(path, name, f"1 to {most} {what}", f"{n}")
        return n

    expected: dict[str, _Form] = {}
    settings = description["enrollment"]["settings"]
    all_dims = EncoderSpec.from_dict(description["encoder"]).dims * len(settings["image_sizes"])
    for level, dims in enumerate(all_dims):
        n = length(f"bank{level}.vectors", settings["budget"], "bank vectors (the budget)")
        expected[f"bank{level}.vectors"] = (("F16", "F32"), (n, dims))
        expected |= {f"bank{level}.{part}": (("I32",), (n,)) for part in ("image", "view")}
        expected[f"bank{level}.xy"] = (("I32",), (n, 2))
    for i in range(len(description["references"])):
        name = f"reference{i}"
        expected[name] = (("U8",), forms[name].shape[:1] if name in forms else ())
    for i, defect in enumerate(description.get("known_defects", ())):
        for level, dims in enumerate(all_dims):
            for part in ("",) if defect["region"] is None else ("", "top"):
                name = f"defect{i}.{part}{level}"
                expected[name] = (("F16", "F32"), (length(name, MAX_PATCHES, "patches"), dims))
    for i, change in enumerate(description.get("history", ())):
        if change["undo_bytes"]:
            expected[f"undo{i}"] = (("U8",), (change["undo_bytes"],))
    return expected


def array_forms(tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, ArrayForm]:
    """What the header of a file would say of arrays."""
    return {
        name: ArrayForm(dtype=_DTYPES.get(array.dtype.name, array.dtype.name), shape=array.shape, data_offsets=(0, 0))
        for name, array in tensors.items()
    }


def check_values(
    tensors: Mapping[str, npt.NDArray[Any]], description: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Whether the values of the arrays are in range, and the images whole and of the size that the description gives.

    Args:
        tensors: The arrays, in the form that `check_forms` lets through.
        description: The checked description.
        path: Of the file, for messages.

    Raises:
        ArtifactError: A value is out of range, or an image is not what it should be.
    """
    enrollment, spec = description["enrollment"], EncoderSpec.from_dict(description["encoder"])
    settings = enrollment["settings"]
    # The search for cosine distances takes vectors of unit length, which float16 rounds.
    largest = 1.01 if settings["scoring"]["metric"] == "cosine" else LARGEST_VALUE
    limits = {
        "vectors": (-largest, largest),
        "image": (0, len(enrollment["support"]) - 1),
        "view": (0, len(settings["views"])),
        "xy": (-_LONGEST, _LONGEST),
    }
    for level in range(len(spec.dims) * len(settings["image_sizes"])):
        for part, (low, high) in limits.items():
            _check_range(tensors[f"bank{level}.{part}"], low, high, f"bank{level}.{part}", path)
    for name in tensors:
        if name.startswith("defect"):
            _check_range(tensors[name], -largest, largest, name, path)
    for i, (height, width) in enumerate(description["references"]):
        geometry = Geometry.fit((height, width), max(settings["image_sizes"]), spec.multiple)
        _check_png(tensors[f"reference{i}"].tobytes(), geometry.content_hw, f"reference{i}", path)
    if settings.get("roi") is not None:
        _check_stored_png(settings["roi"]["png"], "enrollment.settings.roi.png", (LONGEST, LONGEST), path)
    if settings.get("parts") is not None:
        side = (TEMPLATE_SIDE, TEMPLATE_SIDE)
        _check_stored_png(settings["parts"]["template"], "enrollment.settings.parts.template", side, path, exactly=True)


def _check_range(values: npt.NDArray[Any], low: float, high: float, name: str, path: str | os.PathLike[str]) -> None:
    smallest, largest = float(values.min()), float(values.max())
    # NaN is in no range.
    if not (low <= smallest and largest <= high):
        raise refused(path, name, f"values in {low}..{high}", f"{smallest} to {largest}")


def _check_stored_png(
    png: str, name: str, most_hw: tuple[int, int], path: str | os.PathLike[str], exactly: bool = False
) -> None:
    """Whether a gray PNG file in base64 is one, of at most that size or exactly of it."""
    try:
        packed = base64.b64decode(png, validate=True)
    except (binascii.Error, ValueError):
        raise refused(path, name, "a PNG file in base64", "something else") from None
    header, _ = _png_parts(packed)
    width, height = struct.unpack(">II", header[:8]) if len(header) == 13 else (0, 0)
    if not 1 <= width <= most_hw[1] or not 1 <= height <= most_hw[0]:
        raise refused(path, name, f"a gray PNG file of at most {most_hw[1]} x {most_hw[0]} pixels", "something else")
    _check_png(packed, most_hw if exactly else (height, width), name, path, channels=1)
    if exactly:
        try:
            Template.stored(png)
        except ArgumentError:
            raise refused(path, name, "a picture of a part", "one of one gray level") from None


def _check_png(
    png: bytes, content_hw: tuple[int, int], name: str, path: str | os.PathLike[str], channels: int = 3
) -> None:
    """Whether an image is a whole PNG as `Reference.make` writes it: RGB or gray, 8 bits, one size, no other data.

    Its pixels are unpacked here to exactly as many bytes as they must be, so that a small file can neither ask for
    more memory than that nor leave a decoder guessing.
    """
    height, width = content_hw
    if height * width > 4 * MAX_IMAGE_SIZE**2:
        raise refused(path, name, f"at most {4 * MAX_IMAGE_SIZE**2} pixels at the working scale", f"{height} x {width}")
    header, pixels = _png_parts(png)
    kind, word = (2, "RGB") if channels == 3 else (0, "gray")
    if header != struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0):
        got = f"width and height {struct.unpack('>II', header[:8])}" if len(header) == 13 else "something else"
        raise refused(path, name, f"a PNG file, {word}, 8 bits, of {width} x {height} pixels", got)
    length = height * (1 + channels * width)
    unpacker = zlib.decompressobj()
    try:
        rows = unpacker.decompress(pixels, length + 1)
    except zlib.error as error:
        raise refused(path, name, "a whole PNG file", f"a damaged one ({error})") from None
    if len(rows) != length or not unpacker.eof or max(rows[:: 1 + channels * width]) > 4:
        raise refused(path, name, f"a whole PNG file of {width} x {height} pixels", "a damaged one")


def _png_parts(data: bytes) -> tuple[bytes, bytes]:
    """The header and the packed pixels of a PNG file of these two parts only; empty if it is anything else."""
    header, pixels, at = b"", list[bytes](), len(_PNG)
    if not data.startswith(_PNG):
        return b"", b""
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        content, check = data[at + 8 : at + 8 + length], data[at + 8 + length : at + 12 + length]
        if check != struct.pack(">I", zlib.crc32(kind + content)) or kind not in (b"IHDR", b"IDAT", b"IEND"):
            return b"", b""
        at += 12 + length
        if kind == b"IEND":
            return (header, b"".join(pixels)) if at == len(data) else (b"", b"")
        if kind == b"IHDR":
            header = content
        else:
            pixels.append(content)
    return b"", b""
