from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import ArgumentError, Inspector
from fewshot_ad.catalog import Catalog
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.recalibration import recalibrate
from tests.cli.commands import run
from tests.cli.schemas import check as check_schema
from tests.conftest import make_part


@pytest.fixture(scope="module")
def calibrated(parts: list[np.ndarray], encoder: Encoder) -> Inspector:
    own = Inspector.from_support(parts, product="p", encoder=encoder, views="none", image_size=64)
    own.calibrate([make_part(seed, 128) for seed in range(300, 330)], max_false_reject=0.05, max_review=0.4)
    return own


def test_the_band_holds_what_was_asked(inspector: Inspector) -> None:
    scores = np.random.default_rng(0).lognormal(0, 0.2, 199).tolist()
    found = recalibrate(inspector.calibration, scores, (), 0.01, max_review=0.1)
    assert found.review_threshold is not None
    assert found.review_threshold < found.threshold
    between = sum(found.review_threshold < score for score in scores) / 200
    # By the same conformal rule as the threshold: at most a tenth, and no less than can be.
    assert 0.08 <= between <= 0.1
    assert found.review_rate == pytest.approx(0.1, abs=0.006)
    # Of few images it is predicted.
    few = recalibrate(inspector.calibration, scores[:5], (), 0.01, max_review=0.1)
    assert few.review_threshold is not None
    assert max(scores[:5]) / 2 < few.review_threshold < few.threshold
    # Between good and bad ones as well.
    labeled = recalibrate(inspector.calibration, scores, [3.0 + 0.1 * at for at in range(9)], None, max_review=0.1)
    assert labeled.review_threshold == pytest.approx(found.review_threshold)
    assert recalibrate(inspector.calibration, scores, (), 0.01).review_threshold is None
    assert recalibrate(inspector.calibration, scores, (), 0.2, max_review=0.1).review_threshold is None


def test_an_image_in_the_band_is_to_be_looked_at(calibrated: Inspector, encoder: Encoder, tmp_path: Path) -> None:
    low, high = calibrated.calibration.review_threshold, calibrated.threshold
    assert low is not None
    images = [make_part(seed, 128) for seed in range(300, 345)]
    verdicts = {}
    for image in images:
        inspection = calibrated.inspect(image)
        expected = "anomalous" if inspection.score > high else "review" if inspection.score > low else "good"
        assert inspection.verdict == expected
        assert inspection.is_anomalous is (expected == "anomalous")
        assert inspection.as_dict()["review_threshold"] == low
        verdicts[expected] = image
    assert {"good", "review"} <= verdicts.keys()
    calibrated.save(tmp_path / "p.fsad", force=True)
    assert Inspector.load(tmp_path / "p.fsad").inspect(verdicts["review"]).verdict == "review"
    assert Catalog(tmp_path, encoder=encoder).inspect("p", verdicts["review"]).verdict == "review"
    files = {}
    for name, image in verdicts.items():
        files[name] = tmp_path / f"{name}.png"
        cv2.imwrite(str(files[name]), image[..., ::-1])
    code, out, _ = run("inspect", tmp_path / "p.fsad", files["good"], files["review"], "--csv", tmp_path / "t.csv")
    assert code == 3
    assert "REVIEW     severity" in out
    assert "1 good, 0 anomalous, 0 not readable, 1 to be looked at" in out
    assert ",REVIEW," in (tmp_path / "t.csv").read_text()
    assert run("inspect", tmp_path / "p.fsad", files["good"])[0] == 0
    code, out, _ = run("inspect", tmp_path / "p.fsad", files["review"], "--json")
    assert code == 3
    assert check_schema(out, "inspect")["verdict"] == "review"
    (tmp_path / "broken.png").write_text("x")
    assert run("inspect", tmp_path / "p.fsad", files["review"], tmp_path / "broken.png")[0] == 2
    assert run("info", tmp_path / "p.fsad", "--json")[0] == 0


def test_a_threshold_set_by_hand_takes_the_band_away_only_where_it_must(calibrated: Inspector) -> None:
    low, high = calibrated.calibration.review_threshold, calibrated.threshold
    assert low is not None
    calibrated.threshold = high * 1.5
    assert calibrated.model.review_threshold == low
    calibrated.threshold = low * 0.9
    assert calibrated.model.review_threshold is None
    calibrated.undo()
    assert calibrated.threshold == high
    assert calibrated.model.review_threshold == low
    assert math.isfinite(calibrated.calibration.review_rate or math.nan)


def test_what_makes_no_sense_is_refused(calibrated: Inspector) -> None:
    good = [make_part(seed, 128) for seed in range(400, 405)]
    with pytest.raises(ArgumentError, match="max_review above max_false_reject"):
        calibrated.calibrate(good, max_false_reject=0.05, max_review=0.05)
    with pytest.raises(ArgumentError, match="max_review as a finite number"):
        calibrated.calibrate(good, max_review=2)
    change = calibrated.calibrate(good, max_false_reject=0.05, max_review=0.3)
    assert "looked at" in change.explain()
    calibrated.undo()
