"""From a canvas to an image: lamps, shadow, focus, lens and sensor."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.training.parts.canvas import Canvas, Field


@dataclass(frozen=True)
class Station:
    """Lamps and camera of a line: what all images of a product share.

    Attributes:
        lamp: Direction of the main lamp, unit vector (x, y, z), z toward the camera.
        ambient: Share of light that comes from everywhere, 0..1.
        warmth: Color of the light, factors of RGB.
        exposure: Brightness.
        shininess: Exponent of the mirror reflection.
        gray: Whether the camera has no color.
        blur: Focus blur in thousandths of the image's side.
        noise: Sensor noise at full brightness, of 0..1.
        vignette: Loss of light in the corners, 0..1.
        variation: Factor of how much lamp, exposure and focus change from part to part.
    """

    lamp: tuple[float, float, float]
    ambient: float
    warmth: tuple[float, float, float]
    exposure: float
    shininess: float
    gray: bool
    blur: float
    noise: float
    vignette: float
    variation: float

    @classmethod
    def draw(cls, style: np.random.Generator) -> Station:
        """A random station."""
        turn, rise = style.uniform(0, 2 * np.pi), style.uniform(0.35, 1.3)
        warm = style.normal(0, 0.05)
        return cls(
            lamp=(float(np.cos(turn) * np.cos(rise)), float(np.sin(turn) * np.cos(rise)), float(np.sin(rise))),
            ambient=float(style.uniform(0.25, 0.75)),
            warmth=(1 + warm, 1.0, 1 - warm),
            exposure=float(style.uniform(0.85, 1.35)),
            shininess=float(style.uniform(8, 40)),
            gray=bool(style.random() < 0.3),
            blur=float(style.uniform(0.8, 3.2)),
            noise=float(style.uniform(0.006, 0.03)),
            vignette=float(style.uniform(0, 0.25)),
            variation=float(style.choice([0.3, 0.6, 1.0, 2.0], p=[0.25, 0.35, 0.25, 0.15])),
        )

    def with_lamp_turned(self, turn: float) -> Station:
        """The same with its main lamp moved around the camera's axis, by radians."""
        if turn == 0:
            return self
        (x, y, z), cos, sin = self.lamp, float(np.cos(turn)), float(np.sin(turn))
        return dataclasses.replace(self, lamp=(cos * x - sin * y, sin * x + cos * y, z))


def image(canvas: Canvas, station: Station, background: Field) -> npt.NDArray[np.uint8]:
    """Light the canvas and record its image.

    Args:
        canvas: The scene.
        station: Lamps and camera.
        background: (size, size, 3) reflectance behind the part.

    Returns:
        (size, size, 3) uint8 RGB.

    Source: Lambert's cosine law for the diffuse, Blinn 1977 for the mirror reflection.
    """
    rng, change, size = canvas.rng, station.variation, canvas.size
    lamp = np.array(station.lamp) + rng.normal(0, 0.05 * change, 3)
    lamp = (lamp / np.linalg.norm(lamp)).astype(np.float32)
    if lamp[2] < 0.15:
        lamp[2] = 0.15
    half = lamp + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    # The relief is in part units; a slope needs both axes in the same unit.
    across = cv2.Scharr(canvas.height, cv2.CV_32F, 1, 0, scale=1 / (32 * canvas.pixel))
    down = cv2.Scharr(canvas.height, cv2.CV_32F, 0, 1, scale=1 / (32 * canvas.pixel))
    length = 1 / np.sqrt(across * across + down * down + 1)
    diffuse = np.maximum((lamp[2] - across * lamp[0] - down * lamp[1]) * length, 0)
    mirror = np.maximum((half[2] - across * half[0] - down * half[1]) * length, 0) ** np.float32(station.shininess)
    light = np.float32(station.ambient) + np.float32(1 - station.ambient) * diffuse
    shine = np.float32(0.9) * canvas.gloss * mirror
    part = canvas.albedo * light[..., None] + shine[..., None]

    mask = canvas.mask[..., None]
    behind = background
    if mask.min() < 1:
        far = 0.06 / canvas.pixel
        move = np.array([[1, 0, -lamp[0] * far], [0, 1, -lamp[1] * far]], np.float32)
        shadow = cv2.warpAffine(canvas.mask, move, (size, size))
        shadow = cv2.GaussianBlur(shadow, (0, 0), max(0.25 * far, 0.8))
        dark = np.float32(station.ambient) + np.float32(1 - station.ambient) * lamp[2] * (1 - shadow)
        behind = background * dark[..., None]
    scene = part * mask + behind * (1 - mask)

    line = np.linspace(-1, 1, size, dtype=np.float32)
    distance = (line**2)[:, None] + (line**2)[None]
    drift = rng.normal(0, 0.05 * change, 2).astype(np.float32)
    gain = station.exposure * (1 + 0.05 * change * rng.standard_normal())
    field = np.float32(gain) * (
        1 - np.float32(station.vignette / 2) * distance + drift[0] * line[None] + drift[1] * line[:, None]
    )
    warmth = np.array(station.warmth, np.float32) * (1 + 0.01 * change * rng.standard_normal(3)).astype(np.float32)
    scene = scene * field[..., None] * warmth
    focus = max(station.blur * size / 1000 * (1 + 0.2 * change * rng.standard_normal()), 0.25)
    scene = cv2.GaussianBlur(scene, (0, 0), focus)
    # Tone curve of a camera, then noise: shot noise grows with the root of the light.
    scene = np.clip(scene, 0, None)
    scene = scene / (1 + np.maximum(scene - 0.8, 0))
    grain = rng.standard_normal(scene.shape, np.float32) * np.float32(station.noise)
    scene = scene + grain * (np.float32(0.3) + np.float32(0.7) * np.sqrt(np.clip(scene, 0, 1)))
    pixels = np.clip(scene * 255 + 0.5, 0, 255).astype(np.uint8)
    if station.gray:
        pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return pixels
