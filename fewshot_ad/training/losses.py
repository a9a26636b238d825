"""The losses of a Siamese training: SimSiam, margin and anchor, weighed by the recipe."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.encoder.siamese import SiameseEncoder, spread
from fewshot_ad.training.recipe import TrainingRecipe

# A location counts as defective if at least this share of it was painted; anything in between is left out.
DEFECTIVE = 0.15
BANK_PATCHES = 1024
HARD_SHARE = 0.05


def margin_loss(
    bank: torch.Tensor, clean: torch.Tensor, defective: torch.Tensor, painted: torch.Tensor, seed: int
) -> torch.Tensor:
    """Defects must be farther from the bank than good patches, the hardest ones above all.

    With d the distance to the nearest neighbor in the bank, on a logarithmic scale: softplus of (d_good + gap -
    d_defect), over pairs of a defective patch with the hardest 5% of the good ones (gap 0.1) and with all good ones
    (gap 0.3).

    Args:
        bank: (N, d, h, w) embeddings of good images of one category.
        clean: (N, d, h, w) of other good images of it.
        defective: (N, d, h, w) of the same with drawn defects.
        painted: (N, h, w) share of each patch that was painted, 0..1.
        seed: Which patches of the bank are kept, if there are more than 1,024.

    Returns:
        A scalar; 0 if no patch is defective.
    """
    keep = torch.Generator().manual_seed(seed)
    rows = _rows(bank)
    rows = rows[torch.randperm(len(rows), generator=keep)[:BANK_PATCHES].to(rows.device)]
    bad = _rows(defective)[painted.reshape(-1) > DEFECTIVE]
    if len(bad) == 0:
        return bank.sum() * 0
    bad = bad[torch.randperm(len(bad), generator=keep)[:512].to(bad.device)]
    good = torch.cat([_rows(clean), _rows(defective)[painted.reshape(-1) == 0]])
    far, near = _log_distance(bad, rows), _log_distance(good, rows)
    hard = near.topk(max(1, int(len(near) * HARD_SHARE))).values[::4]
    spaced = near[::16]
    loss = F.softplus((hard[None] - far[:, None] + 0.1) * 6).mean() / 6
    return loss + F.softplus((spaced[None] - far[:, None] + 0.3) * 4).mean() / 4


def _rows(embedding: torch.Tensor) -> torch.Tensor:
    return embedding.float().permute(0, 2, 3, 1).reshape(-1, embedding.shape[1])


def _log_distance(queries: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    # Which neighbor is the nearest needs no gradient; the distance to it does.
    with torch.no_grad():
        squared = queries.pow(2).sum(1)[:, None] + bank.pow(2).sum(1)[None] - 2 * queries @ bank.T
        nearest = squared.argmin(1)
    return 0.5 * (queries - bank[nearest]).pow(2).sum(1).clamp_min(1e-8).log()


class Losses(nn.Module):
    """The weighted losses of a batch.

    Args:
        recipe: Their weights.
        encoder: What is trained.
    """

    def __init__(self, recipe: TrainingRecipe, encoder: SiameseEncoder) -> None:
        super().__init__()
        self.recipe, self.encoder = recipe, encoder
        # Not registered: the anchor is neither trained nor stored.
        self._anchor = (
            [copy.deepcopy(encoder.pyramid).requires_grad_(False).eval()]
            if recipe.anchor > 0 and not recipe.freeze
            else []
        )

    def forward(
        self, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], seed: int
    ) -> dict[str, torch.Tensor]:
        """The unweighed losses by name, and the `spread` of the embedding.

        Args:
            batch: First images, second ones, the second ones with defects, and where these are; see
                `Pairs.batch`.
            seed: Of the patches that `margin_loss` keeps.
        """
        recipe, encoder = self.recipe, self.encoder
        first, second, painted, masks = batch
        count = len(first)
        features, transforms = encoder.registered(torch.cat([first, second, painted]))
        z = encoder.embedding(features, transforms)
        found = {}
        if recipe.simsiam > 0:
            found["simsiam"] = encoder.simsiam_of(z[: 2 * count])
        if recipe.margin > 0:
            share = F.adaptive_avg_pool2d(masks[:, None].float(), z.shape[2:])[:, 0]
            group = recipe.group
            # The masks are in the images' coordinates.
            placed = encoder.brought_back(z, transforms)
            parts = [
                margin_loss(
                    placed[i : i + group],
                    placed[count + i : count + i + group],
                    placed[2 * count + i : 2 * count + i + group],
                    share[i : i + group],
                    seed + i,
                )
                for i in range(0, count, group)
            ]
            found["margin"] = torch.stack(parts).mean()
        if recipe.anchor > 0:
            found["anchor"] = self._moved(torch.cat([first, second, painted]), features, transforms, z)
        found["spread"] = torch.tensor(spread(z[:count]))
        return found

    def _moved(
        self,
        images: torch.Tensor,
        features: Sequence[torch.Tensor],
        transforms: Sequence[torch.Tensor],
        z: torch.Tensor,
    ) -> torch.Tensor:
        """How far stage features and a residual E have moved from where they started, as a share of their energy."""
        encoder, terms = self.encoder, []
        if not self.recipe.freeze:
            with torch.no_grad():
                wanted = self._anchor[0].raw(images)
            now = encoder.pyramid.raw(images) if transforms else features
            terms += [F.mse_loss(a.float(), b.float()) / b.float().var() for a, b in zip(now, wanted, strict=True)]
        if self.recipe.residual:
            with torch.no_grad():
                start = encoder.projected(features, transforms).float()
            terms.append(F.mse_loss(z.float(), start) / start.var())
        return torch.stack(terms).mean()
