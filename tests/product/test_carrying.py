"""Known defects of an earlier product in a new enrollment."""

from __future__ import annotations

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fewshot_ad import ArgumentError, Inspector, SupportSetError
from fewshot_ad.cli import app
from fewshot_ad.encoder import Encoder
from tests.conftest import make_part
from tests.trays import tray


@pytest.fixture
def former(inspector: Inspector) -> Inspector:
    product = copy.deepcopy(inspector)
    product.reject(make_part(100, defect=True))
    return product


def test_an_image_like_a_known_defect_is_refused_or_kept_and_named(
    former: Inspector, parts: list[np.ndarray], encoder: Encoder
) -> None:
    settings = {"encoder": encoder, "views": "none", "known_defects": former}
    # Of four images and more it is left out already, as an outlier.
    support = [*parts[:2], make_part(101, defect=True)]
    with pytest.raises(SupportSetError, match=r"1 of 3 with patches.*image\[2\] \(like the defect"):
        Inspector.from_support(support, **settings)  # type: ignore[arg-type]
    kept = Inspector.from_support(support, keep_outliers=True, **settings)  # type: ignore[arg-type]
    assert any(note.startswith("kept, like a known defect: image[2]") for note in kept.enrollment.notes)


def test_the_defect_itself_is_refused(former: Inspector, parts: list[np.ndarray], encoder: Encoder) -> None:
    with pytest.raises(SupportSetError, match=r"image\[5\], which was rejected as a defect"):
        Inspector.from_support([*parts, make_part(100, defect=True)], encoder=encoder, known_defects=former)


def test_good_images_are_enrolled_and_the_defects_go_on_being_known(
    former: Inspector, encoder: Encoder, tmp_path: Path
) -> None:
    fresh = [make_part(seed) for seed in range(20, 24)]
    product = Inspector.from_support(fresh, encoder=encoder, views="none", known_defects=former)
    assert product.enrollment.settings.image_sizes == former.enrollment.settings.image_sizes
    assert [defect.name for defect in product.known_defects] == ["image[5]"]
    [checked] = product.check([make_part(30)]).known_defects
    assert checked.is_caught
    with pytest.raises(SupportSetError, match="like the defect"):
        product.accept(make_part(102, defect=True))
    product.save(tmp_path / "p.fsad")
    assert len(Inspector.load(tmp_path / "p.fsad", encoder=encoder).known_defects) == 1


def test_what_does_not_fit_is_refused(former: Inspector, parts: list[np.ndarray], encoder: Encoder) -> None:
    with pytest.raises(SupportSetError, match=r"image_size=\(128,\)"):
        Inspector.from_support(parts, encoder=encoder, image_size=256, known_defects=former)
    with pytest.raises(SupportSetError, match="expected the encoder of washer"):
        Inspector.from_support(parts, encoder="resnet18_parts", known_defects=former)
    with pytest.raises(ArgumentError, match="as an Inspector"):
        Inspector.from_support(parts, encoder=encoder, known_defects="old.fsad")  # type: ignore[arg-type]


def test_in_the_shell_they_are_carried_over_from_the_file_that_is_replaced(
    former: Inspector, part_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "p.fsad"
    former.save(file)
    words = ["enroll", str(part_folder), "-o", str(file), "--force"]
    carried = CliRunner().invoke(app, [*words, "--known-defects", str(file)])
    assert carried.exit_code == 0, carried.output
    assert "knew defects" not in carried.output
    assert len(Inspector.load(file).known_defects) == 1
    cv2.imwrite(str(part_folder / "9.png"), make_part(101, defect=True)[..., ::-1])
    for number in (2, 3, 4):
        (part_folder / f"{number}.png").unlink()
    before = file.read_bytes()
    refused = CliRunner().invoke(app, [*words, "--known-defects", str(file)])
    assert refused.exit_code == 2
    assert "9.png (like the defect" in refused.output
    assert file.read_bytes() == before
    (part_folder / "9.png").unlink()
    lost = CliRunner().invoke(app, [*words, "--image-size", "128"])
    assert lost.exit_code == 0
    assert "the product that was replaced knew defects" in lost.output


def test_defects_of_a_product_that_looks_otherwise_are_refused(
    former: Inspector, parts: list[np.ndarray], encoder: Encoder
) -> None:
    with pytest.raises(SupportSetError, match="lighting normalized here, off there"):
        Inspector.from_support(parts, encoder=encoder, views="none", lighting="normalized", known_defects=former)


def test_a_rejected_tray_is_refused_whatever_the_other_images_are(encoder: Encoder) -> None:
    settings = {"encoder": encoder, "views": "none", "image_size": 128, "parts": "auto"}
    former = Inspector.from_support([tray(0), tray(1)], **settings)  # type: ignore[arg-type]
    rejected = tray(5, defects=(2,))
    former.reject(rejected)
    with pytest.raises(SupportSetError, match="was rejected as a defect"):
        Inspector.from_support([tray(2), tray(3), rejected], known_defects=former, **settings)  # type: ignore[arg-type]


def test_a_product_without_defects_asks_nothing(inspector: Inspector, parts: list[np.ndarray]) -> None:
    product = Inspector.from_support(
        parts, encoder="resnet18_parts", views="none", image_size=96, known_defects=inspector
    )
    assert product.known_defects == ()
