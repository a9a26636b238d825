"""EfficientAD with CDO's loss: the loop, its losses against hand-computed values, its teacher."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fewshot_ad.errors import ZooError  # noqa: E402
from fewshot_ad.zoo import create, options  # noqa: E402
from fewshot_ad.zoo.components import pdn  # noqa: E402
from fewshot_ad.zoo.components.appearance import KINDS, relit  # noqa: E402
from fewshot_ad.zoo.components.cdo import NoisePatches, cdo_loss, foreground  # noqa: E402
from fewshot_ad.zoo.components.efficientad_autoencoder import Autoencoder  # noqa: E402
from fewshot_ad.zoo.components.efficientad_networks import hard_feature_loss  # noqa: E402
from fewshot_ad.zoo.components.efficientad_quantiles import Quantiles, held_out  # noqa: E402
from fewshot_ad.zoo.components.pdn import (  # noqa: E402
    PDN,
    Pictures,
    distill,
    load_teacher,
    save_teacher,
    targets,
)
from fewshot_ad.zoo.components.square_tiles import SquareTiles  # noqa: E402
from fewshot_ad.zoo.components.tensors import Backbone  # noqa: E402
from tests.conftest import make_part  # noqa: E402

TINY = {"image_size": 64, "steps": 2, "teacher_steps": 1, "teacher_batch": 2, "pictures": 2}
TEACHER_STEPS = 16


@pytest.fixture(scope="module", autouse=True)
def _little_work():
    with pytest.MonkeyPatch.context() as patch:
        # One picture, only turned and mirrored, so that a few small steps teach a teacher something.
        patch.setattr(pdn, "MAGNIFICATIONS", (1.0, 1.0))
        patch.setattr(pdn, "GRAY_SHARE", 0.0)
        yield


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("resnet18", (2, 3))


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return Pictures.generated(1, 32, seed=0)


@pytest.fixture(scope="module")
def distilled(backbone: Backbone, pictures: Pictures) -> tuple[PDN, tuple[float, ...]]:
    return distill("S", backbone, pictures, TEACHER_STEPS, seed=1, batch=2)


@pytest.fixture(scope="module")
def teacher_file(distilled: tuple[PDN, tuple[float, ...]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "pdn.safetensors"
    save_teacher(
        path,
        distilled[0],
        {"size": "S", "backbone": "resnet18", "weights": None, "teacher_steps": TEACHER_STEPS, "teacher_batch": 2},
    )
    return path


@pytest.fixture(scope="module")
def method(teacher_file: Path):
    return fitted(teacher_file, seed=3)


def good(count: int = 4) -> list[np.ndarray]:
    return [make_part(seed, 96) for seed in range(count)]


def fitted(teacher_file: Path, **settings):
    method = create(
        "efficientad_cdo", **{**TINY, "teacher": str(teacher_file), "teacher_steps": TEACHER_STEPS, **settings}
    )
    method.fit(good())
    return method


def test_scores_and_maps_are_finite_and_in_the_images_sizes(method):
    images = [make_part(7, 80), make_part(8, 120)[:100]]
    predictions = method.predict(images)
    assert predictions.scores.shape == (2,)
    assert np.isfinite(predictions.scores).all()
    assert [m.shape for m in predictions.maps] == [(80, 80), (100, 120)]
    assert all(np.isfinite(m).all() for m in predictions.maps)
    # PDN-S: 128 * 49 + 256 * 2049 + 256 * 2305 + C * 4097 numbers; teacher C = 384, student 768.
    pdns = 2 * (128 * 49 + 256 * 2049 + 256 * 2305) + (384 + 768) * 4097
    assert method.model_bytes() > 4 * pdns


def test_each_image_is_judged_as_if_it_came_alone_and_the_seed_decides(teacher_file: Path, method):
    images = [make_part(7, 96), make_part(8, 96)]
    state = torch.random.get_rng_state()
    same, other = fitted(teacher_file, seed=3), fitted(teacher_file, seed=4)
    assert torch.equal(state, torch.random.get_rng_state())
    scores = method.predict(images).scores
    np.testing.assert_array_equal(scores, same.predict(images).scores)
    assert not np.array_equal(scores, other.predict(images).scores)
    np.testing.assert_array_equal(method.predict(images[1:]).scores, scores[1:])


def test_a_student_that_trained_longer_agrees_more_with_its_teacher_on_good_parts(teacher_file: Path, method):
    short, long = method, fitted(teacher_file, seed=3, steps=12)
    batch = torch.from_numpy(make_part(1, 64)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        before, after = (float(m._discrepancies.networks.maps(batch)[0].mean()) for m in (short, long))
    assert after < before


def test_alpha_one_is_the_students_map_alone_and_alpha_zero_the_autoencoders(method, monkeypatch: pytest.MonkeyPatch):
    part, discrepancies = make_part(7, 64), method._discrepancies
    by_alpha = {}
    for alpha in (1.0, 0.25, 0.0):
        monkeypatch.setattr(method, "alpha", alpha)
        by_alpha[alpha] = method.predict([part])
    with torch.no_grad():
        raw = discrepancies.networks.maps(torch.from_numpy(part).permute(2, 0, 1)[None].float() / 255)
    ranges = (discrepancies.student_range, discrepancies.autoencoder_range)
    for alpha, heat, q in zip((1.0, 0.0), raw, ranges, strict=True):
        expected = 0.1 * (float(heat.max()) - q.lower) / (q.upper - q.lower)
        assert by_alpha[alpha].scores[0] == pytest.approx(expected, rel=1e-4)
    mixed = 0.25 * by_alpha[1.0].maps[0] + 0.75 * by_alpha[0.0].maps[0]
    np.testing.assert_allclose(by_alpha[0.25].maps[0], mixed, atol=1e-5)


def test_quantiles_go_to_0_and_to_a_tenth():
    maps = [torch.arange(500.0).view(20, 25), torch.arange(500.0, 1001.0)]
    quantiles = Quantiles.of(maps)
    # Of 0..1000 the quantile q lies at 1000 q.
    assert quantiles == pytest.approx((900.0, 995.0))
    normalized = quantiles.normalized(torch.tensor([900.0, 995.0, 1090.0, 805.0]))
    assert normalized.tolist() == pytest.approx([0.0, 0.1, 0.2, -0.1], abs=1e-6)


def test_a_tenth_of_ten_or_more_is_held_out_and_views_stand_in_for_fewer():
    rng = np.random.default_rng(0)
    many = np.stack([np.full((8, 8, 3), n, np.uint8) for n in range(20)])
    train, held = held_out(many, rng)
    assert len(held) == 2
    assert sorted([*train[:, 0, 0, 0], *held[:, 0, 0, 0]]) == list(range(20))
    few = np.stack([make_part(n, 64) for n in range(3)])
    train, held = held_out(few, rng)
    np.testing.assert_array_equal(train, few)
    assert held.shape == (6, 64, 64, 3)
    for n, view in enumerate(held):
        assert not np.array_equal(view, few[n // 2])


def test_hard_feature_loss_averages_the_stated_share():
    distance = torch.randperm(1000, generator=torch.Generator().manual_seed(0)).float().view(10, 10, 10)
    assert float(hard_feature_loss(distance, 0.01)) == pytest.approx(np.mean(range(990, 1000)))
    assert float(hard_feature_loss(distance, 0.001)) == 999.0
    assert float(hard_feature_loss(distance, 1.0)) == pytest.approx(499.5)


def test_cdo_loss_by_hand():
    # Unit vectors at angles that give squared distances 0.4, 0.8 (good) and 1.2, 2.0 (defective).
    distances = torch.tensor([0.4, 0.8, 1.2, 2.0])
    angles = torch.arccos(1 - distances / 2)
    teacher = 3 * torch.stack([torch.ones(4), torch.zeros(4)]).view(1, 2, 2, 2)
    student = (5 * torch.stack([angles.cos(), angles.sin()])).view(1, 2, 2, 2).requires_grad_()
    defective = torch.tensor([[[False, False], [True, True]]])
    good_weights = [(0.4 / 0.6) ** 2, (0.8 / 0.6) ** 2]
    bad_weights = [(1.6 / 1.2) ** 2, (1.6 / 2.0) ** 2]
    total = sum(good_weights) + sum(bad_weights)
    pulled = good_weights[0] * 0.4 + good_weights[1] * 0.8
    loss = cdo_loss(teacher, student, defective, gamma=2.0, margin=4.0)
    pushed = bad_weights[0] * (4 - 1.2) + bad_weights[1] * (4 - 2.0)
    assert loss.item() == pytest.approx((pulled + pushed) / total, rel=1e-4)
    near = cdo_loss(teacher, student, defective, gamma=2.0, margin=1.5)
    assert near.item() == pytest.approx((pulled + bad_weights[0] * 0.3) / total, rel=1e-4)
    alike = cdo_loss(teacher, student, defective, gamma=0.0, margin=4.0)
    assert alike.item() == pytest.approx((0.4 + 0.8 + 2.8 + 2.0) / 4, rel=1e-4)
    # A step against the gradient brings good positions closer and drives defective ones away.
    loss.backward()
    moved = torch.nn.functional.normalize(student - 0.1 * student.grad, dim=1)
    after = (torch.nn.functional.normalize(teacher, dim=1) - moved).square().sum(1).flatten().detach()
    assert (after[:2] < distances[:2]).all()
    assert (after[2:] > distances[2:]).all()


def test_cdo_loss_of_equal_features_and_of_no_defect_is_finite():
    features = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    nowhere = torch.zeros(1, 3, 3, dtype=torch.bool)
    assert float(cdo_loss(features, features.clone(), nowhere, 2.0, 4.0)) == 0.0
    assert float(cdo_loss(features, features.clone(), ~nowhere, 2.0, 4.0)) == pytest.approx(4.0)


@pytest.mark.parametrize("noise", ["gaussian", "uniform"])
def test_noise_patches_change_only_what_the_mask_says(noise):
    part, patches = make_part(0, 96), NoisePatches(1.0, (1 / 40, 1 / 10), noise)
    for seed in range(5):
        noisy, mask = patches.draw(part, np.random.default_rng(seed))
        # Four of a tenth of the side at most.
        assert 0 < mask.mean() < 0.05
        np.testing.assert_array_equal(noisy[~mask], part[~mask])
        assert np.abs(noisy[mask].astype(int) - part[mask]).mean() > 20


def test_a_share_of_the_images_gets_noise_patches():
    part, rng = make_part(0, 64), np.random.default_rng(0)
    changed = sum(NoisePatches(0.4).draw(part, rng)[1].any() for _ in range(400))
    assert 130 < changed < 190
    assert not NoisePatches(0.0).draw(part, rng)[1].any()


def test_noise_patches_lie_on_the_part_where_the_background_is_skipped():
    image = np.full((80, 80, 3), 230, np.uint8)
    image[30:50, 25:60] = 60
    np.testing.assert_array_equal(foreground(image), image[..., 0] == 60)
    patches, part = NoisePatches(1.0, (1 / 40, 1 / 40), "uniform"), foreground(image)
    for seed in range(10):
        mask = patches.draw(image, np.random.default_rng(seed), part)[1]
        assert mask[29:51, 24:61].any()
        assert not mask[:28].any()
        # On a tile of background alone there is none.
        assert not patches.draw(image[:20], np.random.default_rng(seed), part[:20])[1].any()
    # A plain image has no part to find.
    assert foreground(np.full((40, 40, 3), 9, np.uint8)).all()


def test_appearance_changes_a_little_and_none_not_at_all():
    batch = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert relit(batch, (), np.random.default_rng(0)) is batch
    for kind in KINDS:
        changed = relit(batch, (kind,), np.random.default_rng(1))
        assert not torch.equal(changed, batch)
        assert (changed - batch).abs().max() < 0.3
        assert 0 <= changed.min() <= changed.max() <= 1


@pytest.mark.parametrize(("side", "tile", "overlap"), [(128, 64, 0.25), (96, 64, 0.0), (64, 64, 0.5), (160, 64, 0.9)])
@pytest.mark.parametrize("fusion", ["mean", "max"])
def test_tiles_cover_the_image_and_their_maps_join_to_the_whole(side, tile, overlap, fusion):
    tiles = SquareTiles(side, tile, overlap, fusion)
    starts = tiles.starts()
    assert (starts[0], starts[-1] + tile) == (0, side)
    assert all(after - before <= tile * (1 - overlap) + 4 for before, after in itertools.pairwise(starts))
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def judge(part):
        return part.mean(1)[0, ::4, ::4]

    # Of a judge that sees single pixels, all tiles say the same of one place.
    torch.testing.assert_close(tiles.joined(image, judge), judge(image))


def test_where_tiles_overlap_the_mean_or_the_largest_value_counts():
    assert SquareTiles(96, 64, 0.5).starts() == [0, 32]
    values = {"mean": 2.5, "max": 4.0}
    for fusion, expected in values.items():
        places = iter([1.0, 2.0, 3.0, 4.0])
        joined = SquareTiles(96, 64, 0.5, fusion).joined(
            torch.zeros(1, 3, 96, 96),
            lambda _: torch.full((16, 16), next(places)),  # noqa: B023 - called at once
        )
        assert joined[0, 0] == 1.0
        assert joined[12, 12] == expected


def test_tiles_are_judged_at_their_own_resolution(teacher_file: Path):
    method = fitted(teacher_file, image_size=96, tile=64, fusion="max", skip_background=True, appearance=["gamma"])
    predictions = method.predict([make_part(7, 120)])
    assert predictions.maps[0].shape == (120, 120)
    assert method.skeleton()["_discrepancies"].networks.autoencoder.decoder[-1].out_channels == 384


@pytest.mark.parametrize(
    "off",
    [
        {"cdo_weight": 0.0},
        {"hard_weight": 0.0},
        {"penalty_weight": 1.0},
        {"alpha": 1.0, "autoencoder_weight": 0.0, "agreement_weight": 0.0},
        {"alpha": 0.0, "hard_weight": 0.0, "cdo_weight": 0.0},
    ],
    ids=["no CDO", "CDO alone", "penalty", "student alone", "autoencoder alone"],
)
def test_each_part_of_the_loss_can_be_taken_out(teacher_file: Path, off):
    method = fitted(teacher_file, **off)
    assert np.isfinite(method.predict(good(1)).scores).all()


def test_without_the_penalty_no_pictures_are_made_beside_a_stored_teacher(teacher_file: Path):
    stages: list[str] = []
    settings = {**TINY, "teacher": str(teacher_file), "teacher_steps": TEACHER_STEPS}
    create("efficientad_cdo", **settings).fit(good(2), progress=lambda stage, *_: stages.append(stage))
    assert set(stages) == {"training"}


def test_the_quantiles_are_settings(teacher_file: Path):
    wide, narrow = (
        fitted(teacher_file, lower_quantile=low, upper_quantile=high)._discrepancies
        for low, high in ((0.1, 1.0), (0.9, 0.995))
    )
    assert wide.student_range.lower < narrow.student_range.lower
    assert wide.student_range.upper > narrow.student_range.upper


@pytest.mark.parametrize("size", ["S", "M"])
def test_pdn_has_stride_4_and_sees_33_pixels(size: str):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PDN(size, channels=8)
    batch = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = network(batch)
    assert out.shape == (1, 8, 16, 16)
    assert network(batch, padded=True).shape == (1, 8, 24, 24)
    for row, column in ((0, 0), (5, 3), (15, 15)):
        (gradient,) = torch.autograd.grad(out[0, :, row, column].sum(), batch, retain_graph=True)
        touched = gradient[0].abs().sum(0).nonzero()
        assert touched.min(0).values.tolist() == [4 * row, 4 * column]
        assert touched.max(0).values.tolist() == [4 * row + 32, 4 * column + 32]


def test_pdn_of_the_paper_gives_56_by_56_and_64_by_64():
    with torch.no_grad():
        network = PDN("S", channels=4)
        assert network(torch.zeros(1, 3, 256, 256)).shape == (1, 4, 56, 56)
        assert network(torch.zeros(1, 3, 256, 256), padded=True).shape == (1, 4, 64, 64)


@pytest.mark.parametrize("side", [64, 96, 256])
def test_autoencoder_has_the_students_grid(side: int):
    autoencoder = Autoencoder(side, channels=6)
    with torch.no_grad():
        assert autoencoder.encoder(torch.zeros(1, 3, side, side)).shape == (1, 64, 1, 1)
        assert autoencoder(torch.zeros(1, 3, side, side)).shape == (1, 6, side // 4 - 8, side // 4 - 8)


def test_the_teachers_error_falls(distilled: tuple[PDN, tuple[float, ...]]):
    losses = distilled[1]
    assert len(losses) == TEACHER_STEPS
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])


def test_targets_are_384_channels_at_stride_4_whatever_the_backbone(backbone: Backbone, pictures: Pictures):
    batch = pictures.whole(0)
    of_resnet = targets(backbone, batch)
    assert of_resnet.shape == (1, 384, 8, 8)
    assert targets(Backbone("lite0", (2, 3)), batch).shape == (1, 384, 8, 8)
    # The first 128 channels are layer2's, each the average of what lies around.
    layer2 = backbone(torch.nn.functional.interpolate(batch, scale_factor=2, mode="bilinear"))[0]
    np.testing.assert_allclose(of_resnet[0, :128, 5, 5], layer2[0, :, 4:7, 4:7].mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_pictures_of_a_folder_take_the_place_of_generated_ones(tmp_path):
    (tmp_path / "n01" / "deeper").mkdir(parents=True)
    for number in range(4):
        wide = np.full((40, 90, 3), 40 * number, np.uint8)
        wide[:, 25:65] = 255 - 40 * number
        cv2.imwrite(str(tmp_path / "n01" / "deeper" / f"{number}.png"), wide)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    pictures = Pictures.of_folder(tmp_path, 10, 32, seed=0)
    # The middle square of each.
    assert sorted(int(picture.mean()) for picture in pictures.pictures) == [135, 175, 215, 255]
    assert len(Pictures.of_folder(tmp_path, 3, 32, seed=0).pictures) <= 3
    own = {**TINY, "teacher": str(tmp_path / "pdn.safetensors")}
    create("efficientad_cdo", **{**own, "picture_folder": str(tmp_path), "penalty_weight": 1.0}).fit(good(2))
    # Teachers of other pictures are not taken for it.
    with pytest.raises(ZooError, match="picture_folder"):
        create("efficientad_cdo", **own, picture_folder=str(tmp_path / "n01")).fit(good(2))
    with pytest.raises(ZooError, match="a folder of pictures"):
        Pictures.of_folder(tmp_path / "none", 1, 32, seed=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZooError, match="none that can be read"):
        Pictures.of_folder(tmp_path / "empty", 1, 32, seed=0)


def test_generated_pictures_are_seeded_and_some_crops_are_gray(pictures: Pictures):
    again, other = Pictures.generated(1, 32, seed=0), Pictures.generated(1, 32, seed=1)
    np.testing.assert_array_equal(again.pictures[0], pictures.pictures[0])
    assert not np.array_equal(other.pictures[0], pictures.pictures[0])
    crops = pictures.crops(40, 0.5, np.random.default_rng(0))
    assert crops.shape == (40, 3, 32, 32)
    assert float(crops.min()) >= 0
    assert float(crops.max()) <= 1
    gray = (crops[:, :1] == crops).flatten(1).all(1).sum()
    assert 10 <= int(gray) <= 30


def test_a_saved_teacher_is_the_same_teacher(distilled: tuple[PDN, tuple[float, ...]], teacher_file: Path):
    loaded = load_teacher(teacher_file, {"size": "S", "teacher_steps": TEACHER_STEPS})
    for name, tensor in distilled[0].state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_teacher_made_otherwise_or_no_teacher_at_all_is_refused(teacher_file: Path, tmp_path: Path):
    with pytest.raises(ZooError, match=r"teacher_steps 60000, got 16"):
        load_teacher(teacher_file, {"size": "S", "teacher_steps": 60000})
    with pytest.raises(ZooError, match="size 'M', got 'S'"):
        load_teacher(teacher_file, {"size": "M"})
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"no tensors here")
    with pytest.raises(ZooError, match="expected a teacher that efficientad_cdo has written"):
        load_teacher(junk, {"size": "S"})


def test_a_named_file_is_written_once_and_read_from_then_on(tmp_path: Path):
    path = tmp_path / "new" / "pdn.safetensors"
    one = create("efficientad_cdo", **TINY, teacher=str(path))
    one.fit(good(2))
    written = path.read_bytes()
    stages: list[str] = []
    two = create("efficientad_cdo", **TINY, teacher=str(path))
    two.fit(good(2), progress=lambda stage, done, total: stages.append(stage))
    assert path.read_bytes() == written
    assert set(stages) == {"training"}
    np.testing.assert_array_equal(one.predict(good(1)).scores, two.predict(good(1)).scores)
    assert list(tmp_path.glob("new/.*")) == []


def test_the_defaults_are_the_published_ones():
    defaults = options("efficientad_cdo")
    assert (defaults["steps"], defaults["teacher_steps"], defaults["image_size"]) == (70_000, 60_000, 256)
    assert (defaults["hard"], defaults["alpha"], defaults["size"]) == (0.01, 0.5, "S")
    assert (defaults["penalty_weight"], defaults["defect_share"], defaults["defect_sides"]) == (0.0, 0.4, (0.025, 0.1))


@pytest.mark.parametrize(
    "setting",
    [
        {"size": "L"},
        {"image_size": 100},
        {"steps": 0},
        {"hard": 0.0},
        {"alpha": 1.5},
        {"margin": 5.0},
        {"gamma": -1.0},
        {"tile": 512},
        {"tile": 70},
        {"overlap": 1.0},
        {"cdo_weight": -1.0},
        {"agreement_weight": 0.0},
        {"hard_weight": 0.0, "cdo_weight": 0.0},
        {"defect_sides": [0.2, 0.1]},
        {"defect_share": 2.0},
        {"appearance": ["snow"]},
        {"lower_quantile": 0.999},
    ],
)
def test_senseless_settings_are_refused(setting: dict):
    with pytest.raises(ZooError, match="expected"):
        create("efficientad_cdo", **setting)
