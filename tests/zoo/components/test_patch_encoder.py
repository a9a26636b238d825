from __future__ import annotations

import numpy as np
import torch

from fewshot_ad.zoo.components.patch_encoder import PatchEncoder, spread


def test_grids_hold_what_each_patch_is_encoded_to() -> None:
    torch.manual_seed(0)
    encoder, image = PatchEncoder(8), torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        small, big = encoder.grids(image)
        assert small.shape == (1, 8, 17, 17)
        assert big.shape == (1, 8, 3, 3)
        for grid, side, stride, encode, (row, column) in (
            (small, 32, 4, encoder.encode_small, (3, 16)),
            (big, 64, 16, encoder.encode_big, (2, 1)),
        ):
            y, x = row * stride, column * stride
            alone = encode(image[:, :, y : y + side, x : x + side])
            torch.testing.assert_close(grid[:, :, row, column], alone, atol=1e-5, rtol=1e-4)


def test_big_patches_are_encoded_from_their_corners_in_order() -> None:
    torch.manual_seed(0)
    encoder, patch = PatchEncoder(4), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        corners = [encoder.encode_small(patch[:, :, y : y + 32, x : x + 32])[0] for y in (0, 32) for x in (0, 32)]
        stacked = torch.stack(corners, 1).view(1, 4, 2, 2)
        expected = encoder.rest(encoder.corners(stacked)).flatten(1)
        torch.testing.assert_close(encoder.encode_big(patch), expected, atol=1e-5, rtol=1e-4)


def test_first_weights_keep_what_differs_between_patches() -> None:
    torch.manual_seed(0)
    encoder, patches = PatchEncoder(64, deviation=0.1), 0.1 * torch.randn(16, 3, 64, 64)
    with torch.no_grad():
        for embeddings in (encoder.encode_small(patches[..., :32, :32]), encoder.encode_big(patches)):
            assert 0.1 < embeddings.std(0).mean() < 1


def test_a_pixel_gets_the_mean_of_the_patches_that_cover_it() -> None:
    grid = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    total, covering = np.zeros((10, 12)), np.zeros((10, 12))
    for (i, j), value in np.ndenumerate(grid.numpy()):
        total[2 * i : 2 * i + 6, 2 * j : 2 * j + 6] += value
        covering[2 * i : 2 * i + 6, 2 * j : 2 * j + 6] += 1
    np.testing.assert_allclose(spread(grid, 6, 2), total / covering, rtol=1e-5)
