"""The .fsad file: a product in one safetensors file, hashed, written whole or not at all, checked before it is used."""

from fewshot_ad.artifact.allowed_encoder import load_allowed
from fewshot_ad.artifact.comparing import Difference, Verified, differences, verify
from fewshot_ad.artifact.file import read_artifact, write_artifact
from fewshot_ad.artifact.history import recorded, undone
from fewshot_ad.artifact.packing import (
    check_encoder,
    checked_spec,
    describe,
    pack,
    unpack,
    unpack_compact,
    unpacked_references,
)
from fewshot_ad.artifact.replacing import check_product_file, replace_product
from fewshot_ad.artifact.schema import FORMAT_VERSION

__all__ = [
    "FORMAT_VERSION",
    "Difference",
    "Verified",
    "check_encoder",
    "check_product_file",
    "checked_spec",
    "describe",
    "differences",
    "load_allowed",
    "pack",
    "read_artifact",
    "recorded",
    "replace_product",
    "undone",
    "unpack",
    "unpack_compact",
    "unpacked_references",
    "verify",
    "write_artifact",
]
