"""Image -> patch embeddings: the encoder, by name, on the engine of choice."""

from fewshot_ad.encoder.encoder import FUSIONS, Encoder, EncoderSpec, Fusion
from fewshot_ad.encoder.loading import (
    DEFAULT_NORM_POWER,
    exported_card,
    is_exported,
    load_encoder,
    load_encoders,
)
from fewshot_ad.encoder.weights import DEFAULT_ENCODER

__all__ = [
    "DEFAULT_ENCODER",
    "DEFAULT_NORM_POWER",
    "FUSIONS",
    "Encoder",
    "EncoderSpec",
    "Fusion",
    "exported_card",
    "is_exported",
    "load_encoder",
    "load_encoders",
]
