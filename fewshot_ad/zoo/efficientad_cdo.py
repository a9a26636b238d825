"""EfficientAD with collaborative discrepancy optimization: a student that must fail on what is not good.

A small teacher describes patches; the student imitates it on good images, and an autoencoder does so with a view
of the whole. Where student and teacher, or student and autoencoder, disagree, the part is suspicious. On good
images with noise patches the student is taught to disagree inside the patches and to agree around them.

Sources: Batzner, Heckler & König 2024 (EfficientAD, WACV); Cao et al. 2023 (CDO, IEEE TII). Sections named below are
EfficientAD's unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.cdo import LARGEST, cdo_loss, noise_patches
from fewshot_ad.zoo.components.efficientad_autoencoder import Autoencoder
from fewshot_ad.zoo.components.efficientad_quantiles import Quantiles, held_out
from fewshot_ad.zoo.components.pdn import (
    BORDER,
    CHANNELS,
    PDN,
    RATE,
    STAGES,
    TABLES,
    WEIGHT_DECAY,
    GeneratedPictures,
    distill,
    load_teacher,
    save_teacher,
)
from fewshot_ad.zoo.components.tensors import Backbone, one_by_one, resized, seeded, tensor_bytes, to_batch
from fewshot_ad.zoo.method import Card, Labeled, Predictions, baseline

DECAY_AT, DECAY = 0.95, 0.1
PENALTY_GRAY_SHARE = 0.3
LIGHT = (0.8, 1.2)


def hard_feature_loss(distance: torch.Tensor, hard: float) -> torch.Tensor:
    """Mean of the largest squared distances.

    Args:
        distance: Any shape: squared distances of single features.
        hard: Share of them that counts, in 0..1; at least one does.

    Source: section 3.2, p_hard = 0.999.
    """
    flat = distance.flatten()
    return flat.topk(max(1, round(hard * len(flat)))).values.mean()


def _relit(batch: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Brightness, contrast or saturation times 0.8 to 1.2. Source: section 3.3."""
    gray = batch.mean(1, keepdim=True)
    origin = (torch.zeros_like(batch), gray.mean((2, 3), keepdim=True), gray)[int(rng.integers(3))]
    return (origin + float(rng.uniform(*LIGHT)) * (batch - origin)).clamp(0, 1)


def _tensor(pictures: Uint8Array) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


@dataclass(eq=False)
class EfficientAdCdo:
    """The method; see `efficientad_cdo` for the settings."""

    seed: int
    size: str
    image_size: int
    steps: int
    hard: float
    gamma: float
    margin: float
    alpha: float
    backbone: str
    weights: str | None
    teacher: str | None
    teacher_steps: int
    pictures: int

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Distill or load the teacher, train student and autoencoder, and set the quantiles; see `Method.fit`."""
        images = resized(normal, self.image_size).permute(0, 2, 3, 1).numpy()
        rng = np.random.default_rng([self.seed, 7])
        pictures = GeneratedPictures(self.pictures, self.image_size, self.seed, progress)
        self._teacher = self._taught(pictures, progress)
        train, kept = held_out(images, rng)
        with torch.no_grad():
            outputs = [self._teacher(_tensor(train[n : n + 1])) for n in range(len(train))]
        self._mean = torch.stack([o.mean((0, 2, 3)) for o in outputs]).mean(0).view(1, -1, 1, 1)
        variance = torch.stack([(o - self._mean).square().mean((0, 2, 3)) for o in outputs]).mean(0)
        self._deviation = variance.sqrt().clamp_min(1e-6).view(1, -1, 1, 1)
        with seeded(self.seed):
            self._train(train, pictures, rng, progress)
        with torch.no_grad():
            maps = [self._maps(_tensor(kept[n : n + 1])) for n in range(len(kept))]
        self._of_student = Quantiles.of([m for m, _ in maps])
        self._of_autoencoder = Quantiles.of([m for _, m in maps])

    def _taught(self, pictures: GeneratedPictures, progress: Progress | None) -> PDN:
        made = {
            "size": self.size,
            "backbone": self.backbone,
            "weights": self.weights and Path(self.weights).name,
            "teacher_steps": self.teacher_steps,
        }
        if self.teacher is not None and Path(self.teacher).exists():
            return load_teacher(Path(self.teacher), made)
        with seeded(self.seed):  # building a network draws random numbers
            backbone = Backbone(self.backbone, STAGES, self.weights)
        if backbone.strides != (8, 16):
            raise ZooError(f"expected a backbone with stages at strides 8 and 16, got {backbone.strides}.")
        pdn, _ = distill(self.size, backbone, pictures, self.teacher_steps, self.seed, progress)
        if self.teacher is not None:
            save_teacher(Path(self.teacher), pdn, {**made, "image_size": self.image_size, "seed": self.seed})
        return pdn

    def _train(
        self, images: Uint8Array, pictures: GeneratedPictures, rng: np.random.Generator, progress: Progress | None
    ) -> None:
        """Source: section 3.2 and 3.3, and CDO's loss added to theirs."""
        # The second half of the student's channels imitates the autoencoder.
        self._student, self._autoencoder = PDN(self.size, 2 * CHANNELS), Autoencoder(self.image_size)
        weights = [*self._student.parameters(), *self._autoencoder.parameters()]
        optimizer = torch.optim.Adam(weights, RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [max(1, int(DECAY_AT * self.steps))], DECAY)
        for step in range(self.steps):
            image = images[rng.integers(len(images))]
            spoilt, mask = noise_patches(image, rng)
            good, relit = _tensor(image[None]), _relit(_tensor(image[None]), rng)
            batch = torch.cat([good, _tensor(spoilt[None]), relit])
            with torch.no_grad():
                wanted = self._describe(batch)
            strange = pictures.crops(1, PENALTY_GRAY_SHARE, rng)
            imitated, followed = self._student(torch.cat([batch, strange])).split(CHANNELS, 1)
            guessed = self._autoencoder(relit)
            cells = F.max_pool2d(torch.from_numpy(mask)[None].float(), 4)[:, BORDER:-BORDER, BORDER:-BORDER] > 0
            loss = (
                hard_feature_loss((wanted[:1] - imitated[:1]).square(), self.hard)
                + imitated[3:].square().mean()
                + cdo_loss(wanted[1:2], imitated[1:2], cells, self.gamma, self.margin)
                + F.mse_loss(guessed, wanted[2:])
                + F.mse_loss(followed[2:3], guessed)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress("training", step + 1, self.steps)
        self._student.requires_grad_(False).eval()
        self._autoencoder.requires_grad_(False).eval()

    def _describe(self, batch: torch.Tensor) -> torch.Tensor:
        """The teacher's features, each channel standardized over the good images."""
        return (self._teacher(batch) - self._mean) / self._deviation

    def _maps(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, 3, side, side) -> the raw maps of student against teacher and against autoencoder, (h, w) each."""
        imitated, followed = self._student(batch).split(CHANNELS, 1)
        of_student = (self._describe(batch) - imitated).square().mean(1)[0]
        return of_student, (self._autoencoder(batch) - followed).square().mean(1)[0]

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = maximum of the map; see `Method.predict`.

        Within 16 pixels of the border (at `image_size`) the map has the value of the nearest position further in.
        """
        return one_by_one(images, self._judge)

    def _judge(self, image: Uint8Array) -> tuple[float, torch.Tensor | Float32Array | None]:
        of_student, of_autoencoder = self._maps(to_batch([image], self.image_size))
        heat = self.alpha * self._of_student.normalized(of_student)
        heat = heat + (1 - self.alpha) * self._of_autoencoder.normalized(of_autoencoder)
        return float(heat.max()), F.pad(heat[None], (BORDER,) * 4, mode="replicate")[0]

    def model_bytes(self) -> int:
        """See `Method.model_bytes`."""
        return tensor_bytes(self._teacher, self._student, self._autoencoder, self._mean, self._deviation)


@baseline(
    Card(
        name="efficientad_cdo",
        title="EfficientAD + CDO",
        paper="Batzner, Heckler & König 2024, EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level "
        "Latencies, WACV; Cao et al. 2023, Collaborative Discrepancy Optimization for Reliable Image Anomaly "
        "Localization, IEEE TII",
        year=2024,
        family="teacher-student",
        supervision="good images",
        source="fewshot_ad",
        license="Apache-2.0",
        maps=True,
        needs_masks=False,
        needs_internet=True,
        trains=True,
        weights="PDN distilled by this package from resnet18 (itself distilled) on generated pictures; the paper "
        "distills from WideResNet-101 on ImageNet and takes its penalty pictures from there. The published step counts "
        "are for a GPU.",
    )
)
def efficientad_cdo(
    *,
    seed: int,
    size: str = "S",
    image_size: int = 256,
    steps: int = 70_000,
    hard: float = 0.001,
    gamma: float = 2.0,
    margin: float = LARGEST,
    alpha: float = 0.5,
    backbone: str = "resnet18",
    weights: str | None = None,
    teacher: str | None = None,
    teacher_steps: int = 60_000,
    pictures: int = 1000,
) -> EfficientAdCdo:
    """EfficientAD trained with CDO's loss as well.

    Args:
        seed: Of everything random.
        size: Of the PDN, `S` or `M`.
        image_size: Side the networks see, a multiple of 32, at least 64.
        steps: To train student and autoencoder, one image each.
        hard: Share of the features that the hard feature loss averages.
        gamma: Exponent of CDO's weights.
        margin: See `cdo_loss`.
        alpha: Weight of the student's map; the autoencoder's has the rest.
        backbone: That the teacher imitates, see `Backbone`.
        weights: Of the backbone.
        teacher: A safetensors file: the teacher is loaded from it if it exists, else distilled and written to it.
        teacher_steps: To distill the teacher.
        pictures: Generated pictures to distill on and for the penalty.

    Raises:
        ZooError: A setting makes no sense.
    """
    if size not in TABLES:
        raise ZooError(f"efficientad_cdo: expected size S or M, got {size!r}.")
    if image_size < 64 or image_size % 32:
        raise ZooError(f"efficientad_cdo: expected image_size as a multiple of 32 from 64 on, got {image_size}.")
    if min(steps, teacher_steps, pictures) < 1:
        raise ZooError(
            f"efficientad_cdo: expected steps, teacher_steps and pictures of at least 1, got {steps}, {teacher_steps} "
            f"and {pictures}."
        )
    if not (0 < hard <= 1 and 0 <= alpha <= 1 and gamma >= 0 and 0 <= margin <= LARGEST):
        raise ZooError(
            f"efficientad_cdo: expected hard in (0, 1], alpha in [0, 1], gamma of at least 0 and margin in [0, 4], got "
            f"{hard}, {alpha}, {gamma} and {margin}."
        )
    return EfficientAdCdo(
        seed, size, image_size, steps, hard, gamma, margin, alpha, backbone, weights, teacher, teacher_steps, pictures
    )
