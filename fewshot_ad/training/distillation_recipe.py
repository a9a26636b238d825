"""The recipe of distillation: data, networks and schedule."""

from __future__ import annotations

from dataclasses import dataclass

from fewshot_ad.errors import TrainingError
from fewshot_ad.training.images import GENERATED


@dataclass(frozen=True)
class DistillationRecipe:
    """All settings of a distillation; stored as YAML with the run.

    Attributes:
        student: timm model with stages at strides 4, 8 and 16.
        folders: Folders of images, see `find_categories`; `parts` stands for the built-in generator of parts,
            `collages` for that of collages.
        leave_out: Names of categories that are not trained on, see `TrainingRecipe.leave_out`.
        teachers: timm models, or `dinov2_small`, all of which the student learns to predict.
        teacher_weights: A file of weights for each teacher, or `bundled` for the weights that come with a package
            (`tf_efficientnet_lite0`, `dinov2_small`).
        student_weights: A file of initial weights, or the name of a shipped encoder; None = random weights.
        teacher_stages: timm's stage indices of the teachers; None = the stages at strides 4, 8 and 16, of a ViT the
            last block of each third, of `dinov2_small` its own.
        size: Side of the crops in pixels, a multiple of 16.
        batch: Number of crops per step, over all processes.
        accumulate: Number of parts in which a batch is computed, to save memory.
        steps: Number of steps.
        learning_rate: Highest learning rate, reached after `warmup` steps; it then falls to 0 along half a cosine.
        weight_decay: Weight decay of AdamW.
        warmup: Number of steps of linear warm-up.
        scales: Smallest and largest magnification of a crop.
        short_side: Images with a longer short side are shrunk to this short side, in pixels.
        generated: Number of generated images per category, if `folders` has `parts`; if it has `collages`, there are
            as many collages in total.
        precision: Precision of the forward and backward pass, `bf16` or `f32`.
        seed: Seed of all random numbers.
        checkpoint_every: Number of steps between checkpoints.

    Raises:
        TrainingError: A setting is out of range, or two settings contradict each other.
    """

    student: str = "resnet18"
    folders: tuple[str, ...] = (GENERATED,)
    leave_out: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ("tf_efficientnet_lite0",)
    teacher_weights: tuple[str, ...] = ("bundled",)
    student_weights: str | None = None
    teacher_stages: tuple[int, ...] | None = None
    size: int = 160
    batch: int = 24
    accumulate: int = 1
    steps: int = 12000
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 200
    scales: tuple[float, float] = (0.5, 1.6)
    short_side: int = 256
    generated: int = 64
    precision: str = "bf16"
    seed: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 16:
            raise TrainingError(f"expected size to be a multiple of 16, at least 32, got {self.size}.")
        if self.seed < 0:
            raise TrainingError(f"expected seed of at least 0, got {self.seed}.")
        counts = (self.batch, self.steps, self.accumulate, self.checkpoint_every, self.generated)
        if min(counts) < 1 or self.batch % self.accumulate:
            raise TrainingError(
                f"expected positive steps and generated and a batch that is a multiple of accumulate, got "
                f"steps={self.steps}, generated={self.generated}, batch={self.batch}, accumulate={self.accumulate}."
            )
        if len(self.teachers) != len(self.teacher_weights) or not self.teachers:
            raise TrainingError(
                f"expected one weights file per teacher, got {len(self.teachers)} teachers and "
                f"{len(self.teacher_weights)} files."
            )
        if self.precision not in ("bf16", "f32"):
            raise TrainingError(f"expected precision among ('bf16', 'f32'), got {self.precision!r}.")
        if not 0 < self.scales[0] <= self.scales[1]:
            raise TrainingError(f"expected scales as smallest, largest magnification, got {self.scales}.")
        if not self.folders:
            raise TrainingError("expected at least one folder of images, or 'parts' or 'collages' for generated ones.")
