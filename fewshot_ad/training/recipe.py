"""The recipe of a Siamese training."""

from __future__ import annotations

from dataclasses import dataclass

from fewshot_ad.encoder.registration import Mode
from fewshot_ad.encoder.siamese import Architecture, Embed
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.images import GENERATED


@dataclass(frozen=True)
class TrainingRecipe:
    """What a training is made of; stored as YAML with the run. The defaults are the published recipe.

    Attributes:
        backbone: timm model.
        init: `bundled` for the weights that come with the package (`tf_efficientnet_lite0`), `timm` to download, or a
            file (of `fewshot-ad distill`, for example).
        init_license: License of a file's weights, for the card.
        folders: Good images, see `find_categories`; `parts` stands for the built-in generator.
        licenses: License of each folder, for the card.
        registration: See `registration.PARTS`; None leaves the spatial transformers out.
        embed: See `siamese.Architecture`.
        layers: Likewise.
        residual: Likewise.
        freeze: Leave the backbone's weights alone.
        size: Side of the training images in pixels, a multiple of 16.
        batch: Pairs a step, over all processes.
        group: Pairs of one category that stand together in a batch; `margin` searches among them.
        accumulate: The batch is computed in this many parts, to save memory.
        epochs: Passes; an epoch has one pair an image.
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
        generated_images: Images a generated product.
        precision: `bf16` or `f32` of the forward and backward pass.
        seed: Seed of everything random.
    """

    backbone: str = "resnet18"
    init: str = "timm"
    init_license: str = ""
    folders: tuple[str, ...] = (GENERATED,)
    licenses: tuple[str, ...] = ()
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
    generated_images: int = 8
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
        if self.licenses and len(self.licenses) != len(self.folders):
            raise TrainingError(
                f"expected a license a folder, got {len(self.licenses)} for {len(self.folders)} folders."
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
            raise TrainingError("expected at least one folder of images, or 'parts' for generated ones.")

    @property
    def architecture(self) -> Architecture:
        """What is trained."""
        return Architecture(self.backbone, self.registration, self.embed, self.layers, self.residual)
