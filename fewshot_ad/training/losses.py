"""The losses of Siamese training: SimSiam, margin, anchor and equivariance; the recipe weights them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.encoder.registration import compose, invert, warp
from fewshot_ad.encoder.siamese import SiameseEncoder, content, spread
from fewshot_ad.training.recipe import TrainingRecipe

# A patch counts as defective if at least this share of it is covered by a drawn defect, as good if nothing is; patches
# in between are left out.
DEFECTIVE_SHARE = 0.15
# Largest turn (radians), zoom (natural logarithm) and shift (half images) of the known warps.
MAX_TURN, MAX_ZOOM, MAX_SHIFT = 0.5, 0.2, 0.15
BANK_PATCHES, DEFECTIVE_PATCHES = 1024, 512
# Share of the good patches that count as hardest: those farthest from the bank.
HARD_SHARE = 0.05


class Losses(nn.Module):
    """The losses of a batch.

    Args:
        recipe: The recipe, whose weights decide which losses are computed.
        encoder: The encoder in training.
    """

    def __init__(self, recipe: TrainingRecipe, encoder: SiameseEncoder) -> None:
        super().__init__()
        self.recipe, self.encoder = recipe, encoder
        # In a list, so that torch does not register it: the anchor is neither trained nor stored.
        self._anchor = (
            [copy.deepcopy(encoder.pyramid).requires_grad_(False).eval()]
            if recipe.anchor > 0 and not recipe.freeze
            else []
        )

    def forward(
        self, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], seed: int
    ) -> dict[str, torch.Tensor]:
        """The losses by name, not yet weighted, and `spread` and `content` of the embedding.

        Args:
            batch: First images, second images, second images with defects, and masks of the defects; see
                `Pairs.batch`.
            seed: Of the random subset of patches in `margin_loss`, and of the warps in `equivariance_loss`.
        """
        recipe, encoder = self.recipe, self.encoder
        first, second, defective, masks = batch
        count = len(first)
        features, transforms = encoder.registered(torch.cat([first, second, defective]))
        z = encoder.embedding(features, transforms)
        losses = {}
        if recipe.simsiam > 0:
            losses["simsiam"] = encoder.simsiam_of(z[: 2 * count])
        if recipe.margin > 0:
            coverage = F.adaptive_avg_pool2d(masks[:, None].float(), z.shape[2:])[:, 0]
            group = recipe.group
            # The masks are in the images' coordinates, so the embeddings must be as well.
            embedding = encoder.unwarped(z, transforms)
            group_losses = [
                margin_loss(
                    embedding[i : i + group],
                    embedding[count + i : count + i + group],
                    embedding[2 * count + i : 2 * count + i + group],
                    coverage[i : i + group],
                    seed + i,
                )
                for i in range(0, count, group)
            ]
            losses["margin"] = torch.stack(group_losses).mean()
        if recipe.anchor > 0:
            losses["anchor"] = self._drift(torch.cat([first, second, defective]), features, transforms, z)
        if recipe.equivariance > 0:
            losses["equivariance"] = equivariance_loss(encoder, first, transforms[-1][:count], seed)
        losses["spread"] = torch.tensor(spread(z[:count]))
        losses["content"] = torch.tensor(content(z[:count]))
        return losses

    def _drift(
        self,
        images: torch.Tensor,
        features: Sequence[torch.Tensor],
        transforms: Sequence[torch.Tensor],
        z: torch.Tensor,
    ) -> torch.Tensor:
        """Mean squared change of feature maps and of a residual E since initialization, divided by the variance."""
        encoder, terms = self.encoder, []
        if not self.recipe.freeze:
            with torch.no_grad():
                initial = self._anchor[0].raw(images)
            current = encoder.pyramid.raw(images) if transforms else features
            terms += [F.mse_loss(a.float(), b.float()) / b.float().var() for a, b in zip(current, initial, strict=True)]
        if self.recipe.residual:
            with torch.no_grad():
                initial_z = encoder.projected(features, transforms).float()
            terms.append(F.mse_loss(z.float(), initial_z) / initial_z.var())
        return torch.stack(terms).mean()


def equivariance_loss(
    encoder: SiameseEncoder, images: torch.Tensor, transforms: torch.Tensor, seed: int
) -> torch.Tensor:
    """The registered pose of a warped image must be that of the image itself.

    A warped image shows at p what the image shows at T(p), so its transform must be T^-1 of the image's: the mean
    squared distance of what should coincide, in half images of the registered pose. Measured on the image instead, a
    zoom into a point would meet it.

    Args:
        encoder: The encoder in training.
        images: (N, 3, H, W) float RGB in 0..1.
        transforms: (N, 2, 3) transforms of these images after the last stage, see `SiameseEncoder.registered`.
        seed: Of the known warps.

    Source: Kaba et al. 2023 (learned canonicalization: the pose of T x is T of the pose of x).
    """
    rng = torch.Generator().manual_seed(seed)
    turn, zoom, across, down = (torch.rand(4, len(images), generator=rng) * 2 - 1).to(images.device)
    turn, scale = turn * MAX_TURN, torch.exp(zoom * MAX_ZOOM)
    cos, sin = torch.cos(turn) * scale, torch.sin(turn) * scale
    rows = [cos, -sin, across * MAX_SHIFT, sin, cos, down * MAX_SHIFT]
    known = torch.stack(rows, dim=1).view(-1, 2, 3)
    warped = encoder.registered(warp(images, known))[1][-1]
    line = torch.linspace(-0.8, 0.8, 5, device=images.device)
    x, y = torch.meshgrid(line, line, indexing="xy")
    points = torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1)
    between = compose(invert(transforms.float()), compose(known, warped.float()))
    return (between @ points - points[:2]).square().sum(1).mean()


def margin_loss(
    bank: torch.Tensor, clean: torch.Tensor, defective: torch.Tensor, coverage: torch.Tensor, seed: int
) -> torch.Tensor:
    """Defective patches must be farther from the bank than good patches, above all than the hardest good ones.

    With d the logarithm of the distance to the nearest neighbor in the bank: softplus of (d_good + gap - d_defective),
    over pairs of a defective patch with the hardest 5% of the good patches (gap 0.1) and with all good patches
    (gap 0.3).

    Args:
        bank: (N, d, h, w) embeddings of good images of one category.
        clean: (N, d, h, w) embeddings of other good images of that category.
        defective: (N, d, h, w) embeddings of the same images with drawn defects.
        coverage: (N, h, w) share of each patch that a drawn defect covers, 0..1.
        seed: Of the random subset of patches, if there are more than 1,024 in the bank or 512 defective ones.

    Returns:
        A scalar; 0 if no patch is defective.
    """
    rng = torch.Generator().manual_seed(seed)
    bank_patches = _random_subset(_patches(bank), BANK_PATCHES, rng)
    bad = _patches(defective)[coverage.reshape(-1) > DEFECTIVE_SHARE]
    if len(bad) == 0:
        return bank.sum() * 0
    bad = _random_subset(bad, DEFECTIVE_PATCHES, rng)
    good = torch.cat([_patches(clean), _patches(defective)[coverage.reshape(-1) == 0]])
    far, near = _log_distance(bad, bank_patches), _log_distance(good, bank_patches)
    # Every 4th of the hardest and every 16th of all good patches, to save memory.
    hard = near.topk(max(1, int(len(near) * HARD_SHARE))).values[::4]
    sample = near[::16]
    loss = F.softplus((hard[None] - far[:, None] + 0.1) * 6).mean() / 6
    return loss + F.softplus((sample[None] - far[:, None] + 0.3) * 4).mean() / 4


def _patches(embedding: torch.Tensor) -> torch.Tensor:
    """(N, d, h, w) -> (N * h * w, d)."""
    return embedding.float().permute(0, 2, 3, 1).reshape(-1, embedding.shape[1])


def _random_subset(patches: torch.Tensor, size: int, rng: torch.Generator) -> torch.Tensor:
    return patches[torch.randperm(len(patches), generator=rng)[:size].to(patches.device)]


def _log_distance(queries: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    # The choice of the nearest neighbor needs no gradient; the distance to it does.
    with torch.no_grad():
        squared = queries.pow(2).sum(1)[:, None] + bank.pow(2).sum(1)[None] - 2 * queries @ bank.T
        nearest = squared.argmin(1)
    return 0.5 * (queries - bank[nearest]).pow(2).sum(1).clamp_min(1e-8).log()
