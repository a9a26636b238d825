"""This package itself as a baseline: the Inspector, as a plant would enroll and use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.encoder import DEFAULT_ENCODER
from fewshot_ad.encoder.engine import Precision
from fewshot_ad.encoder.weights import encoder_file
from fewshot_ad.enrollment.presets import PresetName, SizesSpec, enrollment_settings
from fewshot_ad.enrollment.support import ViewsSpec
from fewshot_ad.errors import SupportSetError, ZooError
from fewshot_ad.inspector import Inspector
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
        encoder: A shipped encoder, or the card (`.json`) of one's own.
        views: Views of each image besides itself; None takes the preset's.
        image_size: Working scale in pixels, or several; None takes the preset's.
        budget: Bank vectors per layer; None takes the preset's.
        precision: Arithmetic of the network; None takes the preset's.
        min_defect: Size of the smallest defect that matters, as a share of the image's side; None takes the default.
        max_false_reject: Share of good parts that may be rejected; None weighs rejects and escapes the same.
        threads: Number of CPU threads; None takes all.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The encoder does not ship, or its file is missing.
    """

    seed: int = 0
    preset: PresetName = "balanced"
    encoder: str = DEFAULT_ENCODER
    views: ViewsSpec | None = None
    image_size: SizesSpec | None = None
    budget: int | None = None
    precision: Precision | Literal["auto"] | None = None
    min_defect: float | None = None
    max_false_reject: float | None = None
    threads: int | None = None
    _encoder_file: Path = field(init=False, repr=False)
    _inspector: Inspector | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            enrollment_settings(
                self.preset,
                views=self.views,
                image_size=self.image_size,
                budget=self.budget,
                precision=self.precision,
                min_defect=self.min_defect,
                max_false_reject=self.max_false_reject,
            )
        except SupportSetError as error:
            raise ZooError(f"fewshot_ad: {error}") from error
        self._encoder_file = encoder_file(self.encoder)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Enroll the images; the threshold comes from the same images. See `Method.fit`."""
        require_images(normal)
        try:
            self._inspector = Inspector.from_support(
                normal,
                product="product",
                preset=self.preset,
                encoder=self.encoder,
                views=self.views,
                image_size=self.image_size,
                budget=self.budget,
                precision=self.precision,
                min_defect=self.min_defect,
                max_false_reject=self.max_false_reject,
                seed=self.seed,
                threads=self.threads,
                progress=progress,
            )
        except SupportSetError as error:
            raise ZooError(f"fewshot_ad: {error}") from error

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
