"""Which encoder a stored product runs on: one that ships, or one that the caller names. The file itself names none."""

from __future__ import annotations

import os
from typing import Any

from fewshot_ad.artifact.schema import shown
from fewshot_ad.encoder import Encoder, EncoderSpec, exported_card, load_encoder
from fewshot_ad.encoder.dinov2 import BLOCKS, DINOV2
from fewshot_ad.encoder.timm_names import is_timm_name
from fewshot_ad.encoder.weights import shipped_encoders
from fewshot_ad.errors import ArtifactError


def load_allowed(
    spec: EncoderSpec,
    encoder: str | os.PathLike[str] | Encoder | None,
    path: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None,
    **options: Any,
) -> Encoder:
    """The encoder for a stored product.

    A file may come from anywhere. The name in it reaches neither the file system nor the network, and timm only along
    with weights that the caller gives.

    Args:
        spec: The encoder that the product was enrolled with.
        encoder: What the caller passes: an encoder already loaded, or its name as `load_encoder` takes it; None takes
            the shipped encoder of the same hash, or `dinov2_small` from its package if the product names it.
        path: Of the product's file, for messages.
        weights: Local weights of a timm model, from the caller.
        options: Further arguments of `load_encoder`.

    Raises:
        ArtifactError: The encoder does not ship and the caller names none, or it is another.
        WeightsError: The encoder that the caller names cannot be had.
    """
    if isinstance(encoder, Encoder):
        return encoder
    name = _name_of_same_hash(spec, path, weights) if encoder is None else encoder
    card = exported_card(name)
    if card is not None and card.sha256 != spec.sha256:
        raise ArtifactError(
            f"{path}: it was enrolled with another encoder ({shown(spec.name)}, sha256 {spec.sha256[:12]}...), got "
            f"{os.fspath(name)!r} (sha256 {card.sha256[:12]}...), so its scores would mean something else. Use the "
            "same encoder and weights, or enroll again."
        )
    if card is not None and not set(spec.stages) <= set(card.stages):
        raise ArtifactError(
            f"{path}: encoder.stages: expected stages of {card.name} ({card.stages}), got {shown(spec.stages)}. Copy "
            "the file again, or enroll again."
        )
    return load_encoder(
        name,
        precision=spec.precision,
        stages=spec.stages,
        fusion=spec.fusion,
        norm_power=spec.norm_power,
        weights=weights,
        **options,
    )


def _name_of_same_hash(spec: EncoderSpec, path: str | os.PathLike[str], weights: str | os.PathLike[str] | None) -> str:
    if spec.name == DINOV2 and all(stage < BLOCKS for stage in spec.stages):
        # It is had from one fixed package, and must have the hash of the product's all the same.
        return DINOV2
    shipped = shipped_encoders()
    for name, card in shipped.items():
        if card.sha256 == spec.sha256:
            return name
    if spec.name in shipped:
        raise ArtifactError(
            f"{path}: it was enrolled with another state of the encoder {spec.name} (sha256 {spec.sha256[:12]}...) "
            f"than ships with this version ({shipped[spec.name].sha256[:12]}...), so its scores would mean something "
            "else. Install the version of fewshot-ad that it was enrolled with, or enroll again."
        )
    if weights is not None and is_timm_name(spec.name):
        return spec.name
    raise ArtifactError(
        f"{path}: it was enrolled with the encoder {shown(spec.name)} (sha256 {spec.sha256[:12]}...), which does not "
        "ship with fewshot-ad, and a file does not decide what is loaded. Pass it: encoder=CARD.json, or encoder=NAME "
        "with weights=FILE for a timm model (command line: --encoder, --weights)."
    )
