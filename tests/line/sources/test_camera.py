"""Frames of a camera are inspected every so often or when asked for, and a camera that is gone comes back."""

from __future__ import annotations

import itertools
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import StationError
from fewshot_ad.line.settings import CameraEntry
from fewshot_ad.line.sources import BusyError, CameraSource
from fewshot_ad.line.sources import camera as module
from fewshot_ad.line.sources.genicam import GenicamCapture, pixels_of
from tests.line.sources.helpers import StandIn, wait_until


@pytest.fixture
def station() -> StandIn:
    return StandIn()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Twelve frames of 48 x 32, red ones that become darker, 25 in a second."""
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (48, 32))
    for number in range(12):
        writer.write(np.full((32, 48, 3), (0, 0, 240 - 20 * number), np.uint8))
    writer.release()
    return path


def entry_of(device: int | str, **more: Any) -> CameraEntry:
    return CameraEntry.model_validate({"device": device} | more)


def test_frames_of_a_video_are_inspected_until_it_ends(video: Path, station: StandIn) -> None:
    source = CameraSource(entry_of(str(video), every_s=0.001, name="belt", product="bracket"), station)
    assert source.latest() is None
    source.start()
    wait_until(lambda: not source.state.running)
    assert source.state == module.SourceState("camera:belt", False, f"the video {video} has ended", 12)
    reds = [int(one.image[16, 24, 0]) for one in station.sent]
    assert reds == sorted(reds, reverse=True)
    assert all(abs(red - (240 - 20 * number)) < 8 for number, red in enumerate(reds))
    first = station.sent[0]
    assert first.image.shape == (32, 48, 3)
    assert first.image.dtype == np.uint8
    assert first.image[..., 1:].max() < 8
    assert (first.product, first.source, first.key) == ("bracket", "camera:belt", None)
    assert source.latest() is None
    source.stop()


def test_of_a_video_one_frame_for_each_interval_of_it_is_inspected(video: Path, station: StandIn) -> None:
    source = CameraSource(entry_of(str(video), every_s=0.16), station)
    source.start()
    wait_until(lambda: not source.state.running)
    assert source.state.seen == 3
    assert [round((240 - int(one.image[16, 24, 0])) / 20) for one in station.sent] == [0, 4, 8]


def test_a_video_that_is_missing_or_broken_is_told(tmp_path: Path, station: StandIn) -> None:
    (tmp_path / "broken.avi").write_bytes(b"RIFF" + bytes(100))
    for name in ("missing.avi", "broken.avi"):
        source = CameraSource(entry_of(str(tmp_path / name)), station)
        source.start()
        wait_until(lambda source=source: not source.state.running)
        assert f"expected a camera, stream or video at {tmp_path / name}, cannot open it" in source.state.error


class Live:
    """A camera: frames one after the other, each with its number as brightness, until it is unplugged."""

    plugged = threading.Event()
    opened: ClassVar[list[object]] = []
    released = 0
    numbers: Iterator[int]

    def __init__(self, device: object) -> None:
        if not self.plugged.is_set():
            raise StationError(f"expected a camera at {device}")
        self.opened.append(device)

    def read(self) -> Uint8Array | None:
        time.sleep(0.005)
        return np.full((4, 6, 3), next(Live.numbers) % 256, np.uint8) if self.plugged.is_set() else None

    def release(self) -> None:
        Live.released += 1


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> type[Live]:
    monkeypatch.setattr(module, "VideoCapture", Live)
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.02)
    Live.plugged.set()
    Live.opened, Live.released, Live.numbers = [], 0, itertools.count()
    return Live


Start = Callable[..., CameraSource]


@pytest.fixture
def start(live: type[Live], station: StandIn) -> Iterator[Start]:
    started = []

    def begin(device: int | str = 0, *, free_running: bool = True, **more: Any) -> CameraSource:
        source = CameraSource(entry_of(device, **({"every_s": 0.01} | more)), station, free_running=free_running)
        source.start()
        started.append(source)
        return source

    yield begin
    for source in started:
        source.stop()


def test_a_camera_is_inspected_every_so_often(live: type[Live], station: StandIn, start: Start) -> None:
    source = start(2, every_s=0.05)
    wait_until(lambda: source.state.seen >= 3)
    source.stop()
    assert source.state.name == "camera:2"
    assert live.opened == [2]
    assert live.released == 1
    numbers = [int(one.image[0, 0, 0]) for one in station.sent]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] >= len(numbers), "more frames came than were inspected"
    assert len(station.sent[0].name) == len("20260101T120000.000Z")


def test_a_camera_that_is_unplugged_comes_back(live: type[Live], station: StandIn, start: Start) -> None:
    source = start()
    wait_until(lambda: source.state.seen > 0)
    live.plugged.clear()
    wait_until(lambda: "expected a" in source.state.error)
    assert source.state.running
    assert source.latest() is None
    seen = source.state.seen
    time.sleep(0.05)
    assert source.state.seen <= seen + 1
    live.plugged.set()
    wait_until(lambda: source.state.seen > seen + 1 and source.state.error == "")
    assert source.latest() is not None


def test_a_trigger_takes_a_frame_that_came_after_it(live: type[Live], station: StandIn, start: Start) -> None:
    source = start(free_running=False)
    wait_until(lambda: source.latest() is not None)
    time.sleep(0.05)
    assert station.sent == []
    before = int(source.latest()[0, 0, 0])
    record = source.trigger()
    assert station.sent[0].record == record
    assert int(station.sent[0].image[0, 0, 0]) > before
    assert source.state.seen == 1


def test_triggers_of_several_threads_each_get_their_record(station: StandIn, start: Start) -> None:
    source = start(free_running=False)
    records = []
    threads = [threading.Thread(target=lambda: records.append(source.trigger())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({record.id for record in records}) == 4
    assert source.state.seen == 4


def test_a_trigger_without_a_camera_is_an_error(
    live: type[Live], station: StandIn, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIGGER_S", 0.1)
    live.plugged.clear()
    source = start(free_running=False, name="belt")
    wait_until(lambda: bool(source.state.error))
    with pytest.raises(StationError, match=r"frame of camera:belt within 0\.1 s, got none\. expected a camera at 0"):
        source.trigger()
    source.stop()
    with pytest.raises(StationError, match="got none"):
        source.trigger()


def test_a_trigger_passes_on_why_there_is_no_verdict(station: StandIn, start: Start) -> None:
    source = start(free_running=False)
    station.failures = [BusyError("8 wait")]
    with pytest.raises(BusyError, match="8 wait"):
        source.trigger()


def test_a_frame_without_a_verdict_is_told_and_the_next_one_inspected(station: StandIn, start: Start) -> None:
    station.failures = [StationError("the disk is full")] * 1000
    source = start()
    wait_until(lambda: source.state.error == "a frame got no verdict: the disk is full")
    station.failures = []
    wait_until(lambda: source.state.seen > 0 and source.state.error == "")


def test_a_stop_waits_for_nothing(start: Start) -> None:
    source = start(every_s=1000.0)
    wait_until(lambda: source.state.seen == 1)
    began = time.monotonic()
    source.stop()
    assert time.monotonic() - began < 1
    assert not source.state.running


def test_a_password_of_a_stream_is_not_shown() -> None:
    source = CameraSource(entry_of("rtsp://user:secret@cam.plant:554/one@two"), StandIn())
    assert source.name == "camera:cam.plant-one@two"


def test_a_number_may_be_text(live: type[Live], start: Start) -> None:
    source = start("3")
    wait_until(lambda: source.state.seen > 0)
    assert live.opened == [3]


# --- GenICam, by what stands in for harvesters and a producer ---


class Acquirer:
    """Gives frames, and every other time none, as where a packet got lost."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fetches = 0

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def destroy(self) -> None:
        self.calls.append("destroy")

    def try_fetch(self, *, timeout: float) -> Any:
        assert timeout > 0
        self.fetches += 1
        if self.fetches % 2:
            return None
        component = types.SimpleNamespace(data=np.arange(12, dtype=np.uint8), height=3, width=4, data_format="Mono8")
        acquirer = self

        class Buffer:
            payload = types.SimpleNamespace(components=[component])

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                # It is the camera's again: what was read from it must be a copy.
                component.data[:] = 0
                acquirer.calls.append("queued")

        return Buffer()


class Harvester:
    """Knows one camera."""

    made: ClassVar[list[Harvester]] = []

    def __init__(self) -> None:
        self.files: list[str] = []
        self.device_info_list: list[Any] = []
        self.acquirer = Acquirer()
        self.was_reset = False
        Harvester.made.append(self)

    def add_file(self, path: str) -> None:
        self.files.append(path)

    def update(self) -> None:
        self.device_info_list = [types.SimpleNamespace(serial_number="CAM7")]

    def create(self, search_key: dict[str, str] | None) -> Acquirer:
        if search_key not in (None, {"serial_number": "CAM7"}):
            raise ValueError("no such device")
        return self.acquirer

    def reset(self) -> None:
        self.was_reset = True


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    core = types.ModuleType("harvesters.core")
    core.Harvester = Harvester  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "harvesters", types.ModuleType("harvesters"))
    monkeypatch.setitem(sys.modules, "harvesters.core", core)
    Harvester.made = []
    (tmp_path / "maker.cti").touch()
    return str(tmp_path / "maker.cti")


def test_a_genicam_camera_is_inspected_and_let_go(producer: str, station: StandIn) -> None:
    source = CameraSource(entry_of("genicam:CAM7", every_s=0.01, producer=producer), station)
    source.start()
    wait_until(lambda: source.state.seen >= 2)
    source.stop()
    assert source.state.error == ""
    expected = np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4, 1), 3, axis=2)
    assert all(np.array_equal(one.image, expected) for one in station.sent)
    (harvester,) = Harvester.made
    assert harvester.files == [producer]
    assert harvester.was_reset
    calls = harvester.acquirer.calls
    assert (calls[0], calls[-2:], set(calls[1:-2])) == ("start", ["stop", "destroy"], {"queued"})


def test_a_genicam_camera_that_is_not_there_is_named(producer: str) -> None:
    with pytest.raises(StationError, match=r"GenICam camera OTHER, cannot open it .* Cameras found: CAM7"):
        GenicamCapture("OTHER", producer)
    assert Harvester.made[0].was_reset
    GenicamCapture("", producer).release()
    for missing in (None, "/nowhere.cti"):
        with pytest.raises(StationError, match=r"a \.cti file, got (none|/nowhere\.cti)"):
            GenicamCapture("CAM7", missing)


def test_a_missing_library_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "harvesters", None)
    with pytest.raises(StationError, match=r"pip install 'fewshot-ad\[genicam\]'"):
        GenicamCapture("CAM7", "maker.cti")


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [("BayerRG8", "RGGB"), ("BayerGR8", "GRBG"), ("BayerGB8", "GBRG"), ("BayerBG8", "BGGR")],
)
def test_colors_of_a_sensor_become_rgb(kind: str, pattern: str) -> None:
    color = {"R": 200, "G": 100, "B": 50}
    tile = np.array([color[letter] for letter in pattern], np.uint8).reshape(2, 2)
    image = pixels_of(np.tile(tile, (8, 8)).ravel(), 16, 16, kind)
    assert image.shape == (16, 16, 3)
    assert image[8, 8].tolist() == [200, 100, 50]


def test_formats_that_have_colors_keep_them_and_others_are_refused() -> None:
    data = np.arange(2 * 3 * 3, dtype=np.uint8)
    rgb = pixels_of(data, 2, 3, "RGB8")
    assert np.array_equal(rgb, data.reshape(2, 3, 3))
    assert not np.shares_memory(rgb, data)
    assert np.array_equal(pixels_of(data, 2, 3, "BGR8"), rgb[..., ::-1])
    with pytest.raises(StationError, match=r"got Mono12, 3 x 2 in 18 values\. Set the camera's PixelFormat"):
        pixels_of(data, 2, 3, "Mono12")
    with pytest.raises(StationError, match="got RGB8"):
        pixels_of(data, 3, 3, "RGB8")
