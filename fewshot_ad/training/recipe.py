"""The recipe of Siamese training: data, network, losses and schedule."""

from __future__ import annotations

from dataclasses import dataclass

from fewshot_ad.encoder.registration import Mode
from fewshot_ad.encoder.siamese import Architecture, Embed
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.images import GENERATED


@dataclass(frozen=True)
class TrainingRecipe:
    """All settings of a Siamese training; stored as YAML with the run. The defaults are the published recipe.

    Attributes:
        backbone: timm model.
        init: Initial weights: `bundled` for those that come with the package of `tf_efficientnet_lite0`, the name of a
            shipped encoder of the backbone (`resnet18_parts`), `timm` to download them, or a file, of `fewshot-ad
            distill` for example.
        init_license: License of the initial weights if they come from a file, for the card.
        folders: Folders of good images, see `find_categories`; `parts` stands for the built-in generator.
        licenses: License of each folder, for the card.
        leave_out: Names of categories that are not trained on, to measure on them what an encoder does for products it
            has never seen.
        registration: Mode of the spatial transformers, see `registration.PARTS`; None = no spatial transformers.
        embed: See `siamese.Architecture`.
        layers: See `siamese.Architecture`.
        residual: See `siamese.Architecture`.
        freeze: Whether the backbone keeps its weights.
        freeze_statistics: Whether the backbone's batch norms keep their statistics while its weights are trained. Small
            batches of generated images have others than what is inspected.
        size: Side of the training images in pixels, a multiple of 16.
        batch: Number of pairs per step, over all processes.
        group: Number of consecutive pairs of one category in a batch; the margin loss compares within a group.
        accumulate: Number of parts in which a batch is computed, to save memory.
        epochs: Number of epochs; an epoch has one pair per image.
        optimizer: `sgd` or `adamw`.
        learning_rate: Initial learning rate, which falls to 0 along half a cosine.
        warmup: Number of steps over which the learning rate rises to that value first.
        backbone_rate: Initial learning rate of the backbone; None = that of all other weights.
        predictor_rate: Learning rate of the predictor P, constant over the run; None = that of all other weights. A
            constant rate lets P follow representations that still change (Chen & He 2021, section 4.2).
        momentum: Momentum of SGD.
        weight_decay: Weight decay of the optimizer.
        simsiam: Weight of the SimSiam loss.
        margin: Weight of the margin loss.
        anchor: Weight of the loss that keeps the features close to their initial values.
        equivariance: Weight of the loss that makes the transforms of a warped image the warp of the image's.
        keep: Weight of the initial distances that a linear residual E includes after training, 0..1; see
            `SiameseEncoder.keep_initial`.
        register: Whether the second image of each pair is brought into the pose of the first, by the pose network that
            ships, before the encoder sees it: the transformer before the first stage, as `register=True` has it when
            inspecting.
        photometric: Strength of the photometric augmentation, see `PhotometricJitter`.
        rotation: Largest rotation of the geometric augmentation in degrees.
        generated: Number of generated products per category, if `folders` has `parts`.
        generated_images: Number of images per generated product.
        precision: Precision of the forward and backward pass, `bf16` or `f32`.
        seed: Seed of all random numbers.

    Raises:
        TrainingError: A setting is out of range, or two settings contradict each other.
    """

    backbone: str = "resnet18"
    init: str = "timm"
    init_license: str = ""
    folders: tuple[str, ...] = (GENERATED,)
    licenses: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    registration: Mode | None = "rotation+scale"
    embed: Embed = "last"
    layers: int = 3
    residual: bool = False
    freeze: bool = False
    freeze_statistics: bool = False
    size: int = 224
    batch: int = 32
    group: int = 1
    accumulate: int = 1
    epochs: int = 50
    optimizer: str = "sgd"
    learning_rate: float = 1e-4
    warmup: int = 0
    backbone_rate: float | None = None
    predictor_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    simsiam: float = 1.0
    margin: float = 0.0
    anchor: float = 0.0
    equivariance: float = 0.0
    keep: float = 0.0
    register: bool = False
    photometric: float = 1.0
    rotation: float = 20.0
    generated: int = 8
    generated_images: int = 8
    precision: str = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 64 or self.size % 16:
            raise TrainingError(f"expected size to be a multiple of 16, at least 64, got {self.size}.")
        self._check_ranges()
        if self.batch % (self.group * self.accumulate):
            raise TrainingError(
                f"expected a batch that is a multiple of group times accumulate, got batch={self.batch}, "
                f"group={self.group}, accumulate={self.accumulate}."
            )
        if self.optimizer not in ("sgd", "adamw"):
            raise TrainingError(f"expected optimizer among ('sgd', 'adamw'), got {self.optimizer!r}.")
        if self.precision not in ("bf16", "f32"):
            raise TrainingError(f"expected precision among ('bf16', 'f32'), got {self.precision!r}.")
        if self.freeze and (self.freeze_statistics or self.backbone_rate is not None):
            raise TrainingError(
                "expected no freeze_statistics and no backbone_rate with freeze=true, which leaves the whole backbone "
                "as it is. Drop freeze, or set freeze_statistics=false and backbone_rate=null."
            )
        if self.predictor_rate is not None and not self.simsiam > 0:
            raise TrainingError(
                f"expected simsiam above 0 with a predictor_rate, since no other loss has a predictor, got "
                f"simsiam={self.simsiam}."
            )
        if self.licenses and len(self.licenses) != len(self.folders):
            raise TrainingError(
                f"expected one license per folder, got {len(self.licenses)} for {len(self.folders)} folders."
            )
        if not self.folders:
            raise TrainingError("expected at least one folder of images, or 'parts' for generated ones.")
        self._check_losses()

    def _check_ranges(self) -> None:
        """Raise TrainingError for a number out of its range, by name."""
        least = {"batch": 1, "group": 1, "accumulate": 1, "epochs": 1, "generated": 1, "generated_images": 2, "seed": 0}
        least |= dict.fromkeys(
            ("warmup", "weight_decay", "photometric", "simsiam", "margin", "anchor", "equivariance"), 0
        )
        for name, value in least.items():
            # Written so that NaN is out of range, too.
            if not getattr(self, name) >= value:
                raise TrainingError(f"expected {name} of at least {value}, got {getattr(self, name)}.")
        for name in ("learning_rate", "backbone_rate", "predictor_rate"):
            rate = getattr(self, name)
            if rate is not None and not rate > 0:
                raise TrainingError(f"expected {name} above 0, got {rate}.")
        for name, most in (("rotation", 180), ("momentum", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise TrainingError(f"expected {name} in 0..{most}, got {getattr(self, name)}.")

    def _check_losses(self) -> None:
        if self.anchor > 0 and self.freeze and not self.residual:
            raise TrainingError(
                "expected anchor=0 with a frozen backbone and no residual E, as the anchor loss has nothing to act on."
            )
        if not 0 <= self.keep < 1 or (self.keep > 0 and (self.layers != 1 or not self.residual)):
            raise TrainingError(f"expected keep in 0..1, above 0 only with a residual E of one layer, got {self.keep}.")
        if max(self.simsiam, self.margin, self.anchor, self.equivariance) <= 0:
            raise TrainingError("expected at least one of simsiam, margin, anchor and equivariance above 0.")
        if self.equivariance > 0 and self.registration is None:
            raise TrainingError(
                "expected equivariance=0 without spatial transformers, as there is no transform to train. Choose a "
                "registration, for example rotation+scale."
            )

    @property
    def architecture(self) -> Architecture:
        """The structure of the encoder to train."""
        return Architecture(self.backbone, self.registration, self.embed, self.layers, self.residual)
