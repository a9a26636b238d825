"""One picture of the limits of a product: the smallest drawn defects that it catches, the largest that it misses."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.check.sheet import SIDE, fitted, strip
from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.embedding import Reference, places_to_draw
from fewshot_ad.enrollment.prediction import ScoredDefect
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.probes import DEFECT_KINDS, DefectKind, DrawnDefect
from fewshot_ad.enrollment.sensitivity import Sensitivity, length, sensitivity, shown_size
from fewshot_ad.errors import ArtifactError

# Defects are drawn on the stored image enlarged so many times, then shrunk with it, as they were before they were
# scored.
_ENLARGED = 4
# A change of fewer gray levels is not seen, and nothing to show.
_VISIBLE = 8
# A crop is so many times as wide as its defect, and at least so wide in pixels of the stored image.
_CROP, _MIN_CROP = 3, 32
_GAP = 8
_DARK, _GREEN, _RED, _GRAY = (40, 44, 52), (52, 110, 70), (176, 32, 40), (120, 120, 120)
_BOX = (255, 0, 255)
# Letters of a line across the whole picture.
_LETTERS = 112


def draw_limits(
    product_name: str,
    calibration: Calibration,
    references: Sequence[Reference],
    shots: int,
    threshold: float,
    settings: EnrollmentSettings,
    *,
    narrowed: bool = False,
) -> Uint8Array:
    """Draw, of each kind, the smallest defect that is caught and the largest that is missed.

    Only those on stored images can be shown, and of these only what changes the image at all: a patch that is displaced
    to where it fits in cannot be seen by anyone.

    Args:
        product_name: Name of the product.
        calibration: The product's, with its drawn defects.
        references: Its stored support images, the first of the support set.
        shots: Number of images in the support set.
        threshold: The threshold that holds.
        settings: The product's.
        narrowed: Whether its region of interest was narrowed since it was enrolled.

    Returns:
        (H, W, 3) uint8 RGB: what the product finds in words, then per kind two pairs of the whole image with a box, and
        its crop.

    Raises:
        ArtifactError: The product holds no drawn defects, as those of earlier versions, or no image to draw them on, or
            it was narrowed: they were scored where they would not be drawn now.
    """
    if narrowed:
        raise ArtifactError(
            f"{product_name}: expected a product with the region of interest that it was enrolled with, got one that "
            "was narrowed since: its defects were drawn and scored elsewhere. Enroll it again with this region."
        )
    found = sensitivity(calibration, threshold, settings.min_defect)
    if found is None or not references:
        raise ArtifactError(
            f"{product_name}: expected a product with drawn defects and stored images, got one without: it is of an "
            "earlier version, or was enrolled from a single image or from very large working scales. Enroll it again."
        )
    by_size = sorted(
        (defect for defect in calibration.defects if defect.image < len(references)),
        key=lambda defect: (defect.size, defect.score),
    )
    clean = _clean_scores(calibration, shots)
    rows = []
    for kind in DEFECT_KINDS:
        # An image that is rejected without its defect, too, shows nothing of what is caught.
        caught = [d for d in by_size if d.kind == kind and d.score > threshold >= clean.get(d.image, 0.0)]
        missed = [d for d in by_size[::-1] if d.kind == kind and d.score <= threshold]
        cells = [
            _cell(d, is_caught, kind, references, threshold, clean, settings)
            for d, is_caught in ((caught, True), (missed, False))
        ]
        rows.append(np.hstack([cells[0], np.full((len(cells[0]), _GAP, 3), 255, np.uint8), cells[1]]))
    gap = np.full((_GAP, rows[0].shape[1], 3), 255, np.uint8)
    drawn_on = {defect.image for defect in calibration.defects}
    text = (
        f"{product_name}: drawn defects at threshold {threshold:.4g}; shown are those on "
        f"{sum(at < len(references) for at in drawn_on)} of {len(drawn_on)} images"
    )
    heading = _heading(text, found, references[0].image_hw, rows[0].shape[1])
    return np.vstack([heading, *(part for row in rows for part in (gap, row))])


def _clean_scores(calibration: Calibration, shots: int) -> dict[int, float]:
    """Held-out scores of the images without a defect, by their number; empty where not all images were held out."""
    in_order = calibration.method == "leave-one-image-out" and len(calibration.scores) == shots
    return dict(enumerate(calibration.scores)) if in_order else {}


def _heading(text: str, found: Sensitivity, image_hw: tuple[int, int], width: int) -> Uint8Array:
    lines = [text]
    lines += textwrap.wrap(found.explain(image_hw), _LETTERS)
    warning = found.warning(image_hw)
    strips = [strip(line, width, _DARK) for line in lines]
    if warning is not None:
        strips += [strip(line, width, _RED) for line in textwrap.wrap(f"WARNING: {warning}", _LETTERS)]
    return np.vstack(strips)


def _cell(
    defects: Sequence[ScoredDefect],
    caught: bool,
    kind: DefectKind,
    references: Sequence[Reference],
    threshold: float,
    clean: Mapping[int, float],
    settings: EnrollmentSettings,
) -> Uint8Array:
    """The first of the defects that can be seen: whole image, crop, and two lines of text."""
    color, word = (_GREEN, "smallest caught") if caught else (_RED, "largest missed")
    for defect in defects:
        reference = references[defect.image]
        image, box = _drawn(defect, reference.content, settings)
        if box is None:
            continue
        wide = " wide" if kind == "scratch" else ""
        size = length(shown_size(kind, defect.size), reference.image_hw)
        text = f"score {defect.score:.4g}, {defect.score / threshold:.2f} of the threshold"
        if defect.image in clean:
            text += f" ({clean[defect.image] / threshold:.2f} without it)"
        pair = np.hstack([fitted(_boxed(image, box)), fitted(_crop(image, box))])
        return np.vstack([pair, strip(f"{word} {kind}: {size}{wide}", 2 * SIDE, color), strip(text, 2 * SIDE, color)])
    blank = np.full((SIDE, 2 * SIDE, 3), 235, np.uint8)
    text = f"no {kind} of those drawn on the stored images is {word.split()[1]}"
    return np.vstack([blank, strip(text, 2 * SIDE, _GRAY), strip("", 2 * SIDE, _GRAY)])


def _drawn(
    defect: ScoredDefect, content: Uint8Array, settings: EnrollmentSettings
) -> tuple[Uint8Array, tuple[int, int, int, int] | None]:
    """The stored image with the defect, and its box (x, y, width, height); None if nothing can be seen of it."""
    height, width = content.shape[:2]
    large = cv2.resize(content, (_ENLARGED * width, _ENLARGED * height), interpolation=cv2.INTER_LINEAR)
    within = places_to_draw(content, settings)
    defective = DrawnDefect(defect.image, defect.kind, defect.size, defect.seed).draw(large, within)
    image, clean = (cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in (defective, large))
    changed = cv2.absdiff(image, clean).max(axis=2) > _VISIBLE
    x, y, w, h = cv2.boundingRect(changed.astype(np.uint8))
    return image, (x, y, w, h) if w else None


def _boxed(image: Uint8Array, box: tuple[int, int, int, int]) -> Uint8Array:
    x, y, w, h = box
    side = max(image.shape[:2])
    margin, line = max(3, side // 40), max(1, round(1.5 * side / SIDE))
    return cv2.rectangle(image.copy(), (x - margin, y - margin), (x + w + margin, y + h + margin), _BOX, line)


def _crop(image: Uint8Array, box: tuple[int, int, int, int]) -> Uint8Array:
    x, y, w, h = box
    side = max(_CROP * max(w, h), _MIN_CROP)
    top, left = max(0, y + h // 2 - side // 2), max(0, x + w // 2 - side // 2)
    return image[top : top + side, left : left + side]
