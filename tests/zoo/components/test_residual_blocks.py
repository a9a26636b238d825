from __future__ import annotations

import pytest
import timm
import torch

from fewshot_ad.zoo.components.residual_blocks import ResidualBlock


@pytest.mark.parametrize(("inputs", "scale"), [(4, 1.0), (6, 1.0), (6, 0.5), (6, 2.0)])
def test_shapes(inputs: int, scale: float) -> None:
    assert ResidualBlock(inputs, 4, scale)(torch.rand(2, inputs, 8, 6)).shape == (2, 4, 8 * scale, 6 * scale)


def test_is_the_block_of_a_resnet18() -> None:
    published = timm.create_model("resnet18", pretrained=False).layer4[0].eval()
    block = ResidualBlock(256, 512, 0.5).eval()
    names = {"change": "conv1", "keep": "conv2", "norms.0": "bn1", "norms.1": "bn2", "shortcut": "downsample"}
    state = published.state_dict()
    for ours, theirs in names.items():
        block.get_submodule(ours).load_state_dict(
            {key.removeprefix(f"{theirs}."): value for key, value in state.items() if key.startswith(f"{theirs}.")}
        )
    batch = torch.rand(1, 256, 8, 8)
    torch.testing.assert_close(block(batch), published(batch))
