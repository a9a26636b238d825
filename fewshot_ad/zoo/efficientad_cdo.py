"""EfficientAD with collaborative discrepancy optimization: a student that must fail on what is not good.

A small teacher describes patches; the student imitates it on good images, and an autoencoder, which sees the whole
image, does so too. Places where student and teacher, or student and autoencoder, disagree are anomalous. On good images
with noise patches the student learns to disagree inside the patches and to agree around them.

Sources: Batzner, Heckler & König 2024 (EfficientAD, WACV); Cao et al. 2023 (CDO, IEEE TII). Sections named below are
those of EfficientAD unless another paper is named.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.errors import ZooError
from fewshot_ad.zoo.components.appearance import KINDS, relit
from fewshot_ad.zoo.components.cdo import LARGEST, Noise, NoisePatches, cdo_loss, foreground
from fewshot_ad.zoo.components.efficientad_autoencoder import Autoencoder
from fewshot_ad.zoo.components.efficientad_networks import Discrepancies, Networks, Teacher, hard_feature_loss
from fewshot_ad.zoo.components.efficientad_quantiles import LOWER_QUANTILE, UPPER_QUANTILE, Quantiles, held_out
from fewshot_ad.zoo.components.kept_teachers import kept_or_distilled, kept_teacher_file
from fewshot_ad.zoo.components.pdn import (
    BATCH,
    BORDER,
    CHANNELS,
    PDN,
    RATE,
    STAGES,
    TABLES,
    WEIGHT_DECAY,
    Pictures,
    distill,
    listing_hash,
    load_teacher,
    save_teacher,
)
from fewshot_ad.zoo.components.square_tiles import Fusion, SquareTiles
from fewshot_ad.zoo.components.tensors import (
    Backbone,
    one_by_one,
    resized,
    seeded,
    tensor_bytes,
    to_batch,
    unit_tensor,
)
from fewshot_ad.zoo.components.training import train_steps
from fewshot_ad.zoo.method import Card, Labeled, Original, Predictions, baseline, require_fitted

DECAY_AT, DECAY = 0.95, 0.1
PENALTY_GRAY_SHARE = 0.3
# Of the teacher and the pictures, which belong to no product and no fit.
SHARED_SEED = 0


@baseline(
    Card(
        name="efficientad_cdo",
        title="EfficientAD + CDO",
        paper="Batzner, Heckler & König 2024, EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level "
        "Latencies, WACV; Cao et al. 2023, Collaborative Discrepancy Optimization for Reliable Image Anomaly "
        "Localization, IEEE TII",
        year=2024,
        family="teacher-student",
        needs_internet=True,
        trains=True,
        weights="PDN distilled by this package from resnet18 (itself distilled) on generated pictures, or on those of "
        "picture_folder=; the paper distills from WideResNet-101 on ImageNet and takes its penalty pictures from "
        "there. The published step counts are for a GPU.",
        original=Original(
            options={"backbone": "wide_resnet101_2", "pictures": 10_000},
            pretrained="distilled from WideResNet-101, ImageNet",
            at_hand="distilled by this package from resnet18, generated images",
            unless={"picture_folder": "generated images in place of ImageNet"},
            further={"size": ("S", "M")},
        ),
    )
)
@dataclass(kw_only=True, eq=False)
class EfficientAdCdo:
    """EfficientAD trained with CDO's loss as well.

    Every part of the loss has a weight, by which it is taken out (0): the ablations of the method are settings.

    Attributes:
        seed: Seed of everything random but the teacher and the pictures, which are the same for all.
        size: Size of the PDN, `S` or `M`.
        image_size: Side in pixels that images are brought to, a multiple of 32, at least 64.
        tile: Side of the tiles that the networks see, a multiple of 32, at least 64; None is the whole image.
        overlap: Share of a tile that its neighbors see as well, 0 to 0.9.
        fusion: What the map is where tiles overlap, `mean` or `max`.
        steps: Training steps of student and autoencoder, one image (or tile) each.
        hard: Share of the features that the hard feature loss averages, in (0, 1]; EfficientAD has 0.001.
        hard_weight: Weight of the hard feature loss.
        cdo_weight: Weight of CDO's loss.
        penalty_weight: Weight of EfficientAD's penalty, the student's output on pictures of anything else.
        autoencoder_weight: Weight of the autoencoder's loss.
        agreement_weight: Weight of the loss by which the student imitates the autoencoder.
        gamma: Exponent of CDO's weights, at least 0.
        margin: See `cdo_loss`, in 0..4.
        defect_share: Share of the images that get noise patches, 0..1.
        defect_sides: Smallest and largest side of a patch, in shares of the side of what the networks see.
        defect_noise: `gaussian` or `uniform`.
        skip_background: Whether patches are put on the part alone, see `cdo.foreground`.
        appearance: Kinds of appearance augmentation, one for each image: `color`, `sharpness`, `gamma`; empty for none.
        alpha: Weight of the student's map, in 0..1; the autoencoder's map has the rest.
        lower_quantile: Quantile a of each map on good images, which becomes 0.
        upper_quantile: Quantile b, which becomes 0.1.
        backbone: Network that the teacher imitates, see `tensors.Backbone`.
        weights: Weights of the backbone, see `tensors.Backbone`.
        teacher: A safetensors file: the teacher is loaded from it if it exists, else distilled and written to it. None
            keeps it in the user's folder of caches (or in the one that FEWSHOT_AD_CACHE names), for all further fits.
        teacher_steps: Training steps of the teacher.
        teacher_batch: Pictures per step of the teacher.
        pictures: Number of pictures, for distillation and for the penalty.
        picture_folder: Folder of photographs of anything, ImageNet's say, which take the place of generated pictures.

    Raises:
        ZooError: A setting makes no sense.
    """

    seed: int = 0
    size: str = "S"
    image_size: int = 256
    tile: int | None = None
    overlap: float = 0.25
    fusion: Fusion = "mean"
    steps: int = 70_000
    hard: float = 0.01
    hard_weight: float = 1.0
    cdo_weight: float = 1.0
    penalty_weight: float = 0.0
    autoencoder_weight: float = 1.0
    agreement_weight: float = 1.0
    gamma: float = 2.0
    margin: float = LARGEST
    defect_share: float = 0.4
    defect_sides: Sequence[float] = (1 / 40, 1 / 10)
    defect_noise: Noise = "gaussian"
    skip_background: bool = False
    appearance: Sequence[str] = KINDS
    alpha: float = 0.5
    lower_quantile: float = LOWER_QUANTILE
    upper_quantile: float = UPPER_QUANTILE
    backbone: str = "resnet18"
    weights: str | None = None
    teacher: str | None = None
    teacher_steps: int = 60_000
    teacher_batch: int = BATCH
    pictures: int = 1000
    picture_folder: str | None = None
    _discrepancies: Discrepancies | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for problem, expected, got in (
            (self.size not in TABLES, "size S or M", self.size),
            (not _is_side(self.image_size), "image_size as a multiple of 32 from 64 on", self.image_size),
            (
                self.tile is not None and not (_is_side(self.tile) and self.tile <= self.image_size),
                "tile as a multiple of 32 from 64 to image_size, or none",
                self.tile,
            ),
            (not 0 <= self.overlap <= 0.9, "overlap in 0..0.9", self.overlap),
            (self.fusion not in get_args(Fusion), "fusion mean or max", self.fusion),
            (min(self.steps, self.teacher_steps) < 1, "steps of at least 1", (self.steps, self.teacher_steps)),
            (
                min(self.pictures, self.teacher_batch) < 1,
                "pictures and teacher_batch of at least 1",
                (self.pictures, self.teacher_batch),
            ),
            (not 0 < self.hard <= 1, "hard in (0, 1]", self.hard),
            (not 0 <= self.alpha <= 1, "alpha in 0..1", self.alpha),
            (self.gamma < 0, "gamma of at least 0", self.gamma),
            (not 0 <= self.margin <= LARGEST, "margin in 0..4", self.margin),
            (not all(0 <= weight < math.inf for weight in self._weights), "weights of at least 0", self._weights),
            (not self._learns, "a weight above 0 of each map that alpha asks for", self._weights),
            (not 0 <= self.defect_share <= 1, "defect_share in 0..1", self.defect_share),
            (
                len(self.defect_sides) != 2 or not 0 < self.defect_sides[0] <= self.defect_sides[-1] <= 1,
                "defect_sides as two shares, the smaller first",
                tuple(self.defect_sides),
            ),
            (self.defect_noise not in get_args(Noise), "defect_noise gaussian or uniform", self.defect_noise),
            (not set(self.appearance) <= set(KINDS), f"appearance of {', '.join(KINDS)}", tuple(self.appearance)),
            (
                not 0 <= self.lower_quantile < self.upper_quantile <= 1,
                "lower_quantile below upper_quantile, in 0..1",
                (self.lower_quantile, self.upper_quantile),
            ),
        ):
            if problem:
                raise ZooError(f"efficientad_cdo: expected {expected}, got {got}.")

    @property
    def _weights(self) -> tuple[float, ...]:
        return (
            *(self.hard_weight, self.cdo_weight, self.penalty_weight),
            *(self.autoencoder_weight, self.agreement_weight),
        )

    @property
    def _learns(self) -> bool:
        """Whether the losses train what the map is made of."""
        student = self.hard_weight > 0 or self.cdo_weight > 0 or self.alpha == 0
        return student and ((self.autoencoder_weight > 0 and self.agreement_weight > 0) or self.alpha == 1)

    @property
    def _side(self) -> int:
        """Side of what the networks see, in pixels."""
        return self.tile or self.image_size

    @property
    def _tiles(self) -> SquareTiles:
        return SquareTiles(self.image_size, self._side, self.overlap, self.fusion)

    def fit(
        self, normal: Sequence[Uint8Array], labeled: Sequence[Labeled] = (), progress: Progress | None = None
    ) -> None:
        """Distill or load the teacher, train student and autoencoder, and set the quantiles; see `Method.fit`."""
        images = resized(normal, self.image_size).permute(0, 2, 3, 1).numpy()
        rng = np.random.default_rng([self.seed, 7])

        @functools.cache
        def pictures() -> Pictures:
            """Pictures of anything else; a teacher from its file and no penalty need none."""
            if self.picture_folder is not None:
                return Pictures.of_folder(Path(self.picture_folder), self.pictures, self._side, SHARED_SEED, progress)
            return Pictures.generated(self.pictures, self._side, SHARED_SEED, progress)

        pdn = self._load_or_distill(pictures, progress)
        train, held = held_out(images, rng)
        with seeded(self.seed):
            # The second half of the student's channels imitates the autoencoder.
            student, autoencoder = PDN(self.size, 2 * CHANNELS), Autoencoder(self._side)
            networks = Networks(Teacher.standardized(pdn, train), student, autoencoder)
            self._train(networks, train, pictures, rng, progress)
        with torch.no_grad():
            tiles = [tile for i in range(len(held)) for tile in self._tiles.cut(unit_tensor(held[i : i + 1]))]
            maps = [networks.maps(tile) for tile in tiles]
        student_range, autoencoder_range = (
            Quantiles.of(kind, self.lower_quantile, self.upper_quantile) for kind in zip(*maps, strict=True)
        )
        self._discrepancies = Discrepancies(networks, student_range, autoencoder_range)

    def _load_or_distill(self, pictures: Callable[[], Pictures], progress: Progress | None) -> PDN:
        """The teacher from its file, or from that of an earlier fit, or a new one, which is then written there."""
        record = {
            "size": self.size,
            "backbone": self.backbone,
            "weights": self.weights and Path(self.weights).name,
            "teacher_steps": self.teacher_steps,
            # Left out where it is as published: files from before there was this setting say nothing of it.
            **({"teacher_batch": self.teacher_batch} if self.teacher_batch != BATCH else {}),
            **({"picture_folder": Path(self.picture_folder).name} if self.picture_folder is not None else {}),
        }
        if self.teacher is not None and Path(self.teacher).exists():
            return load_teacher(Path(self.teacher), record)
        with seeded(SHARED_SEED):  # building a network draws random numbers
            backbone = Backbone(self.backbone, STAGES, self.weights)
        if backbone.strides != (8, 16):
            raise ZooError(f"expected a backbone with stages at strides 8 and 16, got {backbone.strides}.")

        def distilled() -> PDN:
            steps, batch = self.teacher_steps, self.teacher_batch
            return distill(self.size, backbone, pictures(), steps, SHARED_SEED, progress, batch)[0]

        of_pictures: dict[str, Any] = {"image_size": self._side, "pictures": self.pictures, "seed": SHARED_SEED}
        if self.teacher is not None:
            pdn = distilled()
            save_teacher(Path(self.teacher), pdn, {**record, **of_pictures})
            return pdn
        if self.picture_folder is not None:
            of_pictures["files"] = listing_hash(Path(self.picture_folder))
        record |= of_pictures
        return kept_or_distilled(kept_teacher_file(record, backbone), record, distilled)

    def _train(
        self,
        networks: Networks,
        images: Uint8Array,
        pictures: Callable[[], Pictures],
        rng: np.random.Generator,
        progress: Progress | None,
    ) -> None:
        """Train student and autoencoder. Source: section 3.2 and 3.3, with CDO's loss added."""
        low, high = self.defect_sides
        defects = NoisePatches(self.defect_share, (low, high), self.defect_noise)
        # Of whole images: a tile of nothing but background, or of the part, could not tell.
        parts = [foreground(image) for image in images] if self.skip_background else []

        def loss() -> torch.Tensor:
            chosen = rng.integers(len(images))
            place = self._tiles.drawn(rng)
            image, part = images[chosen][place], parts[chosen][place] if parts else None
            good, total = unit_tensor(image[None]), torch.zeros(())
            if self.hard_weight > 0:
                distance = (networks.target(good) - networks.imitation(good)).square()
                total = total + self.hard_weight * hard_feature_loss(distance, self.hard)
            if self.cdo_weight > 0:
                noisy, mask = defects.draw(image, rng, part)
                batch = unit_tensor(noisy[None])
                cells = F.max_pool2d(torch.as_tensor(mask)[None].float(), 4)[:, BORDER:-BORDER, BORDER:-BORDER] > 0
                discrepancy = cdo_loss(
                    networks.target(batch), networks.imitation(batch), cells, self.gamma, self.margin
                )
                total = total + self.cdo_weight * discrepancy
            if self.penalty_weight > 0:
                others = pictures().crops(1, PENALTY_GRAY_SHARE, rng)
                total = total + self.penalty_weight * networks.imitation(others).square().mean()
            if self.autoencoder_weight > 0 or self.agreement_weight > 0:
                changed = relit(good, self.appearance, rng)
                reconstruction = networks.autoencoder(changed)
                total = total + self.autoencoder_weight * F.mse_loss(reconstruction, networks.target(changed))
                agreement = F.mse_loss(networks.student(changed)[:, CHANNELS:], reconstruction)
                total = total + self.agreement_weight * agreement
            return total

        weights = [*networks.student.parameters(), *networks.autoencoder.parameters()]
        optimizer = torch.optim.Adam(weights, RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [max(1, int(DECAY_AT * self.steps))], DECAY)
        train_steps(loss, self.steps, [optimizer], schedules=[schedule], progress=progress)
        networks.student.requires_grad_(False).eval()
        networks.autoencoder.requires_grad_(False).eval()

    def predict(self, images: Sequence[Uint8Array]) -> Predictions:
        """Score = maximum of the map; see `Method.predict`.

        Within 16 pixels of the border of the image, or tile, at `image_size`, the map repeats the value of the nearest
        position further in.
        """
        discrepancies = require_fitted(self._discrepancies, "efficientad_cdo")

        def judge(image: Uint8Array) -> tuple[float, torch.Tensor]:
            def whole(batch: torch.Tensor) -> torch.Tensor:
                heat = discrepancies.map(batch, self.alpha)
                return F.pad(heat[None], (BORDER,) * 4, mode="replicate")[0]

            heat = self._tiles.joined(to_batch([image], self.image_size), whole)
            return float(heat.max()), heat

        return one_by_one(images, judge)

    def skeleton(self) -> dict[str, Any]:
        """See `Method.skeleton`."""
        empty = torch.empty(0)
        student, autoencoder = PDN(self.size, 2 * CHANNELS), Autoencoder(self._side)
        networks = Networks(Teacher(PDN(self.size), empty, empty), student, autoencoder)
        # The classes of the named tuples stand for their values.
        return {"_discrepancies": Discrepancies(networks, Quantiles, Quantiles)}  # type: ignore[arg-type]

    def model_bytes(self) -> int:
        """The three networks and the statistics of the teacher."""
        networks = require_fitted(self._discrepancies, "efficientad_cdo").networks
        teacher = networks.teacher
        return tensor_bytes(teacher.pdn, networks.student, networks.autoencoder, teacher.mean, teacher.deviation)


def _is_side(side: int) -> bool:
    return side >= 64 and side % 32 == 0
