"""The Siamese encoder: a registered backbone F, a projection E and, for training only, a predictor P.

Needs the extra `torch`.

Sources: Chen & He 2021 (SimSiam: predictor, stop-gradient, negative cosine); Huang et al. 2022 (RegAD, section 3.2: E
and P as 1x1 convolutions, no pooling); Ejaz 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.encoder.pyramid import Pyramid, deepest_stages, local_average
from fewshot_ad.encoder.registration import DEFAULT_MODE, Mode, SpatialTransformer, compose, invert, warp
from fewshot_ad.encoder.state_dict import read_state_dict
from fewshot_ad.encoder.weights import WeightsCard
from fewshot_ad.errors import WeightsError

STRIDES = (4, 8, 16)
Embed: TypeAlias = Literal["last", "fused"]


@dataclass(frozen=True)
class Architecture:
    """The structure of a Siamese encoder; stored in its card.

    Attributes:
        backbone: timm model; its stages at strides 4, 8 and 16 are used.
        registration: Mode of the spatial transformers; None = no spatial transformers.
        embed: Input of E: the `last` registered stage, as published, or `fused`, the stages at strides 8 and 16 joined
            on the finer grid, locally averaged, each divided by its L2 norm to the power `norm_power`.
        layers: Number of 1x1 convolutions in E; 3 as published, 1 for a linear map.
        residual: E(x) = x + convolutions(x), the identity at initialization, instead of the convolutions alone.
        norm_power: See `EncoderSpec.norm_power`; used by `fused`.
    """

    backbone: str
    registration: Mode | None = DEFAULT_MODE
    embed: Embed = "last"
    layers: int = 3
    residual: bool = False
    norm_power: float = 0.75

    def __post_init__(self) -> None:
        if self.embed not in ("last", "fused"):
            raise WeightsError(f"expected embed among ('last', 'fused'), got {self.embed!r}.")
        if self.layers < 1:
            raise WeightsError(f"expected at least one layer in E, got {self.layers}.")


class SiameseEncoder(nn.Module):
    """Backbone with spatial transformers (F), projection (E) and predictor (P).

    Args:
        architecture: Structure of the network.
        pyramid: The backbone with its stages at strides 4, 8 and 16; None creates one with random weights.

    Raises:
        WeightsError: The backbone lacks one of the stages, or is not a plain sequence of stages.
    """

    def __init__(self, architecture: Architecture, pyramid: Pyramid | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        pyramid = pyramid or Pyramid(architecture.backbone, three_stages(architecture.backbone))
        mode = architecture.registration
        if mode is not None:
            split_stages(pyramid)
        self.pyramid = pyramid
        self.registration = nn.ModuleList(SpatialTransformer(c, mode) for c in pyramid.channels) if mode else None
        self.channels = pyramid.channels[-1] if architecture.embed == "last" else sum(pyramid.channels[1:])
        self.stride = pyramid.strides[-1] if architecture.embed == "last" else pyramid.strides[1]
        self.E = projection(self.channels, self.channels, architecture.layers)
        self.P = projection(self.channels, max(self.channels // 4, 16), 2)
        if architecture.residual:
            nn.init.zeros_(self.E[-1].weight)
            nn.init.zeros_(self.E[-1].bias)

    def registered(self, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """F: the feature maps in the registered pose, and the transforms from that pose to the image.

        Args:
            images: (N, 3, H, W) float RGB in 0..1.

        Returns:
            Feature maps (N, C, h, w) and transforms (N, 2, 3), one per stage; each transform includes those of the
            stages before. Without spatial transformers there are no transforms.
        """
        if self.registration is None:
            return self.pyramid.raw(images), []
        x = images * (255 * self.pyramid.scale) + self.pyramid.shift
        features: list[torch.Tensor] = []
        transforms: list[torch.Tensor] = []
        for modules, transformer in zip(split_stages(self.pyramid), self.registration, strict=True):
            for module in modules:
                x = module(x)
            x, transform = transformer(x)
            transforms.append(compose(transforms[-1], transform) if transforms else transform)
            features.append(x)
        return features, transforms

    def embedding(self, features: Sequence[torch.Tensor], transforms: Sequence[torch.Tensor]) -> torch.Tensor:
        """E of registered feature maps, in the pose of the stage that E reads (of the finer stage if it reads two).

        Args:
            features: (N, C, h, w) per stage, from `registered`.
            transforms: (N, 2, 3) per stage, from `registered`.

        Returns:
            (N, d, h, w).
        """
        return self._project(self.projected(features, transforms))

    def projected(self, features: Sequence[torch.Tensor], transforms: Sequence[torch.Tensor]) -> torch.Tensor:
        """The input of E, (N, d, h, w). Arguments as for `embedding`."""
        if self.architecture.embed == "last":
            return features[-1]
        middle, deep = features[1:]
        if transforms:
            # The deeper stage was warped once more than the finer one; undo that, so that the two coincide.
            deep = warp(deep, compose(invert(transforms[2]), transforms[1]))
        middle, deep = self._scaled(local_average(middle)), self._scaled(local_average(deep))
        deep = F.interpolate(deep, middle.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat([middle, deep], dim=1)

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.E(x) if self.architecture.residual else self.E(x)

    def _scaled(self, features: torch.Tensor) -> torch.Tensor:
        squared = (features * features).sum(1, keepdim=True).clamp_min(1e-12)
        return features * squared ** (-self.architecture.norm_power / 2)

    def keep_initial(self, share: float) -> None:
        """Change E so that distances between embeddings are a mean of those before and after training.

        Squared distances become share * |x - y|^2 + (1 - share) * |E(x) - E(y)|^2. Concatenating E's weighted input
        and output would give the same distances, but needs twice the dimensions. With E(x) = M x + b the sum is the
        squared distance under the linear map L', where L L' = share * I + (1 - share) * M' M is a Cholesky
        factorization.

        Args:
            share: Weight of the initial distance, 0..1.

        Raises:
            WeightsError: E is not a residual linear map.
        """
        if not self.architecture.residual or self.architecture.layers != 1:
            raise WeightsError(
                "expected a residual E of one layer: the initial distance can be kept by a linear map only."
            )
        weight = self.E[0].weight
        identity = torch.eye(self.channels, dtype=torch.float64)
        trained = weight.detach().cpu().double()[:, :, 0, 0] + identity
        mixed = torch.linalg.cholesky(share * identity + (1 - share) * trained.T @ trained).T
        with torch.no_grad():
            weight.copy_((mixed - identity)[:, :, None, None])
            self.E[0].bias.zero_()  # a constant cancels in every distance

    def upright(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Feature maps and embedding, warped back into the image's coordinates.

        Args:
            images: (N, 3, H, W) float RGB in 0..1.

        Returns:
            Feature maps (N, C, h, w), before local averaging, and the embedding (N, d, h, w).
        """
        features, transforms = self.registered(images)
        embedding = self.embedding(features, transforms)
        if not transforms:
            return features, embedding
        upright = [warp(feature, invert(transform)) for feature, transform in zip(features, transforms, strict=True)]
        return upright, self.unwarped(embedding, transforms)

    def unwarped(self, embedding: torch.Tensor, transforms: Sequence[torch.Tensor]) -> torch.Tensor:
        """Warp an embedding (N, d, h, w) from its registered pose back into the image's coordinates."""
        if not transforms:
            return embedding
        return warp(embedding, invert(transforms[-1] if self.architecture.embed == "last" else transforms[1]))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The encoder's output: the feature maps, locally averaged, and last the embedding.

        Args:
            images: (N, H, W, 3) uint8 RGB, H and W multiples of 16.

        Returns:
            One tensor (N, h, w, C) float32 per stage, and one for the embedding.
        """
        stages, embedding = self.upright(images.permute(0, 3, 1, 2).float() / 255)
        maps = [*(local_average(f) for f in stages), embedding]
        return tuple(m.permute(0, 2, 3, 1).contiguous() for m in maps)

    def simsiam(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """SimSiam loss of N pairs of images, -1..1: the symmetrized negative cosine similarity.

        Args:
            first: (N, 3, H, W) float RGB in 0..1.
            second: The partners, likewise.
        """
        return self.simsiam_of(self.embedding(*self.registered(torch.cat([first, second]))))

    def simsiam_of(self, z: torch.Tensor) -> torch.Tensor:
        """SimSiam loss from the embeddings (2N, d, h, w) of the N first images, then of their N partners.

        Source: Chen & He 2021, eq. 1 to 4, applied at every location as in Huang et al. 2022, eq. 2.
        """
        p = self.P(z)
        z1, z2 = z.chunk(2)
        p1, p2 = p.chunk(2)
        return (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2


class Outputs(nn.Module):
    """A Siamese encoder that outputs a selection of its stages.

    Args:
        encoder: The network.
        stages: Numbers of the stages to output; the embedding counts as the stage after the last.
    """

    def __init__(self, encoder: SiameseEncoder, stages: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        numbers = (*encoder.pyramid.stages, encoder.pyramid.stages[-1] + 1)
        self.numbers = tuple(stages)
        self.indices = [numbers.index(stage) for stage in stages]
        self.eval()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The selected outputs of `SiameseEncoder.forward`."""
        maps = self.encoder(images)
        return tuple(maps[i] for i in self.indices)


def load_siamese(card: WeightsCard, tensors: Path, stages: Sequence[int]) -> Outputs:
    """A trained encoder from its card and its safetensors file.

    Args:
        card: The encoder's card.
        tensors: The safetensors file.
        stages: Numbers of the stages to output, as for `Outputs`.

    Raises:
        WeightsError: The tensors do not fit the card.
    """
    if card.architecture is None:
        raise WeightsError(f"{card.name}: its card describes no Siamese architecture.")
    encoder = SiameseEncoder(Architecture(**card.architecture))
    try:
        # The predictor is for training only and is not in the file.
        mismatch = encoder.load_state_dict(read_state_dict(tensors), strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{tensors}: the tensors do not fit the card: {str(error).splitlines()[0]}.") from error
    missing = [k for k in mismatch.missing_keys if not k.startswith("P.")]
    if missing or mismatch.unexpected_keys:
        raise WeightsError(
            f"{tensors}: the tensors do not fit the card: missing {missing[:2]}, unexpected "
            f"{mismatch.unexpected_keys[:2]}."
        )
    return Outputs(encoder, stages)


def three_stages(backbone: str) -> tuple[int, ...]:
    """Timm's indices of a backbone's stages at strides 4, 8 and 16, the deepest stage of each stride.

    Raises:
        WeightsError: The backbone lacks one of the three strides.
    """
    strides = Pyramid(backbone).all_strides
    stages = deepest_stages(strides, STRIDES)
    if len(stages) != len(STRIDES):
        raise WeightsError(f"{backbone}: expected stages at strides {STRIDES}, got {strides}. Choose another backbone.")
    return stages


def split_stages(pyramid: Pyramid) -> list[list[nn.Module]]:
    """The modules of each stage of a pyramid, in order: those between one feature map and the next.

    Raises:
        WeightsError: The backbone is not a plain sequence of stages.
    """
    backbone = pyramid.backbone
    stages: list[list[nn.Module]] = [[]]
    if hasattr(backbone, "return_layers"):  # timm's FeatureListNet: ResNet, ConvNeXt, RegNet, ...
        ends = set(backbone.return_layers)
        for name, module in backbone.items():
            stages[-1].append(module)
            if name in ends:
                stages.append([])
    elif hasattr(backbone, "_stage_out_idx") and backbone.feature_hooks is None:  # EfficientNet, MobileNet
        stages[-1] += [getattr(backbone, name) for name in ("conv_stem", "bn1", "act1") if hasattr(backbone, name)]
        # timm numbers the stages by the block after which they end; 0 is the stem.
        if backbone._stage_out_idx.get(0) in pyramid.stages:
            stages.append([])
        for index, block in enumerate(backbone.blocks, start=1):
            stages[-1].append(block)
            if backbone._stage_out_idx.get(index) in pyramid.stages:
                stages.append([])
    if len(stages) <= len(pyramid.stages):
        raise WeightsError(
            f"{pyramid.backbone_name}: expected a backbone that timm lists stage by stage (ResNet, ConvNeXt, RegNet, "
            "EfficientNet, MobileNet and the like), got another structure. Choose one of those."
        )
    return stages[: len(pyramid.stages)]


def projection(channels: int, hidden: int, depth: int) -> nn.Sequential:
    """`depth` 1x1 convolutions with batch norm and ReLU between them; (N, channels, h, w) -> the same shape."""
    layers: list[nn.Module] = []
    for n in range(depth):
        last = n == depth - 1
        layers.append(nn.Conv2d(channels if n == 0 else hidden, channels if last else hidden, 1))
        if not last:
            layers += [nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def negative_cosine(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean negative cosine similarity over all locations of (N, d, h, w); no gradient flows into the target."""
    return -F.cosine_similarity(predicted.float(), target.detach().float(), dim=1).mean()


def spread(embedding: torch.Tensor) -> float:
    """Mean standard deviation of the channels of the normalized embedding (N, d, h, w), divided by 1/sqrt(d).

    About 1 for embeddings that are spread evenly; 0 if all are equal: collapse (Chen & He 2021, section 4.1).
    """
    z = F.normalize(embedding.detach().float(), dim=1).permute(1, 0, 2, 3).flatten(1)
    return float(z.std(1).mean() * z.shape[0] ** 0.5)


def content(embedding: torch.Tensor) -> float:
    """Share of an embedding's variance that tells images apart at one and the same place.

    SimSiam at every location can be met by an embedding that tells the place alone, which a network learns from its
    padded borders: all pairs agree, nothing has collapsed by `spread`, and yet nothing of the image is left.

    Args:
        embedding: (N, d, h, w) of N different images.

    Returns:
        About 1 if the place says nothing, 0 if it says all; 1 for a single image.
    """
    z = F.normalize(embedding.detach().float(), dim=1)
    if len(z) < 2:
        return 1.0
    total = z.var(dim=(0, 2, 3)).sum()
    return float((z.var(dim=0).mean(dim=(1, 2)).sum() / total.clamp_min(1e-12)).cpu())
