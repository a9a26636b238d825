from __future__ import annotations

from pathlib import Path

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
