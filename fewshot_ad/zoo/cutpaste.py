"""CutPaste: a network learns to tell good images from ones with a pasted patch; a Gaussian of its features judges.

Source: Li, Sohn, Yoon & Pfister 2021: pretext tasks and loss, Sec. 2.1 to 2.3 (eq. 1, 2); Gaussian density, Sec. 2.4
(eq. 3); schedule, supplement. What they leave open, the layers of the projection head and the strength of the
translation, is this package's choice. Features of unit length: as in the authors' public code of an earlier paper (Sohn
et al. 2021). GradCAM: Selvaraju et al. 2017, eq. 1 and 2.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.cut_paste import cut_paste, cut_paste_scar
from fewshot_ad.zoo.components.gaussians import Gaussians
from fewshot_ad.zoo.components.image_jitter import moved, recolored
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, resized, seeded, tensor_bytes, to_batch, unit_tensor
from fewshot_ad.zoo.components.training import train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

Anomaly = Callable[[Uint8Array, np.random.Generator, float], Uint8Array]
ANOMALIES: dict[str, tuple[Anomaly, ...]] = {
    "cutpaste": (cut_paste,),
    "scar": (cut_paste_scar,),
    "3way": (cut_paste, cut_paste_scar),
}


@baseline(
    Card(
        name="cutpaste",
        title="CutPaste",
        paper="Li, Sohn, Yoon & Pfister 2021, CutPaste: Self-Supervised Learning for Anomaly Detection and "
        "Localization, CVPR",
        year=2021,
        family="synthetic anomalies",
        needs_internet=False,
        trains=True,
        weights="ResNet18 distilled from EfficientNet-Lite, up to its third stage, as the start of training, where the "
        "paper starts from random weights (weights='random') or an ImageNet EfficientNet-B4; small images and few "
        "steps, which suit a CPU. The Gaussian is also fitted to moved and recolored copies of the images. Maps are "
        "GradCAM's, of the distance to the Gaussian; the paper's scores of patches, which are slower, are left out.",
        original=Original(
            options={
                "weights": "random",
                "stage": 4,
                "image_size": 256,
                "steps": 65536,
                "batch_size": 32,
                "copies": 0,
            },
            unless={"weights": "starts from distilled weights"},
            departs=("maps by GradCAM only, not by the density of patches",),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class CutPaste:
    """CutPaste.

    Attributes:
        seed: Seed of everything random.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`; `random` to train from scratch.
        stage: Stage of the backbone whose mean over the image is the feature vector, see `tensors.Backbone`.
        image_size: Both sides of the input, in pixels.
        variant: Anomalies that the network learns to tell from good images: `cutpaste` (rectangles), `scar` (thin and
            turned ones), or `3way`, both as classes of their own (Sec. 2.3).
        head: Widths of the projection head's layers between the features and the classes.
        steps: Training steps; published: 256 epochs of 256.
        batch_size: Good images per step, drawn with replacement; each variant's anomalies come on top.
        learning_rate: Learning rate of stochastic gradient descent, which falls to 0 along half a cosine.
        momentum: Its momentum.
        weight_decay: Weight of the squared weights in the loss.
        color_jitter: Strength of the random change of the colors of images and of pasted patches, 0 to below 0.5.
        translation: Largest random shift of the training images, as a share of their side.
        copies: Moved and recolored copies of each image that the Gaussian is fitted to besides the image itself.
        regularization: Added to the diagonal of the Gaussian's covariance, above 0; features have unit length.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stage: int = 3
    image_size: int = 128
    variant: Literal["cutpaste", "scar", "3way"] = "3way"
    head: Sequence[int] = (512, 128)
    steps: int = 200
    batch_size: int = 8
    learning_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 3e-5
    color_jitter: float = 0.1
    translation: float = 0.03
    copies: int = 8
    regularization: float = 1e-6
    _start: Backbone = field(init=False, repr=False)
    _network: Backbone | None = field(default=None, init=False, repr=False)
    _gaussian: Gaussians | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.variant not in ANOMALIES:
            raise ZooError(f"cutpaste: expected variant to be one of {', '.join(ANOMALIES)}, got {self.variant!r}.")
        # One image and its anomaly make the two samples that batch normalization needs.
        if min(self.steps, self.batch_size, *self.head) < 1 or self.image_size < 32 or self.copies < 0:
            raise ZooError(
                "cutpaste: expected steps, batch_size and widths of the head of at least 1, image_size of at least 32 "
                f"and copies of at least 0, got {self.steps}, {self.batch_size}, {list(self.head)}, {self.image_size} "
                f"and {self.copies}."
            )
        if self.learning_rate <= 0 or self.regularization <= 0 or not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ZooError(
                "cutpaste: expected learning_rate and regularization above 0, momentum in 0..1 and weight_decay of at "
                f"least 0, got {self.learning_rate}, {self.regularization}, {self.momentum} and {self.weight_decay}."
            )
        if not 0 <= self.color_jitter < 0.5 or not 0 <= self.translation < 0.5:
            raise ZooError(
                "cutpaste: expected color_jitter and translation of 0 to below 0.5, got "
                f"{self.color_jitter} and {self.translation}."
            )
        with seeded(self.seed):
            self._start = Backbone(self.backbone, (self.stage,), self.weights)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the network on the pretext task and fit the Gaussian; see `Method.fit`."""
        images = list(resized(normal, self.image_size).permute(0, 2, 3, 1).numpy())
        rng = np.random.default_rng(self.seed)
        anomalies = ANOMALIES[self.variant]
        with seeded(self.seed), torch.inference_mode(False), torch.enable_grad():
            network = copy.deepcopy(self._start).requires_grad_(True)
            # The inner network, as `Backbone` itself stays in evaluation mode.
            network.network.train()
            classifier = _head(network.channels[0], self.head, 1 + len(anomalies))

            def loss() -> torch.Tensor:
                """Cross-entropy of the classes "good" and each kind of anomaly (eq. 1, 2)."""
                good = [self._view(images[int(i)], rng) for i in rng.integers(len(images), size=self.batch_size)]
                bad = [anomaly(image, rng, self.color_jitter) for anomaly in anomalies for image in good]
                logits = classifier(network(unit_tensor(np.stack(good + bad)))[0].mean((2, 3)))
                return F.cross_entropy(logits, torch.arange(1 + len(anomalies)).repeat_interleave(self.batch_size))

            parameters = [*network.parameters(), *classifier.parameters()]
            optimizer = torch.optim.SGD(
                parameters, self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
            )
            cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
            train_steps(loss, self.steps, [optimizer], schedules=[cosine], progress=progress)
            network.requires_grad_(False).network.eval()
            self._gaussian = self._density(network, images, rng)
        self._network = network

    def _density(self, network: Backbone, images: Sequence[Uint8Array], rng: np.random.Generator) -> Gaussians:
        """The Gaussian of the features of images and their copies."""
        vectors = []
        for image in images:
            for view in [image, *(self._view(image, rng) for _ in range(self.copies))]:
                vectors.append(embedding(network(unit_tensor(view[None]))[0]))
        features = torch.cat(vectors)[..., None, None]
        return Gaussians.fit(features, torch.ones(len(features), 1, 1, dtype=torch.bool), self.regularization)

    def _view(self, image: Uint8Array, rng: np.random.Generator) -> Uint8Array:
        return recolored(moved(image, rng, self.translation), rng, self.color_jitter)

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = Mahalanobis distance of the features (eq. 3); its GradCAM is the map. See `Method.predict`."""
        network, gaussian = require_fitted(self._network, "cutpaste"), require_fitted(self._gaussian, "cutpaste")

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            with torch.inference_mode(False), torch.enable_grad():
                maps = network(to_batch([image], self.image_size))[0].requires_grad_()
                distance = gaussian.distances(embedding(maps)[0][:, None, None]).squeeze()
                gradient = torch.autograd.grad(distance, maps)[0]
            return float(distance.detach()), grad_cam(maps.detach()[0], gradient[0])

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_network": copy.deepcopy(self._start), "_gaussian": Gaussians}

    def model_bytes(self) -> int:
        """The backbone and the Gaussian: an inspection needs no classifier."""
        gaussian = require_fitted(self._gaussian, "cutpaste")
        return tensor_bytes(require_fitted(self._network, "cutpaste"), gaussian.mean, gaussian.W)


def embedding(maps: torch.Tensor) -> torch.Tensor:
    """Feature maps (N, C, h, w) -> their means over the image at unit length, (N, C)."""
    return F.normalize(maps.mean((2, 3)), dim=1)


def grad_cam(maps: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """GradCAM of a value: where the image speaks for it.

    Args:
        maps: (C, h, w) feature maps.
        gradient: (C, h, w) gradient of the value with respect to them.

    Returns:
        (h, w), 0 or more.

    Source: Selvaraju et al. 2017, eq. 1 and 2.
    """
    # An image of the support set can lie at distance 0, where the gradient is not defined.
    weights = torch.nan_to_num(gradient).mean((1, 2), keepdim=True)
    return F.relu((weights * maps).sum(0))


def _head(inputs: int, widths: Sequence[int], classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((inputs, *widths)):
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear([inputs, *widths][-1], classes))
