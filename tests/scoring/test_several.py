"""Several parts on one image, from enrollment to the verdicts."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import ArgumentError, ArtifactError, ExportError, Inspector, SupportSetError
from fewshot_ad.artifact import read_artifact
from fewshot_ad.artifact.arrays import check_values
from fewshot_ad.artifact.schema import checked_description
from fewshot_ad.catalog import Catalog
from fewshot_ad.encoder import Encoder
from fewshot_ad.errors import ImageError
from fewshot_ad.export import export
from fewshot_ad.latency import own_images
from tests.trays import PLACES, tray


@pytest.fixture(scope="module")
def trays(encoder: Encoder) -> Inspector:
    """Enrolled from three images of six brackets each."""
    support = [tray(seed) for seed in range(3)]
    return Inspector.from_support(
        support, product="bracket", encoder=encoder, views="none", image_size=128, parts="auto", expect=6
    )


def test_every_part_of_a_good_image_is_good(trays: Inspector) -> None:
    assert len(trays.enrollment.support) == 18
    inspection = trays.inspect(tray(50))
    assert [part.verdict for part in inspection.parts] == ["good"] * 6
    assert (inspection.verdict, inspection.is_anomalous, inspection.parts_finding) == ("good", False, "")
    assert inspection.severity == max(part.severity for part in inspection.parts)
    assert (inspection.count.found, inspection.count.expected) == (6, 6)


def test_the_defective_one_is_named_and_shown_where_it_lies(trays: Inspector) -> None:
    inspection = trays.inspect(tray(51, defects=(4,)))
    assert [part.verdict for part in inspection.parts] == [*["good"] * 4, "anomalous", "good"]
    assert inspection.verdict == "anomalous"
    assert inspection.parts_finding == "part 5 of 6"
    x, y, width, height = inspection.regions[0].box
    left, top, across, down = inspection.parts[4].box
    assert left - 8 <= x
    assert x + width <= left + across + 8
    assert top - 8 <= y
    assert y + height <= top + down + 8
    peak = inspection.regions[0].peak
    assert np.unravel_index(inspection.anomaly_map.argmax(), (420, 560)) == pytest.approx(peak[::-1], abs=12)
    # Orange, as the defect is.
    red, _, blue = inspection.image[peak[1] - 6 : peak[1] + 7, peak[0] - 6 : peak[0] + 7].max(axis=(0, 1))
    assert int(red) - int(blue) > 40


def test_where_a_part_lies_and_how_it_is_turned_changes_no_verdict(trays: Inspector) -> None:
    severities = []
    for turn in (0.0, 70.0, 200.0):
        for shift in (0, 11):
            places = ((280 + shift, 210 + shift),)
            good, bad = (
                trays.inspect(tray(52, places, turns=(turn,), defects=defects)).parts[0].severity
                for defects in ((), (0,))
            )
            severities.append((good, bad))
    good, bad = np.array(severities).T
    assert good.max() <= 1 < bad.min()


def test_a_missing_part_and_one_too_many_are_anomalies_of_their_own(trays: Inspector) -> None:
    fewer = trays.inspect(tray(53, PLACES[:5]))
    assert (fewer.verdict, fewer.parts_finding) == ("anomalous", "5 of 6 parts, 1 missing")
    assert fewer.severity <= 1
    more = trays.inspect(tray(54, (*PLACES[:5], (420, 310), (520, 310))))
    assert more.verdict == "anomalous"
    assert "6 expected" in more.parts_finding
    none = trays.inspect(tray(55, ()))
    assert (none.verdict, none.parts_finding) == ("anomalous", "0 of 6 parts, 6 missing")


def test_something_else_is_told(trays: Inspector) -> None:
    image = tray(56)
    cv2.circle(image, (195, 210), 10, (40, 60, 200), -1)
    inspection = trays.inspect(image)
    assert (inspection.verdict, inspection.parts_finding) == ("anomalous", "something besides the parts")
    assert len(inspection.count.others) == 1


def test_without_a_number_any_but_none_is_good(trays: Inspector, encoder: Encoder) -> None:
    any_number = Inspector.from_support(
        [tray(seed) for seed in range(2)], encoder=encoder, views="none", image_size=128, parts="auto"
    )
    assert any("expect=6" in note for note in any_number.enrollment.notes)
    assert any_number.inspect(tray(57, PLACES[:2])).verdict == "good"
    empty = any_number.inspect(tray(58, ()))
    assert (empty.verdict, empty.reason) == ("not_inspectable", "no part is found")


def test_a_part_that_cannot_be_judged_passes_no_image(trays: Inspector) -> None:
    inspection = trays.inspect(tray(59, ((20, 110), *PLACES[1:])))
    assert inspection.verdict == "not_inspectable"
    assert inspection.is_anomalous
    assert "reaches out" in inspection.reason
    worse = trays.inspect(tray(59, ((20, 110), *PLACES[1:]), defects=(3,)))
    assert worse.verdict == "anomalous"
    assert worse.parts_finding.startswith("part 4 of 6; 1 not inspectable")


def test_another_ground_is_not_inspectable(trays: Inspector) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (420, 560, 3)).astype(np.uint8)
    assert "plain" in trays.inspect(noise).reason


def test_stored_and_read_again_it_says_the_same(trays: Inspector, tmp_path: Path) -> None:
    trays.save(tmp_path / "bracket.fsad")
    loaded = Inspector.load(tmp_path / "bracket.fsad", encoder=trays.encoder)
    image = tray(60, PLACES[:5], defects=(2,))
    one, other = trays.inspect(image), loaded.inspect(image)
    assert [part.as_dict() for part in one.parts] == [part.as_dict() for part in other.parts]
    [ahead] = list(loaded.inspect_batch([image]))
    assert ahead.parts_finding == one.parts_finding
    described = loaded.info()["parts"]
    assert described["expected"] == 6
    assert "template" not in described
    catalog = Catalog(tmp_path)
    assert catalog.inspect("bracket", image).parts_finding == one.parts_finding
    assert catalog.route(image).name == "bracket"


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("size", [10.0, 10.0], "at most 4 times the reach"),
        ("size", [float("inf"), 0.1], "size"),
        ("area", 1e-320, "area"),
        ("area", 0.9, "square of the reach"),
        ("reach", 1e-12, "reach"),
        ("expected", 0, "expected"),
        ("template", "AAAA", "template"),
        (
            "template",
            base64.b64encode(cv2.imencode(".png", np.zeros((96, 96), np.uint8))[1]).decode(),
            "one gray level",
        ),
    ],
)
def test_a_stored_layout_that_makes_no_sense_is_refused(
    trays: Inspector, tmp_path: Path, field: str, value: object, match: str
) -> None:
    trays.save(tmp_path / "p.fsad")
    tensors, record = read_artifact(tmp_path / "p.fsad")
    record["enrollment"]["settings"]["parts"][field] = value
    with pytest.raises(ArtifactError, match=match):
        check_values(tensors, checked_description(record, "p.fsad"), "p.fsad")


def test_it_is_plain_json_and_a_picture(trays: Inspector) -> None:
    inspection = trays.inspect(tray(61, PLACES[:5], defects=(1,)))
    fields = json.loads(json.dumps(inspection.to_dict(), allow_nan=False))
    assert fields["count"] == {"found": 5, "expected": 6, "others": []}
    assert [part["number"] for part in fields["parts"]] == [1, 2, 3, 4, 5]
    overlay = inspection.overlay(bar=True)
    # The outline of the second part is red, that of the others is not.
    left, top, width, _ = inspection.parts[1].box
    band = overlay[top - 8 : top, left : left + width].astype(int)
    assert (band[..., 0] - band[..., 1]).max() > 100
    left, top, width, _ = inspection.parts[0].box
    band = overlay[top - 8 : top, left : left + width].astype(int)
    assert (band[..., 0] - band[..., 1]).max() < 60


def test_accept_takes_the_rejected_part_and_undo_gives_it_back(trays: Inspector, tmp_path: Path) -> None:
    changed = copy.deepcopy(trays)
    changed.save(tmp_path / "before.fsad", force=True)
    image = tray(62, defects=(3,))
    notes = changed.accept(image, force=True)
    assert "part 4" in notes[0]
    assert len(changed.enrollment.support) == 19
    assert changed.inspect(image).parts[3].severity < trays.inspect(image).parts[3].severity
    changed.undo()
    changed.save(tmp_path / "after.fsad", force=True)
    assert (tmp_path / "before.fsad").read_bytes() == (tmp_path / "after.fsad").read_bytes()


def test_an_image_with_a_missing_part_is_not_accepted(trays: Inspector) -> None:
    with pytest.raises(SupportSetError, match="1 missing"):
        copy.deepcopy(trays).accept(tray(63, PLACES[:5]))


def test_reject_keeps_the_part_that_the_region_lies_on(trays: Inspector) -> None:
    changed = copy.deepcopy(trays)
    image = tray(64, defects=(2,))
    x, y, width, height = changed.inspect(image).parts[2].box
    changed.reject(image, region=(x, y, width, height))
    assert changed.known_defects[0].name.endswith("part 3")
    other = copy.deepcopy(trays)
    other.reject(image)
    assert other.known_defects[0].name.endswith("part 3")
    with pytest.raises(SupportSetError, match="lies beside them"):
        other.reject(tray(65), region=(0, 200, 30, 20))
    with pytest.raises(SupportSetError, match="like the defect"):
        changed.accept(tray(66, defects=(1,)))


def test_add_takes_each_part(trays: Inspector) -> None:
    changed = copy.deepcopy(trays)
    changed.add([tray(67)])
    assert len(changed.enrollment.support) == 24
    assert len(set(changed.enrollment.support)) == 24
    assert "part 6" in changed.history()[0].text


def test_check_counts_the_parts_of_good_images_and_leaves_out_what_was_enrolled(trays: Inspector) -> None:
    good, bad = [tray(0), tray(68), tray(69), tray(69, PLACES[:5])], [tray(70, defects=(0,)), tray(71, PLACES[:5])]
    check = trays.check(good, bad)
    assert len(check.scores("good")) == 12
    # What is caught by its count alone says nothing of the threshold.
    assert len(check.scores("bad")) == 1
    assert {image.name: image.reason.split(":")[0] for image in check.left_out} == {
        "good[0]": "in the support set, as image[0] part 1",
        "good[3]": "anomalous whatever the threshold",
        "bad[1]": "anomalous whatever the threshold",
    }
    accepted = copy.deepcopy(trays)
    accepted.accept(tray(68, defects=(1,)), force=True)
    assert len(accepted.check([tray(68, defects=(1,))]).scores("good")) == 5
    calibrated = copy.deepcopy(trays)
    calibrated.calibrate([tray(seed) for seed in range(72, 75)])
    assert calibrated.calibration.n == 18


def test_a_region_of_one_image_leaves_out_the_parts_beside_it(trays: Inspector) -> None:
    image = tray(76, defects=(5,))
    upper = trays.inspect(image, roi=(0, 0, 560, 210))
    assert [part.verdict for part in upper.parts] == ["good"] * 3
    assert (upper.verdict, upper.count.expected) == ("good", None)


def test_parts_that_cannot_be_counted_are_not_called_missing(trays: Inspector) -> None:
    image = tray(90)
    # Two of them are covered together.
    cv2.rectangle(image, (70, 80), (320, 140), (70, 80, 110), -1)
    covered = trays.inspect(image)
    assert (covered.verdict, covered.count.finding) == ("not_inspectable", "")
    assert "touch" in covered.reason
    # Something at the edge beside six parts is not a seventh, nor does it hide that one is missing.
    for places, verdict in ((PLACES, "not_inspectable"), (PLACES[:4], "anomalous")):
        image = tray(91, places)
        cv2.rectangle(image, (0, 190), (12, 230), (40, 40, 40), -1)
        assert trays.inspect(image).verdict == verdict


def test_without_light_nothing_is_called_missing(trays: Inspector) -> None:
    dark = trays.inspect(np.zeros((420, 560, 3), np.uint8))
    assert (dark.verdict, dark.count, dark.parts_finding) == ("not_inspectable", None, "")
    assert "black" in dark.reason
    noise = np.random.default_rng(0).integers(0, 255, (420, 560, 3)).astype(np.uint8)
    assert trays.inspect(noise).count is None


@pytest.mark.parametrize("factor", [0.45, 0.52, 0.61, 0.7])
def test_smaller_images_are_judged_or_their_size_is_the_reason(trays: Inspector, factor: float) -> None:
    small = cv2.resize(tray(92), None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    assert "proportions" not in trays.inspect(small).reason
    tiny = cv2.resize(small, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    assert "32 are needed" in trays.inspect(tiny).reason


def test_a_clump_among_single_parts_does_not_become_the_part(encoder: Encoder) -> None:
    clump = tray(93, ((100, 200), (170, 200), (240, 200), (310, 200)), turns=(0.0,) * 4)
    support = [*(tray(seed, PLACES[:2]) for seed in range(3)), clump]
    product = Inspector.from_support(support, encoder=encoder, views="none", image_size=128, parts="auto")
    assert product.inspect(tray(94, PLACES[:3])).verdict == "good"


def test_much_dirt_on_the_support_images_is_noted_and_hides_no_part_at_the_edge(encoder: Encoder) -> None:
    dirty, dirtier = (
        [cv2.circle(tray(seed, PLACES[:5]), (450, 310), radius, (200, 60, 60), -1) for seed in range(2)]
        for radius in (14, 20)
    )
    settings = {"encoder": encoder, "views": "none", "image_size": 128, "parts": "auto"}
    with pytest.raises(SupportSetError, match=r"a thing that covers 3\d% of what a part covers"):
        Inspector.from_support(dirtier, **settings)
    product = Inspector.from_support(dirty, **settings)
    assert any("besides parts covers up to" in note for note in product.enrollment.notes)
    assert product.inspect(dirty[0]).count.others == ()
    at_edge = product.inspect(tray(95, ((-18, 110), *PLACES[1:5])))
    assert at_edge.verdict == "not_inspectable"
    fragment = cv2.circle(tray(96, PLACES[:5]), (450, 310), 18, (60, 200, 60), -1)
    assert product.inspect(fragment).count.others


def test_one_image_without_a_plain_ground_is_left_out_by_name(encoder: Encoder) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (420, 560, 3)).astype(np.uint8)
    settings = {"encoder": encoder, "views": "none", "image_size": 128, "parts": "auto"}
    product = Inspector.from_support([tray(0), noise, tray(1)], **settings)
    assert any(note.startswith("left out, image[1]: parts cannot be told") for note in product.enrollment.notes)
    assert len(product.enrollment.support) == 12
    with pytest.raises(SupportSetError, match=r"got 0 on image\[1\]; left out"):
        Inspector.from_support([tray(0), noise, tray(1)], expect=6, **settings)


def test_many_parts_can_be_enrolled(encoder: Encoder) -> None:
    """More than are held out at a fine working scale."""
    images = []
    for seed in range(2):
        image = cv2.resize(tray(seed, ()), (840, 840))
        for row in range(6):
            for column in range(6):
                cv2.circle(image, (70 + 140 * column, 70 + 140 * row), 30, (70, 80, 110 + 2 * seed), -1, cv2.LINE_AA)
        images.append(image)
    product = Inspector.from_support(
        images, encoder=encoder, views="none", image_size=(64, 512), budget=300, parts="auto", expect=36
    )
    assert len(product.enrollment.support) > 64
    assert any("were held out in turn" in note for note in product.enrollment.notes)


def test_drift_sees_one_part_of_each_image(trays: Inspector) -> None:
    changed = copy.deepcopy(trays)
    for seed in range(77, 80):
        changed.inspect(tray(seed))
    assert changed.drift().images == 3


def test_what_does_not_go_with_it_is_refused(trays: Inspector, encoder: Encoder, tmp_path: Path) -> None:
    support = [tray(seed) for seed in range(2)]
    for settings, match in (
        ({"parts": "some"}, "off"),
        ({"expect": 6}, "parts='auto'"),
        ({"parts": "auto", "expect": 0}, "expect"),
        ({"parts": "auto", "roi": (0, 0, 50, 50)}, "roi"),
        ({"parts": "auto", "register": True}, "register"),
    ):
        with pytest.raises(ArgumentError, match=match):
            Inspector.from_support(support, encoder=encoder, image_size=128, **settings)
    with pytest.raises(SupportSetError, match="expected 5 parts on each image, each by itself, got 6"):
        Inspector.from_support(support, encoder=encoder, image_size=128, parts="auto", expect=5)
    with pytest.raises(ExportError, match="several parts"):
        export(trays, tmp_path / "out")
    with pytest.raises(ImageError, match="single parts"):
        own_images(trays)


def test_images_without_parts_are_refused_with_the_reason(encoder: Encoder) -> None:
    noise = [np.random.default_rng(seed).integers(0, 255, (200, 200, 3)).astype(np.uint8) for seed in range(2)]
    with pytest.raises(SupportSetError, match="border is not plain"):
        Inspector.from_support(noise, encoder=encoder, parts="auto")
    with pytest.raises(SupportSetError, match="nothing does"):
        Inspector.from_support([tray(seed, ()) for seed in range(2)], encoder=encoder, parts="auto")
    tiny = [cv2.resize(tray(seed), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for seed in range(2)]
    with pytest.raises(SupportSetError, match="at least 32 pixels"):
        Inspector.from_support(tiny, encoder=encoder, parts="auto")


def test_real_parts_are_told_apart_and_the_broken_one_is_found(bottle: Path) -> None:
    from fewshot_ad.images import read_image

    def laid(paths: list[Path], seed: int) -> np.ndarray:
        out = np.full((400, 640, 3), 250, np.uint8)
        for at, path in enumerate(paths):
            out[100:300, 10 + 210 * at : 210 + 210 * at] = cv2.resize(
                read_image(path), (200, 200), interpolation=cv2.INTER_AREA
            )
        noise = np.random.default_rng(seed).normal(0, 1, out.shape)
        return np.clip(out + noise, 0, 255).astype(np.uint8)

    good = sorted((bottle / "train" / "good").iterdir())
    inspector = Inspector.from_support(
        [laid(good[3 * k : 3 * k + 3], k) for k in range(4)],
        views="hflip,vflip",
        image_size=256,
        parts="auto",
        expect=3,
    )
    broken = sorted((bottle / "test" / "broken_large").iterdir())
    inspection = inspector.inspect(laid([good[20], broken[0], good[21]], 9))
    assert [part.verdict for part in inspection.parts] == ["good", "anomalous", "good"]
