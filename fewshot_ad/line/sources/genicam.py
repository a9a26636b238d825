"""A GenICam camera, through the package harvesters and the GenTL producer (.cti) of its maker."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import StationError

# Seconds until a frame that does not come counts as a camera that is gone, and of one try in them.
FRAME_S, TRY_S = 5.0, 0.5
# GenICam's names of formats (PFNC) of 8 bits: channels, and how OpenCV turns them into RGB.
FORMATS: Mapping[str, tuple[int, int | None]] = {
    "RGB8": (3, None),
    "BGR8": (3, cv2.COLOR_BGR2RGB),
    "Mono8": (1, cv2.COLOR_GRAY2RGB),
    "BayerRG8": (1, cv2.COLOR_BayerRGGB2RGB),
    "BayerGR8": (1, cv2.COLOR_BayerGRBG2RGB),
    "BayerGB8": (1, cv2.COLOR_BayerGBRG2RGB),
    "BayerBG8": (1, cv2.COLOR_BayerBGGR2RGB),
}


class GenicamCapture:
    """An open camera.

    Args:
        serial: Its serial number; empty takes the only one.
        producer: File of the GenTL producer.

    Raises:
        StationError: harvesters is not installed, there is no producer, or no such camera, or it is in use.
    """

    def __init__(self, serial: str, producer: str | None) -> None:
        try:
            core = importlib.import_module("harvesters.core")
        except ImportError as error:
            raise StationError(
                "a GenICam camera needs the package harvesters: pip install 'fewshot-ad[genicam]'."
            ) from error
        if producer is None or not Path(producer).is_file():
            raise StationError(
                f"expected the GenTL producer of the camera's maker, a .cti file, got {producer or 'none'}. Name it as "
                "`producer`."
            )
        self._harvester: Any = core.Harvester()
        self._acquirer: Any = None
        try:
            self._harvester.add_file(producer)
            self._harvester.update()
            self._acquirer = self._harvester.create({"serial_number": serial} if serial else None)
            self._acquirer.start()
        except Exception as error:  # each producer has errors of its own
            found = ", ".join(str(one.serial_number) for one in self._harvester.device_info_list) or "none"
            self.release()
            raise StationError(
                f"expected the GenICam camera {serial or '(any)'}, cannot open it ({type(error).__name__}: {error}). "
                f"Cameras found: {found}. Check its cable and power, and that no other program has it."
            ) from error

    def read(self) -> Uint8Array | None:
        """The next frame, (H, W, 3) uint8 RGB; None if none came in time.

        Raises:
            StationError: It has a format that is not read.
        """
        until = time.monotonic() + FRAME_S
        while time.monotonic() < until:
            # None also stands for a frame of which a packet got lost, which is no reason to open the camera anew.
            fetched = self._acquirer.try_fetch(timeout=TRY_S)
            if fetched is None:
                continue
            with fetched as buffer:
                component = buffer.payload.components[0]
                return pixels_of(component.data, component.height, component.width, str(component.data_format))
        return None

    def release(self) -> None:
        """Let go of the camera."""
        # One that was unplugged refuses to stop, and must be given back all the same.
        with contextlib.ExitStack() as stack:
            stack.callback(self._harvester.reset)
            if self._acquirer is not None:
                stack.callback(self._acquirer.destroy)
                stack.callback(self._acquirer.stop)


def pixels_of(data: Uint8Array, height: int, width: int, kind: str) -> Uint8Array:
    """A buffer of a camera as an image.

    Args:
        data: Its bytes.
        height: Rows.
        width: Columns.
        kind: GenICam's name of the format, `Mono8` say.

    Returns:
        (height, width, 3) uint8 RGB, a copy.

    Raises:
        StationError: The format is another, or the buffer has another size.
    """
    known = FORMATS.get(kind)
    if known is None or data.size != height * width * known[0]:
        raise StationError(
            f"expected a frame as {', '.join(FORMATS)}, got {kind}, {width} x {height} in {data.size} values. Set the "
            "camera's PixelFormat to one of these."
        )
    channels, conversion = known
    pixels = data.reshape((height, width, channels) if channels > 1 else (height, width))
    return np.array(pixels) if conversion is None else np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)
