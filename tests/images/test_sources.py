from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from fewshot_ad.errors import ImageError
from fewshot_ad.images import expand_sources, list_images


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), (0, 0), 2)


def test_folder_glob_file_and_array_stack_expand(tmp_path: Path, image: np.ndarray) -> None:
    for name in ("b.png", "a.PNG", "notes.txt"):
        Image.fromarray(image).save(tmp_path / name, format="png")
    assert [p.name for p in list_images(tmp_path)] == ["a.PNG", "b.png"]
    assert [p.name for p in list_images(str(tmp_path / "*.png"))] == ["b.png"]
    assert len(expand_sources([tmp_path, image])) == 3
    assert len(expand_sources(np.stack([image] * 4))) == 4
    with pytest.raises(ImageError, match="nothing matches"):
        list_images(tmp_path / "*.bmp")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ImageError, match="the folder is empty"):
        list_images(empty)


@pytest.mark.parametrize("images", ["", [""], np.array([""])])
def test_an_empty_name_is_not_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image: np.ndarray, images: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(image).save("here.png")
    with pytest.raises(ImageError, match="an empty text"):
        expand_sources(images)


def test_a_folder_that_exists_is_taken_literally(tmp_path: Path, image: np.ndarray) -> None:
    for folder in ("plain", "line [A]", "part[12]", "line [A]/day [1]"):
        (tmp_path / folder).mkdir()
        for k in range(3):
            Image.fromarray(image).save(tmp_path / folder / f"{k}.png")
    assert len(list_images(f"{tmp_path}/line [A]/*.png")) == 3
    assert len(list_images(f"{tmp_path}/part[12]/*.png")) == 3
    assert len(list_images(f"{tmp_path}/line [A]/day [1]/[01].png")) == 2
    assert len(list_images(f"{tmp_path}/l*/*.png")) == 3
    assert len(list_images(f"{tmp_path}/**/*.png")) == 12


def test_arrays_of_paths_and_of_images_are_lists(tmp_path: Path, image: np.ndarray) -> None:
    files = [str(tmp_path / f"{k}.png") for k in range(3)]
    for file in files:
        Image.fromarray(image).save(file)
    paths = [Path(file) for file in files]
    assert expand_sources(np.array(files)) == paths
    assert expand_sources(np.array(files, dtype="S")) == paths
    assert expand_sources(np.array(paths, dtype=object)) == paths
    assert expand_sources([np.array(files), files[0]]) == [*paths, paths[0]]
    different = np.array([image, image[:20], None], dtype=object)
    assert [getattr(source, "shape", None) for source in expand_sources(different)] == [(40, 60, 3), (20, 60, 3), None]
    with pytest.raises(ImageError, match="one column of images"):
        expand_sources(np.array([files]))


def test_a_column_of_a_table_is_a_list(tmp_path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(tmp_path / "0.png")

    class Column:  # as pandas' Series: iterable, and an array
        def __iter__(self) -> object:
            raise AssertionError

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return np.array([str(tmp_path / "0.png")], dtype=object)

    assert expand_sources(Column()) == [tmp_path / "0.png"]  # type: ignore[arg-type]


def test_tuple_list_and_generator_are_alike(image: np.ndarray) -> None:
    images = [image, image[:20]]
    for given in (images, tuple(images), (one for one in images)):
        assert [source.shape for source in expand_sources(given)] == [(40, 60, 3), (20, 60, 3)]


def test_encoded_images_are_single(image: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    for single in (buffer.getvalue(), bytearray(buffer.getvalue()), memoryview(buffer.getvalue()), buffer):
        assert expand_sources(single) == [single]
        assert expand_sources([single, image])[0] is single


def test_errors_stay_in_their_place(tmp_path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(tmp_path / "good.png")
    (tmp_path / "empty").mkdir()
    given = [tmp_path / "good.png", tmp_path / "missing.png", tmp_path / "empty", image]
    kept = expand_sources(given, keep_errors=True)
    assert [type(entry) for entry in kept[1:3]] == [ImageError, ImageError]
    assert kept[0] == tmp_path / "good.png"
    assert kept[3] is image
    with pytest.raises(ImageError, match=r"missing\.png"):
        expand_sources(given)
    (error,) = expand_sources(tmp_path / "missing.png", keep_errors=True)
    assert isinstance(error, ImageError)
