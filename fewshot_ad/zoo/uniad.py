"""UniAD: a transformer rebuilds features without looking at a place or its neighbors; what it misses is anomalous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.components.training import shuffled_batches, train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

# The learning rate falls to a tenth after this share of the training: epoch 800 of 1000.
FALL = 4 / 5
LARGEST_GRADIENT = 0.1


@baseline(
    Card(
        name="uniad",
        title="UniAD",
        paper="You, Cui, Shen, Yang, Lu, Zheng & Le 2022, A Unified Model for Multi-class Anomaly Detection, NeurIPS",
        year=2022,
        family="reconstruction",
        needs_internet=True,
        trains=True,
        weights="ResNet18 distilled from EfficientNet-Lite, or EfficientNet-Lite0, instead of ImageNet's "
        "EfficientNet-B4; a narrower transformer and a number of steps that suits a few images on a CPU instead of "
        "1000 epochs. One product at a time here, as its `fit` is given.",
        original=Original(
            options={
                "backbone": "tf_efficientnet_b4",
                "stages": (0, 1, 2, 3),
                "width": 256,
                "learning_rate": 1e-4,
            },
            pretrained="ImageNet",
            lengths={"steps": "1000 epochs"},
            departs=("the last training step is kept, not the best on test images",),
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class UniAD:
    """A unified model for multi-class anomaly detection.

    Attributes:
        seed: Seed of the transformer, the order of the images, the jitter and the dropout.
        backbone: See `tensors.Backbone`.
        weights: See `tensors.Backbone`.
        stages: See `tensors.Backbone`; features are put on the grid of the last, the coarsest.
        image_size: Both sides of the input in pixels, a multiple of the last stage's stride.
        width: C, length of a token, a multiple of `heads` and of 2; the layers on each token are 4 times as wide.
        layers: Layers of the encoder, and of the decoder.
        heads: Heads of the attention.
        dropout: Share of values that training drops.
        neighbors: Side of the square of grid cells, around each, that it does not attend to; odd.
        jitter: alpha, strength of the noise on the features in training, relative to their norm.
        steps: Training steps.
        batch_size: Images per step, at most.
        learning_rate: AdamW's learning rate.
        weight_decay: AdamW's weight decay.
        pooling: Side of the square whose mean is the score, at most `image_size`, in pixels of the input.

    Raises:
        ZooError: A setting makes no sense.
        WeightsError: The backbone's weights are missing or do not fit.

    Source: You et al. 2022, section 3: neighbor masked attention, layer-wise query decoder, feature jittering (eq. 1),
    loss and map; hyper-parameters in section 4.1 and the authors' public configuration for MVTec AD.
    """

    seed: int = 0
    backbone: str = "resnet18"
    weights: str | None = None
    stages: Sequence[int] = (1, 2, 3)
    image_size: int = 224
    width: int = 128
    layers: int = 4
    heads: int = 8
    dropout: float = 0.1
    neighbors: int = 7
    jitter: float = 20.0
    steps: int = 300
    batch_size: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    pooling: int = 16
    _backbone: Backbone = field(init=False, repr=False)
    _rebuilder: Rebuilder | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        counts = (self.layers, self.heads, self.steps, self.batch_size, self.width)
        if min(counts) < 1 or self.width % self.heads or self.width % 2:
            raise ZooError(
                "uniad: expected layers, heads, steps and batch_size of at least 1, and width as a multiple of heads "
                f"and of 2, got {', '.join(map(str, counts))}."
            )
        if not 0 <= self.dropout < 1 or self.learning_rate <= 0 or min(self.jitter, self.weight_decay) < 0:
            raise ZooError(
                "uniad: expected dropout in 0..1 and below 1, learning_rate above 0, jitter and weight_decay of at "
                f"least 0, got {self.dropout}, {self.learning_rate}, {self.jitter} and {self.weight_decay}."
            )
        if not 1 <= self.pooling <= self.image_size:
            raise ZooError(f"uniad: expected pooling of 1 to image_size ({self.image_size}), got {self.pooling}.")
        with seeded(self.seed):
            self._backbone = Backbone(self.backbone, self.stages, self.weights)
        stride = self._backbone.strides[-1]
        if self.image_size % stride:
            raise ZooError(f"uniad: expected image_size as a multiple of {stride}, got {self.image_size}.")
        # A cell in the middle must have another to attend to.
        if self.neighbors % 2 == 0 or not 1 <= self.neighbors // 2 + 1 <= self._side // 2:
            raise ZooError(
                f"uniad: expected neighbors as an odd number below {2 * (self._side // 2)} on a grid of {self._side} x "
                f"{self._side} cells, got {self.neighbors}."
            )

    @property
    def _side(self) -> int:
        """Cells along a side of the grid."""
        return self.image_size // self._backbone.strides[-1]

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Train the transformer to rebuild the features of the good images; see `Method.fit`."""
        images = resized(normal, self.image_size)
        # The backbone is frozen and the jitter is on its features, so these are computed once.
        features = torch.cat([self._features(image[None].float() / 255) for image in images])
        with seeded(self.seed) as generator:
            rebuilder = self._new_rebuilder()
            batches = shuffled_batches(len(features), self.batch_size, generator)

            def loss() -> torch.Tensor:
                clean = features[next(batches)]
                return F.mse_loss(rebuilder(jittered(clean, self.jitter, generator)), clean)

            parameters = list(rebuilder.parameters())
            optimizer = torch.optim.AdamW(parameters, self.learning_rate, weight_decay=self.weight_decay)

            def clip(*_: Any) -> None:
                nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)

            optimizer.register_step_pre_hook(clip)
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [max(1, round(FALL * self.steps))], 0.1)
            train_steps(loss, self.steps, [optimizer], schedules=[schedule], progress=progress)
        self._rebuilder = rebuilder.requires_grad_(False).eval()

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Map = distance of the features from what is rebuilt; score = its largest local mean. See `Method.predict`."""
        rebuilder = require_fitted(self._rebuilder, "uniad")

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            tokens = self._features(to_batch([image], self.image_size))
            distances = (rebuilder(tokens) - tokens).norm(dim=2).view(1, 1, self._side, self._side)
            heat = F.interpolate(distances, (self.image_size,) * 2, mode="bilinear", align_corners=True)
            return float(F.avg_pool2d(heat, self.pooling, 1).max()), heat[0, 0]

        return one_by_one(images, judge)

    def _features(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in 0..1 -> (N, cells, channels): all stages on the grid of the coarsest."""
        with torch.no_grad():
            stages = self._backbone(batch)
            grid = [F.interpolate(stage, (self._side,) * 2, mode="bilinear", align_corners=True) for stage in stages]
            return torch.cat(grid, 1).flatten(2).transpose(1, 2)

    def _new_rebuilder(self) -> Rebuilder:
        return Rebuilder(
            sum(self._backbone.channels),
            self._side,
            self.width,
            layers=self.layers,
            heads=self.heads,
            dropout=self.dropout,
            neighbors=self.neighbors,
        )

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        return {"_backbone": self._backbone, "_rebuilder": self._new_rebuilder()}

    def model_bytes(self) -> int:
        """Both networks."""
        return tensor_bytes(self._backbone, require_fitted(self._rebuilder, "uniad"))


def jittered(tokens: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Features with Gaussian noise, whose standard deviation is `strength` times the token's norm over its length.

    Args:
        tokens: (N, cells, channels).
        strength: alpha.
        generator: Source of the noise.

    Source: You et al. 2022, section 3.4; it is added with probability 1, as in the authors' configuration.
    """
    deviation = strength * tokens.norm(dim=2, keepdim=True) / tokens.shape[2]
    return tokens + deviation * torch.randn(tokens.shape, generator=generator)


def neighbor_mask(side: int, neighbors: int) -> torch.Tensor:
    """Which cells of a grid may not attend to which: those in a square around each, itself included.

    Args:
        side: Cells along a side of the grid.
        neighbors: Cells along a side of the square, odd.

    Returns:
        (side ** 2, side ** 2) bool, True where a row's cell may not attend to a column's.

    Source: You et al. 2022, section 3.3.
    """
    cells = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    apart = (cells[:, None] - cells).abs().amax(2)
    return apart <= neighbors // 2


class Rebuilder(nn.Module):
    """Encoder with neighbor masked attention, and a decoder with a query of its own in each layer.

    Args:
        channels: Channels of the features.
        side: Cells along a side of the grid.
        width: Length of a token.
        layers: Layers of the encoder, and of the decoder.
        heads: Heads of the attention.
        dropout: Share of values that training drops.
        neighbors: See `neighbor_mask`.
    """

    mask: torch.Tensor

    def __init__(
        self, channels: int, side: int, width: int, *, layers: int, heads: int, dropout: float, neighbors: int
    ) -> None:
        super().__init__()
        self.entry, self.exit = nn.Linear(channels, width), nn.Linear(width, channels)
        self.rows, self.columns = (nn.Parameter(torch.rand(side, width // 2)) for _ in range(2))
        self.encoder = nn.ModuleList(_Layer(width, heads, dropout, 1) for _ in range(layers))
        self.decoder = nn.ModuleList(_Layer(width, heads, dropout, 2) for _ in range(layers))
        self.queries = nn.Parameter(torch.randn(layers, side**2, width))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("mask", neighbor_mask(side, neighbors), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, cells, channels) -> the same shape."""
        side = len(self.rows)
        rows, columns = self.rows[:, None].expand(-1, side, -1), self.columns.expand(side, -1, -1)
        positions = torch.cat([columns, rows], 2).flatten(0, 1)
        encoded = self.entry(tokens)
        for layer in self.encoder:
            encoded = layer(encoded, [encoded], positions, self.mask)
        decoded = encoded
        for layer, query in zip(self.decoder, self.queries, strict=True):
            decoded = layer(query.expand_as(decoded), [encoded, decoded], positions, self.mask)
        return self.exit(self.norm(decoded))


class _Layer(nn.Module):
    """Attention to one source after the other, then two layers on each token; each with a shortcut and then a norm."""

    def __init__(self, width: int, heads: int, dropout: float, sources: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(width, heads, dropout, batch_first=True) for _ in range(sources)
        )
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(sources + 1))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: torch.Tensor, sources: Sequence[torch.Tensor], positions: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """(N, cells, width) each -> the same shape."""
        for attention, source, norm in zip(self.attentions, sources, self.norms, strict=False):
            seen, _ = attention(x + positions, source + positions, source, need_weights=False, attn_mask=mask)
            x = norm(x + self.dropout(seen))
        return self.norms[-1](x + self.dropout(self.layers(x)))
