"""PNI: which good patches are likely here, given the position and the neighborhood, and how far the nearest of them is.

The patches of good images are thinned to representatives. A histogram says which of them occur at a position, and a
perceptron which of them go with the patches around it. A patch is compared with the likely representatives only, so
that one which is good elsewhere is found.

Source: Bae, Lee & Kim 2023, section 3 (representatives, likelihoods, score) and section 4 (settings); the order of the
computation, the perceptron and the mean of the two scores as in the authors' public code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.search.memory_bank import greedy_coreset
from fewshot_ad.zoo.components.patch_context import neighborhoods, position_histograms
from fewshot_ad.zoo.components.shots import embed_shots, joined, smoothed
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import train_epochs
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

# The learning rate falls to a tenth after every so many epochs.
DECAY_EPOCHS, DECAY = 5, 0.1
DROPOUT = 0.5
# Positions whose neighborhoods are gathered at once outside of the training, which bounds the memory.
POSITIONS = 256


@baseline(
    Card(
        name="pni",
        title="PNI",
        paper="Bae, Lee, Kim 2023, PNI: Industrial Anomaly Detection using Position and Neighborhood Information, ICCV",
        year=2023,
        family="memory bank",
        needs_internet=True,
        trains=True,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, in place of ImageNet's "
        "WideResNet101; 256 pixels instead of 480; a perceptron and numbers of representatives that suit a few images "
        "and a CPU.",
        original=Original(
            options={
                "backbone": "wide_resnet101_2",
                "image_size": 480,
                "patch": 5,
                "neighborhood": 9,
                "coreset_ratio": 0.01,
                "clusters": 2048,
                "dims": None,
                "layers": 10,
                "hidden": 2048,
                "batch_size": 2048,
                "sigma": 8.0,
            },
            pretrained="ImageNet",
            departs=(
                "no refinement of the map by a network trained on synthetic defects",
                "the whole image, no center crop",
                "stages side by side, not pooled to 1,024 dimensions",
                "patches at the border are averages of what exists and are kept",
                "the perceptron learns from all patches, not from 90 % with the best epoch by the rest",
                "a patch is no part of its own neighborhood; in the authors' code it is, by an index one too high",
            ),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class PNI:
    """PNI without the refinement of its map.

    Attributes:
        seed: Seed of the coreset's projection and of the perceptron, and of the backbone with `weights="random"`.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: See `tensors.Backbone`.
        image_size: Both sides of the input, in pixels.
        patch: Side of the square over which features are averaged, in positions, odd. Like `neighborhood`, it is in
            proportion to the grid: 32 positions wide here, 60 at the published size.
        coreset_ratio: Share of the patches that become representatives (the embedding coreset), in (0, 1].
        clusters: Size of the distribution coreset, the classes of the perceptron; at most the number of patches.
        neighborhood: Side of the square of patches that the perceptron sees, and within which positions share a
            histogram, in positions, odd and at least 3.
        dims: Numbers per patch that the perceptron sees, averages of adjacent channels; None for all channels.
        layers: Layers of the perceptron, at least 2.
        hidden: Width of its hidden layers.
        epochs: Passes of its training.
        batch_size: Patches per gradient step.
        learning_rate: Learning rate at the start.
        temperature: Divisor of the perceptron's logits, above 0.
        threshold: Probability from which a representative is likely, as a multiple of 1 / (their number).
        decay: lambda: the likelihood of a distance d falls like exp(-decay d), above 0.
        sigma: Standard deviation of the map's smoothing, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stages: Sequence[int] = (2, 3)
    image_size: int = 256
    patch: int = 3
    coreset_ratio: float = 0.1
    clusters: int = 256
    neighborhood: int = 5
    dims: int | None = 64
    layers: int = 3
    hidden: int = 512
    epochs: int = 15
    batch_size: int = 64
    learning_rate: float = 1e-3
    temperature: float = 2.0
    threshold: float = 0.5
    decay: float = 0.99
    sigma: float = 4.0
    _network: Backbone = field(init=False, repr=False)
    _perceptron: nn.Sequential | None = field(default=None, init=False, repr=False)
    _good: _GoodPatches | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.coreset_ratio <= 1:
            raise ZooError(f"pni: expected coreset_ratio above 0 and at most 1, got {self.coreset_ratio}.")
        if self.patch < 1 or self.neighborhood < 3 or self.patch % 2 == 0 or self.neighborhood % 2 == 0:
            raise ZooError(
                f"pni: expected odd patch of at least 1 and odd neighborhood of at least 3, got {self.patch} and "
                f"{self.neighborhood}."
            )
        counts = {key: getattr(self, key) for key in ("clusters", "hidden", "epochs")}
        counts["dims"] = 1 if self.dims is None else self.dims
        if min(counts.values()) < 1 or self.layers < 2 or self.batch_size < 2:
            counts |= {"layers": self.layers, "batch_size": self.batch_size}
            raise ZooError(f"pni: expected counts of at least 1, layers and batch_size of at least 2, got {counts}.")
        if min(self.learning_rate, self.temperature, self.decay) <= 0 or self.threshold < 0:
            raise ZooError(
                "pni: expected learning_rate, temperature and decay above 0 and threshold of at least 0, got "
                f"{self.learning_rate}, {self.temperature}, {self.decay} and {self.threshold}."
            )
        with seeded(self.seed):
            self._network = Backbone(self.backbone, self.stages, self.weights)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Choose the representatives, count them by position and learn them from neighborhoods; see `Method.fit`."""
        grids = (
            embed_shots("pni", normal, self.image_size, (), self._embed, progress)[0].permute(0, 2, 3, 1).contiguous()
        )
        pool = grids.flatten(0, 2)
        size = max(1, round(self.coreset_ratio * len(pool)))
        representatives = pool[greedy_coreset(pool.numpy(), size, self.seed, progress)]
        classes = pool[greedy_coreset(pool.numpy(), self.clusters, self.seed)]
        occurs = position_histograms(
            nearest(pool, representatives).view(grids.shape[:3]), len(representatives), self.neighborhood // 2
        )
        likely = occurs > self.threshold / len(representatives)
        self._good = _GoodPatches(representatives, nearest(representatives, classes), likely, len(classes))
        with seeded(self.seed) as generator:
            self._perceptron = self._train(grids, nearest(pool, classes), generator, progress)

    def _train(
        self, grids: torch.Tensor, classes: torch.Tensor, generator: torch.Generator, progress: Progress | None
    ) -> nn.Sequential:
        """Learn which class each patch is of, from the features around it."""
        perceptron, count = self._blank(), int(classes.max()) + 1
        optimizer = torch.optim.Adam(perceptron.parameters(), self.learning_rate)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, DECAY_EPOCHS, DECAY)
        padded = self._padded(grids)

        def batches() -> list[torch.Tensor]:
            parts = torch.randperm(len(classes), generator=generator).split(self.batch_size)
            # Batch norm has no use for a single patch.
            return [part for part in parts if len(part) > 1]

        def loss(rows: torch.Tensor) -> torch.Tensor:
            around = neighborhoods(padded, rows, self.neighborhood)
            return F.cross_entropy(perceptron(around)[:, :count], classes[rows])

        train_epochs(loss, batches, self.epochs, [optimizer], schedules=[schedule], progress=progress)
        return perceptron.requires_grad_(False).eval()

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Maps of negative log likelihoods; the score is their maximum before smoothing. See `Method.predict`."""
        good, perceptron = require_fitted(self._good, "pni"), require_fitted(self._perceptron, "pni")

        def judge(image: Uint8Array) -> tuple[float, Float32Array]:
            grids = self._embed(to_batch([image], self.image_size)).permute(0, 2, 3, 1)
            distances = torch.cdist(grids.flatten(0, 2), good.representatives)
            padded = self._padded(grids)
            logits = torch.cat(
                [
                    perceptron(neighborhoods(padded, rows, self.neighborhood))[:, : good.count]
                    for rows in torch.arange(len(distances)).split(POSITIONS)
                ]
            )
            fits = (logits / self.temperature).softmax(1) > self.threshold / len(good.representatives)
            by_neighbors = nearest_likely(distances, fits[:, good.classes])
            by_position = nearest_likely(distances, good.likely)
            # -log of the geometric mean of the two likelihoods.
            heat = (self.decay * (by_neighbors + by_position) / 2).view(grids.shape[1:3])
            return float(heat.max()), smoothed(heat.numpy(), self.image_size, self.sigma)

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_network": self._network, "_perceptron": self._blank(), "_good": _GoodPatches}

    def model_bytes(self) -> int:
        """The backbone, the perceptron and the representatives with their histograms."""
        good, perceptron = require_fitted(self._good, "pni"), require_fitted(self._perceptron, "pni")
        return tensor_bytes(self._network, perceptron, good.representatives, good.classes, good.likely)

    def _embed(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in 0..1 -> (N, d, h, w)."""
        with torch.no_grad():
            features = self._network(batch)
            side, border = self.patch, self.patch // 2
            return joined([F.avg_pool2d(f, side, 1, border, count_include_pad=False) for f in features])

    def _padded(self, grids: torch.Tensor) -> torch.Tensor:
        """(N, h, w, d) -> (N, h + side - 1, w + side - 1, dims): what the perceptron sees, with zeros around."""
        border = self.neighborhood // 2
        shown = grids if self.dims is None else F.adaptive_avg_pool1d(grids.flatten(0, 1), self.dims)
        return F.pad(shown.view(*grids.shape[:3], -1), (0, 0, border, border, border, border))

    def _blank(self) -> nn.Sequential:
        """The perceptron with random weights; from few patches there are fewer classes than it has outputs."""
        dims = self.dims or sum(self._network.channels)
        widths = [(self.neighborhood**2 - 1) * dims, *[self.hidden] * (self.layers - 1)]
        blocks: list[nn.Module] = []
        for before in widths[:-1]:
            blocks += [nn.Linear(before, self.hidden), nn.BatchNorm1d(self.hidden), nn.ReLU(), nn.Dropout(DROPOUT)]
        return nn.Sequential(*blocks, nn.Linear(self.hidden, self.clusters))


@dataclass(frozen=True, eq=False)
class _GoodPatches:
    """What is known of the patches of good images.

    Attributes:
        representatives: (m, d) float32, the embedding coreset.
        classes: (m,) int64, each one's class, the nearest of the distribution coreset.
        likely: (h * w, m) bool, those that occur at and around each position.
        count: Number of classes.
    """

    representatives: torch.Tensor
    classes: torch.Tensor
    likely: torch.Tensor
    count: int


def nearest(features: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """The index of the nearest of some centers (m, d), of each feature (n, d): (n,) int64."""
    return torch.cat([torch.cdist(part, centers).argmin(1) for part in features.split(4096)])


def nearest_likely(distances: torch.Tensor, likely: torch.Tensor) -> torch.Tensor:
    """Distance of each patch to the nearest likely representative; to the farthest of all where none is likely.

    Args:
        distances: (n, m) from patches to representatives.
        likely: (n, m) bool.

    Returns:
        (n,).
    """
    return torch.where(likely, distances, distances.amax(1, keepdim=True)).amin(1)
