"""Distances -> map -> score -> decision."""

from fewshot_ad.scoring.config import (
    IMAGE_SCORES,
    MAX_DISTANCE,
    MAX_NEIGHBORS,
    MAX_SIGMA,
    MIN_DISTANCE,
    ImageScore,
    ScoringConfig,
)
from fewshot_ad.scoring.deciding import (
    EncoderInput,
    Model,
    Prepared,
    inspect_image,
    prepare,
)
from fewshot_ad.scoring.measuring import (
    Measurement,
    Scale,
    anomaly_map,
    joint_map,
    joint_score,
    measure,
    measure_at,
    patch_weights,
    reweighted,
    top_mean,
    top_mean_score,
)

__all__ = [
    "IMAGE_SCORES",
    "MAX_DISTANCE",
    "MAX_NEIGHBORS",
    "MAX_SIGMA",
    "MIN_DISTANCE",
    "EncoderInput",
    "ImageScore",
    "Measurement",
    "Model",
    "Prepared",
    "Scale",
    "ScoringConfig",
    "anomaly_map",
    "inspect_image",
    "joint_map",
    "joint_score",
    "measure",
    "measure_at",
    "patch_weights",
    "prepare",
    "reweighted",
    "top_mean",
    "top_mean_score",
]
