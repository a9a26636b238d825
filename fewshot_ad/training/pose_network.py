"""The spatial transformer before the first stage: where a part lies on an image, learned once from known warps.

Needs the extra `torch`.

The network draws maps on a small copy of the image: how much a pixel belongs to the part, and one weight per order m.
Their moments are the pose: the part's center, its spread, and per order the complex number
z_m = sum of part * weight_m * e^(i m phi), phi the direction from the center. An image that is turned by a moves z_m by
m * a, so its phase divided by m is the part's turn, up to a period of 360/m degrees: parts with an m-fold symmetry have
no other turn. Center, spread and phases follow every shift, zoom and turn of the maps by construction, so all that
has to be learned is to draw the same map on a turned part.

Sources: Jaderberg et al. 2015 (Spatial Transformer Networks: a localization net in front of the network); Kaba et al.
2023 (Equivariance with Learned Canonicalization Functions: pose(T x) = T pose(x) as the only demand on the pose); Hu
1962 and Teague 1980 (moments of an image as its pose, complex moments).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.registration import ORDERS

WIDTH = 24
DILATIONS = (1, 2, 4, 8, 2)
# Of the direction near the center, where it means nothing, as a share of the part's mean squared radius.
SOFT_CENTER = 0.05


class Poses(NamedTuple):
    """Where parts lie, in coordinates of -1..1 from the image's center.

    Attributes:
        center: (N, 2) float32, across and down.
        log_spread: (N,) float32: natural logarithm of the root of the part's mean squared radius.
        moments: (N, len(ORDERS), 2) float32, real and imaginary part; length 0..1, near 0 where there is no turn to
            be seen.
    """

    center: torch.Tensor
    log_spread: torch.Tensor
    moments: torch.Tensor


class PoseNetwork(nn.Module):
    """Image -> pose of its part."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 5, stride=2, padding=2, padding_mode="replicate")
        self.blocks = nn.Sequential(*[_Block(WIDTH, dilation) for dilation in DILATIONS])
        self.head = nn.Conv2d(WIDTH, 1 + len(ORDERS), 1)

    def poses(self, images: torch.Tensor) -> Poses:
        """The poses of (N, 3, POSE_SIDE, POSE_SIDE) float images, RGB in 0..1."""
        mean = images.mean((1, 2, 3), keepdim=True)
        contrast = (images - mean).square().mean((1, 2, 3), keepdim=True).sqrt() + 0.02
        maps = self._maps((images - mean) / contrast)
        part = torch.sigmoid(maps[:, 0]) + 1e-4
        part = part / part.sum((1, 2), keepdim=True)
        line = (torch.arange(maps.shape[2], device=maps.device) + 0.5) * (2 / maps.shape[2]) - 1
        x, y = line[None, None, :], line[None, :, None]
        center = torch.stack([(part * x).sum((1, 2)), (part * y).sum((1, 2))], 1)
        dx, dy = x - center[:, 0, None, None], y - center[:, 1, None, None]
        squared = dx * dx + dy * dy
        spread = (part * squared).sum((1, 2))
        radius = torch.sqrt(squared + SOFT_CENTER * spread[:, None, None])
        powers = _powers(dx / radius, dy / radius)
        weights = torch.tanh(maps[:, 1:])
        moments = [
            torch.stack([(part * weights[:, at] * a).sum((1, 2)) for a in powers[order]], 1)
            for at, order in enumerate(ORDERS)
        ]
        return Poses(center, 0.5 * torch.log(spread), torch.stack(moments, 1))

    def _maps(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, 1 + len(ORDERS), H / 2, W / 2)."""
        if self.training:
            return self._drawn(images)
        # The mean of the four quarter turns follows these exactly, and the turns in between better.
        turned = torch.cat([torch.rot90(images, k, (2, 3)) for k in range(4)])
        drawn = self._drawn(turned).chunk(4)
        return torch.stack([torch.rot90(maps, -k, (2, 3)) for k, maps in enumerate(drawn)]).mean(0)

    def _drawn(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.blocks(F.relu(self.stem(images)))))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """What the exported network gives.

        Args:
            images: (N, POSE_SIDE, POSE_SIDE, 3) uint8 RGB.

        Returns:
            (N, 3 + 2 * len(ORDERS)) float32: center, log spread, and per order the moment's real and imaginary part.
        """
        poses = self.poses(images.permute(0, 3, 1, 2).float() / 255)
        return torch.cat([poses.center, poses.log_spread[:, None], poses.moments.flatten(1)], 1)


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, padding_mode="replicate")
        self.norm = nn.GroupNorm(4, width)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mix(F.relu(self.norm(self.spread(x))))


def _powers(real: torch.Tensor, imaginary: torch.Tensor) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Powers 1 to the highest order of complex numbers, each as real and imaginary part."""
    powers = {1: (real, imaginary)}
    for order in range(2, max(ORDERS) + 1):
        a, b = powers[order - 1]
        powers[order] = (a * real - b * imaginary, a * imaginary + b * real)
    return powers


def as_seen_by_the_part(poses: Poses, transform: torch.Tensor) -> Poses:
    """Poses in the coordinates of the parts: equal for all images of one part, however it lies.

    That is the equivariance in one formula: an image that shows at p what another shows at T(p) has the pose T^-1 of
    the other's.

    Args:
        poses: The poses.
        transform: (N, 2, 3) float32 from the image's coordinates to the part's: a turn, a zoom and a shift.
    """
    linear, shift = transform[:, :, :2], transform[:, :, 2]
    center = (linear @ poses.center[:, :, None])[:, :, 0] + shift
    zoom = torch.log(linear[:, :, 0].norm(dim=1))
    orders = torch.tensor(ORDERS, dtype=linear.dtype, device=linear.device)
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0])[:, None] * orders
    real, imaginary = poses.moments.unbind(2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    moments = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], 2)
    return Poses(center, poses.log_spread + zoom, moments)
