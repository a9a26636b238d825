from __future__ import annotations

import numpy as np
import torch

from fewshot_ad.zoo.components.patch_context import neighborhoods, position_histograms


def test_histograms_by_a_plain_loop() -> None:
    indices = np.random.default_rng(0).integers(4, size=(3, 5, 6))
    expected = np.zeros((5, 6, 4))
    for y in range(5):
        for x in range(6):
            around = indices[:, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            expected[y, x] = np.bincount(around.ravel(), minlength=4) / around.size
    histograms = position_histograms(torch.from_numpy(indices), 4, 2)
    np.testing.assert_allclose(histograms.numpy(), expected.reshape(30, 4), rtol=1e-5)


def test_a_patch_is_no_part_of_its_neighborhood() -> None:
    grids = torch.arange(1.0, 2 * 3 * 4 * 2 + 1).view(2, 3, 4, 2)
    padded = torch.nn.functional.pad(grids, (0, 0, 1, 1, 1, 1))
    # The second image's patch in row 1, column 2, and its corner at the bottom right.
    inner, corner = neighborhoods(padded, torch.tensor([12 + 6, 12 + 11]), 3)
    places = [(y, x) for y in range(3) for x in (1, 2, 3) if (y, x) != (1, 2)]
    torch.testing.assert_close(inner, torch.cat([grids[1, y, x] for y, x in places]))
    nothing = torch.zeros(2)
    expected = [grids[1, 1, 2], grids[1, 1, 3], nothing, grids[1, 2, 2], nothing, nothing, nothing, nothing]
    torch.testing.assert_close(corner, torch.cat(expected))
