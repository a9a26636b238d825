"""Where a patch of an image is, and what is around it."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812


def position_histograms(indices: torch.Tensor, count: int, reach: int) -> torch.Tensor:
    """How often each representative occurs at each position and up to some positions away from it, over all images.

    Args:
        indices: (n, h, w) int64, the nearest representative of each patch.
        count: Number of representatives.
        reach: Positions up, down, left and right that count as well.

    Returns:
        (h * w, count) float32, rows sum to 1.
    """
    occurrences = F.one_hot(indices, count).sum(0).permute(2, 0, 1).float()
    window = 2 * reach + 1
    total = F.avg_pool2d(F.pad(occurrences, (reach,) * 4), window, stride=1).flatten(1).T
    return total / total.sum(1, keepdim=True)


def neighborhoods(padded: torch.Tensor, rows: torch.Tensor, side: int) -> torch.Tensor:
    """The features around patches, without their own.

    Args:
        padded: (n, h + side - 1, w + side - 1, d), grids with a border of zeros.
        rows: (b,) int64 indices of patches in the order of (n, h, w).
        side: Side of the square neighborhood.

    Returns:
        (b, (side * side - 1) * d).
    """
    height, width = (size - side + 1 for size in padded.shape[1:3])
    image, y, x = rows // (height * width), rows // width % height, rows % width
    offsets = torch.arange(side * side)
    offsets = offsets[offsets != side * side // 2]
    around = padded[image[:, None], y[:, None] + offsets // side, x[:, None] + offsets % side]
    return around.flatten(1)
