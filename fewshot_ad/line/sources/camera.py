"""A camera, a stream, or a video file: a frame is inspected every so often, or when it is asked for."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import StationError
from fewshot_ad.host.lifetime import native_work
from fewshot_ad.line.record import Record, utc_now
from fewshot_ad.line.settings import CameraEntry, camera_name
from fewshot_ad.line.sources.genicam import GenicamCapture
from fewshot_ad.line.sources.source import SourceState, Submit
from fewshot_ad.printable import printable

logger = logging.getLogger(__name__)

# Seconds between two tries of a camera that gives no frames: the first, and at most.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
# Seconds that a stream may take to open or to give a frame; FFmpeg would wait for half a minute.
STREAM_S = 5.0
# Seconds that a trigger waits for the frame after it.
TRIGGER_S = 2.0
GENICAM = "genicam:"


class Capture(Protocol):
    """A camera that is open."""

    def read(self) -> Uint8Array | None:
        """The next frame, (H, W, 3) uint8 RGB; None if there is none."""
        ...

    def release(self) -> None:
        """Let go of it."""
        ...


class VideoCapture:
    """What OpenCV opens: a camera by its number or path, a stream by its address, a video file.

    Args:
        device: Number, path or address.

    Raises:
        StationError: It cannot be opened.
    """

    def __init__(self, device: int | str) -> None:
        is_stream = isinstance(device, str) and "://" in device
        patience = int(STREAM_S * 1e3)
        times = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, patience, cv2.CAP_PROP_READ_TIMEOUT_MSEC, patience]
        self._capture = cv2.VideoCapture(device, cv2.CAP_FFMPEG, times) if is_stream else cv2.VideoCapture(device)
        if not self._capture.isOpened():
            raise StationError(
                f"expected a camera, stream or video at {_shown(device)}, cannot open it. Check its number, path or "
                "address, its cable, and that no other program has it."
            )

    @property
    def rate(self) -> float:
        """Frames per second, as far as it says."""
        return float(self._capture.get(cv2.CAP_PROP_FPS))

    def read(self) -> Uint8Array | None:
        """The next frame, (H, W, 3) uint8 RGB; None if there is none."""
        came, frame = self._capture.read()
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8) if came else None

    def skip(self) -> None:
        """Pass over the next frame, if there is one."""
        self._capture.grab()

    def release(self) -> None:
        """Let go of it."""
        self._capture.release()


class CameraSource:
    """Inspects frames of a camera.

    One thread takes every frame, so that the newest is never an old one that waited in a buffer, and another has one
    inspected every `every_s` seconds. A camera that gives no more frames is opened again, until it does. Of a video
    file, one frame for each `every_s` seconds of it is inspected, whatever that takes, and its end is the end.

    Args:
        entry: Which camera.
        submit: What inspects.
        free_running: Whether frames are inspected every `every_s` seconds; else only those that `trigger` asks for.
    """

    def __init__(self, entry: CameraEntry, submit: Submit, *, free_running: bool = True) -> None:
        self._entry, self._submit, self._free_running = entry, submit, free_running
        self.name = f"camera:{printable(camera_name(entry))}"
        self._is_file = _is_file(entry.device)
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._frame: Uint8Array | None = None
        self._count, self._seen = 0, 0
        # Of the camera itself, and of having its frames inspected.
        self._camera_error, self._submit_error = "", ""
        runs = [self._read_file] if self._is_file else [self._read_live]
        if free_running and not self._is_file:
            runs.append(self._inspect_live)
        self._threads = [threading.Thread(target=run, name=f"fewshot-ad-{self.name}", daemon=True) for run in runs]

    @property
    def state(self) -> SourceState:
        """How it is doing now."""
        running = self._threads[0].is_alive() and not self._stop.is_set()
        return SourceState(self.name, running, self._camera_error or self._submit_error, self._seen)

    def start(self) -> None:
        """Begin; once."""
        for thread in self._threads:
            thread.start()

    def stop(self, wait_s: float = 5.0) -> None:
        """End, and let go of the camera.

        Args:
            wait_s: How long to wait for the frame that is read or inspected.
        """
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        until = time.monotonic() + wait_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def latest(self) -> Uint8Array | None:
        """The newest frame, (H, W, 3) uint8 RGB; None where none has come, or the camera is gone."""
        return None if self._frame is None else self._frame.copy()

    def trigger(self) -> Record:
        """Inspect the part that is in front of the camera now; on any thread.

        Of a camera, that is the first frame that arrives after the call: one that was there before may show the part
        on its way. Of a video file, it is the newest.

        Returns:
            The record.

        Raises:
            StationError: No frame comes, the camera is not running, or there is no verdict.
        """
        _, frame = self._newer(-1 if self._is_file else self._count, TRIGGER_S)
        if frame is None:
            raise StationError(
                f"expected a frame of {self.name} within {TRIGGER_S:g} s, got none. "
                f"{self._camera_error or 'Check that it is running.'}"
            )
        return self._inspect(frame)

    def _newer(self, than: int, wait_s: float | None = None) -> tuple[int, Uint8Array | None]:
        """The newest frame with its number, once that is above another; None where none comes in time."""
        with self._changed:
            came = self._changed.wait_for(
                lambda: self._stop.is_set() or (self._frame is not None and self._count > than), wait_s
            )
            return self._count, self._frame if came and not self._stop.is_set() else None

    def _inspect(self, frame: Uint8Array) -> Record:
        name = f"{utc_now():%Y%m%dT%H%M%S.%f}"[:-3] + "Z"
        record = self._submit(frame, product=self._entry.product, source=self.name, name=name)
        with self._changed:
            self._seen += 1
        return record

    def _inspect_and_tell(self, frame: Uint8Array) -> None:
        try:
            self._inspect(frame)
        except Exception as error:  # whatever a station raises: the next frame may have its verdict
            if not self._submit_error:
                logger.warning("%s: a frame got no verdict: %s", self.name, error)
            self._submit_error = f"a frame got no verdict: {error}"
        else:
            self._submit_error = ""

    def _inspect_live(self) -> None:
        inspected = 0
        while not self._stop.is_set():
            due = time.monotonic() + self._entry.every_s
            inspected, frame = self._newer(inspected)
            if frame is not None:
                self._inspect_and_tell(frame)
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _read_live(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._stop.is_set():
            before = self._count
            try:
                self._read_until_gone()
            except Exception as error:  # whatever a driver raises: it is tried again
                self._lose(str(error) or type(error).__name__)
            if self._count > before:
                pause = FIRST_PAUSE_S
            self._stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _read_until_gone(self) -> None:
        with native_work():
            capture = self._open()
        try:
            while not self._stop.is_set():
                with native_work():
                    frame = capture.read()
                if frame is None:
                    self._lose("expected a frame, got none. Check the camera's cable and power; it is opened again.")
                    return
                self._publish(frame)
        finally:
            with native_work():
                capture.release()

    def _open(self) -> Capture:
        device = self._entry.device
        if isinstance(device, str) and device.startswith(GENICAM):
            return GenicamCapture(device.removeprefix(GENICAM), self._entry.producer)
        return VideoCapture(int(device) if isinstance(device, str) and device.isdecimal() else device)

    def _publish(self, frame: Uint8Array) -> None:
        if self._camera_error:
            logger.info("%s: frames come again", self.name)
        with self._changed:
            self._frame = frame
            self._count += 1
            self._camera_error = ""
            self._changed.notify_all()

    def _lose(self, error: str) -> None:
        if not self._camera_error:
            logger.warning("%s: %s", self.name, error)
        with self._changed:
            # Nobody must take it for what is in front of the camera now.
            self._frame = None
            self._camera_error = error

    def _read_file(self) -> None:
        try:
            with native_work():
                capture = VideoCapture(str(self._entry.device))
            try:
                self._read_frames(capture)
            finally:
                with native_work():
                    capture.release()
        except Exception as error:  # of a file that is missing or damaged
            self._lose(str(error) or type(error).__name__)

    def _read_frames(self, capture: VideoCapture) -> None:
        skipped = max(0, round(self._entry.every_s * capture.rate) - 1)
        while not self._stop.is_set():
            due = time.monotonic() + self._entry.every_s
            with native_work():
                frame = capture.read()
            if frame is None:
                self._lose(f"the video {_shown(self._entry.device)} has ended")
                return
            self._publish(frame)
            if self._free_running:
                self._inspect_and_tell(frame)
            self._stop.wait(max(0.0, due - time.monotonic()))
            with native_work():
                for _ in range(skipped):
                    capture.skip()


def _is_file(device: int | str) -> bool:
    """Whether it is a video, which may be missing now, and no camera."""
    return isinstance(device, str) and not (
        device.isdecimal() or "://" in device or device.startswith((GENICAM, "/dev/"))
    )


def _shown(device: int | str) -> str:
    """A device without the password that a stream's address may hold."""
    text = str(device)
    scheme, separator, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}" if separator else text
