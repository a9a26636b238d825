from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad.benchmark.drawn_dataset import DrawnDataset, draw_dataset
from fewshot_ad.datasets import check, open_dataset
from fewshot_ad.errors import DatasetError
from fewshot_ad.images import list_images, read_image
from tests.conftest import make_part

KINDS = {"drawn_blot", "drawn_displaced", "drawn_scratch"}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for seed in range(7):
        cv2.imwrite(str(folder / f"part {seed}.png"), make_part(seed, 96)[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def drawn(good: Path, tmp_path_factory: pytest.TempPathFactory) -> DrawnDataset:
    return draw_dataset(str(good), tmp_path_factory.mktemp("drawn") / "parts", category="washer")


def test_it_is_a_dataset_that_every_method_can_be_measured_on(drawn: DrawnDataset) -> None:
    assert (drawn.train, drawn.test_good, drawn.test_defective) == (5, 2, 6)
    samples = list(open_dataset("mvtec", drawn.folder).samples())
    test = [sample for sample in samples if sample.split == "test"]
    assert sum(sample.split == "train" for sample in samples) == 5
    assert {sample.defect_type for sample in test if sample.label} == KINDS
    assert all(sample.has_mask for sample in test if sample.label)
    assert not check("mvtec", drawn.folder, category="washer").unreadable
    assert "a program has drawn" in " ".join((drawn.folder / "DRAWN.md").read_text().split())


def test_nothing_of_the_images_to_learn_from_is_in_the_test(good: Path, drawn: DrawnDataset) -> None:
    contents: dict[str, set[bytes]] = {"train": set(), "test": set()}
    for split, known in contents.items():
        for path in list_images(drawn.folder / "washer" / split / "good"):
            known.add(read_image(path).tobytes())
    assert not contents["train"] & contents["test"]
    assert contents["train"] | contents["test"] == {read_image(path).tobytes() for path in list_images(good)}


def test_a_mask_covers_what_was_drawn_and_little_else(drawn: DrawnDataset) -> None:
    root = drawn.folder / "washer"
    for sample in open_dataset("mvtec", drawn.folder).samples(split="test"):
        if not sample.label:
            continue
        before = read_image(root / "test/good" / sample.path.name).astype(int)
        changed = np.abs(read_image(sample.path).astype(int) - before).max(axis=2) > 8
        mask = sample.mask(changed.shape)
        assert mask[changed].all()
        assert changed.sum() > 0.5 * mask.sum() > 0
        assert mask.mean() < 0.15


def test_the_same_images_and_seed_give_the_same_files(good: Path, drawn: DrawnDataset, tmp_path: Path) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png"))}

    again = draw_dataset(str(good), tmp_path / "again", category="washer")
    other = draw_dataset(str(good), tmp_path / "other", category="washer", seed=1)
    assert files(again.folder) == files(drawn.folder)
    assert files(other.folder) != files(drawn.folder)
    # The split does not depend on the seed.
    assert files(other.folder).keys() == files(drawn.folder).keys()


def test_refusals_leave_nothing_behind(good: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(DatasetError, match="expected a new or empty folder"):
        draw_dataset(str(good), tmp_path / "full")
    with pytest.raises(DatasetError, match="expected at least three different good images"):
        draw_dataset([make_part(0), make_part(0), make_part(1)], tmp_path / "few")
    with pytest.raises(DatasetError, match="name of a folder"):
        draw_dataset(str(good), tmp_path / "out", category="../up")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_defect_that_does_not_show_is_not_in_the_dataset(tmp_path: Path) -> None:
    """A patch of a plain image, copied elsewhere in it, changes nothing."""
    plain = [np.full((64, 64, 3), value, np.uint8) for value in (90, 100, 110)]
    made = draw_dataset(plain, tmp_path / "plain")
    assert made.test_defective == 2
    assert made.notes[-1] == "1 defect(s) are not there: drawn, they did not show."
    assert {path.name for path in (tmp_path / "plain/part/test").iterdir()} == {"good", "drawn_blot", "drawn_scratch"}
