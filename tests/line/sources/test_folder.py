"""Each file that is put into a folder is inspected once, when it is whole, and moved to its verdict."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fewshot_ad.errors import NotEnrolledError, StationError
from fewshot_ad.line.settings import FolderEntry
from fewshot_ad.line.sources import BusyError, FolderSource
from fewshot_ad.line.sources import folder as module
from tests.line.sources.helpers import StandIn, wait_until

Watch = Callable[..., FolderSource]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.05)


@pytest.fixture
def station() -> StandIn:
    return StandIn()


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    made = tmp_path / "incoming"
    made.mkdir()
    return made


@pytest.fixture
def watch(incoming: Path, station: StandIn) -> Iterator[Watch]:
    watching = []

    def start(max_bytes: int = 1000, **more: object) -> FolderSource:
        entry = FolderEntry.model_validate({"path": str(incoming), "every_s": 0.02} | more)
        source = FolderSource(entry, station, max_bytes=max_bytes)
        source.start()
        watching.append(source)
        return source

    yield start
    for source in watching:
        source.stop()


def put(path: Path, content: str, age_s: float = 10.0) -> Path:
    """A file that appears at once, and was written a while ago."""
    part = path.with_name(f".{path.name}")
    part.write_text(content)
    then = time.time_ns() - int(age_s * 1e9)
    os.utime(part, ns=(then, then))
    part.rename(path)
    return path


def below(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_files_are_moved_to_their_verdicts_the_oldest_first(incoming: Path, station: StandIn, watch: Watch) -> None:
    put(incoming / "b.png", "good 1", 50)
    put(incoming / "a.png", "anomalous 2", 40)
    put(incoming / "c.JPG", "review 3", 30)
    put(incoming / "d.tif", "not_inspectable 4", 20)
    put(incoming / "e.heic", "something else", 10)
    source = watch(product="bracket")
    wait_until(lambda: source.state.seen == 5 and not list(incoming.glob("*.*")))
    assert station.names == ["b.png", "a.png", "c.JPG", "d.tif", "e.heic"]
    assert below(incoming / "done") == {
        "good/b.png": "good 1",
        "not_inspectable/d.tif": "not_inspectable 4",
        "reject/a.png": "anomalous 2",
        "review/c.JPG": "review 3",
        "unreadable/e.heic": "something else",
    }
    first = station.sent[0]
    assert (first.image, first.product, first.source) == (b"good 1", "bracket", "folder:incoming")
    assert source.state == module.SourceState("folder:incoming", True, "", 5)
    source.stop()
    assert not source.state.running


def test_a_file_that_grows_is_waited_for(incoming: Path, station: StandIn, watch: Watch) -> None:
    source = watch(every_s=0.5)
    growing = incoming / "growing.png"
    with growing.open("w") as file:
        for part in ["good "] + ["x" * 10] * 20:
            file.write(part)
            file.flush()
            time.sleep(0.01)
    put(incoming / "whole.png", "good whole", 100)
    wait_until(lambda: source.state.seen == 2)
    content = {one.name: one.image for one in station.sent}
    assert content == {"growing.png": b"good " + b"x" * 200, "whole.png": b"good whole"}


def test_an_empty_file_is_given_time(incoming: Path, station: StandIn, watch: Watch) -> None:
    (incoming / "filled.png").touch()
    (incoming / "empty.png").touch()
    # Ten looks are two seconds.
    source = watch(every_s=0.2)
    time.sleep(0.5)
    (incoming / "filled.png").write_text("good after a while")
    wait_until(lambda: source.state.seen == 2)
    content = {one.name: one.image for one in station.sent}
    assert content == {"empty.png": b"", "filled.png": b"good after a while"}
    wait_until(lambda: (incoming / "done" / "unreadable" / "empty.png").exists())


def test_what_is_no_image_or_not_complete_is_left(
    incoming: Path, station: StandIn, watch: Watch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_text("good for nobody")
    for name in ("notes.txt", "a.png.part", "b.tmp", "c.PNG.TMP", ".hidden.png"):
        (incoming / name).write_text("good")
    (incoming / "link.png").symlink_to(secret)
    (incoming / "folder.png").mkdir()
    os.mkfifo(incoming / "pipe.png")
    source = watch()
    put(incoming / "last.png", "good")
    wait_until(lambda: source.state.seen == 1)
    assert station.names == ["last.png"]
    assert source.state.error == ""
    told = [record.getMessage() for record in caplog.records if "is left there" in record.getMessage()]
    assert sorted(line.split(": ")[1].split(" is")[0] for line in told) == ["link.png", "notes.txt", "pipe.png"]
    assert secret.exists()


def test_names_that_come_again_do_not_replace_each_other(incoming: Path, station: StandIn, watch: Watch) -> None:
    source = watch()
    for number in range(3):
        put(incoming / "image.png", f"good {number}", 100 - number)
        wait_until(lambda number=number: source.state.seen == number + 1 and not (incoming / "image.png").exists())
    found = below(incoming / "done")
    assert sorted(found.values()) == ["good 0", "good 1", "good 2"]
    assert set(found) == {"good/image.png", *(f"good/image_{one.record.id}.png" for one in station.sent[1:])}


def test_what_was_judged_before_a_kill_is_not_counted_again(
    incoming: Path, station: StandIn, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(incoming / "a.png", "anomalous")

    def killed(*_: object) -> None:
        raise OSError(errno.EIO, "killed before the move")

    monkeypatch.setattr(module, "move", killed)
    source = watch()
    wait_until(lambda: "killed before" in source.state.error)
    source.stop()
    assert path.exists()
    monkeypatch.undo()
    source = watch()
    wait_until(lambda: (incoming / "done" / "reject" / "a.png").exists())
    assert station.asked == 2
    assert len(station.sent) == 1


def test_a_file_that_is_put_there_again_is_inspected_again(incoming: Path, station: StandIn, watch: Watch) -> None:
    path = put(incoming / "a.png", "anomalous")
    source = watch()
    wait_until(lambda: source.state.seen == 1 and not path.exists())
    # As it is, with its times: somebody wants to know what the product says now.
    (incoming / "done" / "reject" / "a.png").rename(path)
    wait_until(lambda: source.state.seen == 2 and not path.exists())
    assert len({one.key for one in station.sent}) == 2


def test_a_file_that_is_replaced_while_it_is_inspected_is_not_lost(incoming: Path) -> None:
    path = put(incoming / "current.png", "good 1", 100)

    class Slow(StandIn):
        def __call__(self, image, **more):  # type: ignore[no-untyped-def]
            if not self.sent:
                put(path, "anomalous 2", 50)
            return super().__call__(image, **more)

    slow = Slow()
    source = FolderSource(FolderEntry.model_validate({"path": str(incoming), "every_s": 0.02}), slow)
    source.start()
    wait_until(lambda: not path.exists())
    source.stop()
    assert [one.image for one in slow.sent] == [b"good 1", b"anomalous 2"]
    assert below(incoming / "done") == {"reject/current.png": "anomalous 2"}


def test_a_busy_station_is_asked_again_in_order(incoming: Path, station: StandIn, watch: Watch) -> None:
    station.failures = [BusyError("8 wait")] * 3
    for number in range(4):
        put(incoming / f"{number}.png", "good", 100 - number)
    source = watch()
    wait_until(lambda: source.state.seen == 4)
    assert station.names == ["0.png", "1.png", "2.png", "3.png"]
    assert source.state.error == ""


def test_a_station_without_a_journal_is_told_and_tried_again(incoming: Path, station: StandIn, watch: Watch) -> None:
    station.failures = [StationError("the disk is full")] * 8
    path = put(incoming / "a.png", "good")
    source = watch()
    wait_until(lambda: source.state.error == "no verdict on a.png: the disk is full")
    assert path.exists()
    wait_until(lambda: source.state.seen == 1)
    wait_until(lambda: source.state.error == "")


def test_one_file_that_fails_does_not_stop_the_others(incoming: Path) -> None:
    class Picky(StandIn):
        def __call__(self, image, **more):  # type: ignore[no-untyped-def]
            if image == b"good bad":
                raise NotEnrolledError("no such product")
            return super().__call__(image, **more)

    picky = Picky()
    put(incoming / "a.png", "good bad", 100)
    put(incoming / "b.png", "good", 50)
    source = FolderSource(FolderEntry.model_validate({"path": str(incoming), "every_s": 0.02}), picky)
    source.start()
    wait_until(lambda: source.state.seen == 1 and "no verdict on a.png: no such product" in source.state.error)
    source.stop()
    assert picky.names == ["b.png"]
    assert (incoming / "a.png").exists()


def test_a_file_that_may_not_be_read_is_told_once_and_waited_for(
    incoming: Path, station: StandIn, watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original, locked = module._open_no_link, threading.Event()

    def guarded(path: str, flags: int) -> int:
        # The tests may run as root, whom no rights stop.
        if Path(path).name == "a.png" and not locked.is_set():
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path, flags)

    monkeypatch.setattr(module, "_open_no_link", guarded)
    put(incoming / "a.png", "good", 100)
    put(incoming / "b.png", "good", 50)
    source = watch()
    wait_until(lambda: station.names == ["b.png"])
    wait_until(lambda: "a.png and to move it" in source.state.error and "Permission denied" in source.state.error)
    time.sleep(0.1)
    assert sum("Permission denied" in record.getMessage() for record in caplog.records) == 1
    locked.set()
    wait_until(lambda: source.state.seen == 2)
    wait_until(lambda: source.state.error == "")


def test_a_folder_that_vanishes_is_waited_for(incoming: Path, station: StandIn, watch: Watch) -> None:
    incoming.rmdir()
    source = watch()
    wait_until(lambda: "expected a folder at" in source.state.error)
    assert source.state.running
    incoming.mkdir()
    put(incoming / "a.png", "good")
    wait_until(lambda: source.state.seen == 1)
    wait_until(lambda: source.state.error == "")


def test_a_file_that_is_too_large_is_recorded_and_not_read(incoming: Path, station: StandIn, watch: Watch) -> None:
    put(incoming / "large.png", "good" * 1000)
    source = watch(max_bytes=3999)
    wait_until(lambda: (incoming / "done" / "unreadable" / "large.png").exists())
    assert [one.image for one in station.sent] == [b""]
    assert source.state.error == ""


def test_images_go_to_another_disk_whole_or_not_at_all(
    incoming: Path, station: StandIn, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.replace

    def across(source: Path, target: Path) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        original(source, target)

    monkeypatch.setattr(module.os, "replace", across)
    path = put(incoming / "a.png", "good")
    written = path.stat().st_mtime_ns
    source = watch(done=str(tmp_path / "elsewhere" / "done"))
    moved = tmp_path / "elsewhere" / "done" / "good" / "a.png"
    wait_until(lambda: moved.exists() and not path.exists())
    assert moved.read_text() == "good"
    assert moved.stat().st_mtime_ns == written
    assert list(moved.parent.iterdir()) == [moved]
    assert source.state.error == ""


def test_a_folder_that_may_not_be_written_leaves_no_copies(
    incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(incoming / "a.png", "good")

    def refused(self: Path, missing_ok: bool = False) -> None:
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied")
        os.unlink(self) if self.exists() else None

    monkeypatch.setattr(module.Path, "unlink", refused)
    target = tmp_path / "done" / "a.png"
    target.parent.mkdir()
    with pytest.raises(PermissionError):
        module._move_across(path, target)
    assert path.exists()
    assert list(target.parent.iterdir()) == []


def test_done_that_cannot_be_made_is_told_and_nothing_is_judged_twice(
    incoming: Path, station: StandIn, watch: Watch, tmp_path: Path
) -> None:
    blocker = tmp_path / "done"
    blocker.write_text("a file in the way")
    put(incoming / "a.png", "good")
    source = watch(done=str(blocker))
    wait_until(lambda: "to move it below" in source.state.error)
    time.sleep(0.1)
    assert station.asked == 1
    blocker.unlink()
    wait_until(lambda: (blocker / "good" / "a.png").exists())
    wait_until(lambda: source.state.error == "")
    assert station.asked == 1


def test_a_name_that_is_no_text_is_shown_escaped(incoming: Path, station: StandIn, watch: Watch) -> None:
    raw = os.fsencode(incoming) + b"/\xff\n.png"
    with open(raw, "w") as file:
        file.write("good")
    source = watch()
    wait_until(lambda: source.state.seen == 1)
    assert station.names == [r"\xff\n.png"]
    assert station.sent[0].record.to_json()
    wait_until(lambda: not os.path.exists(raw))


def test_a_stop_does_not_wait_for_ever(incoming: Path) -> None:
    go = threading.Event()

    class Stuck(StandIn):
        def __call__(self, image, **more):  # type: ignore[no-untyped-def]
            go.wait(10)
            return super().__call__(image, **more)

    put(incoming / "a.png", "good")
    source = FolderSource(FolderEntry.model_validate({"path": str(incoming), "every_s": 0.02}), Stuck())
    source.start()
    time.sleep(0.1)
    began = time.monotonic()
    source.stop(wait_s=0.1)
    assert time.monotonic() - began < 8, "it waited for the image that is stuck"
    go.set()
    wait_until(lambda: (incoming / "done" / "good" / "a.png").exists())
