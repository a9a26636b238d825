from __future__ import annotations

import copy
import dataclasses
import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fewshot_ad import Inspection, Inspector, ScoringConfig, load_encoder
from fewshot_ad.encoder import DEFAULT_ENCODER, Encoder
from fewshot_ad.encoder.engine import has_bf16
from fewshot_ad.errors import ImageError, SupportSetError
from tests.conftest import make_part


def test_good_parts_pass_and_a_broken_one_is_found_where_it_is(inspector: Inspector, broken_part: np.ndarray) -> None:
    good = [inspector.inspect(make_part(seed)) for seed in range(20, 26)]
    bad = inspector.inspect(broken_part)
    assert max(result.severity for result in good) < 1.2
    assert bad.is_anomalous
    assert bad.severity > 1.5 * max(result.severity for result in good)
    assert bad.anomaly_map.shape == (128, 128)
    assert bad.anomaly_map.dtype == np.float32
    assert all(result.regions == () for result in good if not result.is_anomalous)
    x, y, width, height = bad.regions[0].box
    center = (64 + 128 // 4, 64)
    assert x <= center[0] <= x + width
    assert y <= center[1] <= y + height
    assert bad.severity == pytest.approx(bad.score / bad.threshold)
    assert set(bad.timings_ms) == {"decode", "resize", "encode", "search", "map", "total"}
    assert (bad.product, bad.encoder) == ("washer", DEFAULT_ENCODER)


def test_false_rejects_are_about_what_is_promised(encoder: Encoder) -> None:
    rejected = []
    for draw in range(8):
        support = [make_part(1000 * (draw + 1) + i) for i in range(5)]
        inspector = Inspector.from_support(support, encoder=encoder, views="hflip,vflip", image_size=128)
        rejected.append(np.mean([inspector.inspect(make_part(50_000 + i)).is_anomalous for i in range(20)]))
        assert rejected[-1] <= inspector.calibration.false_reject_bound
    assert np.mean(rejected) < 0.1


def test_the_same_image_in_any_form_gets_the_same_score(
    tmp_path: Path, inspector: Inspector, broken_part: np.ndarray
) -> None:
    path = tmp_path / "part.png"
    Image.fromarray(broken_part).save(path)
    bgr = np.ascontiguousarray(broken_part[..., ::-1])
    forms = [broken_part, path, str(path), Image.open(path), broken_part.astype(np.uint16) * 257, broken_part / 255]
    scores = {round(inspector.inspect(form).score, 9) for form in forms}
    scores.add(round(inspector.inspect(bgr, color="bgr").score, 9))
    assert len(scores) == 1


def test_batch_keeps_order_and_one_bad_file_does_not_stop_it(
    part_folder: Path, inspector: Inspector, broken_part: np.ndarray
) -> None:
    (part_folder / "2b.png").write_text("not an image")
    results = list(inspector.inspect_batch(part_folder, errors="return"))
    assert [r.name if isinstance(r, Inspection) else "error" for r in results] == [
        "0.png",
        "1.png",
        "2.png",
        "error",
        "3.png",
        "4.png",
    ]
    with pytest.raises(ImageError, match="2b"):
        list(inspector.inspect_batch(part_folder))
    single = [inspector.inspect(part_folder / f"{i}.png").score for i in range(5)]
    assert [r.score for r in results if isinstance(r, Inspection)] == pytest.approx(single)


def test_a_stream_gets_each_verdict_before_the_next_image_is_taken(
    inspector: Inspector, parts: list[np.ndarray], broken_part: np.ndarray
) -> None:
    """A camera may reuse its buffer, and a line waits for the verdict."""
    buffer = np.empty_like(parts[0])
    taken = []

    def camera():
        for i, part in enumerate((parts[0], broken_part, parts[1])):
            taken.append(i)
            buffer[:] = part
            yield buffer

    verdicts = []
    for i, result in enumerate(inspector.inspect_batch(camera())):
        assert taken[-1] == i
        verdicts.append(result.is_anomalous)
    assert verdicts == [False, True, False]


def test_several_threads_may_share_an_inspector(
    inspector: Inspector, parts: list[np.ndarray], broken_part: np.ndarray
) -> None:
    expected = {id(p): inspector.inspect(p).score for p in (parts[0], broken_part)}
    wrong = []

    def work(image: np.ndarray) -> None:
        for _ in range(15):
            if inspector.inspect(image).score != pytest.approx(expected[id(image)]):
                wrong.append(image)

    threads = [threading.Thread(target=work, args=(p,)) for p in (parts[0], broken_part, parts[0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_images_of_another_size_are_inspected_at_the_same_scale(inspector: Inspector) -> None:
    small, large = make_part(30), cv2.resize(make_part(30), (512, 512), interpolation=cv2.INTER_CUBIC)
    wide = np.hstack([make_part(31), make_part(31)])
    assert inspector.inspect(large).score == pytest.approx(inspector.inspect(small).score, rel=0.15)
    assert inspector.inspect(wide).anomaly_map.shape == (128, 256)


def test_order_of_the_support_set_does_not_decide(parts: list[np.ndarray], encoder: Encoder) -> None:
    options = {"encoder": encoder, "views": "hflip", "image_size": 128, "budget": 400}
    forth = Inspector.from_support(parts, **options)
    back = Inspector.from_support(parts[::-1], **options)
    # 5 images with a view each have 2,560 patches: the coreset chooses among them.
    assert len(forth.banks[0]) == len(back.banks[0]) == 400
    probe = make_part(50)
    assert forth.inspect(probe).score == pytest.approx(back.inspect(probe).score, rel=1e-4)
    assert forth.threshold == pytest.approx(back.threshold, rel=1e-4)


def test_a_duplicate_changes_nothing(parts: list[np.ndarray], encoder: Encoder) -> None:
    options = {"encoder": encoder, "views": "none", "image_size": 128}
    once = Inspector.from_support(parts, **options)
    twice = Inspector.from_support([*parts, parts[0].copy()], **options)
    assert once.threshold == twice.threshold
    assert any("identical" in note for note in twice.enrollment.notes)


def test_one_image_can_be_enrolled(parts: list[np.ndarray], encoder: Encoder, broken_part: np.ndarray) -> None:
    single = Inspector.from_support(parts[0], encoder=encoder)
    assert single.calibration.method == "leave-one-view-out"
    assert single.inspect(broken_part).severity > single.inspect(parts[1]).severity


@pytest.mark.parametrize("shape", [(300, 400), (200, 356), (500, 200)])
@pytest.mark.parametrize("views", ["auto", "none", "rotate=30"])
def test_one_image_of_any_shape_gets_a_threshold(shape: tuple[int, int], views: str, encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    single = cv2.GaussianBlur(rng.integers(0, 256, (*shape, 3), dtype=np.uint8), (0, 0), 3)
    inspector = Inspector.from_support(single, encoder=encoder, views=views, image_size=128)
    assert inspector.threshold > 0
    assert inspector.calibration.n == 1
    assert not inspector.inspect(single).is_anomalous


def test_maps_follow_a_threshold_set_by_hand(parts: list[np.ndarray], encoder: Encoder, tmp_path: Path) -> None:
    inspector = Inspector.from_support(parts, encoder=encoder, views="none", image_size=128)
    before = inspector.inspect(parts[0]).map_scale
    inspector.threshold = inspector.threshold * 2
    after = inspector.inspect(parts[0]).map_scale
    assert after.threshold - after.median_good == pytest.approx(2 * (before.threshold - before.median_good))
    inspector.save(tmp_path / "p.fsad")
    info = Inspector.load(tmp_path / "p.fsad").info()
    assert info["threshold_set_by_hand"] is True
    assert info["threshold"] == pytest.approx(2 * info["calibration"]["threshold"])


def test_an_odd_image_is_reported_by_name(part_folder: Path, encoder: Encoder) -> None:
    cv2.imwrite(str(part_folder / "cat.png"), np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    enrolled = Inspector.from_support(part_folder, encoder=encoder, views="hflip", image_size=128)
    assert any("unlike the others: cat.png" in note for note in enrolled.enrollment.notes)
    assert enrolled.product == "washer"


def test_a_product_is_named_by_the_folder_its_images_have_in_common(part_folder: Path, encoder: Encoder) -> None:
    files = sorted(part_folder.iterdir())[:2]
    given = {
        "glob": f"{part_folder.parents[1]}/**/good/[01].png",
        "generator": (file for file in files),
        "array of paths": np.array([str(file) for file in files]),
    }
    for images in given.values():
        enrolled = Inspector.from_support(images, encoder=encoder, views="none", image_size=128)
        assert enrolled.product == "washer"


@pytest.mark.parametrize(
    "scoring",
    [ScoringConfig(metric="cosine"), ScoringConfig(image_score="reweighted"), ScoringConfig(sigma=0)],
    ids=["cosine", "reweighted", "unsmoothed"],
)
def test_other_scorings_find_the_defect_too(
    parts: list[np.ndarray], broken_part: np.ndarray, encoder: Encoder, scoring: ScoringConfig
) -> None:
    inspector = Inspector.from_support(parts, encoder=encoder, views="hflip", image_size=128, scoring=scoring)
    assert inspector.inspect(broken_part).severity > 1.2
    assert inspector.inspect(make_part(40)).severity < 1.2


def test_levels_searched_on_their_own(parts: list[np.ndarray], broken_part: np.ndarray, tmp_path: Path) -> None:
    inspector = Inspector.from_support(parts, fusion="separate", stages=(1, 2, 3), views="hflip", image_size=128)
    assert [bank.vectors.shape[1] for bank in inspector.banks] == [24, 40, 112]
    assert inspector.inspect(broken_part).is_anomalous
    inspector.save(tmp_path / "p.fsad")
    loaded = Inspector.load(tmp_path / "p.fsad")
    assert loaded.inspect(broken_part).score == inspector.inspect(broken_part).score


def test_threshold_is_a_plain_number(inspector: Inspector, parts: list[np.ndarray]) -> None:
    own = copy.copy(inspector)
    own.threshold = 1e-6
    assert own.inspect(parts[0]).is_anomalous
    with pytest.raises(ValueError, match="at least 1e-30"):
        own.threshold = float("nan")
    assert own.threshold == 1e-6


@pytest.mark.parametrize(
    "wrong", [{"image_size": 10}, {"image_size": "big"}, {"budget": 0}, {"views": "sideways"}, {"color": "gbr"}]
)
def test_wrong_settings_are_refused(parts: list[np.ndarray], encoder: Encoder, wrong: dict) -> None:
    with pytest.raises((SupportSetError, ImageError), match="expected"):
        Inspector.from_support(parts, encoder=encoder, **wrong)


def test_info_is_json_and_tells_all(inspector: Inspector) -> None:
    info = json.loads(json.dumps(inspector.info()))
    assert info["calibration"]["n"] == 5
    assert info["views"] == ["hflip", "vflip"]
    assert len(info["support"]) == 5
    assert info["encoder"]["sha256"] == inspector.encoder.spec.sha256
    assert "washer" in repr(inspector)


def test_real_bottles(bottle: Path, encoder: Encoder, tmp_path: Path) -> None:
    """The main job on real images: 8 bottles enrolled, the test folder inspected."""
    support = sorted((bottle / "train" / "good").iterdir())[:8]
    inspector = Inspector.from_support(support, product="bottle", encoder=encoder)
    good = [r.severity for r in inspector.inspect_batch(bottle / "test" / "good") if isinstance(r, Inspection)]
    bad = [r for r in inspector.inspect_batch(bottle / "test" / "broken_large") if isinstance(r, Inspection)]
    assert np.mean([g < min(b.severity for b in bad) for g in good]) > 0.9
    assert all(b.is_anomalous for b in bad)
    hits = 0
    for result in bad:
        mask_file = bottle / "ground_truth" / "broken_large" / f"{Path(result.name).stem}_mask.png"
        mask = cv2.imread(str(mask_file), cv2.IMREAD_GRAYSCALE) > 127
        x, y = result.regions[0].peak
        hits += bool(cv2.dilate(mask.astype(np.uint8), np.ones((61, 61), np.uint8))[y, x])
    assert hits / len(bad) > 0.9


@pytest.mark.skipif(not has_bf16(), reason="NO BFLOAT16 on this processor")
def test_bf16_is_an_option(parts: list[np.ndarray], broken_part: np.ndarray) -> None:
    inspector = Inspector.from_support(parts, encoder=load_encoder(precision="bf16"), views="hflip", image_size=128)
    assert inspector.info()["encoder"]["precision"] == "bf16"
    assert inspector.inspect(broken_part).is_anomalous


def test_a_image_is_added_to_a_live_product(parts: list[np.ndarray], encoder: Encoder, tmp_path: Path) -> None:
    live = Inspector.from_support(parts[:3], encoder=encoder, views="hflip", image_size=128, budget=400)
    before = live.inspect(make_part(50)).score
    # A good part of a kind not seen before: its negative.
    other = 255 - make_part(60)
    strange = live.inspect(other)
    assert strange.is_anomalous
    with pytest.raises(SupportSetError, match=r"unlike those .*: image\[3\].*Nothing was added"):
        live.add([other])
    assert len(live.enrollment.support) == live.calibration.n == 3
    notes = live.add([other], force=True)
    assert any("unlike the others: image[3]" in note for note in notes)
    assert live.inspect(other).score < 0.6 * strange.score
    assert not live.inspect(255 - make_part(61)).is_anomalous
    assert live.inspect(make_part(50)).score == pytest.approx(before, rel=0.15)
    assert live.calibration.n == 4
    assert len(live.enrollment.support) == 4
    assert len(live.banks[0]) == 400
    assert 3 in live.banks[0].origin.image
    live.save(tmp_path / "p.fsad")
    again = Inspector.load(tmp_path / "p.fsad", encoder=encoder)
    assert again.inspect(other).score == live.inspect(other).score
    assert len(again.references) == 4
    with pytest.raises(SupportSetError, match="identical to image"):
        again.add([other])


def test_a_threshold_set_by_hand_survives_an_addition(parts: list[np.ndarray], encoder: Encoder) -> None:
    live = Inspector.from_support(parts[:3], encoder=encoder, views="hflip", image_size=128)
    live.threshold = 9.0
    live.add(parts[3])
    assert live.threshold == 9.0
    # Set to the calibration's own, it is set all the same.
    live.threshold = kept = live.calibration.threshold
    assert live.info()["threshold_set_by_hand"] is True
    live.add(parts[4])
    assert live.threshold == kept != live.calibration.threshold
    alone = Inspector.from_support(parts[:1], encoder=encoder, views="hflip", image_size=128)
    with pytest.raises(SupportSetError, match="Enroll again from all"):
        alone.add(parts[1])


def test_warm_up_compiles_for_the_size_to_come(parts: list[np.ndarray], encoder: Encoder) -> None:
    inspector = Inspector.from_support(parts[:2], encoder=encoder, views="hflip", image_size=128)
    network = inspector.model.scales[0].one_pass
    assert network is not None
    assert network.sizes == ()
    inspector.warm_up()
    assert len(network.sizes) == 1
    inspector.inspect(parts[0])
    assert len(network.sizes) == 1
    inspector.warm_up((64, 200))
    assert len(network.sizes) == 2
    assert inspector.inspect(np.zeros((64, 200, 3), np.uint8)).anomaly_map.shape == (64, 200)
    assert len(network.sizes) == 2


def test_a_product_without_support_images_must_be_told_the_size(inspector: Inspector) -> None:
    without = Inspector(inspector.encoder, dataclasses.replace(inspector._product, references=()))
    with pytest.raises(ImageError, match=r"expected image_hw .*got None\. Give .*image_hw=\(480, 640\)"):
        without.warm_up()
    without.warm_up((64, 96))


def test_threads_change_no_score(parts: list[np.ndarray], broken_part: np.ndarray) -> None:
    scores = [
        Inspector.from_support(parts[:3], views="hflip", image_size=128, threads=threads).inspect(broken_part).score
        for threads in (1, 2)
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_a_threshold_set_while_a_image_is_added_stays(parts: list[np.ndarray], encoder: Encoder) -> None:
    live = Inspector.from_support(parts[:3], encoder=encoder, views="hflip", image_size=128)

    def progress(stage: str, done: int, total: int) -> None:
        live.threshold = 9.0

    live.add(parts[3], progress=progress)
    assert live.threshold == 9.0


def test_only_new_images_are_noticed(parts: list[np.ndarray], encoder: Encoder) -> None:
    live = Inspector.from_support([*parts[:3], 255 - parts[3]], encoder=encoder, views="hflip", image_size=128)
    assert any("image[3]" in note for note in live.enrollment.notes)
    assert live.add([make_part(80)]) == ()


@pytest.mark.parametrize("image_score", ["top_mean", "reweighted"])
def test_the_score_of_two_scales_is_the_larger_of_each_ones_over_its_typical_good(
    parts: list[np.ndarray], encoder: Encoder, image_score: str
) -> None:
    def enrolled(image_size: int | tuple[int, int]) -> Inspector:
        return Inspector.from_support(
            parts,
            encoder=encoder,
            views="hflip",
            image_size=image_size,
            budget=400,
            scoring=ScoringConfig(image_score=image_score),  # type: ignore[arg-type]
            keep_outliers=True,
        )

    both, *single = enrolled((128, 192)), enrolled(128), enrolled(192)
    typical = [np.median(one.calibration.scores) for one in single]
    for probe in (make_part(70), make_part(71, defect=True)):
        expected = max(one.inspect(probe).score / t for one, t in zip(single, typical, strict=True))
        assert both.inspect(probe).score == pytest.approx(expected, rel=1e-3)
