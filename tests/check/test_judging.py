"""`Inspector.check` on made-up parts: what is judged, what is left out, and that the product stays as it is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import ArgumentError, ImageError, Inspector
from tests.conftest import make_part


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    return [make_part(seed) for seed in range(20, 23)]


@pytest.fixture(scope="module")
def bad() -> list[np.ndarray]:
    return [make_part(seed, defect=True) for seed in range(30, 32)]


def write(folder: Path, images: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i}.png"), image[..., ::-1])
    return folder


def test_verdicts_are_those_of_inspect(inspector: Inspector, good: list[np.ndarray], bad: list[np.ndarray]) -> None:
    check = inspector.check(good, bad)
    assert [image.name for image in check.images] == ["good[0]", "good[1]", "good[2]", "bad[0]", "bad[1]"]
    for image, pixels in zip(check.images, [*good, *bad], strict=True):
        result = inspector.inspect(pixels)
        assert (image.score, image.severity, image.is_anomalous, image.file) == (
            *(result.score, result.severity, result.is_anomalous),
            None,
        )
    assert (check.product, check.threshold) == (inspector.product, inspector.threshold)
    assert check.missed == ()


def test_files_are_named_so_that_they_can_be_told_apart(
    inspector: Inspector, good: list[np.ndarray], bad: list[np.ndarray], tmp_path: Path
) -> None:
    calls: list[tuple[str, int, int]] = []
    folders = write(tmp_path / "a" / "good", good), write(tmp_path / "a" / "scratch", bad)
    check = inspector.check(*folders, progress=lambda *call: calls.append(call))
    assert [image.name for image in check.images] == [
        *("good/0.png", "good/1.png", "2.png", "scratch/0.png", "scratch/1.png")
    ]
    assert check.images[3].file == str(folders[1] / "0.png")
    assert calls == [("check", done, 5) for done in range(1, 6)]


def test_the_product_stays_as_it_is(
    inspector: Inspector, good: list[np.ndarray], bad: list[np.ndarray], tmp_path: Path
) -> None:
    before = inspector.info()
    check = inspector.check(good, bad)
    assert check.suggestion is not None
    assert check.suggestion.threshold != inspector.threshold
    assert inspector.info() == before


def test_a_threshold_that_is_set_meanwhile_does_not_mix_in(
    encoder: object, parts: list[np.ndarray], good: list[np.ndarray]
) -> None:
    own = Inspector.from_support(parts[:2], encoder=encoder, views="none", image_size=64)  # type: ignore[arg-type]
    before = own.threshold

    def disturb(stage: str, done: int, total: int) -> None:
        own.threshold = before * 10

    check = own.check(good, progress=disturb)
    assert check.threshold == before
    assert [image.score / image.severity for image in check.images] == pytest.approx([before] * 3)


def test_enrolled_images_and_copies_are_named_and_not_counted(
    inspector: Inspector, parts: list[np.ndarray], good: list[np.ndarray], bad: list[np.ndarray]
) -> None:
    check = inspector.check([parts[1], *good, good[0].copy()], [*bad, parts[2]])
    assert check.false_rejects.total == 3
    assert [(image.name, image.reason) for image in check.left_out] == [
        ("good[0]", "in the support set, as image[1]"),
        ("good[4]", "identical to good[1]"),
        ("bad[2]", "in the support set, as image[2]: enrolled as a good one; enroll again without it"),
    ]


def test_what_cannot_be_read_is_listed_and_stops_nothing(
    inspector: Inspector, good: list[np.ndarray], tmp_path: Path
) -> None:
    folder = write(tmp_path / "good", good)
    (folder / "1.png").write_text("oops")
    check = inspector.check([folder, tmp_path / "gone.png"])
    assert check.false_rejects.total == 2
    assert [image.name for image in check.unreadable] == ["1.png", "good[3]"]
    assert "gone.png" in check.unreadable[1].reason
    assert "oops" in check.explain()


def test_one_image_cannot_be_good_and_bad(
    inspector: Inspector, good: list[np.ndarray], bad: list[np.ndarray], tmp_path: Path
) -> None:
    first, second = write(tmp_path / "ok", good), write(tmp_path / "nok", [bad[0], good[1]])
    with pytest.raises(ArgumentError, match=r"ok/1\.png among the good images and nok/1\.png among the bad ones"):
        inspector.check(first, second)


def test_a_side_without_an_image_that_counts_is_refused(
    inspector: Inspector, parts: list[np.ndarray], good: list[np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match="nothing matches"):
        inspector.check(good, tmp_path / "gone")
    with pytest.raises(ImageError, match="good images to check, got an empty list"):
        inspector.check([])
    with pytest.raises(ImageError, match=r"good images .* none that counts; the first is good\[0\] \(in the support"):
        inspector.check(parts)
    with pytest.raises(ImageError, match="bad images"):
        inspector.check(good, [np.zeros((2, 2, 3), np.uint8)])
    with pytest.raises(ArgumentError, match="progress"):
        inspector.check(good, progress=3)  # type: ignore[arg-type]


def test_real_bottles(bottle: Path) -> None:
    good = sorted((bottle / "train" / "good").iterdir())[:4]
    inspector = Inspector.from_support(good, views="none", image_size=256)
    check = inspector.check(bottle / "test" / "good", sorted((bottle / "test" / "broken_large").iterdir())[:5])
    assert check.auroc is not None
    assert check.auroc > 0.95
    assert check.missed == ()
