"""Images as they came: the latest kept at hand, and what is written of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TypeAlias

import cv2

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.host.lifetime import native_work
from fewshot_ad.inspection.result import Inspection

# An image as it was sent, or as a camera gave it: (H, W, 3) uint8 RGB.
Sent: TypeAlias = "bytes | Uint8Array"
RECENT_IMAGES, RECENT_BYTES = 64, 200_000_000
OVERLAY_QUALITY = 88


class RecentImages:
    """The latest images, so that a verdict can be corrected and looked at that has no picture on disk.

    It may be used on several threads.
    """

    def __init__(self) -> None:
        self._images: OrderedDict[str, Sent] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def keep(self, record_id: str, image: Sent) -> None:
        """Keep an image; the oldest go where there are too many, or too large ones."""
        with self._lock:
            self._images[record_id] = image
            self._held += _nbytes(image)
            while len(self._images) > RECENT_IMAGES or (self._held > RECENT_BYTES and len(self._images) > 1):
                self._held -= _nbytes(self._images.popitem(last=False)[1])

    def get(self, record_id: str) -> Sent | None:
        """The image of an inspection; None where it is not kept any more."""
        with self._lock:
            return self._images.get(record_id)


@native_work()
def encoded(image: Sent) -> bytes:
    """An image as it was sent, or, of a camera, as PNG without loss."""
    if isinstance(image, bytes):
        return image
    # The fastest level: a line does not wait for the last percent.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


@native_work()
def overlay_jpeg(inspection: Inspection) -> bytes:
    """The overlay of an inspection as JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, OVERLAY_QUALITY]
    return cv2.imencode(".jpg", cv2.cvtColor(inspection.overlay(), cv2.COLOR_RGB2BGR), options)[1].tobytes()


def _nbytes(image: Sent) -> int:
    return len(image) if isinstance(image, bytes) else image.nbytes
