"""What the operator says of an image with several parts: it is said of one of them, or of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from fewshot_ad import arguments
from fewshot_ad.arrays import Progress
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.parts import Found, cut_support, find_parts, name_of_image, part_image
from fewshot_ad.enrollment.support import SupportImage, SupportSet
from fewshot_ad.errors import ArgumentError, SupportSetError
from fewshot_ad.inspection.result import InspectedPart, Inspection
from fewshot_ad.product.correcting import Drawn, accept_image, reject_image
from fewshot_ad.product.product import Product
from fewshot_ad.registration.parts import MAX_PARTS
from fewshot_ad.scoring import inspect_frame

PartsChoice: TypeAlias = Literal["off", "auto"]

PARTS_CHOICES: tuple[PartsChoice, ...] = get_args(PartsChoice)


def parts_of(
    support: SupportSet,
    choice: PartsChoice,
    expect: int | None,
    others: Mapping[str, object],
    progress: Progress | None,
) -> Found | None:
    """The parts on the images of a support set; None where images are looked at as a whole.

    Args:
        support: The images.
        choice: Whether there are parts to be looked at one by one.
        expect: How many each image shows; None for any number.
        others: Arguments that say where a whole image is looked at, by name; None or False for one not given.
        progress: Called as `progress("parts", done, total)`.

    Raises:
        ArgumentError: `expect` or another argument does not go with that.
        SupportSetError: No parts can be told from a plain background, or another number than expected.
    """
    arguments.choice(choice, "parts", PARTS_CHOICES, ArgumentError)
    if choice == "off":
        if expect is not None:
            raise ArgumentError(f"expected expect with parts='auto' (--parts auto), got expect={expect} without.")
        return None
    if expect is not None:
        arguments.whole_number(expect, "expect", 1, MAX_PARTS)
    given = [name for name, value in others.items() if value is not None and value is not False]
    if given:
        raise ArgumentError(
            f"expected parts='auto' alone, got {' and '.join(given)}, too: each part is cut out and brought into one "
            "pose, and only the part and what is close to it counts. Leave one out; narrow_roi (fewshot-ad roi) "
            "narrows where a part is looked at."
        )
    return find_parts(support, expect, progress)


def taken_names(product: Product) -> list[str]:
    """Names that further images must not have."""
    names = [name for name, _ in product.enrollment.support] + [defect.name for defect in product.known_defects]
    return [*names, *(name_of_image(name) for name in names if product.model.parts is not None)]


def one_by_one(product: Product, support: SupportSet) -> SupportSet:
    """Images as a product takes them: of one with several parts, the parts.

    Raises:
        SupportSetError: None of them shows a part that can be judged.
    """
    layout = product.model.parts
    return support if layout is None else cut_support(support, layout)


def accept(
    product: Product,
    encoder: Encoder,
    support: SupportSet,
    drawn: Callable[[], Sequence[Drawn]],
    progress: Progress | None = None,
    force: bool = False,
) -> tuple[Product, tuple[str, ...]]:
    """`accept_image`; of an image with several parts, those that are rejected, or all where none is."""
    if product.model.parts is None:
        return accept_image(product, encoder, support, drawn, progress, force)
    [image] = support.images
    inspection = inspect_frame(image.pixels, encoder, product.model, "")
    if inspection.count is not None and inspection.count.finding:
        raise SupportSetError(
            f"expected an image with the parts of this product and nothing else, got {image.name}: "
            f"{inspection.count.finding}. Enroll again if that is good, with another number of parts, say."
        )
    judged = _judged(image, inspection)
    enrolled = {sha256 for _, sha256 in product.enrollment.support}
    new = [part for part in judged if _image_of(image, part).sha256 not in enrolled]
    if not new:
        raise SupportSetError(f"expected parts that are not enrolled, got {image.name}, whose parts all are.")
    notes = [note for note in support.notes if not note.startswith("only one image")]
    for part in [part for part in new if part.verdict == "anomalous"] or new:
        own = SupportSet((_image_of(image, part),), ())
        product, noted = accept_image(product, encoder, own, drawn, progress, force)
        notes += noted
    return product, tuple(notes)


def reject(
    product: Product, encoder: Encoder, image: SupportImage, region: tuple[int, int, int, int] | None
) -> tuple[Product, tuple[str, ...]]:
    """`reject_image`; of an image with several parts, the one that the region lies on, or the worst."""
    if product.model.parts is None:
        return reject_image(product, encoder, image, region)
    judged = _judged(image, inspect_frame(image.pixels, encoder, product.model, ""))
    if region is None:
        worst = max(judged, key=lambda part: part.score)
        return reject_image(product, encoder, _image_of(image, worst), None)
    part = max(judged, key=lambda part: _overlap(part.box, region))
    if not _overlap(part.box, region):
        raise SupportSetError(
            f"expected a region on one of the {len(judged)} parts of {image.name} that can be judged, got {region}, "
            "which lies beside them. Give a larger one, or none for the worst part."
        )
    return reject_image(product, encoder, _image_of(image, part), _on_part(region, part))


def _judged(image: SupportImage, inspection: Inspection) -> list[InspectedPart]:
    """The parts of an image that can be judged.

    Raises:
        SupportSetError: There is none.
    """
    judged = [part for part in inspection.parts if part.verdict != "not_inspectable"]
    if not judged:
        reason = inspection.reason or "no part is found"
        raise SupportSetError(f"expected an image with parts that can be judged, got {image.name}: {reason}.")
    return judged


def _image_of(image: SupportImage, part: InspectedPart) -> SupportImage:
    if part.inspection is None:
        raise ValueError("expected a part that was cut out")
    return part_image(image.name, part.number, part.inspection.image)


def _overlap(box: tuple[int, int, int, int], region: tuple[int, int, int, int]) -> int:
    """Pixels that two boxes have in common."""
    sides = [max(0, min(box[k] + box[k + 2], region[k] + region[k + 2]) - max(box[k], region[k])) for k in (0, 1)]
    return sides[0] * sides[1]


def _on_part(region: tuple[int, int, int, int], part: InspectedPart) -> tuple[int, int, int, int]:
    """A region of an image on a part's own image: the box around it, cut to that."""
    if part.forward is None or part.inspection is None:
        raise ValueError("expected a part that was cut out")
    x, y, width, height = region
    corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], np.float64)
    placed = corners @ part.forward[:, :2].T + part.forward[:, 2]
    limit = np.array(part.inspection.image.shape[1::-1])
    left, top = (int(value) for value in np.clip(np.floor(placed.min(axis=0)), 0, limit - 1))
    right, bottom = (int(value) for value in np.clip(np.ceil(placed.max(axis=0)), 1, limit))
    return left, top, max(1, right - left), max(1, bottom - top)
