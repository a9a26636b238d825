from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad.enrollment.support import read_support
from fewshot_ad.errors import SupportSetError


def test_support_set_reports_what_it_noticed(tmp_path: Path, parts: list[np.ndarray]) -> None:
    for i, part in enumerate(parts[:3]):
        cv2.imwrite(str(tmp_path / f"{i}.png"), part[..., ::-1])
    cv2.imwrite(str(tmp_path / "same.png"), parts[0][..., ::-1])
    rng = np.random.default_rng(0)
    again = np.clip(parts[1].astype(int) + rng.integers(-1, 2, parts[1].shape), 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "twin.png"), again[..., ::-1])
    cv2.imwrite(str(tmp_path / "night.png"), parts[2] // 12)
    (tmp_path / "torn.png").write_bytes((tmp_path / "0.png").read_bytes()[:300])
    support = read_support(tmp_path)
    assert [image.name for image in support.images] == ["0.png", "1.png", "2.png", "night.png", "twin.png"]
    notes = "\n".join(support.notes)
    assert "identical to 0.png: same.png" in notes
    assert "nearly identical: 1.png and twin.png" in notes
    assert "almost black: night.png" in notes
    assert "torn.png" in notes


def test_two_different_parts_are_not_called_duplicates(parts: list[np.ndarray]) -> None:
    assert read_support(parts).notes == ()


@pytest.mark.parametrize("nothing", [[], ["nowhere/*.png"]])
def test_empty_support_set_is_refused(nothing: list[str]) -> None:
    with pytest.raises(SupportSetError, match=r"Give good images|nothing matches"):
        read_support(nothing)


def test_unreadable_support_set_names_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(SupportSetError, match=r"a\.png"):
        read_support(tmp_path)


def test_one_image_is_enough_but_said_to_be_little(parts: list[np.ndarray]) -> None:
    assert "only one image" in read_support(parts[0]).notes[0]


def test_a_large_support_set_is_read_again_instead_of_kept(part_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = read_support(part_folder).images
    monkeypatch.setattr("fewshot_ad.enrollment.support.KEPT_BYTES", 2 * 128 * 128 * 3)
    calls: list[tuple[str, int, int]] = []
    streamed = read_support(part_folder, progress=lambda *call: calls.append(call)).images
    assert [image.loaded is None for image in streamed] == [False, False, True, True, True]
    for a, b in zip(kept, streamed, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)
    assert calls[-1] == ("read", 5, 5)
    path = streamed[-1].source
    cv2.imwrite(str(path), np.zeros((128, 128, 3), np.uint8))
    with pytest.raises(SupportSetError, match="changed while"):
        _ = streamed[-1].pixels
    path.unlink()
    with pytest.raises(SupportSetError, match="cannot be now"):
        _ = streamed[-1].pixels
