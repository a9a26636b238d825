"""This product itself as a baseline: the Inspector, as a plant would enroll and use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.encoder import DEFAULT_ENCODER
from fewshot_ad.encoder.engine import Precision
from fewshot_ad.encoder.weights import encoder_file
from fewshot_ad.enrollment.presets import PresetName, enrollment_settings
from fewshot_ad.enrollment.support import ViewsSpec
from fewshot_ad.errors import SupportSetError, ZooError
from fewshot_ad.inspector import Inspector
from fewshot_ad.zoo.components.shots import fitted
from fewshot_ad.zoo.method import Card, Labeled, Predictions, baseline


class FewshotAD:
    """See `fewshot_ad` for the arguments."""

    def __init__(self, network: Path, enrollment: dict[str, Any]) -> None:
        self._network = network
        self._enrollment = enrollment
        self._inspector: Inspector | None = None

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Enroll the images; their threshold comes from themselves."""
        if len(normal) == 0:
            raise ZooError("expected at least one image of a good part, got none.")
        try:
            self._inspector = Inspector.from_support(normal, product="product", progress=progress, **self._enrollment)
        except SupportSetError as error:
            raise ZooError(f"fewshot_ad: {error}") from error

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Scores, maps and decisions of the inspections."""
        inspector = fitted(self._inspector)
        inspections = [inspector.inspect(image) for image in images]
        return Predictions(
            np.array([i.score for i in inspections], np.float32),
            tuple(i.anomaly_map for i in inspections),
            np.array([i.is_anomalous for i in inspections], bool),
        )

    def model_bytes(self) -> int:
        """The encoder's file and the memory banks as a product stores them."""
        banks = fitted(self._inspector).banks
        return self._network.stat().st_size + sum(b.vectors.size * b.stored_dtype.itemsize for b in banks)


@baseline(
    Card(
        name="fewshot_ad",
        title="fewshot-ad",
        paper="fewshot-ad 2026, this package; after Roth et al. 2022 (PatchCore) and Huang et al. 2022 (RegAD)",
        year=2026,
        family="memory bank",
        supervision="good images",
        source="fewshot_ad",
        license="Apache-2.0",
        maps=True,
        needs_masks=False,
        needs_internet=False,
        trains=False,
        weights="The encoders this package ships, as a plant runs them; views and scale are chosen from the support "
        "set alone unless they are given.",
    )
)
def fewshot_ad(
    *,
    seed: int = 0,
    preset: PresetName = "balanced",
    encoder: str = DEFAULT_ENCODER,
    views: ViewsSpec | None = None,
    image_size: int | Literal["auto"] | None = None,
    budget: int | None = None,
    precision: Precision | Literal["auto"] | None = None,
    threads: int | None = None,
) -> FewshotAD:
    """The Inspector.

    Args:
        seed: Of everything random.
        preset: See `Inspector.from_support`, as for the arguments that follow.
        encoder: A shipped encoder, or the card (`.json`) of one's own.
        views: Views of each image besides itself; None takes the preset's.
        image_size: Working scale in pixels; None takes the preset's.
        budget: Bank vectors a level; None takes the preset's.
        precision: Of the network; None takes the preset's.
        threads: Number of CPU threads; None takes all.
    """
    try:
        enrollment_settings(preset, views=views, image_size=image_size, budget=budget, precision=precision)
    except SupportSetError as error:
        raise ZooError(f"fewshot_ad: {error}") from error
    enrollment = {
        "seed": seed,
        "preset": preset,
        "encoder": encoder,
        "views": views,
        "image_size": image_size,
        "budget": budget,
        "precision": precision,
        "threads": threads,
    }
    return FewshotAD(encoder_file(encoder), enrollment)
