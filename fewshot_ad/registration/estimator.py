"""The pose network at work: images -> poses, on OpenVINO. What a pose is, stands in `training.pose_network`."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float64Array, Uint8Array
from fewshot_ad.encoder.requests import Requests
from fewshot_ad.encoder.weights import verified_content, weights_folder
from fewshot_ad.errors import WeightsError
from fewshot_ad.host.runtimes import import_openvino

# Side of the copy of an image that the network reads, in pixels.
POSE_SIDE = 64
# Orders of the moments: of parts without symmetry (1) up to hexagons (6).
ORDERS = (1, 2, 3, 4, 6)
NAME = "pose"


@dataclass(frozen=True, eq=False)
class Poses:
    """Where the parts on some images lie, in coordinates of -1..1 from the center of the image's square (`squared`).

    Attributes:
        center: (n, 2) float64, across and down.
        spread: (n,) float64: root of the part's mean squared radius.
        moments: (n, len(ORDERS)) complex128; the phase of order m grows by m times the part's turn, clockwise as seen
            on the image. The length, 0..1, is near 0 where there is no turn to be seen.
    """

    center: Float64Array
    spread: Float64Array
    moments: npt.NDArray[np.complex128]


class PoseEstimator:
    """Reads poses.

    Args:
        path: The network's ONNX file: (N, POSE_SIDE, POSE_SIDE, 3) uint8 RGB -> (N, 3 + 2 * len(ORDERS)) float32.
        sha256: Its hash, which a product stores.
        threads: Number of CPU threads; None leaves it to OpenVINO.
    """

    def __init__(self, path: Path, sha256: str, threads: int | None = None) -> None:
        self.sha256 = sha256
        # float32 on every processor: a pose must be the same everywhere.
        config: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        self._requests = Requests(functools.partial(_network, path), config)

    def __call__(self, images: Sequence[Uint8Array]) -> Poses:
        """The poses of images (H, W, 3) uint8 RGB of any size."""
        rows = [self._requests.infer(squared(image, POSE_SIDE)[None])[0][0] for image in images]
        values = np.array(rows, np.float64).reshape(len(rows), 3 + 2 * len(ORDERS))
        moments = values[:, 3::2] + 1j * values[:, 4::2]
        return Poses(values[:, :2], np.exp(values[:, 2]), moments)


class Place(NamedTuple):
    """Where an image lies on its square, in pixels of the square.

    Attributes:
        left, top: Its upper left corner.
        width, height: Its size.
    """

    left: int
    top: int
    width: int
    height: int


def place_on_square(height: int, width: int, side: int) -> Place:
    """Where an image of some size lies on a square of so many pixels: in the middle, its longer side filling it.

    The borders beside it are equal to the pixel, so that an image upside down lies there upside down.
    """
    scale = side / max(height, width)
    left, top = (min(round((side - length * scale) / 2), (side - 1) // 2) for length in (width, height))
    return Place(left, top, side - 2 * left, side - 2 * top)


def squared(image: Uint8Array, side: int) -> Uint8Array:
    """An image (H, W, 3) uint8 on a square of so many pixels, see `place_on_square`; the rest repeats its edges."""
    height, width = image.shape[:2]
    place = place_on_square(height, width, side)
    method = cv2.INTER_AREA if side < max(height, width) else cv2.INTER_LINEAR
    small = cv2.resize(image, (place.width, place.height), interpolation=method)
    down, across = side - place.height, side - place.width
    if not (down or across):
        return small
    return cv2.copyMakeBorder(small, place.top, down - place.top, place.left, across - place.left, cv2.BORDER_REPLICATE)


def pose_card(folder: Path | None = None) -> dict[str, Any]:
    """The card of the shipped pose network.

    Args:
        folder: Of the card; None for the folder of the shipped weights.

    Raises:
        WeightsError: It is missing or no card.
    """
    path = (folder or weights_folder() / NAME) / f"{NAME}.json"
    try:
        card: dict[str, Any] = json.loads(path.read_bytes())
        if not (isinstance(card["file"], str) and isinstance(card["sha256"], str)):
            raise ValueError("its file and hash are no texts")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: expected the card of the pose network ({error}). Reinstall fewshot-ad.") from error
    return card


@functools.cache
def pose_estimator(threads: int | None = None) -> PoseEstimator:
    """The shipped pose network, loaded once for each number of threads.

    Raises:
        WeightsError: Its file is missing or altered.
    """
    card = pose_card()
    path = weights_folder() / NAME / Path(card["file"]).name
    verified_content(NAME, path, card["sha256"])
    return PoseEstimator(path, card["sha256"], threads)


def _network(path: Path) -> Any:
    return import_openvino().Core().read_model(path)
