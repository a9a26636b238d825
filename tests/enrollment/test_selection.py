from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.banks import EnrolledScale, enroll_scale
from fewshot_ad.enrollment.embedding import embed_support
from fewshot_ad.enrollment.presets import BASE_SIZES, BASE_VIEWS, EnrollmentSettings, enrollment_settings
from fewshot_ad.enrollment.probes import DrawnDefect, Probes, defect_series
from fewshot_ad.enrollment.selection import candidate_sizes, cheapest, choose_scales, choose_views
from fewshot_ad.enrollment.support import SupportImage, read_support
from fewshot_ad.errors import SupportSetError


def test_what_the_user_chose_is_taken(parts: list[np.ndarray], encoder: Encoder) -> None:
    images = read_support(parts[:2]).images
    asked = enrollment_settings(views="gray", image_size=128)
    assert choose_views(images, asked, encoder) == (asked, (), None)
    assert candidate_sizes(images, asked) == (128,)


def test_one_image_gets_the_default_views_and_is_told_why(parts: list[np.ndarray], encoder: Encoder) -> None:
    choice, reasons, _ = choose_views(read_support(parts[:1]).images, enrollment_settings(), encoder)
    assert choice.views == BASE_VIEWS
    assert "no second image" in reasons[0]


def test_freely_rotated_parts_get_rotated_views(encoder: Encoder) -> None:
    part = np.full((160, 160, 3), 90, np.uint8)
    cv2.rectangle(part, (40, 70), (125, 92), (200, 190, 180), -1)
    cv2.rectangle(part, (40, 70), (62, 118), (150, 160, 200), -1)
    rng = np.random.default_rng(0)
    turned = []
    for degrees in (0, 90, 225):
        matrix = cv2.getRotationMatrix2D((79.5, 79.5), degrees, 1)
        view = cv2.warpAffine(part, matrix, (160, 160), borderMode=cv2.BORDER_REPLICATE)
        turned.append(np.clip(view + rng.normal(0, 3, view.shape), 0, 255).astype(np.uint8))
    choice, reasons, _ = choose_views(read_support(turned).images, enrollment_settings(), encoder)
    assert any(view.kind == "rotate" and view.value == 90 for view in choice.views)
    assert "flips and rotations; as photographed, the part is turned" in reasons[0]


def test_rotated_views_stay_out_where_they_only_take_room(
    parts: list[np.ndarray], encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewshot_ad.enrollment.selection.turned_parts", lambda *_: (0, len(parts) - 1))
    monkeypatch.setattr("fewshot_ad.enrollment.selection.MAX_RISE", -1.0)
    choice, reasons, _ = choose_views(read_support(parts).images, enrollment_settings(), encoder)
    assert choice.views == BASE_VIEWS
    assert reasons[0].startswith("views: flips; held-out good images score")
    monkeypatch.setattr("fewshot_ad.enrollment.selection.MAX_RISE", 1.0)
    choice, reasons, _ = choose_views(read_support(parts).images, enrollment_settings(), encoder)
    assert len(choice.views) == 9
    assert reasons[0].startswith("views: flips and rotations; held-out good images score")


def test_of_two_images_only_the_pose_can_tell(parts: list[np.ndarray], encoder: Encoder) -> None:
    choice, reasons, _ = choose_views(read_support(parts[:2]).images, enrollment_settings(), encoder)
    assert choice.views == BASE_VIEWS
    assert "upright" in reasons[0]


def test_the_cheapest_that_catches_enough_or_clearly_more_is_taken() -> None:
    assert cheapest([0.95, 0.99]) == 0
    assert cheapest([0.5, 0.6]) == 1
    assert cheapest([0.5, 0.5]) == 1
    assert cheapest([0.7, 0.5]) == 0
    assert cheapest([0.2]) == 0


def large(side: int) -> list[SupportImage]:
    image = np.zeros((side, side, 3), np.uint8)
    return [SupportImage(name="large", sha256="0" * 64, loaded=image, source=None)]


def test_a_smaller_defect_asks_for_a_finer_scale_as_far_as_the_images_have_it() -> None:
    small = dataclasses.replace(enrollment_settings(), min_defect=0.004)
    assert candidate_sizes(large(1200), enrollment_settings()) == BASE_SIZES
    assert candidate_sizes(large(4000), small) == (256, 2048)
    assert candidate_sizes(large(1200), small) == (256, 1024)
    assert candidate_sizes(large(300), small) == BASE_SIZES


def scales_of(
    parts: list[np.ndarray], encoder: Encoder, settings: EnrollmentSettings
) -> tuple[list[EnrolledScale], tuple[DrawnDefect, ...]]:
    series = defect_series(range(len(parts)), settings.min_defect, 0)
    probes = Probes(dict(enumerate(parts)), series, 0, 384)
    images = read_support(parts).images
    scales = [
        enroll_scale(embed_support(images, settings, size, encoder), settings, size, encoder, probes)
        for size in (96, 192)
    ]
    return scales, series


def test_the_cheapest_scale_that_catches_the_smallest_defect_is_chosen(
    parts: list[np.ndarray], encoder: Encoder
) -> None:
    easy = enrollment_settings(views="hflip", min_defect=0.3)
    scales, series = scales_of(parts[:4], encoder, easy)
    chosen, reasons = choose_scales(scales, easy, encoder, series, 4)
    assert [scale.image_size for scale in chosen] == [96]
    assert "image size: 96; of drawn defects of 30.0% of the image's side are caught: " in reasons[0]
    # Too small for both: the finer one is kept, as what can be done.
    hard = enrollment_settings(views="hflip", min_defect=0.002)
    scales, series = scales_of(parts[:4], encoder, hard)
    chosen, _ = choose_scales(scales, hard, encoder, series, 4)
    assert [scale.image_size for scale in chosen] == [96, 192]


def test_a_scale_that_shows_less_than_half_a_patch_of_the_smallest_defect_is_not_enough_alone(
    parts: list[np.ndarray], encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewshot_ad.enrollment.selection._caught", lambda *_: 1.0)
    scales, series = scales_of(parts[:3], encoder, enrollment_settings(views="hflip"))
    for min_defect, expected in {0.04: [96, 192], 0.05: [96]}.items():  # 3.8 and 4.8 of 96 pixels
        settings = enrollment_settings(views="hflip", min_defect=min_defect)
        chosen, _ = choose_scales(scales, settings, encoder, series, 3)
        assert [scale.image_size for scale in chosen] == expected


def test_a_budget_of_milliseconds_leaves_the_finer_scale_out_or_is_refused(
    parts: list[np.ndarray], encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewshot_ad.enrollment.selection.encode_ms", lambda _, image_sizes: [float(sum(image_sizes))])
    hard = enrollment_settings(views="hflip", min_defect=0.002, max_ms=100)
    scales, series = scales_of(parts[:3], encoder, hard)
    chosen, _ = choose_scales(scales, hard, encoder, series, 3)
    assert [scale.image_size for scale in chosen] == [96]
    with pytest.raises(SupportSetError, match="expected max_ms of at least 96"):
        choose_scales(scales, dataclasses.replace(hard, max_ms=50), encoder, series, 3)
