"""PDN, the small teacher of EfficientAD, distilled here from a backbone on generated pictures, or on those of a folder.

The paper distills from a WideResNet-101 on ImageNet. Neither is available offline, and the license of the weights that
circulate is not clear; so by default the target is a backbone that comes with its weights, on generated pictures.

Source: Batzner, Heckler & König 2024 (EfficientAD, WACV), section 3.1 and the tables of the appendix.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.encoder.pyramid import local_average
from fewshot_ad.errors import ImageError, ZooError
from fewshot_ad.images import read_image
from fewshot_ad.images.listing import SUFFIXES
from fewshot_ad.storage import write_atomically, write_failure
from fewshot_ad.training.augmentation import random_crop
from fewshot_ad.training.collage import collage
from fewshot_ad.training.parts import CATEGORIES, render
from fewshot_ad.zoo.components.tensors import Backbone, seeded, standardize, unit_tensor
from fewshot_ad.zoo.components.training import train_steps

CHANNELS = 384
# Without padding the outer outputs are centered 16 pixels, four steps of their grid, inside the border.
BORDER = 4
# Stages of the backbone that is imitated: layer2 and layer3 of a ResNet, as in the paper.
STAGES = (2, 3)
# Convolutions: output channels (0: those of the PDN), kernel, padding during distillation.
TABLES = {
    "S": ((128, 4, 3), (256, 4, 3), (256, 3, 1), (0, 4, 0)),
    "M": ((256, 4, 3), (512, 4, 3), (512, 1, 0), (512, 3, 1), (0, 4, 0), (0, 1, 0)),
}
BATCH = 16
RATE, WEIGHT_DECAY = 1e-4, 1e-5
GRAY_SHARE = 0.1
MAGNIFICATIONS = (1.0, 1.5)
_KEY = "fewshot_ad_teacher"


class PDN(nn.Module):
    """Patch description network: each output describes the 33 x 33 pixels it sees, one every 4 pixels.

    Args:
        size: `S` or `M`.
        channels: Channels of the output.

    Raises:
        ZooError: There is no such size.
    """

    def __init__(self, size: str, channels: int = CHANNELS) -> None:
        super().__init__()
        if size not in TABLES:
            raise ZooError(f"expected a PDN of size S or M, got {size!r}.")
        width, layers = 3, []
        for outputs, kernel, _ in TABLES[size]:
            layers.append(nn.Conv2d(width, outputs or channels, kernel))
            width = outputs or channels
        self.layers = nn.ModuleList(layers)
        self.paddings = tuple(padding for *_, padding in TABLES[size])

    def forward(self, batch: torch.Tensor, padded: bool = False) -> torch.Tensor:
        """(N, 3, H, W) in 0..1 -> (N, C, H / 4 - 8, W / 4 - 8), or (N, C, H / 4, W / 4) if `padded`.

        Output (i, j) of the first sees the pixels 4 i to 4 i + 32 by 4 j to 4 j + 32. H and W are multiples of 4.
        """
        features = standardize(batch)
        for n, (layer, padding) in enumerate(zip(self.layers, self.paddings, strict=True)):
            features = F.conv2d(features, layer.weight, layer.bias, padding=padding if padded else 0)
            if n + 1 < len(self.layers):
                features = F.relu(features)
            if n < 2:
                features = F.avg_pool2d(features, 2, padding=int(padded))
        return features


class Pictures:
    """Pictures of anything, for the teacher to be distilled on and for the penalty.

    Args:
        pictures: (side, side, 3) uint8 RGB each.
        side: Side of the pictures and of the crops, in pixels.
    """

    def __init__(self, pictures: Sequence[Uint8Array], side: int) -> None:
        self.pictures, self.side = pictures, side

    @classmethod
    def generated(cls, count: int, side: int, seed: int, progress: Progress | None = None) -> Pictures:
        """Collages of generated parts, where the paper takes pictures of ImageNet.

        Args:
            count: Number of pictures.
            side: Their side in pixels.
            seed: The same seed gives the same pictures.
            progress: Called as `progress(stage, done, total)`.
        """
        textures = [render(name, 0, side, variant=seed) for name in CATEGORIES]
        pictures = []
        for n in range(count):
            pictures.append(collage(textures, seed * 1_000_003 + n, side))
            if progress is not None:
                progress("generating pictures", n + 1, count)
        return cls(pictures, side)

    @classmethod
    def of_folder(cls, folder: Path, count: int, side: int, seed: int, progress: Progress | None = None) -> Pictures:
        """Photographs of a folder and of the folders in it, ImageNet's say: the middle square of each.

        Args:
            folder: The folder.
            count: Number of pictures at most, drawn at random.
            side: Side in pixels that they are brought to.
            seed: The same seed draws the same pictures.
            progress: Called as `progress(stage, done, total)`.

        Raises:
            ZooError: There is no such folder, or not one picture in it that can be read. Others that cannot are left
                out.
        """
        if not folder.is_dir():
            raise ZooError(f"picture_folder: expected a folder of pictures, got {folder}. Check the path.")
        files = _pictures_in(folder)
        chosen = [files[i] for i in np.random.default_rng([seed, 5]).permutation(len(files))[:count]]
        pictures = []
        for n, path in enumerate(chosen):
            with contextlib.suppress(ImageError):
                pictures.append(_middle(read_image(path), side))
            if progress is not None:
                progress("reading pictures", n + 1, len(chosen))
        if not pictures:
            raise ZooError(f"picture_folder: expected pictures in {folder}, found none that can be read.")
        return cls(pictures, side)

    def whole(self, index: int) -> torch.Tensor:
        """One whole picture, (1, 3, side, side) float32 in 0..1."""
        # Not `unit_tensor`: torch convolves tensors of these strides by other kernels, which round differently.
        return torch.as_tensor(self.pictures[index]).permute(2, 0, 1)[None].float() / 255

    def crops(self, count: int, gray_share: float, rng: np.random.Generator) -> torch.Tensor:
        """Random crops, a share of them gray: (count, 3, side, side) float32 in 0..1."""
        indices = rng.integers(len(self.pictures), size=count)
        batch = unit_tensor(np.stack([random_crop(self.pictures[i], self.side, MAGNIFICATIONS, rng) for i in indices]))
        gray = torch.as_tensor(rng.uniform(size=count) < gray_share).view(-1, 1, 1, 1)
        return torch.where(gray, batch.mean(1, keepdim=True), batch)


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def listing_hash(folder: Path) -> str:
    """SHA-256 of the names and sizes of the pictures in a folder and in those in it."""
    digest = hashlib.sha256()
    for path in _pictures_in(folder):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _middle(image: Uint8Array, side: int) -> Uint8Array:
    """The middle square of an image (H, W, 3) uint8 RGB, brought to a side."""
    short = min(image.shape[:2])
    top, left = ((length - short) // 2 for length in image.shape[:2])
    interpolation = cv2.INTER_AREA if short > side else cv2.INTER_LINEAR
    scaled = cv2.resize(image[top : top + short, left : left + short], (side, side), interpolation=interpolation)
    return np.asarray(scaled, np.uint8)


def targets(backbone: Backbone, batch: torch.Tensor) -> torch.Tensor:
    """Target of the distillation: the features of the stages, locally averaged, stacked, and pooled to 384 channels.

    Args:
        backbone: With stages at strides 8 and 16. Those of resnet18 have 384 channels together, which are not pooled.
        batch: (N, 3, H, W) in 0..1; the backbone sees it at twice its size, which puts its first stage at stride 4.

    Returns:
        (N, 384, H / 4, W / 4).

    Source: section 3.1; Roth et al. 2022 (PatchCore), section 3.1, for the averaging.
    """
    stages = backbone(F.interpolate(batch, scale_factor=2, mode="bilinear", align_corners=False))
    grid = stages[0].shape[-2:]
    stacked = torch.cat(
        [F.interpolate(local_average(s), size=grid, mode="bilinear", align_corners=False) for s in stages], 1
    )
    n, channels, height, width = stacked.shape
    if channels == CHANNELS:
        return stacked
    flat = stacked.permute(0, 2, 3, 1).reshape(n, height * width, channels)
    pooled = F.adaptive_avg_pool1d(flat, CHANNELS)
    return pooled.reshape(n, height, width, CHANNELS).permute(0, 3, 1, 2)


def distill(
    size: str,
    backbone: Backbone,
    pictures: Pictures,
    steps: int,
    seed: int,
    progress: Progress | None = None,
    batch: int = BATCH,
) -> tuple[PDN, tuple[float, ...]]:
    """A PDN whose output is the backbone's features, each channel brought to mean 0 and standard deviation 1.

    Args:
        size: `S` or `M`.
        backbone: See `targets`.
        pictures: Pictures to distill on; their side is a multiple of 32.
        steps: Gradient steps.
        seed: Seed of the weights and the crops.
        progress: Called as `progress(stage, done, total)`.
        batch: Crops per step.

    Returns:
        The PDN, frozen, and the mean squared error of each step.
    """
    rng = np.random.default_rng([seed, 3])
    mean, deviation = _statistics(backbone, pictures)
    losses = []
    with seeded(seed):
        pdn = PDN(size)

    def loss() -> torch.Tensor:
        crops = pictures.crops(batch, GRAY_SHARE, rng)
        with torch.no_grad():
            target = (targets(backbone, crops) - mean) / deviation
        error = F.mse_loss(pdn(crops, padded=True), target)
        losses.append(error.item())
        return error

    optimizer = torch.optim.Adam(pdn.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    train_steps(loss, steps, [optimizer], progress=progress, stage="distilling the teacher")
    return pdn.requires_grad_(False).eval(), tuple(losses)


def _statistics(backbone: Backbone, pictures: Pictures) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel over the pictures, (1, 384, 1, 1) each."""
    total, squares, count = torch.zeros(CHANNELS).double(), torch.zeros(CHANNELS).double(), 0
    with torch.no_grad():
        for n in range(len(pictures.pictures)):
            features = targets(backbone, pictures.whole(n)).double()
            total += features.sum((0, 2, 3))
            squares += features.square().sum((0, 2, 3))
            count += features[:, 0].numel()
    mean = total / count
    deviation = (squares / count - mean**2).clamp_min(1e-12).sqrt()
    return mean.float().view(1, -1, 1, 1), deviation.float().view(1, -1, 1, 1)


def save_teacher(path: Path, teacher: PDN, record: Mapping[str, Any]) -> None:
    """Write a teacher to a safetensors file; an older file is replaced once the new one is complete.

    Args:
        path: File to write.
        teacher: The teacher.
        record: Settings of its distillation, `size` among them; JSON values.

    Raises:
        ZooError: The file cannot be written.
    """
    state = teacher.state_dict()
    data = save(state, {_KEY: json.dumps({**record, "sha256": _hash_of(state)}, sort_keys=True)})
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ZooError(write_failure(path, error)) from error


def _hash_of(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_teacher(path: Path, expected: Mapping[str, Any]) -> PDN:
    """Read a teacher that was distilled with the expected settings.

    Args:
        path: Written by `save_teacher`.
        expected: Settings that its record must hold: `size`, and any others.

    Raises:
        ZooError: It is no such file, or the teacher was distilled with other settings.
    """
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {})[_KEY])
        state = load_file(path)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ZooError(
            f"{path}: expected a teacher that efficientad_cdo has written, got something else "
            f"({type(error).__name__}). Name a file that does not exist yet, and it will be written."
        ) from error
    # Those of earlier versions have no hash.
    if record.get("sha256") not in (None, _hash_of(state)):
        raise ZooError(f"{path}: expected the tensors that efficientad_cdo has written, got them changed. Delete it.")
    for key, value in expected.items():
        if record.get(key) != value:
            raise ZooError(
                f"{path}: expected a teacher of {key} {value!r}, got {record.get(key)!r}. Set it to that, or name "
                "another file."
            )
    with seeded(0):  # the weights it starts with are replaced
        teacher = PDN(str(expected["size"]))
    try:
        teacher.load_state_dict(state)
    except RuntimeError as error:
        raise ZooError(f"{path}: its tensors are not those of a PDN of size {expected['size']}.") from error
    return teacher.requires_grad_(False).eval()
