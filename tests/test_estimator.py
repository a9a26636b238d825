from __future__ import annotations

import copy

import numpy as np
import pytest

from fewshot_ad import SupportSetError
from tests.conftest import make_part

pytest.importorskip("sklearn", reason="pip install 'fewshot-ad[sklearn]'")
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.utils import estimator_checks

from fewshot_ad.estimator import FewShotDetector

# Of scikit-learn's own checks those that do not hand over a table of numbers.
CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_mixin_order",
)


@pytest.fixture(scope="module")
def fitted(parts: list[np.ndarray]) -> FewShotDetector:
    return FewShotDetector(image_size=128, views="hflip").fit(np.stack(parts))


@pytest.mark.parametrize("check", CHECKS)
def test_scikit_learns_own_checks(check: str) -> None:
    getattr(estimator_checks, check)("FewShotDetector", FewShotDetector(image_size=64, views="none"))


def test_it_says_what_the_inspector_says(fitted: FewShotDetector, broken_part: np.ndarray) -> None:
    images = np.stack([make_part(50), broken_part, make_part(51)])
    inspections = [fitted.inspector_.inspect(image) for image in images]
    np.testing.assert_array_equal(fitted.predict(images), [-1 if i.is_anomalous else 1 for i in inspections])
    np.testing.assert_allclose(fitted.score_samples(images), [-i.score for i in inspections], rtol=1e-6)
    np.testing.assert_allclose(
        fitted.decision_function(images), [fitted.inspector_.threshold - i.score for i in inspections], rtol=1e-6
    )
    assert fitted.predict(images).tolist() == [1, -1, 1]
    assert (np.sign(fitted.decision_function(images)) == fitted.predict(images)).all()


def test_samples_are_judged_each_by_itself(fitted: FewShotDetector, parts: list[np.ndarray]) -> None:
    images = [make_part(seed) for seed in range(60, 64)]
    together = fitted.score_samples(images)
    np.testing.assert_allclose(together, np.concatenate([fitted.score_samples([image]) for image in images]))
    np.testing.assert_allclose(together[::-1], fitted.score_samples(images[::-1]))
    assert FewShotDetector(image_size=128, views="hflip").fit_predict(parts).shape == (5,)


def test_labels_leave_out_what_is_bad(parts: list[np.ndarray], broken_part: np.ndarray) -> None:
    detector = FewShotDetector(image_size=128, views="none").fit([*parts[:3], broken_part], [1, 1, 1, -1])
    assert len(detector.inspector_.enrollment.support) == 3
    for labels in ([1, 1], [0, 1, 1, 1], ["good"] * 4):
        with pytest.raises(SupportSetError, match="expected y with 1"):
            detector.fit([*parts[:3], broken_part], labels)


def test_it_is_cloned_copied_and_searched_over(parts: list[np.ndarray], fitted: FewShotDetector) -> None:
    fresh = clone(fitted)
    with pytest.raises(NotFittedError):
        fresh.predict(parts)
    part = make_part(70)
    np.testing.assert_array_equal(copy.deepcopy(fitted).score_samples([part]), fitted.score_samples([part]))
    good, bad = [make_part(seed) for seed in range(4)], [make_part(seed, defect=True) for seed in range(80, 84)]
    images, labels = np.stack([image for pair in zip(good, bad, strict=True) for image in pair]), np.array([1, -1] * 4)

    def score(detector: FewShotDetector, X: np.ndarray, y: np.ndarray) -> float:
        return float(roc_auc_score(y, detector.decision_function(X)))

    search = GridSearchCV(
        FewShotDetector(views="none"), {"image_size": [64, 128]}, scoring=score, cv=2, error_score="raise"
    )
    search.fit(images, labels)
    assert search.best_score_ > 0.9
    assert search.best_estimator_.inspector_.enrollment.settings.image_sizes == (search.best_params_["image_size"],)
