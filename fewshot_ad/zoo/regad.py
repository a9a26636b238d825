"""RegAD: features registered by spatial transformers, and a Gaussian at each position from strongly augmented shots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.encoder.pyramid import Pyramid
from fewshot_ad.encoder.registration import DEFAULT_MODE, Mode
from fewshot_ad.encoder.siamese import Architecture, SiameseEncoder, load_siamese, three_stages
from fewshot_ad.encoder.weights import WeightsCard, shipped_encoders, verified_tensors
from fewshot_ad.enrollment.views import View
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.gaussians import Gaussians
from fewshot_ad.zoo.components.shots import Chain, embed_shots, joined
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

_SHIFTS = [(side * x, side * y) for side in (0.1, 0.2) for x, y in ((1, 1), (-1, 1), (-1, -1), (1, -1))]
# 21 views of each image besides itself: the published support augmentation.
SUPPORT_VIEWS: tuple[Chain, ...] = (
    *((View("rotate", 11.25 * i),) for i in (-4, -3, -2, -1, 1, 2, 3, 4)),
    *((View("translate_x", x), View("translate_y", y)) for x, y in _SHIFTS),
    (View("hflip"),),
    (View("gray"),),
    *((View("rotate", degrees),) for degrees in (90.0, 180.0, 270.0)),
)
# The encoders that ship with trained transformers, by their backbone.
TRAINED = {"resnet18": "resnet18_siamese", "convnext_atto": "convnext_siamese"}
# The statistics take about 120 MB per image at 224 pixels; the paper goes up to 8.
MAX_SHOTS = 16


@baseline(
    Card(
        name="regad",
        title="RegAD",
        paper="Huang, Guan, Jiang, Zhang, Spratling, Wang 2022, Registration based Few-Shot Anomaly Detection, ECCV",
        year=2022,
        family="registration",
        needs_internet=True,
        trains=False,
        weights="resnet18_siamese or convnext_siamese of this package, with their transformers: ResNet18 or "
        "ConvNeXt-Atto distilled from EfficientNet-Lite and trained further by SimSiam, known warps and a margin on "
        "generated parts, instead of ImageNet's ResNet18 trained further by registering images of other products. "
        "weights=CARD.json loads an encoder of one's own (`fewshot-ad train`) with its transformers. Patches that a "
        "view mirrors in from outside the image are left out.",
        original=Original(
            pretrained="ImageNet, then registration of other products",
            at_hand="trained by this package on generated parts",
            departs=("views of patches from outside the image are left out",),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class RegAD:
    """RegAD.

    Attributes:
        seed: Seed of weights that are random; those of untrained transformers change nothing.
        backbone: `resnet18` or `convnext_atto` for the encoders that ship, or see `tensors.Backbone`; the stages at
            strides 4, 8 and 16 are used.
        weights: The card (`.json`) of a trained encoder, beside its tensors: `backbone` and `registration` are then its
            own. Otherwise see `tensors.Backbone`.
        registration: None takes the trained transformers of the encoder that ships. A mode, see
            `encoder.registration.PARTS`, puts untrained ones on the backbone, each of which is the identity, as it is
            for backbones of which none ship trained.
        image_size: Both sides of the input, in pixels; a multiple of 16, at least 32.
        regularization: Added to the diagonal of the covariances, above 0.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The weights are missing or do not fit.

    Source: Huang et al. 2022: transformers after the first three stages and their inverse, section 3.1; Gaussians of
    the augmented support set and Mahalanobis distance, section 3, after PaDiM's eq. 1-2; the views, the authors' code.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    registration: Mode | None = None
    image_size: int = 224
    regularization: float = 0.01
    sigma: float = 4.0
    _encoder: SiameseEncoder = field(init=False, repr=False)
    _gaussians: Gaussians | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.image_size < 32 or self.image_size % 16:
            raise ZooError(f"regad: expected an image_size that is a multiple of 16 from 32 on, got {self.image_size}.")
        if self.regularization <= 0:
            raise ZooError(f"regad: expected a regularization above 0, got {self.regularization}.")
        with seeded(self.seed):
            self._encoder = _load(self.backbone, self.weights, self.registration)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Estimate the Gaussians from the images and their views; see `Method.fit`."""
        if len(normal) > MAX_SHOTS:
            raise ZooError(
                f"regad: expected at most {MAX_SHOTS} images, of which it keeps {len(SUPPORT_VIEWS) + 1} views "
                f"each, got {len(normal)}. Give fewer; it is a method for 2 to 8."
            )

        # In 16 bits: these lie in memory for all views at once. In mixed precision torch joins no others than its own.
        mixed = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        dtype = torch.bfloat16 if mixed else torch.float16

        def embed(batch: torch.Tensor) -> torch.Tensor:
            return self._embed(batch).to(dtype)

        features, shown = embed_shots("regad", normal, self.image_size, SUPPORT_VIEWS, embed, progress)
        self._gaussians = Gaussians.fit(features, shown, self.regularization, progress)

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Maps of Mahalanobis distances; the score is the map's maximum. See `Method.predict`."""
        gaussians, side = require_fitted(self._gaussians, "regad"), self.image_size
        return one_by_one(
            images, lambda image: gaussians.judge(self._embed(to_batch([image], side))[0], side, self.sigma)
        )

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_encoder": self._encoder, "_gaussians": Gaussians}

    def model_bytes(self) -> int:
        """The stages with their transformers and the Gaussians."""
        gaussians, encoder = require_fitted(self._gaussians, "regad"), self._encoder
        transformers = [] if encoder.registration is None else [encoder.registration]
        return tensor_bytes(encoder.pyramid, *transformers, gaussians.mean, gaussians.W)

    def _embed(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in 0..1 -> (N, d, h, w): the registered stages, moved back into the image."""
        with torch.no_grad():
            return joined(self._encoder.upright(batch)[0])


def _load(backbone: str, weights: str | None, registration: Mode | None) -> SiameseEncoder:
    card, folder = None, None
    if weights is not None and weights.endswith(".json"):
        card, folder = WeightsCard.read(Path(weights)), Path(weights).parent
    elif weights is None and registration is None and backbone in TRAINED:
        card = shipped_encoders()[TRAINED[backbone]]
    if card is not None:
        encoder: SiameseEncoder = load_siamese(card, verified_tensors(card, folder), card.stages[-1:]).encoder
    else:
        name = "tf_efficientnet_lite0" if backbone == "lite0" else backbone
        stages = three_stages(name)
        pyramid = Pyramid(name, stages)
        pyramid.load_weights(Backbone(backbone, stages, weights).network.state_dict())
        encoder = SiameseEncoder(Architecture(name, registration or DEFAULT_MODE), pyramid)
    return encoder.requires_grad_(False).eval()
