"""anomalib's CFM: what a surface looks like is foretold from its shape, and its shape from what it looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.anomalib.adapter import AnomalibMethod, Schedule, card
from fewshot_ad.zoo.anomalib.backbones import timm_name
from fewshot_ad.zoo.components.colored_points import points_batch
from fewshot_ad.zoo.components.tensors import seeded, standardize
from fewshot_ad.zoo.method import Method, baseline

NAME = "anomalib_cfm"


@baseline(
    replace(
        card(
            "cfm",
            "CFM",
            "Costanzino et al. 2024, Multimodal Industrial Anomaly Detection by Crossmodal Feature Mapping, CVPR",
            2024,
            "reconstruction",
            "Not at hand: weights=FILE takes the paper's DINO ViT-B/8, points_weights=FILE Point-MAE's pretraining "
            "(pretrain.pth); weights='random' runs the code only. Images need the position of each pixel.",
            pretrained="DINO and Point-MAE",
            at_hand="not at hand",
            departs=(
                "batches of one image, not of four",
                "the plane under the part stays in the point cloud",
                "one Gaussian filter and the mean of the highest 0.1 % as the score, as in anomalib",
            ),
        ),
        needs_points=True,
    )
)
def cfm(
    *,
    seed: int = 0,
    image_size: int = 224,
    backbone: str = "vit_base_patch8_224.dino",
    weights: str | None = None,
    points_weights: str | None = None,
    groups: int = 1024,
    group_size: int = 128,
    epochs: int = 50,
    learning_rate: float = 1e-3,
) -> Method:
    """CFM. Source: Costanzino et al. 2024, section 4, and the authors' code: 224 pixels, 50 epochs of Adam at 1e-3.

    Images are (H, W, 6) float32, color and position, see `components.colored_points`. `groups` of `group_size` points
    each describe the shape. A pass takes some 20 seconds per image on two cores at 224 pixels.
    """
    if min(groups, group_size) < 1 or learning_rate <= 0:
        raise ZooError(
            f"{NAME}: expected groups and group_size of at least 1 and a learning_rate above 0, got {groups}, "
            f"{group_size} and {learning_rate}."
        )
    network = timm_name(backbone, weights)
    shapes = _check_points_weights(weights, points_weights)

    def build(_: Path) -> Any:
        from fewshot_ad.zoo.anomalib.runtime.cfm import OfflineCfm, OfflineCfmModel, load_points

        # Seeded here: the imports above draw random numbers the first time.
        with seeded(seed):
            model = OfflineCfmModel(_transformer(network, backbone, image_size), groups, group_size)
        if shapes != "random":
            load_points(model, shapes)
        return OfflineCfm(model, learning_rate)

    schedule = Schedule(image_size, epochs, batch_size=1)
    return CfmMethod(NAME, build, schedule, seed, least_points=max(groups, group_size))


@dataclass(eq=False)
class CfmMethod(AnomalibMethod):
    """CFM under the protocol of the zoo.

    Attributes:
        least_points: Number of positions that each image must have.
    """

    least_points: int = 1

    def _support(self, normal: Sequence[Uint8Array]) -> torch.Tensor:
        return self._standardized(points_batch(NAME, normal, self.schedule.image_size, self.least_points))

    def _judge(self, model: torch.nn.Module, image: Uint8Array) -> tuple[float, torch.Tensor | None]:
        batch = self._standardized(points_batch(NAME, [image], self.schedule.image_size, self.least_points))
        # The first of the points that groups are around is drawn: every image gets the draw of one that comes alone.
        batch = batch.to(self._device)
        with seeded(self.seed):
            output = model(batch[:, :3], batch[:, 3:])
        return float(output.pred_score[0]), output.anomaly_map[0, 0]

    @staticmethod
    def _standardized(batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([standardize(batch[:, :3]), batch[:, 3:]], 1)


def _transformer(network: str, backbone: str, image_size: int) -> Any:
    """A vision transformer of timm's for square images of a size.

    Raises:
        ZooError: It is none that CFM can work with.
    """
    try:
        model: Any = timm.create_model(network, pretrained=True, img_size=image_size, num_classes=0)
        patch = model.patch_embed.patch_size[0]
    except (TypeError, AttributeError) as error:
        raise ZooError(f"{NAME}: expected a vision transformer of timm's as backbone, got {backbone!r}.") from error
    if model.num_prefix_tokens != 1 or image_size % patch:
        raise ZooError(
            f"{NAME}: expected a transformer with a class token and no registers, and an image_size that its patch of "
            f"{patch} divides, got {backbone!r} and {image_size}."
        )
    return model


def _check_points_weights(weights: str | None, points_weights: str | None) -> str:
    """Point-MAE's weights: `random` or a file.

    Raises:
        WeightsError: They are neither.
    """
    if points_weights is None and weights == "random":
        return "random"
    if points_weights is None:
        raise WeightsError(
            f"{NAME}: expected points_weights, Point-MAE's file of its pretraining, which is not at hand, got none. "
            "Give points_weights=FILE (pretrain.pth of its release)."
        )
    if points_weights != "random" and not Path(points_weights).is_file():
        raise WeightsError(
            f"{NAME}: expected points_weights='random' or a file, but {points_weights} is none. Check the path."
        )
    return points_weights
