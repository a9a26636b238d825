from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import Labeled, Method, create
from fewshot_ad.zoo.components.deviation import deviation_loss
from fewshot_ad.zoo.components.tensors import Backbone, to_batch
from fewshot_ad.zoo.dra import GOOD, PSEUDO, SEEN, Heads, heads_loss, pseudo_anomaly
from tests.conftest import make_part

SETTINGS: dict[str, Any] = {"image_size": 64, "steps": 20, "batch_size": 6, "references": 2, "learning_rate": 5e-4}
NO_MASK = np.zeros((64, 64), bool)


@pytest.fixture(scope="module")
def fitted() -> Method:
    method = create("dra", **SETTINGS)
    labeled = [Labeled(make_part(seed, size=64, defect=True), NO_MASK) for seed in (100, 101)]
    method.fit([make_part(seed, size=64) for seed in range(4)], labeled)
    return method


def test_defect_scores_above_good(fitted: Method) -> None:
    scores = fitted.predict(
        [make_part(50, size=64), make_part(51, size=64), make_part(102, size=64, defect=True)]
    ).scores
    assert scores[2] > max(scores[:2]) + 2


def test_score_is_abnormality_minus_normality(fitted: Method) -> None:
    image = make_part(102, size=64, defect=True)
    predictions = fitted.predict([image])
    heads: Heads = fitted._heads  # type: ignore[attr-defined]
    expected = 0.0
    batch = to_batch([image], 64)
    for reference, size in zip(heads.references, (64, 32), strict=True):
        features = heads.backbone(F.interpolate(batch, size))[0]
        residual = reference - features
        grids = [heads.seen(features), heads.pseudo(features), heads.residual(residual)]
        count = max(1, int(0.1 * grids[0].numel()))
        tops = [np.sort(grid.numpy().ravel())[::-1][:count].mean() for grid in grids]
        expected += (sum(tops) - abs(float(heads.normality(features.mean((2, 3)))))) / 2
    assert predictions.scores[0] == pytest.approx(expected, rel=1e-4)


def test_each_head_learns_from_its_own_images() -> None:
    kinds = torch.tensor([GOOD, SEEN, PSEUDO])
    scores = [torch.tensor(values) for values in ([4.0, 1.0, 2.0], [0.5, 3.0, 99.0], [1.0, 99.0, 2.0], [0.0, 1.0, 6.0])]
    generator = torch.Generator().manual_seed(0)
    parts = (([4.0, 1.0, 2.0], [1, 0, 0]), ([0.5, 3.0], [0, 1]), ([1.0, 2.0], [0, 1]), ([0.0, 1.0, 6.0], [0, 1, 1]))
    expected = [float(deviation_loss(torch.tensor(s), torch.tensor(y) > 0, generator)) for s, y in parts]
    total = heads_loss(scores, kinds, torch.Generator().manual_seed(0))
    assert float(total) == pytest.approx(sum(expected), rel=1e-5)


def test_residual_head_sees_the_difference_to_the_references_alone() -> None:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        heads = Heads(Backbone("resnet18", (3,), "random"), 1).eval()
        features, reference = torch.rand(1, 256, 4, 4), torch.rand(256, 4, 4)
        shifted = heads([features + 3], [reference + 3]).abnormality
        seen, _, residual = heads([features], [reference]).abnormality
    assert torch.allclose(residual[0], shifted[2][0], atol=1e-5)
    assert not torch.allclose(seen[0], shifted[0][0], atol=1e-2)


def test_pseudo_anomaly_changes_one_small_rectangle() -> None:
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    changed = (pseudo_anomaly(image, np.random.default_rng(0)) != image).any(0)
    rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
    area = int((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)) / 64**2
    assert 0.01 < area < 0.17
    assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float().mean() > 0.9


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"references": 0}, {"batch_size": 1}, {"top": 2}, {"image_size": 48}, {"learning_rate": 0}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="expected"):
        create("dra", **wrong)
