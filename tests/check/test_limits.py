from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.check.limits import draw_limits
from fewshot_ad.check.sheet import SIDE
from fewshot_ad.enrollment.calibration import Calibration, ScoredDefect
from fewshot_ad.enrollment.embedding import Reference
from fewshot_ad.enrollment.presets import enrollment_settings
from fewshot_ad.enrollment.probes import DrawnDefect
from fewshot_ad.errors import ArtifactError
from tests.conftest import make_part

GREEN, RED, GRAY = (52, 110, 70), (176, 32, 40), (120, 120, 120)
SETTINGS = enrollment_settings()
MIN_DEFECT = SETTINGS.min_defect


def with_defects(inspector: Inspector, *defects: ScoredDefect) -> Calibration:
    return dataclasses.replace(inspector.calibration, defects=defects)


def spots(*scores_by_size: tuple[float, float], image: int = 0) -> tuple[ScoredDefect, ...]:
    """Spots of some sizes and scores."""
    return tuple(ScoredDefect(image, "spot", size, 7 + at, score) for at, (size, score) in enumerate(scores_by_size))


def words(picture: np.ndarray) -> list[tuple[int, ...]]:
    """The colors that the strips under the six cells have, row by row."""
    cell = SIDE + 2 * 22
    rows = [picture[len(picture) - (3 - row) * cell - (2 - row) * 8 :] for row in range(3)]
    return [tuple(int(v) for v in row[SIDE + 1, column]) for row in rows for column in (1, 2 * SIDE + 9)]


def test_it_shows_of_each_kind_what_is_caught_and_what_is_missed(inspector: Inspector) -> None:
    picture = inspector.limits_picture()
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (4 * SIDE + 8, 3)
    assert set(words(picture)) <= {GREEN, RED, GRAY}


def test_the_smallest_caught_and_the_largest_missed_are_chosen(inspector: Inspector) -> None:
    alone = with_defects(inspector, *spots((MIN_DEFECT, 3.0), (0.1, 0.5)))
    both = with_defects(inspector, *spots((MIN_DEFECT, 3.0), (0.1, 0.5), (0.2, 4.0), (MIN_DEFECT, 0.4)))
    pictures = [draw_limits("part", one, inspector.references, 0, 1.0, SETTINGS) for one in (alone, both)]
    cells = SIDE + 2 * 22
    top = 3 * cells + 2 * 8
    assert (pictures[0][-top:] == pictures[1][-top:]).all()
    assert words(pictures[0]) == [GREEN, RED, GRAY, GRAY, GRAY, GRAY]


def test_the_threshold_that_holds_decides(inspector: Inspector) -> None:
    one = with_defects(inspector, *spots((MIN_DEFECT, 3.0)))
    assert words(draw_limits("part", one, inspector.references, 0, 2.9, SETTINGS))[:2] == [GREEN, GRAY]
    assert words(draw_limits("part", one, inspector.references, 0, 3.1, SETTINGS))[:2] == [GRAY, RED]


def test_the_crop_shows_the_defect(inspector: Inspector) -> None:
    one = with_defects(inspector, *spots((0.1, 3.0)))
    picture = draw_limits("part", one, inspector.references, 0, 1.0, enrollment_settings(min_defect=0.1))
    top = len(picture) - 3 * (SIDE + 2 * 22) - 2 * 8
    whole, crop = picture[top : top + SIDE, :SIDE], picture[top : top + SIDE, SIDE : 2 * SIDE]
    clean = inspector.references[0].content
    defective = DrawnDefect(0, "spot", 0.1, 7).draw(clean)
    where = np.abs(defective.astype(int) - clean).max(axis=2)
    center = np.asarray(np.unravel_index(where.argmax(), where.shape))
    assert np.abs(crop[SIDE // 2, SIDE // 2].astype(int) - defective[tuple(center)]).max() < 40
    boxed = np.argwhere((whole == (255, 0, 255)).all(axis=2)) * len(clean) / SIDE
    assert (boxed.min(axis=0) < center).all()
    assert (boxed.max(axis=0) > center).all()


def test_what_is_not_stored_is_not_shown(inspector: Inspector) -> None:
    one = with_defects(inspector, *spots((MIN_DEFECT, 3.0), image=len(inspector.references)))
    assert set(words(draw_limits("part", one, inspector.references, 0, 1.0, SETTINGS))) == {GRAY}


def test_what_cannot_be_seen_is_not_shown() -> None:
    flat = np.full((256, 256, 3), 90, np.uint8)
    inspector = Inspector.from_support([make_part(seed) for seed in range(2)], image_size=64, views="none")
    from fewshot_ad.encoder import load_encoder
    from fewshot_ad.enrollment.embedding import scale_image

    reference = Reference.make(scale_image(flat, 256, load_encoder()))
    patch = ScoredDefect(0, "patch", MIN_DEFECT, 3, 0.1)
    picture = draw_limits("part", with_defects(inspector, patch), [reference], 0, 1.0, SETTINGS)
    assert set(words(picture)) == {GRAY}


def test_a_product_without_drawn_defects_or_images_says_what_to_do(inspector: Inspector) -> None:
    for calibration, references in (
        (with_defects(inspector), inspector.references),
        (inspector.calibration, ()),
    ):
        with pytest.raises(ArtifactError, match="Enroll it again"):
            draw_limits("part", calibration, references, 0, 1.0, SETTINGS)


def test_an_image_that_is_rejected_without_its_defect_says_nothing(inspector: Inspector) -> None:
    shots = len(inspector.enrollment.support)
    one = dataclasses.replace(with_defects(inspector, *spots((MIN_DEFECT, 3.0))), scores=(2.0,) * shots)
    for threshold, color in ((2.5, GREEN), (1.5, GRAY)):
        picture = draw_limits("part", one, inspector.references, shots, threshold, SETTINGS)
        assert words(picture)[0] == color
