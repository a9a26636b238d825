from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot_ad.zoo.components.reverse_distillation import (
    BLUEPRINTS,
    Decoder,
    OneClassEmbedding,
    discrepancy_map,
    distillation_loss,
)


@pytest.mark.parametrize("backbone", sorted(BLUEPRINTS))
def test_the_student_rebuilds_maps_of_the_teachers_shapes(backbone: str) -> None:
    channels = (8, 16, 32)
    maps = [torch.rand(2, count, 32 // 2**k, 32 // 2**k) for k, count in enumerate(channels)]
    embedded = OneClassEmbedding(channels, BLUEPRINTS[backbone])(maps)
    assert embedded.shape == (2, 64, 4, 4)
    rebuilt = Decoder(channels, BLUEPRINTS[backbone])(embedded)
    assert [m.shape for m in rebuilt] == [m.shape for m in maps]


def test_a_wide_student_has_as_many_parameters_as_the_authors() -> None:
    def count(network: torch.nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    # Blocks of WideResNet50 by hand: 1x1 to half of the channels, 3x3 (2x2 where it doubles), 1x1; two numbers a norm.
    def block(inputs: int, outputs: int, kernel: int, skip: bool) -> int:
        middle = outputs // 2
        convolutions = inputs * middle + kernel**2 * middle**2 + middle * outputs
        return convolutions + 2 * (2 * middle + outputs) + skip * (inputs * outputs * 4 + 2 * outputs)

    expected = 0
    for inputs, outputs, blocks in ((2048, 1024, 3), (1024, 512, 4), (512, 256, 6)):
        expected += block(inputs, outputs, 2, True) + (blocks - 1) * block(outputs, outputs, 3, False)
    assert count(Decoder((256, 512, 1024), BLUEPRINTS["wide_resnet50_2"])) == expected


def test_loss_and_map_by_hand() -> None:
    teacher = [torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]]), torch.tensor([[[[3.0]], [[4.0]]]])]
    student = [torch.tensor([[[[1.0, 2.0]], [[0.0, 0.0]]]]), torch.tensor([[[[4.0]], [[3.0]]]])]
    # Whole maps: (1, 0, 0, 2) and (1, 2, 0, 0); (3, 4) and (4, 3).
    assert float(distillation_loss(teacher, student)) == pytest.approx((1 - 1 / 5) + (1 - 24 / 25))
    heat = discrepancy_map(teacher, student, 2)[0]
    # At each position: alike on the left, at a right angle on the right.
    np.testing.assert_allclose(heat, [[0.04, 1.04], [0.04, 1.04]], atol=1e-6)
