from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

import pytest

from fewshot_ad.errors import ArtifactError, ExportError, FewshotADError
from fewshot_ad.storage import check_folder, check_output, write_failure


def test_a_new_name_and_an_empty_file_are_free(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "file")
    (tmp_path / "empty").touch()
    check_output(tmp_path / "empty", obstacle=lambda path: "is in use.")
    (tmp_path / "full").write_text("x")
    check_output(tmp_path / "full")
    with pytest.raises(ArtifactError, match=r"full: is in use\."):
        check_output(tmp_path / "full", obstacle=lambda path: "is in use.", error=ArtifactError)


def test_inputs_stay_under_whatever_name(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(b"x")
    (tmp_path / "link").symlink_to(image)
    os.link(image, tmp_path / "twin")
    for name in ("image.png", "link", "twin"):
        with pytest.raises(FewshotADError, match="this command reads"):
            check_output(tmp_path / name, inputs=[tmp_path / "gone", image])


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs are those of POSIX")
def test_special_files_stay(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    for name, kind in (("fifo", "a FIFO"), ("link", "a FIFO"), (".", "a folder")):
        with pytest.raises(FewshotADError, match=kind):
            check_output(tmp_path / name)


def test_folders_that_hold_more_than_their_own_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, home = tmp_path / "here" / "below", tmp_path / "home"
    for folder in (here, home, tmp_path / "free"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    (tmp_path / "free" / "input").write_text("x")
    for folder in (".", here, here.parent, home, tmp_path, Path(tmp_path.anchor)):
        with pytest.raises(ExportError, match="holds"):
            check_folder(folder, error=ExportError)
    check_folder(tmp_path / "free")
    check_folder("new")
    with pytest.raises(FewshotADError, match="this command reads"):
        check_folder(tmp_path / "free", inputs=[tmp_path / "free" / "input"])
    with pytest.raises(FewshotADError, match="a file"):
        check_folder(tmp_path / "free" / "input")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit"),
        (errno.EROFS, "mount it writable"),
        (errno.EACCES, "permissions"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.ENOTDIR, "a file and no folder"),
        (errno.EISDIR, "name a file in it"),
        (errno.EBUSY, "mount the folder above"),
        (errno.EXDEV, "mount the folder above"),
        (errno.ELOOP, "circle"),
        (errno.ETIMEDOUT, "Choose another place"),
    ],
)
def test_the_true_reason_is_given_with_what_helps(number: int, advice: str) -> None:
    message = write_failure("p.fsad", OSError(number, os.strerror(number)), 4_000_000)
    assert message.startswith(f"p.fsad: cannot be written ({os.strerror(number)}); 4.0 MB are needed. ")
    assert advice in message
    assert ("Free some space" in message or "free some space" in message) == (number in (errno.ENOSPC, errno.EDQUOT))


def test_a_name_that_was_meant_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for check in (check_output, check_folder):
        with pytest.raises(FewshotADError, match="null byte"):
            check("a\0.csv")
        with pytest.raises(FewshotADError, match=re.escape(os.path.expanduser("~/a.csv"))):
            check("~/a.csv")
        check("~nobody-of-this-name.csv")
    (tmp_path / "~").mkdir()
    check_output("~/a.csv")
