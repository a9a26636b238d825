from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot_ad.datasets import Counts, DatasetError, Sample, check, dataset_cards, open_dataset
from fewshot_ad.datasets import card as registry
from tests.datasets.layouts import LAYOUTS, Expected, image, mask

NAMES = sorted(LAYOUTS)
# Severstal has no files of masks, but run lengths in its table.
WITH_MASKS = [name for name in NAMES if dataset_cards()[name].masks == "pixel" and name != "severstal"]
# Their lists name the masks.
BY_LIST = ("visa", "real_iad", "real_iad_products", "manifest")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Path, list[Expected]]]:
    """A tiny copy, and a published table that fits it."""

    def build(name: str) -> tuple[Path, list[Expected]]:
        root = tmp_path / "copy"
        expected = LAYOUTS[name](root)
        counts = {}
        for category in sorted({e.category for e in expected}):
            cells = [(e.split, e.label) for e in expected if e.category == category]
            counts[category] = Counts(
                *(cells.count(c) for c in (("train", 0), ("test", 0), ("test", 1), ("validation", 0), ("train", 1)))
            )
        card, reader = registry.registered(name)
        card = dataclasses.replace(card, counts=counts, categories=tuple(counts), images=len(expected))
        monkeypatch.setitem(registry._REGISTRY, name, (card, reader))
        return root, expected

    return build


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_copy_is_complete(make: Callable[..., tuple[Path, list[Expected]]], name: str) -> None:
    root, expected = make(name)
    calls: list[tuple[str, int, int]] = []
    report = check(name, root, lambda *call: calls.append(call))
    assert report.complete, report
    assert not report.notes
    assert sum(n for cells in report.counts.values() for n in cells.values()) == len(expected)
    assert calls[-1] == ("check", len(expected), len(expected))
    assert report.as_dict()["complete"] is True


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_found_and_stops_nothing(make: Callable[..., tuple[Path, list[Expected]]], name: str) -> None:
    root, expected = make(name)
    good = [e for e in expected if e.label == 0]
    (root / good[0].path).unlink()
    truncated = root / good[-1].path
    truncated.write_bytes(truncated.read_bytes()[:-300])
    report = check(name, root)
    assert not report.complete
    assert any(str(truncated) in line for line in report.unreadable)
    problems = "\n".join(report.missing + report.differences)
    assert str(root / good[0].path) in problems or f"{good[0].split}_good: expected" in problems
    # Without decoding the truncated one passes, the deleted one does not.
    quick = check(name, root, decode=False)
    assert not quick.unreadable
    assert quick.missing == report.missing
    assert quick.differences == report.differences
    assert not quick.complete


@pytest.mark.parametrize("name", WITH_MASKS)
def test_a_missing_mask_is_found(make: Callable[..., tuple[Path, list[Expected]]], name: str) -> None:
    root, _ = make(name)
    sample = _defective(name, root)
    for path in sample.mask_paths:
        path.unlink()
    report = check(name, root, decode=False)
    assert [line for line in report.unpaired if line.startswith(f"{sample.path}: ") and "mask" in line]


@pytest.mark.parametrize("name", WITH_MASKS)
def test_a_mask_of_another_size_or_cut_off_is_found(
    make: Callable[..., tuple[Path, list[Expected]]], name: str
) -> None:
    root, _ = make(name)
    path = _defective(name, root).mask_paths[0]
    mask(path, hw=(30, 40))
    assert [line for line in check(name, root).unpaired if "40 x 30 pixels, but its image has 32 x 24" in line]
    path.write_bytes(path.read_bytes()[:20])
    report = check(name, root)
    assert any(str(path) in line and "truncated" in line for line in report.unreadable)


@pytest.mark.parametrize("name", [n for n in WITH_MASKS if n not in BY_LIST])
def test_a_mask_whose_image_is_gone_is_found(make: Callable[..., tuple[Path, list[Expected]]], name: str) -> None:
    root, _ = make(name)
    sample = _defective(name, root)
    sample.path.unlink()
    report = check(name, root)
    assert f"{sample.mask_paths[0]}: a mask without image" in report.unpaired
    # A check of another category does not report it.
    others = {c for c in dataset_cards()[name].categories if c != sample.category}
    for other in others:
        assert check(name, root, category=other).complete


@pytest.mark.parametrize("name", BY_LIST)
def test_a_listed_image_that_is_gone_is_missing(make: Callable[..., tuple[Path, list[Expected]]], name: str) -> None:
    root, _ = make(name)
    sample = _defective(name, root)
    sample.path.unlink()
    report = check(name, root)
    assert report.missing == [str(sample.path)]
    assert report.unpaired == []


def test_boxes_that_are_gone_or_outside_are_found(make: Callable[..., tuple[Path, list[Expected]]]) -> None:
    root, _ = make("deep_pcb")
    annotation = root / "PCBData/group00041/00041_not/00041000.txt"
    annotation.write_text("60 4 70 10 1\n")
    (line,) = check("deep_pcb", root).unpaired
    assert "expected boxes inside 32 x 24 pixels, got x 60" in line
    annotation.write_text("a letter\n")
    (line,) = check("deep_pcb", root).unpaired
    assert "has no mask" in line


def test_run_lengths_that_do_not_fit_are_found(make: Callable[..., tuple[Path, list[Expected]]]) -> None:
    root, _ = make("severstal")
    (root / "train.csv").write_text("ImageId,ClassId,EncodedPixels\na.jpg,3,700 100\nb.jpg,3,1 5\n")
    (line,) = check("severstal", root).unpaired
    assert line.startswith(
        f"{root / 'train_images/a.jpg'}: expected pairs of first pixel and length within its 32 x 24"
    )


@pytest.mark.parametrize("name", ["neu_det", "rsdd"])
def test_own_good_images_do_not_count_as_published(
    make: Callable[..., tuple[Path, list[Expected]]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root, expected = make(name)
    card, reader = registry.registered(name)
    defective = {c: sum(e.label for e in expected if e.category == c) for c in card.categories}
    counts = {category: Counts(None, None, number) for category, number in defective.items()}
    card = dataclasses.replace(card, counts=counts, images=sum(defective.values()))
    monkeypatch.setitem(registry._REGISTRY, name, (card, reader))
    assert check(name, root).complete
    for folder in list(root.rglob("good")):
        shutil.rmtree(folder)
    assert check(name, root).complete
    assert all((s.split, s.label) == ("test", 1) for s in open_dataset(name, root).samples())
    next(s.path for s in open_dataset(name, root).samples()).unlink()
    assert not check(name, root).complete


def test_categories_are_compared_on_their_own(make: Callable[..., tuple[Path, list[Expected]]]) -> None:
    root, _ = make("mvtec")
    (root / "screw").rename(root / "nail")
    assert check("mvtec", root, category="bottle").complete
    report = check("mvtec", root)
    assert report.missing == ["category screw"]
    assert report.notes == ["category nail: not among the published ones, so its counts are not compared"]
    image(root / "bottle/train/good/extra.png")
    assert check("mvtec", root).differences == ["bottle, train_good: expected 3, got 4"]
    with pytest.raises(DatasetError, match="expected a category among bottle, nail, got 'screw'"):
        check("mvtec", root, category="screw")


def test_totals_count_where_no_table_does(
    make: Callable[..., tuple[Path, list[Expected]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, expected = make("elpv")
    card, reader = registry.registered("elpv")
    counts = {category: Counts(None, None, 3) for category in card.categories}
    monkeypatch.setitem(registry._REGISTRY, "elpv", (dataclasses.replace(card, counts=counts, images=99), reader))
    assert check("elpv", root).differences == [f"images in all: expected 99, got {len(expected)}"]


def test_a_mask_that_marks_nothing_is_a_note(make: Callable[..., tuple[Path, list[Expected]]]) -> None:
    root, _ = make("btad")
    mask(root / "01/ground_truth/ko/0000.png", where=None)
    report = check("btad", root)
    assert report.complete
    assert len(report.notes) == 1
    assert "marks no pixel" in report.notes[0]


def test_a_damaged_list_is_reported_with_the_rest(make: Callable[..., tuple[Path, list[Expected]]]) -> None:
    root, expected = make("real_iad")
    (root / "realiad_jsons/realiad_jsons/audiojack.json").write_text("[")
    report = check("real_iad", root)
    assert len(report.unreadable) == 1
    assert "audiojack.json" in report.unreadable[0]
    assert sum(n for cells in report.counts.values() for n in cells.values()) == len(expected)


def test_the_wrong_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected the layout of VisA"):
        check("visa", tmp_path)


def test_real_images_are_complete(shared_data: Path) -> None:
    report = check("mvtec", shared_data, category="bottle", decode=False)
    assert report.complete, report


def _defective(name: str, root: Path) -> Sample:
    return next(s for s in open_dataset(name, root).samples() if s.mask_paths)


def test_masks_that_nobody_drew_are_not_missing(tmp_path: Path) -> None:
    for category in ("widget", "bottle"):
        for name in ("train/good/1.png", "test/good/2.png", "test/cut/3.png", "test/cut/4.png"):
            image(tmp_path / category / name)
    report = check("mvtec", tmp_path, category="widget")
    assert report.complete, report
    assert "category widget: no image has a mask, so nothing can be said of maps" in report.notes
    # Of a published category they are missing, and one of several is missing everywhere.
    assert len(check("mvtec", tmp_path, category="bottle").unpaired) == 2
    mask(tmp_path / "widget/ground_truth/cut/3_mask.png")
    (lacking,) = check("mvtec", tmp_path, category="widget").unpaired
    assert lacking.startswith(f"{tmp_path / 'widget/test/cut/4.png'}: ")


def test_images_in_folders_of_folders_are_noted(tmp_path: Path) -> None:
    for name in (
        "train/good/1.png",
        "train/good/a/b/2.png",
        "train/good/a/b/3.png",
        "test/good/4.png",
        "test/cut/5.png",
    ):
        image(tmp_path / "widget" / name)
    nested = tmp_path / "widget/train/good/a/b"
    assert f"{nested}: 2 images in a folder of a folder of images, which are not read" in check("mvtec", tmp_path).notes
