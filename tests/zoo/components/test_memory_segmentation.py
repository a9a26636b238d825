from __future__ import annotations

import numpy as np
import torch

from fewshot_ad.zoo.components.memory_segmentation import (
    CoordinateAttention,
    MemorySegmentation,
    attention_maps,
    nearest_differences,
)

SHAPES = ((3, 8, 8), (4, 4, 4), (5, 2, 2))


def pyramid(count: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, *shape, generator=generator) for shape in SHAPES]


def test_differences_are_those_to_the_nearest_image() -> None:
    features, memory = pyramid(2, 0), pyramid(4, 1)
    found = nearest_differences(features, memory)
    for i in range(2):
        sums = [sum(((f[i] - m[j]) ** 2).sum() for f, m in zip(features, memory, strict=True)) for j in range(4)]
        best = int(np.argmin(sums))
        for difference, f, m in zip(found, features, memory, strict=True):
            torch.testing.assert_close(difference[i], (f[i] - m[best]) ** 2)


def test_an_image_is_not_compared_with_itself_unless_it_is_alone() -> None:
    memory = pyramid(3, 1)
    assert all(not difference.any() for difference in nearest_differences(memory, memory))
    others = nearest_differences(memory, memory, torch.eye(3, dtype=torch.bool))
    assert all((difference.flatten(1).sum(1) > 0).all() for difference in others)
    alone = [level[:1] for level in memory]
    assert all(not difference.any() for difference in nearest_differences(alone, alone, torch.ones(1, 1).bool()))


def test_attention_maps_multiply_from_coarse_to_fine() -> None:
    fine, middle, coarse = (
        torch.full((1, *shape), value) for shape, value in zip(SHAPES, (2.0, 3.0, 5.0), strict=True)
    )
    maps = attention_maps([fine, middle, coarse])
    assert [m.shape for m in maps] == [(1, 1, 8, 8), (1, 1, 4, 4), (1, 1, 2, 2)]
    for heat, value in zip(maps, (30.0, 15.0, 5.0), strict=True):
        torch.testing.assert_close(heat, torch.full_like(heat, value))


def test_coordinate_attention_by_hand() -> None:
    torch.manual_seed(0)
    layer = CoordinateAttention(4).eval()
    x = torch.rand(1, 4, 3, 5)
    found = layer(x)

    def hidden(line: np.ndarray) -> np.ndarray:
        convolution, norm = layer.shared[0], layer.shared[1]
        value = convolution.weight.detach().numpy()[:, :, 0, 0] @ line + convolution.bias.detach().numpy()
        value = value / np.sqrt(1 + norm.eps)
        return value * np.clip(value + 3, 0, 6) / 6

    def gate(convolution: torch.nn.Module, line: np.ndarray) -> np.ndarray:
        value = convolution.weight.detach().numpy()[:, :, 0, 0] @ hidden(line) + convolution.bias.detach().numpy()
        return 1 / (1 + np.exp(-value))

    image = x[0].numpy()
    for row in range(3):
        for column in range(5):
            gates = gate(layer.rows, image[:, row].mean(1)) * gate(layer.columns, image[:, :, column].mean(1))
            np.testing.assert_allclose(found[0, :, row, column].detach(), image[:, row, column] * gates, rtol=1e-4)


def test_network_gives_one_logit_per_pixel() -> None:
    network = MemorySegmentation((6, 8, 12, 16)).eval()
    features = [torch.rand(2, count, 32 // 2**i, 32 // 2**i) for i, count in enumerate((6, 8, 12, 16))]
    memory = [torch.rand(3, *level.shape[1:]) for level in features[1:]]
    assert network(features, memory).shape == (2, 1, 64, 64)
