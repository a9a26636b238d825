from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewshot_ad.storage import files, rename_to_free, replacing, write_atomically

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="modes, links and FIFOs are those of POSIX")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folders_are_made_and_the_content_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


@needs_posix
def test_a_new_file_is_what_the_system_makes_it_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "new", b"1")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode
    for mode in (0o600, 0o640, 0o660, 0o644):
        (tmp_path / "new").chmod(mode)
        write_atomically(tmp_path / "new", b"2")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode


@needs_posix
def test_a_private_file_is_readable_for_no_one_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "private").touch(mode=0o600)
    seen = []
    replace = os.replace

    def spy(source: Path, target: Path) -> None:
        seen.append(stat.S_IMODE(os.stat(source).st_mode))
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    write_atomically(tmp_path / "private", b"secret")
    assert seen == [0o600]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="NOT ROOT: a file cannot be given away")
def test_an_owner_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.chown(path, 12345, 23456)
    path.chmod(0o640)
    write_atomically(path, b"new")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 23456, 0o640)


@needs_posix
def test_another_group_reads_no_more_than_all_others_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o640)
    found = path.stat()
    strange = os.stat_result([*found[:4], found.st_uid + 1, found.st_gid + 1, *found[6:]])

    def refused(*args: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "fchown", refused)
    monkeypatch.setattr(files, "_former", lambda target: strange)
    write_atomically(path, b"new")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@needs_posix
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "real", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(Path("there") / "real")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["link", "there"]
    target.unlink()
    write_atomically(link, b"again")
    assert target.read_bytes() == b"again"


@needs_posix
def test_special_files_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket")
    Path("folder").mkdir()
    for name in ("fifo", "socket", "folder"):
        Path(f"to_{name}").symlink_to(name)
    kinds = {name: os.stat(name).st_mode for name in os.listdir()}
    for name in kinds:
        with pytest.raises(OSError, match=r"FIFO|socket|directory"):
            write_atomically(name, b"new")
    assert {name: os.stat(name).st_mode for name in os.listdir()} == kinds
    listener.close()


def test_the_longest_legal_name_works(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".fsad")
    write_atomically(path, b"1")
    write_atomically(path, b"2")
    assert path.read_bytes() == b"2"
    with pytest.raises(OSError, match="too long"):
        write_atomically(tmp_path / ("n" * 300), b"1")


@needs_posix
def test_a_hard_link_keeps_the_older_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"old")
    os.link(one, other)
    write_atomically(one, b"new")
    assert (one.read_bytes(), other.read_bytes()) == (b"new", b"old")


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EROFS, errno.EACCES])
def test_a_rename_that_fails_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def refused(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_atomically(tmp_path / "file", b"new")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_full_disk_leaves_the_older_file(tmp_path: Path) -> None:
    mount = shutil.which("mount")
    small = tmp_path / "small"
    small.mkdir()
    tmpfs = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if mount is None or subprocess.run([mount, *tmpfs], check=False, capture_output=True).returncode:
        pytest.skip("NO SMALL DISK: only root can mount one")
    try:
        write_atomically(small / "file", b"old")
        with pytest.raises(OSError, match="No space left"):
            write_atomically(small / "file", bytes(200_000))
        assert (small / "file").read_bytes() == b"old"
        assert names(small) == ["file"]
        before = (small / "file").stat().st_ino
        bind = subprocess.run([mount, "--bind", str(small / "file"), str(small / "file")], check=False)
        if bind.returncode == 0:
            try:
                with pytest.raises(OSError, match="busy"):
                    write_atomically(small / "file", b"new")
            finally:
                subprocess.run(["umount", str(small / "file")], check=True)
            assert ((small / "file").read_bytes(), (small / "file").stat().st_ino) == (b"old", before)
    finally:
        subprocess.run(["umount", str(small)], check=True)


@needs_posix
def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    killed = (
        "import os, sys\nfrom fewshot_ad.storage import write_atomically\n"
        "os.replace = lambda *a: os._exit(9)\nwrite_atomically(sys.argv[1], b'new')\n"
    )
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / ".fsad-mine.tmp").write_bytes(b"of the user")
    assert subprocess.run([sys.executable, "-c", killed, str(path)], check=False).returncode == 9
    assert path.read_bytes() == b"old"
    assert len(names(tmp_path)) == 3

    waits = (
        "import os, sys\nfrom fewshot_ad.storage import write_atomically\nreplace = os.replace\n"
        "def wait(*a):\n    print('writing', flush=True)\n    sys.stdin.readline()\n    replace(*a)\n"
        "os.replace = wait\nwrite_atomically(sys.argv[1], b'of the other')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", waits, str(tmp_path / "other")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == "writing\n"
        write_atomically(path, b"new")
        assert len(names(tmp_path)) == 3  # the file, the user's, and what the living one writes
        living.communicate("\n", timeout=60)
        assert living.returncode == 0
    assert (tmp_path / "other").read_bytes() == b"of the other"
    assert names(tmp_path) == [".fsad-mine.tmp", "file", "other"]


@needs_posix
def test_kills_at_any_moment_leave_one_of_the_contents_whole(tmp_path: Path) -> None:
    writes = (
        "import sys\nfrom fewshot_ad.storage import write_atomically\nprint('ready', flush=True)\n"
        "while True:\n    for letter in b'ab':\n        write_atomically(sys.argv[1], bytes([letter]) * 300_000)\n"
    )
    path = tmp_path / "file"
    write_atomically(path, b"a" * 300_000)
    for delay in (0.0, 0.003, 0.007, 0.012, 0.02):
        with subprocess.Popen([sys.executable, "-c", writes, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        data = path.read_bytes()
        assert data in (b"a" * 300_000, b"b" * 300_000)
    write_atomically(path, b"end")
    assert names(tmp_path) == ["file"]


def test_a_file_that_is_written_piece_by_piece_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def break_off() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        break_off()
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"ne")
        assert path.read_bytes() == b"old"
        file.write(b"w")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("links", [True, False])
def test_a_rename_replaces_nothing(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links on this disk")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        rename_to_free(source, target)
    assert (source.read_bytes(), target.read_bytes()) == (b"new", b"old")
    target.unlink()
    rename_to_free(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert target.read_bytes() == b"new"
