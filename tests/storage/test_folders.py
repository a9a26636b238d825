from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewshot_ad.storage import folders, replace_folder

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="modes and links are those of POSIX")


def fill(folder: Path, content: str, former: tuple[str, ...] = ("one", "two")) -> None:
    with replace_folder(folder, former, "two") as staging:
        for name in ("one", "two"):
            (staging / name).write_text(content)


def fail_half_way(folder: Path) -> None:
    with replace_folder(folder, ("one", "two"), "two") as staging:
        (staging / "one").write_text("half")
        raise KeyError


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_folder_is_new_as_a_whole_and_what_else_lies_in_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_one_step: bool
) -> None:
    if not in_one_step:
        monkeypatch.setattr(folders, "_exchange_names", lambda one, other: False)
    folder = tmp_path / "deep" / "out"
    fill(folder, "old")
    (folder / "mine").write_text("kept")
    (folder / "sub").mkdir()
    (folder / "sub" / "mine").write_text("kept too")
    (folder / "three").write_text("of the former")
    fill(folder, "new", ("one", "two", "three"))
    assert contents(folder) == {"one": "new", "two": "new", "mine": "kept"}
    assert contents(folder / "sub") == {"mine": "kept too"}
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_a_failure_leaves_the_older_folder_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    for _ in range(2):
        with pytest.raises(KeyError):
            fail_half_way(folder)
        assert list(tmp_path.iterdir()) == []
    fill(folder, "old")
    with pytest.raises(KeyError):
        fail_half_way(folder)
    assert contents(folder) == {"one": "old", "two": "old"}
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


@needs_posix
def test_mode_and_link_of_a_folder_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    fill(real, "old")
    real.chmod(0o750)
    link.symlink_to(real)
    fill(link, "new")
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o750
    assert contents(real) == {"one": "new", "two": "new"}


def test_an_empty_mount_is_filled_and_a_full_one_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path)
    fill(tmp_path, "first")
    assert contents(tmp_path) == {"one": "first", "two": "first"}
    with pytest.raises(OSError, match="not empty"):
        fill(tmp_path, "second")
    assert contents(tmp_path) == {"one": "first", "two": "first"}


@needs_posix
def test_a_folder_in_which_something_is_mounted_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    fill(folder, "old")
    (folder / "sub" / "disk").mkdir(parents=True)
    (folder / "sub" / "disk" / "precious").write_text("of another disk")
    with monkeypatch.context() as mounted:
        mounted.setattr(os.path, "ismount", lambda path: Path(path) == folder / "sub" / "disk")
        with pytest.raises(OSError, match=r"disk in it is mounted"):
            fill(folder, "new")
        # Nor is it removed with a folder that was left behind.
        folders.remove_tree(folder)
    link = os.link

    def same_disk_mounted_twice(source: str, target: str, **options: bool) -> None:
        if "precious" in str(source):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        link(source, target, **options)

    with monkeypatch.context() as mounted:
        mounted.setattr(os, "link", same_disk_mounted_twice)
        with pytest.raises(OSError, match="precious in it is mounted"):
            fill(folder, "new")
    assert contents(folder) == {"one": "old", "two": "old"}
    assert contents(folder / "sub" / "disk") == {"precious": "of another disk"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@needs_posix
def test_what_else_lies_in_the_folder_is_the_same_file_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    fill(folder, "old")
    (folder / "sub").mkdir(0o750)
    (folder / "sub" / "mine").write_text("kept")
    if os.geteuid() == 0:
        os.chown(folder / "sub", 65534, 65534)
    owner, number = (folder / "sub").stat(), (folder / "sub" / "mine").stat().st_ino
    fill(folder, "new")
    found = (folder / "sub").stat()
    assert (found.st_uid, found.st_gid, found.st_mode) == (owner.st_uid, owner.st_gid, owner.st_mode)
    assert (folder / "sub" / "mine").stat().st_ino == number


@needs_posix
def test_a_kill_between_two_renames_is_mended_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    fill(folder, "old")
    (folder / "mine").write_text("kept")
    script = (
        "import os, sys\nfrom fewshot_ad.storage import folders, replace_folder\nfrom pathlib import Path\n"
        "folders._exchange_names = lambda one, other: False\nrename = os.rename\n"
        "def once(*a):\n    rename(*a)\n    os._exit(9)\n"
        "os.rename = once\n"
        "with replace_folder(sys.argv[1], ('one', 'two'), 'two') as staging:\n"
        "    (staging / 'one').write_text('new')\n    (staging / 'two').write_text('new')\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(folder)], check=False).returncode == 9
    with pytest.raises(KeyError), replace_folder(folder, (), "two"):
        raise KeyError
    assert contents(folder) == {"one": "old", "two": "old", "mine": "kept"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux exchanges two names in one step")
def test_kills_at_any_moment_leave_one_of_the_folders_whole(tmp_path: Path) -> None:
    writes = (
        "import sys\nfrom fewshot_ad.storage import replace_folder\nprint('ready', flush=True)\n"
        "while True:\n    for letter in 'ab':\n"
        "        with replace_folder(sys.argv[1], ('one', 'two'), 'two') as staging:\n"
        "            for name in ('one', 'two'):\n                (staging / name).write_text(letter * 50_000)\n"
    )
    folder = tmp_path / "out"
    fill(folder, "a" * 50_000)
    (folder / "mine").write_text("kept")
    for delay in (0.0, 0.003, 0.007, 0.012, 0.02):
        with subprocess.Popen([sys.executable, "-c", writes, str(folder)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        found = contents(folder)
        assert found.pop("mine") == "kept"
        assert found in ({"one": letter * 50_000, "two": letter * 50_000} for letter in "ab")
    fill(folder, "end")
    assert contents(folder) == {"one": "end", "two": "end", "mine": "kept"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
