"""This package itself as a baseline: the Inspector, as a plant would enroll and use it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.encoder import DEFAULT_ENCODER, DEFAULT_NORM_POWER, Fusion
from fewshot_ad.encoder.dinov2 import DINOV2, dinov2_file
from fewshot_ad.encoder.engine import Device, EngineName, Precision
from fewshot_ad.encoder.weights import encoder_file
from fewshot_ad.enrollment.presets import PresetName, SizesSpec, enrollment_settings
from fewshot_ad.enrollment.views import ViewsSpec
from fewshot_ad.errors import SupportSetError, ZooError
from fewshot_ad.inspector import Inspector
from fewshot_ad.product import ForegroundChoice, LightingChoice
from fewshot_ad.scoring import ImageScore, ScoringConfig
from fewshot_ad.search.nearest import Metric
from fewshot_ad.zoo.components.tensors import require_images
from fewshot_ad.zoo.method import Card, Labeled, Predictions, baseline, require_fitted


@baseline(
    Card(
        name="fewshot_ad",
        title="fewshot-ad",
        paper="fewshot-ad 2026, this package; after Roth et al. 2022 (PatchCore) and Huang et al. 2022 (RegAD)",
        year=2026,
        family="memory bank",
        needs_internet=False,
        trains=False,
        weights="The encoders this package ships, as a plant runs them; views and scale are chosen from the support "
        "set alone unless they are given.",
    )
)
@dataclass(kw_only=True, eq=False)
class FewshotAD:
    """The Inspector.

    Attributes:
        seed: Seed of everything random.
        preset: See `Inspector.from_support`, as for the settings that follow.
        encoder: A shipped encoder, the card (`.json`) of one's own, `dinov2_small`, or a timm model with `weights`.
        weights: File of weights of a timm model.
        views: Views of each image besides itself; None takes the preset's.
        image_size: Working scale in pixels, or several; None takes the preset's.
        budget: Bank vectors per layer; None takes the preset's.
        precision: Arithmetic of the network; None takes the preset's.
        min_defect: Size of the smallest defect that matters, as a share of the image's side; None takes the default.
        max_false_reject: Share of good parts that may be rejected; None weighs rejects and escapes the same.
        max_ms: What the encoder may take per image, in milliseconds; None for no limit.
        keep_outliers: Whether images that are unlike the others are enrolled from all the same.
        register: Whether images are brought into one pose before they are compared.
        foreground: Whether only the part on its plain background counts.
        lighting: Whether exposure and tint are taken out.
        engine: What runs the network; None takes the default.
        stages: Stages of the encoder; None takes those on its card.
        fusion: See `EncoderSpec`, as for `norm_power`.
        norm_power: Power of the length that stage features are divided by, 0..1.
        metric: See `ScoringConfig`, as for the settings that follow.
        image_score: `top_mean` or `reweighted`.
        top_fraction: Share of the patches that `top_mean` averages.
        max_patches: Number of patches that the share is of, at most; None for no limit.
        neighbors: How many bank neighbors `reweighted` compares.
        edge_weight: Weight of patches on the image's edge.
        sigma: Smoothing of the map.
        threads: Number of CPU threads; None takes all.
        device: `cpu` or `cuda`.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The encoder does not ship, or its file is missing.
    """

    seed: int = 0
    preset: PresetName = "balanced"
    encoder: str = DEFAULT_ENCODER
    weights: str | None = None
    views: ViewsSpec | None = None
    image_size: SizesSpec | None = None
    budget: int | None = None
    precision: Precision | Literal["auto"] | None = None
    min_defect: float | None = None
    max_false_reject: float | None = None
    max_ms: float | None = None
    keep_outliers: bool = False
    register: bool = False
    foreground: ForegroundChoice = "off"
    lighting: LightingChoice = "off"
    engine: EngineName | None = None
    stages: Sequence[int] | None = None
    fusion: Fusion = "concat"
    norm_power: float = DEFAULT_NORM_POWER
    metric: Metric = ScoringConfig.metric
    image_score: ImageScore = ScoringConfig.image_score
    top_fraction: float = ScoringConfig.top_fraction
    max_patches: int | None = ScoringConfig.max_patches
    neighbors: int = ScoringConfig.neighbors
    edge_weight: float = ScoringConfig.edge_weight
    sigma: float = ScoringConfig.sigma
    threads: int | None = None
    device: Device = "cpu"
    _encoder_file: Path = field(init=False, repr=False)
    _inspector: Inspector | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            enrollment_settings(**self._settings())
        except SupportSetError as error:
            raise ZooError(f"fewshot_ad: {error}") from error
        if self.weights is not None:
            self._encoder_file = Path(self.weights)
        else:
            self._encoder_file = dinov2_file() if self.encoder == DINOV2 else encoder_file(self.encoder)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Enroll the images; the threshold comes from the same images. See `Method.fit`."""
        require_images(normal)
        try:
            self._inspector = Inspector.from_support(
                normal,
                product="product",
                encoder=self.encoder,
                weights=self.weights,
                **self._settings(),
                keep_outliers=self.keep_outliers,
                register=self.register,
                foreground=self.foreground,
                lighting=self.lighting,
                engine=self.engine,
                stages=self.stages,
                fusion=self.fusion,
                norm_power=self.norm_power,
                threads=self.threads,
                device=self.device,
                progress=progress,
            )
        except SupportSetError as error:
            raise ZooError(f"fewshot_ad: {error}") from error

    def _settings(self) -> dict[str, Any]:
        """What `enrollment_settings` and `Inspector.from_support` both take."""
        scoring = ScoringConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(ScoringConfig)})
        return {
            "preset": self.preset,
            "views": self.views,
            "image_size": self.image_size,
            "budget": self.budget,
            "precision": self.precision,
            "scoring": scoring,
            "seed": self.seed,
            "min_defect": self.min_defect,
            "max_ms": self.max_ms,
            "max_false_reject": self.max_false_reject,
        }

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Scores, maps and decisions of the inspections; see `Method.predict`."""
        inspector = require_fitted(self._inspector, "fewshot_ad")
        inspections = [inspector.inspect(image) for image in images]
        return Predictions(
            np.array([i.score for i in inspections], np.float32),
            tuple(i.anomaly_map for i in inspections),
            np.array([i.is_anomalous for i in inspections], bool),
        )

    def model_bytes(self) -> int:
        """The encoder's file and the memory banks as a product stores them."""
        banks = require_fitted(self._inspector, "fewshot_ad").banks
        return self._encoder_file.stat().st_size + sum(b.vectors.size * b.stored_dtype.itemsize for b in banks)
