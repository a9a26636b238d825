"""A fitted baseline: its threshold, its verdicts, and its folder."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fewshot_ad.errors import FewshotADError, ImageError, ZooError
from fewshot_ad.zoo import Labeled, cards
from fewshot_ad.zoo.components.freezing import freeze, thaw
from fewshot_ad.zoo.components.model_folder import MANIFEST, TENSORS, _hash_of
from fewshot_ad.zoo.components.score_scale import score_scale
from fewshot_ad.zoo.fitted import Baseline
from fewshot_ad.zoo.method import Predictions
from tests.conftest import make_part

GOOD = [make_part(seed, 96) for seed in range(5)]
BAD, NEXT = make_part(30, 96, defect=True), make_part(31, 96)


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return Baseline.fit("padim", GOOD, product="part", image_size=96)


def test_it_gives_the_verdicts_of_a_product(baseline: Baseline) -> None:
    bad, good = baseline.inspect(BAD), baseline.inspect(NEXT)
    assert (bad.verdict, good.verdict) == ("anomalous", "good")
    assert bad.regions
    assert not good.regions
    assert bad.severity > 1 > good.severity >= 0
    assert bad.score > baseline.threshold > good.score
    assert bad.anomaly_map.shape == BAD.shape[:2]
    assert bad.overlay(bar=True).ndim == 3
    assert (bad.product, bad.encoder) == ("part", "padim")


def test_a_batch_goes_on_after_a_bad_file(baseline: Baseline, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"oops")
    good, error, bad = baseline.inspect_batch([NEXT, broken, BAD], errors="return")
    assert isinstance(error, ImageError)
    assert [one.verdict for one in (good, bad)] == ["good", "anomalous"]  # type: ignore[union-attr]
    with pytest.raises(ImageError):
        list(baseline.inspect_batch([broken]))


def test_stored_and_read_it_says_the_same(baseline: Baseline, tmp_path: Path) -> None:
    baseline.save(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {MANIFEST, TENSORS}
    again = Baseline.load(tmp_path / "model")
    assert again.info() == baseline.info()
    for image in (BAD, NEXT):
        one, other = again.inspect(image), baseline.inspect(image)
        assert one.score == pytest.approx(other.score, rel=1e-6)
        assert one.regions == other.regions
    # It stays where it is unless told otherwise, and what else lies there stays in any case.
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MANIFEST).write_text('{"my": "settings"}')
    with pytest.raises(ZooError, match="another one"):
        baseline.save(tmp_path / "other", force=True)
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(ZooError, match="--force"):
        baseline.save(tmp_path / "model")
    baseline.save(tmp_path / "model", force=True)
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def test_no_file_of_weights_is_needed_again(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from fewshot_ad.zoo.components.tensors import Backbone

    weights = tmp_path / "resnet18.safetensors"
    tensors = Backbone("resnet18", (1, 2), "random").network.state_dict()
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, weights)
    fitted = Baseline.fit("spade", GOOD, image_size=64, stages=[1, 2], weights=str(weights))
    fitted.save(tmp_path / "model")
    os.remove(weights)
    again = Baseline.load(tmp_path / "model")
    assert again.inspect(BAD).score == pytest.approx(fitted.inspect(BAD).score, rel=1e-6)
    assert again.settings["weights"] == str(weights)


def test_a_share_of_good_parts_is_above_the_threshold() -> None:
    rng = np.random.default_rng(0)
    above = []
    for _ in range(400):
        scores = rng.normal(5, 1, 9).astype(np.float32)
        above.append(scores[8] > score_scale("any", scores[:8], 8, 0.05).threshold)
    assert np.mean(above) == pytest.approx(0.05, abs=0.025)


def test_of_a_method_that_trains_a_quarter_is_kept_for_the_threshold() -> None:
    fitted = Baseline.fit("mkd", GOOD, image_size=64, width=8, steps=5)
    assert len(fitted.support) == 4
    assert fitted.scores.held_out == 1
    assert cards()["mkd"].trains


def test_a_threshold_by_hand(tmp_path: Path) -> None:
    fitted = Baseline.fit("padim", GOOD[:1], threshold=400.0, image_size=64, dims=20)
    assert fitted.threshold == 400.0
    assert fitted.scores.held_out == 0
    assert fitted.inspect(NEXT).severity > 0
    assert not any("provisional" in note for note in fitted.notes)


def test_the_place_of_a_defect_does_not_hang_on_where_the_threshold_comes_from(baseline: Baseline) -> None:
    by_hand = Baseline.fit("padim", GOOD, threshold=baseline.threshold, image_size=96)
    whole = BAD.shape[0] * BAD.shape[1]
    for one in (baseline, by_hand):
        box = one.inspect(BAD).regions[0].box
        assert box[2] * box[3] < 0.5 * whole
    assert any("provisional: it rests on 5 good" in note for note in baseline.notes)


@pytest.mark.parametrize(
    ("name", "images", "settings", "message"),
    [
        ("fewshot_ad", GOOD, {}, "enroll products of it"),
        ("padim", GOOD[:1], {}, "expected 2 or more good images, got 1"),
        ("padim", GOOD, {"dims": 0}, "dims of at least 1"),
        ("padim", GOOD, {"image_size": "abc"}, "image_size: expected a whole number, got 'abc'"),
        ("padim", GOOD, {"image_size": -5}, "expected an image_size of at least 16 pixels, got -5"),
        ("padim", GOOD, {"image_size": 100_000}, "expected an image_size of at most 8192 pixels, got 100000"),
        ("padim", GOOD, {"stages": [9]}, r"expected stages that resnet18 has, counted from 0, got \[9\]"),
        ("anomalib_stfpm", GOOD, {"epochs": -5}, r"expected epochs of at least 1, got -5\."),
        # Without one, it would be fetched from the internet.
        ("anomalib_draem", GOOD, {"textures": 0}, "expected textures of at least 1, got 0"),
        ("anomalib_glass", GOOD, {"textures": 0}, "expected textures of at least 1, got 0"),
        ("anomalib_efficient_ad_s", GOOD, {"penalty_images": 0}, "expected penalty_images of at least 1, got 0"),
        ("anomalib_draem", GOOD, {"blend": [0.5, 0.1]}, "expected blend as two shares"),
        ("draem", GOOD, {}, "did you mean 'anomalib_draem'"),
        ("padim", GOOD[:2], {"image_size": 64}, "give three or more"),
        ("padim", GOOD, {"threshold": -1.0, "image_size": 64}, "above the median score of good images"),
        ("yolov8", GOOD, {}, "images of defects with masks"),
        ("paddim", GOOD, {}, "did you mean 'padim'"),
    ],
)
def test_what_cannot_be_fitted(name: str, images: list[np.ndarray], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        Baseline.fit(name, images, **settings)


def test_an_image_of_another_shape_is_not_judged(baseline: Baseline, tmp_path: Path) -> None:
    wider = cv2.copyMakeBorder(NEXT, 0, 0, 0, NEXT.shape[1] // 2, cv2.BORDER_REPLICATE)
    baseline.save(tmp_path / "model")
    for one in (baseline, Baseline.load(tmp_path / "model")):
        assert one.inspect(NEXT).verdict == "good"
        told = one.inspect(wider)
        assert told.verdict == "not_inspectable"
        assert told.is_anomalous
        assert "width by height is 1.50, that of the good images 1.00" in told.reason


def test_one_image_held_out_promises_nothing() -> None:
    few = Baseline.fit("mkd", GOOD[:2], image_size=64, width=8, steps=2)
    assert few.scores.held_out == 1
    assert "nobody knows" in few.scores.explain()


def test_a_threshold_set_later_is_no_longer_provisional(baseline: Baseline, tmp_path: Path) -> None:
    baseline.save(tmp_path / "model")
    own = Baseline.load(tmp_path / "model")
    assert any("provisional" in note for note in own.notes)
    own.threshold = 2 * own.threshold
    assert not any("provisional" in note for note in own.notes)
    assert own.scores.explain() == "set by hand"
    with pytest.raises(ZooError, match="median"):
        own.threshold = 0.0
    with pytest.raises(ZooError, match=r"2 or more good images that count, got 1 \(.*in the support set"):
        own.calibrate([GOOD[0], NEXT])


@pytest.mark.parametrize("product", ["a/../b", ".hidden", "a\\b", ""])
def test_a_product_is_called_so_that_an_address_can_have_it(product: str) -> None:
    with pytest.raises(FewshotADError, match="product"):
        Baseline.fit("padim", GOOD, product=product)


def test_one_of_an_earlier_version_cannot_tell_what_it_was_fitted_on(baseline: Baseline, tmp_path: Path) -> None:
    baseline.save(tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / MANIFEST).read_text())
    del manifest["seen"], manifest["manifest_sha256"]
    manifest["manifest_sha256"] = _hash_of(manifest)
    (tmp_path / "model" / MANIFEST).write_text(json.dumps(manifest))
    earlier = Baseline.load(tmp_path / "model")
    assert earlier.inspect(BAD).verdict == "anomalous"
    with pytest.raises(ZooError, match="they would be counted"):
        earlier.check([NEXT])


def test_a_damaged_folder_is_refused(baseline: Baseline, tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(ZooError, match=message):
            Baseline.load(tmp_path / "model")

    refused("expected a folder that `fewshot-ad fit` wrote")
    baseline.save(tmp_path / "model")
    manifest, tensors = tmp_path / "model" / MANIFEST, tmp_path / "model" / TENSORS
    whole, text = tensors.read_bytes(), manifest.read_text()
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused("expected the tensors that baseline.json names")
    tensors.write_bytes(whole)
    content = json.loads(text)
    manifest.write_text(json.dumps({**content, "scores": {**content["scores"], "threshold": 1.0}}))
    refused("got it changed")
    for change, message in (
        ({"schema": "fewshot-ad/baseline/9"}, r"baseline/1\), got 'fewshot-ad/baseline/9'. Update fewshot_ad"),
        ({"baseline": "os.system"}, "none of the installed packages brings"),
        ({"settings": {"nonsense": 1}}, "nonsense"),
        ({"state": {}}, "expected the state of"),
        ({"state": {**content["state"], "_gaussians": {"python": "os"}}}, "known kind"),
        ({"scores": {"threshold": 1.0}}, "fits this version"),
        ({"aspects": ["wide", 1.0]}, "fits this version"),
    ):
        changed = {**content, **change}
        manifest.write_text(json.dumps({**changed, "manifest_sha256": _hash_of(changed)}))
        refused(message)
    manifest.write_text(text[: len(text) // 2])
    refused("expected a stored baseline in JSON")


def test_only_tensors_and_plain_values_are_stored() -> None:
    with pytest.raises(ZooError, match="got object"):
        freeze(object(), "state", {})
    with pytest.raises(ZooError, match="no dataclass"):
        thaw(None, {"fields": {}}, {})


def test_a_baseline_without_a_skeleton_cannot_be_stored(tmp_path: Path, baseline: Baseline) -> None:
    class Plain:
        def predict(self, images: list[np.ndarray]) -> Predictions:
            return Predictions(np.zeros(len(images), np.float32))

    bare = Baseline("plain", {}, 0, "p", Plain(), baseline.scores, baseline.map_scale, ())  # type: ignore[arg-type]
    with pytest.raises(ZooError, match="skeleton"):
        bare.save(tmp_path / "model")
    # Without maps nothing is said of where.
    assert bare.inspect(NEXT).regions == ()


@pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="ULTRALYTICS IS NOT INSTALLED")
def test_a_detector_is_fitted_to_defects_and_stored(tmp_path: Path) -> None:
    good, bad = make_part(1, 64), make_part(1, 64, defect=True)
    labeled = [Labeled(bad, np.abs(good.astype(int) - bad).max(2) > 40)]
    fitted = Baseline.fit("yolov8", [good, make_part(2, 64)], labeled=labeled, threshold=0.5, image_size=64, epochs=1)
    fitted.save(tmp_path / "model")
    assert Baseline.load(tmp_path / "model").inspect(bad).score == pytest.approx(fitted.inspect(bad).score, rel=1e-4)
