"""A procedural generator of industrial parts: training images without third-party rights.

`render("gear", seed)` is one image of one part. Parts of the same category and `variant` are good parts of one
product under one camera; another variant is another product: other dimensions, material, lamp, background. Everything
is drawn from seeded noise and geometry; no recorded image is involved.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.errors import TrainingError
from fewshot_ad.training.parts import (
    bearing,
    biscuit,
    blister,
    bolt_head,
    bottle_rim,
    cable,
    carpet,
    chain,
    chip,
    circuit_board,
    connector,
    gear,
    hex_nut,
    impeller,
    key,
    knit,
    knurled_cap,
    label,
    leather,
    magnet,
    materials,
    milled_block,
    o_ring,
    perforated_sheet,
    resistor,
    screw,
    solar_cell,
    spring,
    tablet,
    tile,
    toy_brick,
    turned_disc,
    washer,
    wood_board,
    woven_fabric,
)
from fewshot_ad.training.parts.camera import Station, image
from fewshot_ad.training.parts.canvas import Canvas, Field

Placement: TypeAlias = Literal["fixed", "loose", "free", "texture"]


class Kind(NamedTuple):
    """How parts of a category are drawn and placed.

    Attributes:
        build: Draws one part on a canvas.
        placements: Possible placements of a product of the category: `fixed` in a jig, `loose` on a belt with stops,
            `free` anywhere at any angle, `texture` without a pose of its own.
    """

    build: Callable[[Canvas], None]
    placements: tuple[Placement, ...]


JIG: tuple[Placement, ...] = ("fixed", "loose", "free")
CATEGORIES: dict[str, Kind] = {
    "bearing": Kind(bearing.build, JIG),
    "biscuit": Kind(biscuit.build, ("loose", "free")),
    "blister": Kind(blister.build, JIG),
    "bolt_head": Kind(bolt_head.build, JIG),
    "bottle_rim": Kind(bottle_rim.build, ("fixed", "loose")),
    "cable": Kind(cable.build, JIG),
    "carpet": Kind(carpet.build, ("texture",)),
    "chain": Kind(chain.build, ("fixed", "loose")),
    "chip": Kind(chip.build, JIG),
    "circuit_board": Kind(circuit_board.build, ("fixed", "loose")),
    "connector": Kind(connector.build, JIG),
    "gear": Kind(gear.build, JIG),
    "hex_nut": Kind(hex_nut.build, JIG),
    "impeller": Kind(impeller.build, JIG),
    "key": Kind(key.build, JIG),
    "knit": Kind(knit.build, ("texture",)),
    "knurled_cap": Kind(knurled_cap.build, JIG),
    "label": Kind(label.build, JIG),
    "leather": Kind(leather.build, ("texture",)),
    "magnet": Kind(magnet.build, ("fixed", "loose")),
    "milled_block": Kind(milled_block.build, JIG),
    "o_ring": Kind(o_ring.build, JIG),
    "perforated_sheet": Kind(perforated_sheet.build, ("texture", "fixed")),
    "resistor": Kind(resistor.build, JIG),
    "screw": Kind(screw.build, JIG),
    "solar_cell": Kind(solar_cell.build, ("fixed",)),
    "spring": Kind(spring.build, JIG),
    "tablet": Kind(tablet.build, JIG),
    "tile": Kind(tile.build, ("texture", "fixed")),
    "toy_brick": Kind(toy_brick.build, JIG),
    "turned_disc": Kind(turned_disc.build, JIG),
    "washer": Kind(washer.build, JIG),
    "wood_board": Kind(wood_board.build, ("texture",)),
    "woven_fabric": Kind(woven_fabric.build, ("texture",)),
}
MIN_SIZE = 32


def render(
    category: str, seed: int, size: int = 224, *, variant: int = 0, placement: Placement | None = None
) -> Uint8Array:
    """One image of one good part; arguments and errors as for `render_placed`.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    return render_placed(category, seed, size, variant=variant, placement=placement).image


class PlacedPart(NamedTuple):
    """An image of a part, and where the part lies on it.

    Attributes:
        image: (size, size, 3) uint8 RGB.
        transform: (2, 3) float32: from the image's coordinates, -1..1 from its center, to the part's own, in which all
            parts of a product lie alike. The slight perspective is not in it.
        height: (size, size) float32: how far each pixel's surface stands toward the camera, in the part's units, of
            which the part fills about 2.
        cover: (size, size) float32: how much of each pixel the part covers, 0..1.
    """

    image: Uint8Array
    transform: Float32Array
    height: Float32Array
    cover: Float32Array


def render_placed(
    category: str,
    seed: int,
    size: int = 224,
    *,
    variant: int = 0,
    placement: Placement | None = None,
    lamp_turn: float = 0.0,
    damage: Callable[[Canvas], None] | None = None,
) -> PlacedPart:
    """One image of one part, good unless it is damaged, and where it lies.

    Args:
        category: One of `CATEGORIES`.
        seed: Which part: the same seed gives the same image, on every machine up to rounding.
        size: Side in pixels, at least 32.
        variant: Which product of the category.
        placement: How the parts are placed; None = as the variant decides.
        lamp_turn: How far the main lamp is moved around the camera's axis from where the variant has it, in radians.
        damage: Changes the finished part before its image is taken. The random numbers that it takes from the canvas
            are not left for the lamp and the sensor.

    Raises:
        TrainingError: There is no such category, or the size is too small.
    """
    if category not in CATEGORIES:
        raise TrainingError(f"expected a category among {', '.join(CATEGORIES)}, got {category!r}.")
    if size < MIN_SIZE:
        raise TrainingError(f"expected a size of at least {MIN_SIZE} pixels, got {size}.")
    kind = CATEGORIES[category]
    product = [zlib.crc32(category.encode()), variant]
    setting = np.random.default_rng([*product, 1])
    rng = np.random.default_rng([*product, 2, seed])
    station = Station.draw(setting).with_lamp_turned(lamp_turn)
    drawn_placement = kind.placements[setting.integers(len(kind.placements))]
    placement = placement or drawn_placement
    scale = float(setting.uniform(0.72, 0.98)) if placement != "texture" else float(setting.uniform(0.8, 1.6))
    angle = float(setting.choice([0, 0, 0.5, 1, 1.5]) * np.pi)
    reach = {"fixed": 0.02, "loose": 0.15, "free": np.pi, "texture": 0.03}[placement]
    move = {"fixed": 0.01, "loose": 0.04, "free": 0.1, "texture": 0.5}[placement]
    turn = angle + float(rng.uniform(-reach, reach))
    shift = (float(rng.uniform(-move, move)), float(rng.uniform(-move, move)))
    scale *= float(1 + 0.01 * rng.standard_normal())
    canvas = Canvas(
        size,
        turn,
        shift,
        scale,
        (float(rng.normal(0, 0.015)), float(rng.normal(0, 0.015))),
        np.random.default_rng([*product, 0]),
        rng,
    )
    kind.build(canvas)
    if damage:
        damage(canvas)
    linear = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / scale
    transform = np.column_stack([linear, -linear @ shift]).astype(np.float32)
    picture = image(canvas, station, _background(setting, rng, size))
    return PlacedPart(picture, transform, canvas.height, canvas.mask)


def _background(setting: np.random.Generator, rng: np.random.Generator, size: int) -> Field:
    shade = materials.pick(setting, (*materials.PLASTICS, (0.03, 0.03, 0.03), (0.8, 0.8, 0.8), (0.5, 0.5, 0.5)))
    grain, cell = float(setting.choice([0.0, 0.02, 0.06])), float(setting.uniform(0.01, 0.1))
    if grain == 0:
        return np.broadcast_to(shade.astype(np.float32), (size, size, 3))
    side = max(int(1 / cell), 4)
    noise = cv2.resize(rng.standard_normal((side, side), np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return (shade * (1 + grain * noise[..., None])).astype(np.float32)
