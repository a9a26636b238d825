"""Training of a Siamese encoder, once, on good photographs of many parts.

The published recipe: pairs of photographs of one category, one of them augmented, SimSiam's loss at every location.
Two terms can be added, each with a weight of its own (0 leaves it out):

- `margin`: defects are drawn on one photograph of the pair; where they are, the nearest neighbour among the other
  photographs of the category must be farther away than anywhere a good part shows. It is what a memory bank is used
  for afterwards, as a loss.
- `anchor`: the stage features, and a residual E, must stay close to the initialisation.

Sources: Chen & He 2021 (SimSiam); Huang et al. 2022 (RegAD: pairs of one category, registration); Li et al. 2021
(CutPaste) for drawn defects as negatives.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import kornia.augmentation as augment
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.defects import blot, displaced_patch, missing_piece, scratch
from fewshot_ad.encoder.pyramid import load_pyramid
from fewshot_ad.encoder.registration import Mode
from fewshot_ad.encoder.siamese import Architecture, Embed, SiameseEncoder, spread, three_stages
from fewshot_ad.errors import TrainingError
from fewshot_ad.images import Uint8Array
from fewshot_ad.training.augmentation import PhotometricJitter
from fewshot_ad.training.distillation import GENERATED, one_cosine
from fewshot_ad.training.photographs import PhotographStore, find_categories, readable
from fewshot_ad.training.run import Clock, Progress, RunFolder, Workers, memory_advice, workers

log = logging.getLogger(__name__)

# Spread of the normalised embedding against 1/sqrt(d): below the first training warns, below the second it stops.
COLLAPSE_WARNING, COLLAPSED = 0.3, 0.1
# A location counts as defective if at least this share of it was painted; anything in between is left out.
DEFECTIVE = 0.15
BANK_PATCHES = 1024
HARD_SHARE = 0.05


@dataclass(frozen=True)
class TrainingRecipe:
    """What a training is made of; stored as YAML with the run. The defaults are the published recipe.

    Attributes:
        backbone: timm model.
        init: `bundled` for the weights that come with the package (`tf_efficientnet_lite0`), `timm` to download, or a
            file (of `fewshot-ad distill`, for example).
        init_licence: Licence of a file's weights, for the card.
        folders: Good photographs, see `find_categories`; `parts` stands for the built-in generator.
        licences: Licence of each folder, for the card.
        registration: See `registration.PARTS`; None leaves the spatial transformers out.
        embed: See `siamese.Architecture`.
        layers: Likewise.
        residual: Likewise.
        freeze: Leave the backbone's weights alone.
        size: Side of the training photographs in pixels, a multiple of 16.
        batch: Pairs a step, over all processes.
        group: Pairs of one category that stand together in a batch; `margin` searches among them.
        accumulate: The batch is computed in this many parts, to save memory.
        epochs: Passes; an epoch has one pair a photograph.
        optimizer: `sgd` or `adamw`.
        learning_rate: Peak of one cosine down to zero.
        momentum: SGD's.
        weight_decay: The optimizer's.
        simsiam: Weight of SimSiam's loss.
        margin: Weight of the margin loss.
        anchor: Weight of the identity-preserving loss.
        keep: Share of the initial features' distance that a linear residual E takes up at the end, 0..1; see
            `SiameseEncoder.keep_initial`.
        photometric: Strength of the photometric augmentation, 1 for a line's change from hour to hour.
        rotation: Largest turn of the geometric augmentation in degrees.
        generated: Number of generated products a category, if `folders` has `parts`.
        generated_photographs: Photographs a generated product.
        precision: `bf16` or `f32` of the forward and backward pass.
        seed: Seed of everything random.
    """

    backbone: str = "resnet18"
    init: str = "timm"
    init_licence: str = ""
    folders: tuple[str, ...] = (GENERATED,)
    licences: tuple[str, ...] = ()
    registration: Mode | None = "rotation+scale"
    embed: Embed = "last"
    layers: int = 3
    residual: bool = False
    freeze: bool = False
    size: int = 224
    batch: int = 32
    group: int = 1
    accumulate: int = 1
    epochs: int = 50
    optimizer: str = "sgd"
    learning_rate: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 1e-4
    simsiam: float = 1.0
    margin: float = 0.0
    anchor: float = 0.0
    keep: float = 0.0
    photometric: float = 1.0
    rotation: float = 20.0
    generated: int = 8
    generated_photographs: int = 8
    precision: str = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 64 or self.size % 16:
            raise TrainingError(f"expected size to be a multiple of 16, at least 64, got {self.size}.")
        if min(self.batch, self.group, self.accumulate, self.epochs) < 1 or self.batch % (self.group * self.accumulate):
            raise TrainingError(
                f"expected a batch that is a multiple of group times accumulate and at least one epoch, got "
                f"batch={self.batch}, group={self.group}, accumulate={self.accumulate}, epochs={self.epochs}."
            )
        if self.optimizer not in ("sgd", "adamw"):
            raise TrainingError(f"expected optimizer among ('sgd', 'adamw'), got {self.optimizer!r}.")
        if self.precision not in ("bf16", "f32"):
            raise TrainingError(f"expected precision among ('bf16', 'f32'), got {self.precision!r}.")
        if self.licences and len(self.licences) != len(self.folders):
            raise TrainingError(
                f"expected a licence a folder, got {len(self.licences)} for {len(self.folders)} folders."
            )
        if self.anchor > 0 and self.freeze and not self.residual:
            raise TrainingError(
                "expected anchor=0 with a frozen backbone and no residual E: nothing there can be anchored."
            )
        if not 0 <= self.keep < 1 or (self.keep > 0 and (self.layers != 1 or not self.residual)):
            raise TrainingError(f"expected keep in 0..1, above 0 only with a residual E of one layer, got {self.keep}.")
        if max(self.simsiam, self.margin, self.anchor) <= 0:
            raise TrainingError("expected at least one of simsiam, margin and anchor above 0.")
        if not self.folders:
            raise TrainingError("expected at least one folder of photographs, or 'parts' for generated ones.")

    @property
    def architecture(self) -> Architecture:
        """What is trained."""
        return Architecture(self.backbone, self.registration, self.embed, self.layers, self.residual)


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        encoder: The network after the last epoch.
        data: Names, counts and licences of what it was trained on.
        folder: The run's folder, with recipe and log.
    """

    encoder: SiameseEncoder
    data: tuple[dict[str, Any], ...]
    folder: Path


def train(
    recipe: TrainingRecipe,
    output: str | Path,
    *,
    device: str | None = None,
    restart: bool = False,
    progress: Progress | None = None,
) -> Trained | None:
    """Train an encoder; goes on where a killed run stopped. The last epoch is the model: nothing is selected.

    Args:
        recipe: What to do.
        output: Folder of the run; receives the recipe, the log (a line an epoch) and the checkpoint.
        device: `cpu` or `cuda`; None takes a GPU if there is one. Several processes through `torchrun`.
        restart: Throw away a run that is there.
        progress: Called with (`train`, steps done, steps in all).

    Returns:
        The result, in the first process; None in the others of `torchrun`.

    Raises:
        TrainingError: Data, recipe or machine do not allow it, or the embedding collapsed.
        WeightsError: The initial weights cannot be had.
    """
    with workers(device) as crew, memory_advice(recipe.batch // recipe.accumulate, recipe.size):
        torch.manual_seed(recipe.seed)
        source = None if recipe.init in ("bundled", "timm") else recipe.init
        pyramid = load_pyramid(recipe.backbone, source, three_stages(recipe.backbone), recipe.init == "timm")
        encoder = SiameseEncoder(recipe.architecture, pyramid).to(crew.device)
        pairs = _Pairs(recipe, crew)
        with crew.first_goes_first():
            run = RunFolder(output, recipe, restart=restart and crew.is_first)
        _fit(recipe, encoder, run, pairs, crew, progress)
        if recipe.keep > 0:
            encoder.keep_initial(recipe.keep)
        return Trained(encoder.eval(), pairs.data, run.folder) if crew.is_first else None


class _Pairs:
    """Batches of pairs by step number."""

    def __init__(self, recipe: TrainingRecipe, crew: Workers) -> None:
        self._recipe, self._crew = recipe, crew
        self._store = PhotographStore(max(recipe.size, 256))
        self._products: list[Sequence[Path | Uint8Array]] = []
        data: list[dict[str, Any]] = []
        for n, folder in enumerate(recipe.folders):
            if folder == GENERATED:
                self._products += _generated(recipe)
                count = recipe.generated * recipe.generated_photographs
                data.append({"name": "generated parts", "photographs": count * _categories(), "licence": "Apache-2.0"})
                continue
            categories, _ = readable(find_categories([folder]), self._store)
            for category in categories:
                if len(category.files) < 2:
                    raise TrainingError(
                        f"category {category.name!r}: expected at least two photographs to make a pair, got "
                        f"{len(category.files)}. Add photographs, or leave the category out."
                    )
                self._products.append(category.files)
                licence = recipe.licences[n] if recipe.licences else "not stated"
                data.append({"name": category.name, "photographs": len(category.files), "licence": licence})
        self.data = tuple(data)
        self.photographs = sum(len(product) for product in self._products)
        self._light = PhotometricJitter(recipe.photometric) if recipe.photometric > 0 else None
        self._move = augment.RandomAffine(recipe.rotation, (0.05, 0.05), (0.9, 1.1), p=0.7, padding_mode="reflection")

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return max(1, self.photographs // self._recipe.batch)

    def _read(self, picture: Path | Uint8Array) -> Uint8Array:
        photograph = self._store.read(picture) if isinstance(picture, Path) else picture
        size = self._recipe.size
        if photograph.shape[:2] != (size, size):
            smaller = min(photograph.shape[:2]) > size
            way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            photograph = cv2.resize(photograph, (size, size), interpolation=way)
        return photograph

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """This process's share of a step.

        Returns:
            First photographs, augmented second ones, the second ones with drawn defects, each (N, 3, size, size)
            float32 in 0..1, and where the defects are, (N, size, size) bool. Pairs of one category stand together.
        """
        recipe = self._recipe
        rng = np.random.default_rng([recipe.seed, 1, step, self._crew.rank])
        share = self._crew.share(recipe.batch)
        weights = np.array([len(product) for product in self._products], np.float64)
        chosen = rng.choice(len(self._products), max(share // recipe.group, 1), p=weights / weights.sum())
        first, second = [], []
        for index in chosen:
            product = self._products[index]
            for _ in range(recipe.group):
                a, b = rng.choice(len(product), 2, replace=False)
                first.append(self._read(product[a]))
                second.append(self._read(product[b]))
        one, two = _tensor(first), _tensor(second)
        seed = int(rng.integers(2**31))
        if self._light is not None:
            two = self._light(two, seed)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            two = self._move(two)
        if recipe.margin == 0:
            return one, two, two[:0], torch.zeros(0, recipe.size, recipe.size, dtype=torch.bool)
        clean = (two.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        painted = [draw_defects(photograph, rng) for photograph in clean]
        masks = torch.from_numpy(np.stack([mask for _, mask in painted]))
        return one, two, _tensor([photograph for photograph, _ in painted]), masks


def _categories() -> int:
    from fewshot_ad.training.parts import CATEGORIES

    return len(CATEGORIES)


def _generated(recipe: TrainingRecipe) -> list[Sequence[Path | Uint8Array]]:
    from fewshot_ad.training.parts import CATEGORIES, render

    return [
        [
            render(name, n, recipe.size, variant=recipe.seed * 1000 + variant)
            for n in range(recipe.generated_photographs)
        ]
        for name in CATEGORIES
        for variant in range(recipe.generated)
    ]


def _tensor(photographs: Sequence[Uint8Array]) -> torch.Tensor:
    return torch.from_numpy(np.stack(photographs)).permute(0, 3, 1, 2).float() / 255


def draw_defects(photograph: Uint8Array, rng: np.random.Generator) -> tuple[Uint8Array, np.ndarray]:
    """One to three drawn defects of widely varying size and contrast.

    Args:
        photograph: (H, W, 3) uint8.
        rng: Source of randomness.

    Returns:
        The photograph with defects, and (H, W) bool where it visibly differs.
    """
    painted = np.ascontiguousarray(photograph)
    for _ in range(int(rng.integers(1, 4))):
        size = float(np.exp(rng.uniform(np.log(0.015), np.log(0.12))))
        contrast = float(rng.uniform(0.2, 0.9))
        kind = int(rng.integers(4))
        if kind == 0:
            painted = displaced_patch(painted, rng, 2.2 * size)
        elif kind == 1:
            painted = scratch(painted, rng, 5 * size, float(rng.uniform(0.003, 0.012)), contrast)
        elif kind == 2:
            painted = blot(painted, rng, size, contrast)
        else:
            painted = missing_piece(painted, rng, size)
    differs = np.abs(painted.astype(np.int16) - photograph.astype(np.int16)).max(axis=2) > 12
    return painted, differs


def margin_loss(
    bank: torch.Tensor, clean: torch.Tensor, defective: torch.Tensor, painted: torch.Tensor, seed: int
) -> torch.Tensor:
    """Defects must be farther from the bank than good patches, the hardest ones above all.

    With d the distance to the nearest neighbour in the bank, on a logarithmic scale: softplus of (d_good + gap -
    d_defect), over pairs of a defective patch with the hardest 5% of the good ones (gap 0.1) and with all good ones
    (gap 0.3).

    Args:
        bank: (N, d, h, w) embeddings of good photographs of one category.
        clean: (N, d, h, w) of other good photographs of it.
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
    # Which neighbour is the nearest needs no gradient; the distance to it does.
    with torch.no_grad():
        squared = queries.pow(2).sum(1)[:, None] + bank.pow(2).sum(1)[None] - 2 * queries @ bank.T
        nearest = squared.argmin(1)
    return 0.5 * (queries - bank[nearest]).pow(2).sum(1).clamp_min(1e-8).log()


class _Losses(nn.Module):
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
            # The masks are in the photographs' coordinates.
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
        photographs: torch.Tensor,
        features: Sequence[torch.Tensor],
        transforms: Sequence[torch.Tensor],
        z: torch.Tensor,
    ) -> torch.Tensor:
        """How far stage features and a residual E have moved from where they started, as a share of their energy."""
        encoder, terms = self.encoder, []
        if not self.recipe.freeze:
            with torch.no_grad():
                wanted = self._anchor[0].raw(photographs)
            now = encoder.pyramid.raw(photographs) if transforms else features
            terms += [F.mse_loss(a.float(), b.float()) / b.float().var() for a, b in zip(now, wanted, strict=True)]
        if self.recipe.residual:
            with torch.no_grad():
                start = encoder.projected(features, transforms).float()
            terms.append(F.mse_loss(z.float(), start) / start.var())
        return torch.stack(terms).mean()


def _fit(
    recipe: TrainingRecipe,
    encoder: SiameseEncoder,
    run: RunFolder,
    pairs: _Pairs,
    crew: Workers,
    progress: Progress | None,
) -> None:
    encoder.pyramid.requires_grad_(not recipe.freeze)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            trained, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    losses = _Losses(recipe, encoder)
    encoder.to(memory_format=torch.channels_last)
    first, total = run.resume(encoder, optimizer), recipe.epochs * pairs.steps
    if first and crew.is_first:
        run.forget_after(first)
        log.info("going on at step %d of %d", first, total)
    encoder.train()
    if recipe.freeze:
        encoder.pyramid.eval()  # batch norm keeps its statistics too
    device, clock, start = crew.device, Clock(first, total), time.monotonic()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
    sums: dict[str, float] = {}
    with ThreadPoolExecutor(1) as loader:
        coming = loader.submit(pairs.batch, first)
        for step in range(first, total):
            batch = [part.to(device) for part in coming.result()]
            coming = loader.submit(pairs.batch, step + 1)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * one_cosine(step, total)
            optimizer.zero_grad(set_to_none=True)
            for n in range(recipe.accumulate):
                part = tuple(tensor.chunk(recipe.accumulate)[n] if len(tensor) else tensor for tensor in batch)
                with autocast:
                    found = losses(part, recipe.seed * 7919 + step)
                terms = [getattr(recipe, name) * value for name, value in found.items() if name != "spread"]
                (torch.stack(terms).sum() / recipe.accumulate).backward()
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach()) / recipe.accumulate / pairs.steps
            crew.mean_gradients(encoder)
            nn.utils.clip_grad_norm_(trained, 5.0)
            optimizer.step()
            done = step + 1
            if progress is not None and crew.is_first:
                progress("train", done, total)
            if done % pairs.steps == 0:
                if crew.is_first:
                    run.save(done, encoder, optimizer)
                    line = {"epoch": done // pairs.steps, "step": done, **{k: round(v, 5) for k, v in sums.items()}}
                    line |= {
                        "learning_rate": optimizer.param_groups[0]["lr"],
                        "pairs_per_s": round(pairs.steps * recipe.batch / (time.monotonic() - start), 1),
                        "eta_s": round(clock.eta_s(done)),
                    }
                    run.log(line)
                _watch(sums, done // pairs.steps)
                sums, start = {}, time.monotonic()


def _watch(sums: dict[str, float], epoch: int) -> None:
    """Stop what cannot become an encoder any more."""
    if not all(np.isfinite(value) for value in sums.values()):
        raise TrainingError(
            f"the loss is no longer a number in epoch {epoch}. Lower learning_rate and begin anew (--restart)."
        )
    if sums["spread"] < COLLAPSED:
        raise TrainingError(
            f"collapse in epoch {epoch}: all embeddings are nearly the same (spread {sums['spread']:.3f} of the "
            f"1/sqrt(d) of an even spread, limit {COLLAPSED}). Lower learning_rate, freeze the backbone, or give "
            "`margin` or `anchor` a weight, and begin anew (--restart)."
        )
    if sums["spread"] < COLLAPSE_WARNING:
        log.warning(
            "epoch %d: the embeddings are close to each other (spread %.3f, 1 is even): a collapse may come.",
            epoch,
            sums["spread"],
        )
