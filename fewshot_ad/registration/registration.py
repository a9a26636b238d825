"""From poses to a registered image: each is turned and shifted until its part lies as on the support set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float64Array, Uint8Array
from fewshot_ad.images import Geometry, Lighting, RegionOfInterest
from fewshot_ad.images.lighting import ALL
from fewshot_ad.registration.estimator import (
    ORDERS,
    POSE_SIDE,
    PoseEstimator,
    Poses,
    place_on_square,
    pose_estimator,
    squared,
)

# An order is believed if the turns that it reads from turned copies of the support images are off by no more than this
# root mean square, in degrees: patch embeddings bear twice as much. And by no more than this share of what guessing
# within its period would give.
MAX_ERROR, MAX_SHARE_OF_GUESSING = 6.0, 0.2
# The same for the center, in half images: less than a patch.
MAX_SHIFT_ERROR = 0.05
# Steps of the turned copies, evenly around, none of them a multiple of 45 degrees, since the network follows quarter
# turns by construction; and how many images are tried.
TURNS, MAX_IMAGES = 7, 8
# Parts whose moments point the same way by at least this resultant length lie in a jig: their mean is the reference,
# and next to nothing is turned.
UPRIGHT = 0.8
# How much better, as a correlation of gray levels, the support images must agree in one pose than as they lie. Without
# a gain there is no pose to speak of, or the parts lie alike already.
MIN_GAIN = 0.05
# Structures between these standard deviations count, as shares of the side: the light does not turn with the part.
FINE, COARSE = 1 / 64, 1 / 10


@dataclass(frozen=True)
class Registration:
    """How images are brought into the pose of the support set; stored with the product.

    Attributes:
        sha256: Hash of the pose network.
        order: The turn is read from the moment of this order, and is known up to 360 / order degrees.
        phase: Phase of the reference's moment, in radians.
        center: Where the reference's part has its center, across and down, -1..1 of the square around the image; None
            where centers cannot be told, and images are turned about their middle.
    """

    sha256: str
    order: int
    phase: float
    center: tuple[float, float] | None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Registration:
        """Rebuild from `dataclasses.asdict` after a trip through JSON."""
        center = fields["center"]
        return cls(**{**fields, "center": None if center is None else (center[0], center[1])})

    def forward(self, content: Uint8Array, estimator: PoseEstimator) -> Float64Array:
        """The affine matrix (2, 3) from (x, y) of an image, in pixels, to (x, y) of the registered one.

        Args:
            content: (h, w, 3) uint8 RGB, the image at a working scale.
            estimator: The pose network.
        """
        poses = estimator([content])
        turn = float(_turns(poses, self.order, self.phase)[0])
        height, width = content.shape[:2]
        place = place_on_square(height, width, POSE_SIDE)

        def pixel(center: npt.ArrayLike) -> Float64Array:
            """A point of the square, -1..1, in pixels of the image."""
            on_square = (np.asarray(center, np.float64) + 1) * POSE_SIDE / 2 - [place.left, place.top]
            return on_square * [width / place.width, height / place.height] - 0.5

        # Turned back about the part's own center, which then lands on the reference's.
        own = target = np.array([width - 1, height - 1]) / 2
        if self.center is not None:
            own, target = pixel(poses.center[0]), pixel(self.center)
        linear = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        return np.column_stack([linear, target - linear @ own])


class Framing(NamedTuple):
    """How an image is brought before the encoder.

    Attributes:
        registration: How it is brought into one pose; None leaves it as it lies.
        roi: Where it is looked at, once it is in that pose; None for all of it.
        lighting: How its light is taken out; None leaves it as it is.
    """

    registration: Registration | None = None
    roi: RegionOfInterest | None = None
    lighting: Lighting | None = None


AS_IT_IS = Framing()


def scaled_image(
    image: Uint8Array,
    image_size: int,
    multiple: int,
    framing: Framing,
    threads: int | None,
) -> tuple[Uint8Array, Geometry, Uint8Array]:
    """An image at a working scale, and how it lies there: registered, if the product is.

    Args:
        image: (H, W, 3) uint8 RGB.
        image_size: Working scale, see `Geometry.fit`.
        multiple: Each side of the encoder's input is a multiple of this.
        framing: The product's.
        threads: Number of CPU threads of the pose network.

    Returns:
        (h, w, 3) uint8 RGB, the geometry, and (h, w, 3) uint8 RGB, the same in the light that it was photographed in.
    """
    geometry = Geometry.fit(image.shape[:2], image_size, multiple, framing.roi)  # type: ignore[arg-type]
    content = geometry.scale(image)
    # The pose is read off the image as it was photographed: the network has seen all sorts of light.
    if framing.registration is not None:
        geometry = geometry.with_turn(framing.registration.forward(content, pose_estimator(threads)))
    if framing.lighting is None:
        content = geometry.turn(content)
        return content, geometry, content
    # A registered region moves with the part; its light is told from all of the image.
    window = geometry.window() if framing.registration is None else ALL
    lit = framing.lighting.apply(content, window)
    return geometry.turn(lit), geometry, geometry.turn(content)


def fit_registration(
    images: Sequence[Uint8Array], estimator: PoseEstimator, half_turns: bool
) -> tuple[Registration | None, str]:
    """The registration of a product, from its support set.

    Each image is turned by known angles, and the order is taken whose turns follow. Where views turn the support images
    upside down, order 2 comes first, since half a turn more or less then makes no difference; otherwise order 1. Orders
    3, 4 and 6 are for parts that look the same under such turns.

    Args:
        images: (H, W, 3) uint8 RGB each.
        estimator: The pose network.
        half_turns: Whether the views turn images upside down.

    Returns:
        The registration, None where no order follows or the images agree no better in one pose; and the reason in
        words.
    """
    if len(images) < 2:
        return None, "registration: none; it takes two images to see whether they agree better in one pose."
    copies = [squared(image, 2 * POSE_SIDE) for image in images[:MAX_IMAGES]]
    poses = estimator(copies)
    turn_errors, shift_error = errors_under_turns(copies, estimator)
    preferred = (2, 1, 3, 4, 6) if half_turns else (1, 2, 3, 4, 6)
    order = next((m for m in preferred if turn_errors[m] <= error_limit(m)), None)
    if order is None:
        nearest = min(ORDERS, key=lambda m: turn_errors[m] / error_limit(m))
        return None, (
            "registration: none; turns of the part cannot be told: known turns of the support images are read "
            f"{turn_errors[nearest]:.0f} degrees off, {error_limit(nearest):.1f} are allowed."
        )
    units = poses.moments[:, ORDERS.index(order)]
    units = units / np.maximum(np.abs(units), 1e-9)
    resultant = units.mean()
    # Else any will do; that whose turn is seen best.
    clearest = int(np.abs(poses.moments[:, ORDERS.index(order)]).argmax())
    reference = resultant if abs(resultant) >= UPRIGHT else units[clearest]
    follows = shift_error <= MAX_SHIFT_ERROR
    # The median, since an image that does not belong there may still be among them.
    across, down = (float(value) for value in np.median(poses.center, axis=0))
    registration = Registration(
        estimator.sha256, order, float(np.angle(reference)), (across, down) if follows else None
    )
    gain = _gain(copies, registration, estimator)
    if gain < MIN_GAIN:
        return None, "registration: none; the support images agree no better in one pose than as they lie."
    moved = "turned and shifted" if follows else "turned"
    period = "" if order == 1 else f"; turns by {360 // order} degrees stay open, and views cover them"
    return registration, (
        f"registration: images are {moved} into one pose; turns are read to within {max(1, round(turn_errors[order]))} "
        f"degree(s){period}. What is {moved} out of the image is not inspected."
    )


def errors_under_turns(copies: Sequence[Uint8Array], estimator: PoseEstimator) -> tuple[dict[int, float], float]:
    """How well the poses of images follow known turns all around.

    Args:
        copies: (s, s, 3) uint8 RGB each, see `squared`.
        estimator: The pose network.

    Returns:
        Root mean square error of the turns by order, in degrees, and of the centers, in half images.
    """
    poses = estimator(copies)
    squared_turns, squared_shifts = dict.fromkeys(ORDERS, 0.0), 0.0
    for step in range(1, TURNS):
        turn = 2 * np.pi * step / TURNS
        seen = estimator([_turned(copy, turn) for copy in copies])
        for at, order in enumerate(ORDERS):
            off = np.angle(seen.moments[:, at] * np.conj(poses.moments[:, at]) * np.exp(-1j * order * turn)) / order
            squared_turns[order] += float(np.square(np.degrees(off)).mean()) / (TURNS - 1)
        cos, sin = np.cos(turn), np.sin(turn)
        expected = poses.center @ np.array([[cos, sin], [-sin, cos]])
        squared_shifts += float(np.square(seen.center - expected).sum(axis=1).mean()) / (TURNS - 1)
    return {order: value**0.5 for order, value in squared_turns.items()}, squared_shifts**0.5


def error_limit(order: int) -> float:
    """The largest error of an order that is believed, in degrees."""
    return min(MAX_ERROR, MAX_SHARE_OF_GUESSING * 180 / order / 3**0.5)


def _gain(copies: Sequence[Uint8Array], registration: Registration, estimator: PoseEstimator) -> float:
    """How much better the structures of images agree in one pose, as the mean correlation of all pairs.

    Turns by whole periods are open, so of all of them the best counts, with registration and without.
    """
    registered = []
    for copy in copies:
        forward = registration.forward(copy, estimator)
        registered.append(cv2.warpAffine(copy, forward, copy.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101))
    turns = [2 * np.pi * k / registration.order for k in range(registration.order)]

    def agreement(images: Sequence[Uint8Array]) -> float:
        discs = [[_disc(_turned(image, turn)) for turn in turns] for image in images]
        pairs = [(a, b) for b in range(len(discs)) for a in range(b)]
        return float(np.mean([max(discs[a][0] @ disc for disc in discs[b]) for a, b in pairs]))

    return agreement(registered) - agreement(copies)


def _disc(image: Uint8Array) -> Float64Array:
    """Structures of the disc inside a square image, (n,) float64, of zero mean and unit length."""
    side = image.shape[0]
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    gray = cv2.GaussianBlur(gray, (0, 0), FINE * side) - cv2.GaussianBlur(gray, (0, 0), COARSE * side)
    line = np.arange(side) - (side - 1) / 2
    values = gray[line[:, None] ** 2 + line[None] ** 2 < (side / 2) ** 2]
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-9)


def _turns(poses: Poses, order: int, phase: float) -> Float64Array:
    """How far each part is turned against the reference, in radians, clockwise as seen; within half a period."""
    moments = poses.moments[:, ORDERS.index(order)]
    return np.angle(moments * np.exp(-1j * phase)) / order


def _turned(image: Uint8Array, turn: float) -> Uint8Array:
    """A square image, turned clockwise as seen by so many radians about its middle."""
    side = image.shape[0]
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), -float(np.degrees(turn)), 1.0)
    return cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
