import cv2
import numpy as np
import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.diffusion_anomalies import changed, perlin, perlin_mask, synthetic_anomaly
from fewshot_ad.zoo.components.diffusion_unet import NoiseUNet, SegmentationUNet
from fewshot_ad.zoo.diffusion_ad import Repair, add_noise, alpha_bars, focal_loss, guided_noise, remove_noise
from tests.conftest import make_part

TINY = {"image_size": 32, "channels": 8, "steps": 2, "batch": 2}


@pytest.fixture(scope="module")
def good():
    return [make_part(seed, size=48) for seed in range(4)]


@pytest.fixture(scope="module")
def fitted(good):
    method = create("diffusionad", seed=1, **TINY)
    method.fit(good)
    return method


def test_the_noise_schedule_falls_from_all_to_nothing():
    bars = alpha_bars()
    assert bars.shape == (1000,)
    assert (bars.diff() < 0).all()
    assert bars[0] == pytest.approx(1 - 1e-4)
    # Ho et al. 2020: hardly any signal is left at the end.
    assert 0 < bars[-1] < 5e-5
    expected = np.prod(1 - (1e-4 + np.arange(201) / 999 * (0.02 - 1e-4)))
    assert bars[200] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("time", [0, 200, 400, 999])
def test_one_step_gives_the_image_back_when_the_true_noise_is_known(time):
    clean, noise = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    bar = alpha_bars()[time].double().view(1, 1, 1, 1)
    torch.testing.assert_close(remove_noise(add_noise(clean, noise, bar), noise, bar), clean)


def test_guided_noise_by_hand():
    bar = torch.tensor([0.64]).view(1, 1, 1, 1)
    noisy, noise, guide = (torch.full((1, 3, 2, 2), v) for v in (1.0, 0.5, 0.25))
    # The guide with the same noise is 0.8 * 0.25 + 0.6 * 0.5 = 0.5; it lies 0.5 below, and 0.6 * 0.5 = 0.3.
    torch.testing.assert_close(guided_noise(noisy, noise, guide, bar, 1.0), torch.full((1, 3, 2, 2), 0.8))
    torch.testing.assert_close(guided_noise(noisy, noise, guide, bar, 0.0), noise)
    plain = remove_noise(noisy, noise, bar) - guide
    guided = remove_noise(noisy, guided_noise(noisy, noise, guide, bar, 1.0), bar) - guide
    assert (guided.abs() < plain.abs()).all()


def test_a_perfect_noise_predictor_repairs_nothing_and_loses_nothing():
    images = torch.rand(2, 3, 32, 32)
    noises = (torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32))
    answers = iter(noises)

    class Oracle(torch.nn.Module):
        def forward(self, noisy, times):
            return next(answers)

    repaired, loss = Repair(Oracle(), guidance=1.0)(images, (torch.tensor([200, 20]), torch.tensor([400, 300])), noises)
    torch.testing.assert_close(repaired, images, atol=1e-4, rtol=0)
    assert loss.tolist() == [0, 0]


def test_focal_loss_by_hand():
    logits, truth = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])
    sure = 1 / (1 + np.exp(-2.0))
    expected = (0.5 * 0.5**4 * np.log(2) + 0.5 * sure**4 * -np.log(1 - sure)) / 2
    assert float(focal_loss(logits, truth)) == pytest.approx(expected, rel=1e-5)


def test_perlin_noise_is_nought_on_the_lattice_smooth_between_and_seeded():
    noise = perlin(256, (4, 2), np.random.default_rng(3))
    np.testing.assert_array_equal(noise, perlin(256, (4, 2), np.random.default_rng(3)))
    # Half a pixel beside a lattice point the noise is at most half a pixel's slope.
    assert np.abs(noise[[63, 64, 127, 128]][:, [127, 128]]).max() < 0.03
    assert np.abs(np.diff(noise, axis=0)).max() < 0.1
    assert np.abs(np.diff(noise, axis=1)).max() < 0.1
    assert 0.5 < np.abs(noise).max() <= 1.5


def test_masks_cover_a_part_of_the_image():
    shares = np.array([perlin_mask(64, np.random.default_rng(seed)).mean() for seed in range(60)])
    assert shares.min() > 0
    assert shares.max() < 0.6
    assert 0.02 < shares.mean() < 0.25
    np.testing.assert_array_equal(perlin_mask(64, np.random.default_rng(7)), perlin_mask(64, np.random.default_rng(7)))


def test_a_synthetic_anomaly_changes_the_image_inside_its_mask_only():
    part, texture = make_part(0, size=64), make_part(1, size=64)[::-1].copy()
    inside = 0
    for seed in range(30):
        broken, mask = synthetic_anomaly(part, [texture], np.random.default_rng(seed))
        assert broken.dtype == np.uint8
        np.testing.assert_array_equal(broken[~mask], part[~mask])
        inside += (broken[mask] != part[mask]).mean()
    assert inside / 30 > 0.7


def test_changes_of_texture_differ_by_seed():
    part = make_part(0, size=50)
    textures = [changed(part, np.random.default_rng(seed)) for seed in range(40)]
    assert {(p.shape, p.dtype) for p in textures} == {((50, 50, 3), np.dtype(np.uint8))}
    assert len({p.tobytes() for p in textures}) == 40


@pytest.mark.parametrize("side", [32, 64, 96])
def test_both_networks_keep_the_side(side):
    batch = torch.rand(2, 3, side, side)
    noise = NoiseUNet(side, 8)(batch, torch.tensor([3, 700]))
    assert noise.shape == batch.shape
    # The last layer starts at nothing, which is the best guess before any training.
    assert not noise.any()
    assert SegmentationUNet(4)(batch, batch).shape == (2, 1, side, side)


def test_the_noise_loss_falls_on_one_image():
    torch.manual_seed(0)
    images = torch.from_numpy(make_part(0, size=32)).permute(2, 0, 1)[None].float() / 255
    images, times = images.expand(2, -1, -1, -1), (torch.tensor([100, 250]), torch.tensor([400, 900]))
    repair = Repair(NoiseUNet(32, 8), guidance=1.0)
    optimizer = torch.optim.Adam(repair.parameters(), 5e-3)
    losses = []
    for _ in range(20):
        loss = repair(images, times, (torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)))[1].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    # A network that says nothing loses the variance of both noises.
    assert losses[0] == pytest.approx(2, abs=0.1)
    assert losses[-1] < 1.5


def test_scores_and_maps_of_images_of_different_sizes(fitted, good):
    wide = cv2.resize(good[0], (60, 40))
    result = fitted.predict([good[1], wide])
    assert result.scores.shape == (2,)
    assert ((result.scores > 0) & (result.scores < 1)).all()
    assert [m.shape for m in result.maps] == [(48, 48), (40, 60)]
    assert all(np.isfinite(m).all() and m.min() >= 0 and m.max() <= 1 for m in result.maps)
    np.testing.assert_array_equal(fitted.predict([wide]).scores, result.scores[1:])


def test_the_score_is_the_mean_of_the_top_50_pixels(fitted, good):
    small = cv2.resize(good[0], (32, 32), interpolation=cv2.INTER_AREA)
    result = fitted.predict([small])
    assert result.scores[0] == pytest.approx(np.sort(result.maps[0], axis=None)[-50:].mean(), rel=1e-5)


def test_same_seed_same_scores_and_the_global_generator_is_left_alone(fitted, good):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again, other = create("diffusionad", seed=1, **TINY), create("diffusionad", seed=2, **TINY)
    again.fit(good)
    other.fit(good)
    expected = fitted.predict(good).scores
    np.testing.assert_array_equal(again.predict(good).scores, expected)
    assert not np.array_equal(other.predict(good).scores, expected)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_epoch_is_a_batch_where_there_are_few_images(good):
    calls = []
    method = create("diffusionad", **TINY | {"steps": None, "epochs": 3})
    method.fit(good[:3], progress=lambda *call: calls.append(call))
    assert calls == [("train", 1, 3), ("train", 2, 3), ("train", 3, 3)]
    assert method.model_bytes() > 100_000


@pytest.mark.parametrize(
    "wrong", [{"image_size": 48}, {"channels": 12}, {"batch": 1}, {"steps": 0}, {"small_time": 400, "large_time": 200}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ZooError, match="expected"):
        create("diffusionad", **TINY | wrong)


def test_a_fit_that_takes_more_memory_than_there_is_is_refused_with_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [make_part(seed, 64) for seed in range(2)]
    for name in ("diffusion_ad", "components.memory"):
        monkeypatch.setattr(f"fewshot_ad.zoo.{name}.available_bytes", lambda: 20 * 10**9)
    with pytest.raises(ZooError, match=r"about 92 GB of free memory for these settings, got 20 GB\. Give batch=3\."):
        create("diffusionad").fit(images)
    with pytest.raises(ZooError, match="Give a smaller image_size"):
        create("diffusionad", image_size=1024).fit(images)
