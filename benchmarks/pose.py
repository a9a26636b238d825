"""Does the pose network register? Known warps of products that it was not trained on, generated and real.

An image is turned by 15 degrees, enlarged by 1.15 or moved by a tenth of half its side. `left` is how much of the
change the pose does not follow, as a share of it (0: registered, 1: not followed at all). Turns count where the support
set shows that they are told (`fit_registration`'s rule), and up to the period of the order that is read. `moved` is how
far images of parts in a jig would be moved when they are brought into one pose, in half images: they lie alike already;
`moved, enrolled` is how far an enrollment with `register=True` moves them, which leaves most as they lie.
Eight images per product, its good training images or, of generated products, new ones.

    python benchmarks/pose.py --products              # needs ../shared/data for the real products
    python benchmarks/pose.py --record                # and put the figures on record
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import measured_tables
import measurements
import numpy as np

from fewshot_ad.images import list_images, read_image
from fewshot_ad.registration import (
    ORDERS,
    POSE_SIDE,
    Poses,
    Registration,
    fit_registration,
    pose_estimator,
    squared,
)
from fewshot_ad.registration.registration import error_limit, errors_under_turns
from fewshot_ad.training.parts import CATEGORIES, render

DATA = Path(__file__).parents[2] / "shared" / "data"
VARIANTS, IMAGES = (80_000, 80_001), 8
SIDE = 2 * POSE_SIDE
TURN, ZOOM, SHIFT = np.radians(15), 1.15, 0.1
# Real products that lie alike on their images; the others lie at any angle, or have no pose.
IN_A_JIG = {"bottle", "transistor", "alien_toy"}
ANY_ANGLE = {"hazelnut", "casting", "cookie"}


def warped(image: np.ndarray, turn: float = 0.0, zoom: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """A square image after a clockwise turn, a zoom about its middle and a shift to the right, in half images."""
    middle = (SIDE - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), -float(np.degrees(turn)), zoom)
    matrix[0, 2] += shift * SIDE / 2
    return cv2.warpAffine(image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT_101)


def turn_between(first: Poses, second: Poses, order: int) -> np.ndarray:
    """How far each part is turned from one image to the other, in radians, within half a period."""
    at = ORDERS.index(order)
    return np.angle(second.moments[:, at] * first.moments[:, at].conj()) / order


def told_order(copies: list[np.ndarray]) -> int | None:
    """The lowest order that follows known turns."""
    errors, _ = errors_under_turns(copies, pose_estimator())
    return next((order for order in ORDERS if errors[order] <= error_limit(order)), None)


def figures(images: list[np.ndarray], in_a_jig: bool) -> dict[str, Any]:
    """What is left of each change, and how far parts in a jig are moved."""
    estimator = pose_estimator()
    copies = [squared(image, SIDE) for image in images]
    before, order = estimator(copies), told_order(copies)
    turned, zoomed, moved = (
        estimator([warped(copy, **change) for copy in copies])
        for change in ({"turn": TURN}, {"zoom": ZOOM}, {"shift": SHIFT})
    )
    row: dict[str, Any] = {"order": order, "rotation": None, "moved": None, "enrolled": None}
    if order is not None:
        off = np.angle(np.exp(1j * order * (turn_between(before, turned, order) - TURN))) / order
        row["rotation"] = float(np.abs(off).mean() / TURN)
    row["scale"] = float(np.abs(np.log(zoomed.spread / before.spread) - np.log(ZOOM)).mean() / np.log(ZOOM))
    off_center = moved.center - before.center - [SHIFT, 0]
    row["translation"] = float(np.linalg.norm(off_center, axis=1).mean() / SHIFT)
    if in_a_jig and order is not None:
        row["moved"] = displacement(copies, reference(before, order))
        registration, _ = fit_registration(images, estimator, half_turns=True)
        row["enrolled"] = 0.0 if registration is None else displacement(copies, registration)
    return row


def reference(poses: Poses, order: int) -> Registration:
    """The registration to the mean pose."""
    units = poses.moments[:, ORDERS.index(order)]
    x, y = poses.center.mean(axis=0)
    return Registration("", order, float(np.angle((units / np.abs(units)).mean())), (float(x), float(y)))


def displacement(copies: list[np.ndarray], registration: Registration) -> float:
    """How far a registration moves images that lie alike, in half images: the mean over a grid of points."""
    line = np.linspace(0.1, 0.9, 9) * SIDE
    points = np.stack([*np.meshgrid(line, line), np.ones((9, 9))]).reshape(3, -1)
    away = [registration.forward(copy, pose_estimator()) @ points - points[:2] for copy in copies]
    return float(np.linalg.norm(away, axis=1).mean() / (SIDE / 2))


def products(data: Path) -> list[tuple[str, str, list[np.ndarray], bool]]:
    """Group, name, images, and whether they lie alike."""
    found = []
    for name, kind in CATEGORIES.items():
        for variant in VARIANTS if "texture" not in kind.placements else ():
            images = [render(name, n, SIDE, variant=variant, placement="fixed") for n in range(IMAGES)]
            found.append(("generated", f"{name} {variant}", images, True))
    for name in sorted(IN_A_JIG | ANY_ANGLE):
        folder = data / name / "train" / "good"
        if folder.is_dir():
            images = [read_image(path) for path in list_images(folder)[:IMAGES]]
            found.append(("real", name, images, name in IN_A_JIG))
    return found


def summary(group: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over products; of rotation and of what is moved over those whose turn is told."""
    means = {}
    for name in ("rotation", "scale", "translation", "moved", "enrolled"):
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = float(np.mean(values)) if values else None
    return {"products": group, "number": len(rows), "told": sum(row["order"] is not None for row in rows), **means}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--products", action="store_true", help="print a line for each product, too")
    measurements.add_record_option(parser)
    args = parser.parse_args()
    groups: dict[str, list[dict[str, Any]]] = {}
    for group, name, images, in_a_jig in products(args.data):
        row = figures(images, in_a_jig)
        groups.setdefault(group, []).append(row)
        if args.products:
            shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
            print(group, name, shown, flush=True)
    rows = []
    for group, of in groups.items():
        told = [row for row in of if row["order"] is not None]
        rows += [summary(f"{group}, all", of), summary(f"{group}, whose turn is told", told)]
    measured_tables.finish("pose", rows, args.record)


if __name__ == "__main__":
    main()
