import cv2
import numpy as np
import pytest

from fewshot_ad.errors import TrainingError
from fewshot_ad.training.images import ImageStore, drop_unreadable, find_categories


def write(folder, count=2, shape=(40, 60)):
    folder.mkdir(parents=True)
    for n in range(count):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((*shape, 3), 40 * n + 20, np.uint8))


def test_products_in_mvtec_layout_are_found_and_their_test_split_is_left_alone(tmp_path):
    for product in ("nut", "bolt"):
        write(tmp_path / product / "train" / "good", 3)
        write(tmp_path / product / "test" / "scratch", 5)
    categories = find_categories([tmp_path])
    assert [(c.name, len(c.files)) for c in categories] == [("bolt", 3), ("nut", 3)]
    assert [c.name for c in find_categories([tmp_path / "nut"])] == ["nut"]


def test_a_plain_folder_is_a_category(tmp_path):
    write(tmp_path / "gears", 4)
    (tmp_path / "gears" / "notes.txt").write_text("no image")
    (category,) = find_categories([tmp_path / "gears"])
    assert (category.name, len(category.files)) == ("gears", 4)


@pytest.mark.parametrize("where", ["test/good", "test/scratch", "ground_truth/scratch"])
def test_a_test_split_is_refused(tmp_path, where):
    write(tmp_path / "nut" / where)
    with pytest.raises(TrainingError, match="test split"):
        find_categories([tmp_path / "nut" / where])


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="not one"):
        find_categories([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="found none"):
        find_categories([tmp_path / "empty"])


def test_two_categories_of_one_name_are_refused(tmp_path):
    write(tmp_path / "a" / "nut")
    write(tmp_path / "b" / "nut")
    with pytest.raises(TrainingError, match="once"):
        find_categories([tmp_path / "a" / "nut", tmp_path / "b" / "nut"])


def test_one_broken_image_is_left_out(tmp_path):
    write(tmp_path / "nut", 3)
    (tmp_path / "nut" / "1.png").write_bytes(b"no image")
    readable, failures = drop_unreadable(find_categories([tmp_path / "nut"]), ImageStore(32))
    assert [p.name for p in readable[0].files] == ["0.png", "2.png"]
    assert "1.png" in failures[0]


def test_a_category_of_broken_images_is_refused(tmp_path):
    (tmp_path / "nut").mkdir()
    (tmp_path / "nut" / "0.png").write_bytes(b"no image")
    with pytest.raises(TrainingError, match="none of its 1 images"):
        drop_unreadable(find_categories([tmp_path / "nut"]), ImageStore(32))


def test_the_store_shrinks_and_stops_keeping_at_its_limit(tmp_path):
    write(tmp_path / "nut", 3, (64, 96))
    files = find_categories([tmp_path / "nut"])[0].files
    store = ImageStore(32, cache_bytes=32 * 48 * 3)
    first = store.read(files[0])
    assert first.shape == (32, 48, 3)
    assert store.read(files[0]) is first
    assert store.read(files[1]) is not store.read(files[1])
