"""The folder of pictures: within its quota, and never in the way of a verdict."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fewshot_ad.line.journal import Journal, JournalError, PictureFolder, pictures
from tests.line.conftest import make_record

JPEG = b"\xff\xd8\xff" + bytes(97)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.open(tmp_path / "journal.db", "s")


def keep(folder: PictureFolder, journal: Journal, verdict: str) -> str:
    record = make_record(verdict=verdict)
    picture = folder.store(record.id, JPEG)
    assert picture is not None
    journal.add(record, [picture])
    return picture.name


def test_a_picture_is_found_again(tmp_path: Path, journal: Journal) -> None:
    folder = PictureFolder(tmp_path / "pictures", journal, 10_000)
    name = keep(folder, journal, "good")
    assert name.endswith(".jpg")
    assert folder.read(name) == JPEG
    assert folder.read("no/such.jpg") is None
    assert folder.nbytes == 100
    # A further start counts what there is.
    assert PictureFolder(tmp_path / "pictures", journal, 10_000).nbytes == 100


def test_the_oldest_of_good_parts_make_room_first(tmp_path: Path, journal: Journal) -> None:
    folder = PictureFolder(tmp_path / "pictures", journal, 500)
    names = [keep(folder, journal, verdict) for verdict in ("anomalous", "good", "good", "anomalous", "good")]
    keep(folder, journal, "anomalous")
    there = [folder.read(name) is not None for name in names]
    assert there == [True, False, False, True, True]
    assert folder.nbytes <= 500
    for _ in range(4):
        keep(folder, journal, "anomalous")
    # None of good ones is left: now the oldest of the others go, and the journal says so.
    assert folder.read(names[0]) is None
    assert "since no more of good ones were left" in journal.events(kinds=["dropped"])[0].text
    on_disk = sum(path.stat().st_size for path in (tmp_path / "pictures").rglob("*.jpg"))
    assert on_disk == folder.nbytes <= 500


def test_a_full_disk_keeps_no_picture_and_stops_nothing(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PictureFolder(tmp_path / "pictures", journal, 10_000)

    def full(path: Path, data: bytes, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(pictures, "write_atomically", full)
    assert folder.store(make_record().id, JPEG) is None
    assert folder.nbytes == 0


def test_a_full_disk_is_relieved_of_old_pictures(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PictureFolder(tmp_path / "pictures", journal, 10_000)
    old = keep(folder, journal, "good")
    real, calls = pictures.write_atomically, []

    def full_once(path: Path, data: bytes, **options: bool) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, data, **options)

    monkeypatch.setattr(pictures, "write_atomically", full_once)
    assert folder.store(make_record().id, JPEG) is not None
    assert folder.read(old) is None


def test_a_name_leads_nowhere_else(tmp_path: Path, journal: Journal) -> None:
    folder = PictureFolder(tmp_path / "pictures", journal, 10_000)
    for name in ("../journal.db", "/etc/hostname", "a/../../journal.db"):
        with pytest.raises(JournalError, match="leads elsewhere"):
            folder.read(name)


def test_many_pictures_do_not_make_the_next_one_slow(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PictureFolder(tmp_path / "pictures", journal, 10_000_000)
    name = keep(folder, journal, "good")
    listed: list[object] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda *args: listed.append(args) or real(*args))
    keep(folder, journal, "good")
    # Nothing looks through a folder that a line fills all day.
    assert listed == []
    assert folder.read(name) == JPEG


def test_what_a_killed_station_has_left_is_swept(tmp_path: Path, journal: Journal) -> None:
    from fewshot_ad.storage.temporary import temporary_file

    folder = PictureFolder(tmp_path / "pictures", journal, 10_000_000)
    place = folder.path(keep(folder, journal, "good")).parent
    left, descriptor = temporary_file(place, private=False)
    os.close(descriptor)
    PictureFolder(tmp_path / "pictures", journal, 10_000_000)
    assert not left.exists()
    assert len(list(place.iterdir())) == 1
