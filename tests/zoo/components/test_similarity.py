"""SSIM and GMS against scikit-image and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.zoo.components.similarity import GMS_C, SSIM_RADIUS, gms, msgms_map, restoration_loss, ssim
from fewshot_ad.zoo.components.tensors import to_batch
from tests.conftest import make_part


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return to_batch([make_part(0, size=40)], 40), to_batch([make_part(1, size=40, defect=True)], 40)


def test_ssim_is_scikit_images(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    arrays = [batch[0].permute(1, 2, 0).double().numpy() for batch in pair]
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    mean, full = metrics.structural_similarity(*arrays, channel_axis=2, full=True, **settings)
    ours = ssim(*(batch.double() for batch in pair))[0].permute(1, 2, 0).numpy()
    # Its mean leaves out the border, where it also pads images in another way.
    inner = np.s_[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS]
    np.testing.assert_allclose(ours[inner], full[inner], atol=1e-9)
    assert ours[inner].mean() == pytest.approx(mean, abs=1e-9)


def test_gms_is_a_plain_loop(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    def magnitude(plane: np.ndarray) -> np.ndarray:
        padded = np.pad(plane, 1, mode="edge")
        values = np.empty_like(plane)
        for y, x in np.ndindex(plane.shape):
            near = padded[y : y + 3, x : x + 3]
            across, down = (near[:, 0] - near[:, 2]).sum() / 3, (near[0] - near[2]).sum() / 3
            values[y, x] = np.hypot(across, down)
        return values

    small = [batch[:, :, :12, :12].double() for batch in pair]
    ours = gms(small[0], small[1])[0].numpy()
    for channel in range(3):
        one, two = (magnitude(batch[0, channel].numpy()) for batch in small)
        np.testing.assert_allclose(ours[channel], (2 * one * two + GMS_C) / (one**2 + two**2 + GMS_C), atol=1e-9)


def test_map_averages_the_scales(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    halves = [F.avg_pool2d(batch, 2) for batch in pair]
    coarse = F.interpolate(1 - gms(halves[0], halves[1]).mean(1, keepdim=True), size=40, mode="bilinear")[:, 0]
    expected = (1 - gms(*pair).mean(1) + coarse) / 2
    torch.testing.assert_close(msgms_map(*pair, scales=2), expected)


def test_alike_images_cost_nothing_and_others_what_the_terms_add_up_to(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    assert float(restoration_loss(pair[0], pair[0], 4, 1.0, 1.0)) == pytest.approx(0, abs=1e-5)
    squares = float((pair[0] - pair[1]).square().mean())
    terms = 0.5 * float(1 - gms(*pair).mean()) + 0.25 * float(1 - ssim(*pair).mean())
    assert float(restoration_loss(pair[0], pair[1], 1, 0.5, 0.25)) == pytest.approx(squares + terms, rel=1e-5)


def test_even_images_have_finite_slopes() -> None:
    restored = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    restoration_loss(restored, torch.full((1, 3, 16, 16), 0.25), 3, 1.0, 1.0).backward()
    assert restored.grad is not None
    assert bool(restored.grad.isfinite().all())
