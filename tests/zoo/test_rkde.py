from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components.proposals import DetectorProposals, edge_proposals, edge_scores, windows
from fewshot_ad.zoo.rkde import RegionDensity
from tests.conftest import make_part

SIDE = 96


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed, size=SIDE) for seed in range(5)]


def test_defect_scores_above_good_and_lies_in_the_worst_region(good: list[np.ndarray]) -> None:
    method = create("rkde", image_size=SIDE)
    method.fit(good)
    predictions = method.predict([make_part(50, size=SIDE), make_part(100, size=SIDE, defect=True)])
    assert predictions.scores[1] > 1.3 * predictions.scores[0]
    assert predictions.maps is not None
    heat = predictions.maps[1]
    assert heat.max() == pytest.approx(predictions.scores[1])
    assert heat[SIDE // 2 - 6 : SIDE // 2 + 6, SIDE * 3 // 4 - 6 : SIDE * 3 // 4 + 6].max() == heat.max()


def test_density_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(20, 4)) * 3
    density = RegionDensity.fit(torch.tensor(points), 4)
    expected = -stats.gaussian_kde(points.T, bw_method="scott").logpdf(queries.T)
    np.testing.assert_allclose(density.surprise(torch.tensor(queries)).numpy(), expected, rtol=1e-4)


def test_density_on_principal_components_is_scikit_learns() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from sklearn.decomposition import PCA
    from sklearn.neighbors import KernelDensity

    rng = np.random.default_rng(1)
    points = rng.normal(size=(50, 12)) * np.linspace(3, 0.2, 12)
    queries = rng.normal(size=(10, 12))
    whitened = PCA(5, whiten=True).fit(points)
    kde = KernelDensity(bandwidth=50 ** (-1 / 9)).fit(whitened.transform(points))
    # Whitening rescales the volume by the standard deviations.
    volume = 0.5 * np.log(whitened.explained_variance_).sum()
    expected = -kde.score_samples(whitened.transform(queries)) + volume
    density = RegionDensity.fit(torch.tensor(points), 5)
    np.testing.assert_allclose(density.surprise(torch.tensor(queries)).numpy(), expected, rtol=1e-4)
    share = RegionDensity.fit(torch.tensor(points), 0.9)
    assert share.points.shape[1] == PCA(0.9).fit(points).n_components_


def test_density_far_away_is_finite_and_orders() -> None:
    points = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    far = torch.stack([torch.full((6,), v) for v in (10.0, 100.0, 1000.0)])
    surprise = RegionDensity.fit(points, 6).surprise(far)
    assert torch.isfinite(surprise).all()
    assert (surprise.diff() > 0).all()


def test_repeated_features_do_not_break_it() -> None:
    density = RegionDensity.fit(torch.ones(5, 8), 16)
    assert torch.isfinite(density.surprise(torch.ones(1, 8))).all()


def test_windows_lie_inside_and_the_one_around_a_square_is_best() -> None:
    boxes = windows(128)
    assert boxes.min() == 0
    assert boxes.max() == 128
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    image = np.full((128, 128, 3), 90, np.uint8)
    cv2.rectangle(image, (70, 30), (98, 58), (220, 220, 220), -1)
    left, top, right, bottom = edge_proposals(image, 1, 0.3)[0].tolist()
    width = max(0, min(right, 99) - max(left, 70))
    height = max(0, min(bottom, 59) - max(top, 30))
    union = (right - left) * (bottom - top) + 29 * 29 - width * height
    assert width * height / union > 0.5


def test_edge_scores_by_hand() -> None:
    image = make_part(3, size=64)
    box = np.array([[8, 12, 40, 28]], np.float32)
    gray = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1).astype(np.float32)
    edges = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    framed = edges[12:28, 8:40].sum() - edges[16:24, 16:32].sum()
    assert edge_scores(image, box)[0] == pytest.approx(framed / (2 * (32 + 16)) ** 1.5, rel=1e-4)


def test_proposal_nets_weights_come_from_the_seed(good: list[np.ndarray]) -> None:
    scores = []
    for seed in (1, 1, 2):
        method = create("rkde", seed=seed, image_size=SIDE, proposals="rpn", regions=20)
        method.fit(good)
        scores.append(float(method.predict(good[:1]).scores[0]))
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize(
    "wrong", [{"proposals": "guess"}, {"regions": 0}, {"overlap": 0}, {"components": 0}, {"max_points": 1}]
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("rkde", **wrong)


def test_too_few_regions_are_refused(good: list[np.ndarray]) -> None:
    with pytest.raises(ZooError, match="at least 2 regions"):
        create("rkde", image_size=SIDE, regions=1).fit(good[:1])


def test_of_many_regions_a_seeded_choice_is_kept(good: list[np.ndarray]) -> None:
    method = create("rkde", image_size=SIDE, max_points=30)
    method.fit(good)
    assert len(method._density.points) == 30  # type: ignore[attr-defined]


def test_densities_in_parts_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    density = RegionDensity.fit(features, 3)
    at_once = density.surprise(features)
    # Full-shot, all pairs of regions would be gigabytes.
    monkeypatch.setattr("fewshot_ad.zoo.rkde.PAIRS", 70)
    torch.testing.assert_close(density.surprise(features), at_once)
    assert density.surprise(features[:0]).shape == (0,)


def test_a_detector_proposes_boxes_of_some_size_and_score(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    proposals = DetectorProposals(5, 0.3, 20, 0.0, "random")
    batch = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    boxes = proposals(batch, torch.empty(0))
    assert len(boxes) <= 5
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 20).all()
    assert not len(DetectorProposals(5, 0.3, 0, 0.999, "random")(batch, torch.empty(0)))
    file = tmp_path / "detector.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in proposals.network.state_dict().items()}, file)
    torch.testing.assert_close(DetectorProposals(5, 0.3, 20, 0.0, str(file))(batch, torch.empty(0)), boxes)
    save_file({"nothing": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match="fasterrcnn_resnet50_fpn"):
        DetectorProposals(5, 0.3, 20, 0.0, str(file))


@pytest.mark.parametrize(
    "wrong", [{"proposals": "rcnn"}, {"detector": "file"}, {"min_score": 1.0}, {"min_box_size": -1}]
)
def test_senseless_limits_of_regions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="rkde: expected"):
        create("rkde", **wrong)
