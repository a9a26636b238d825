"""What the operator says of a verdict: accept a false reject, reject what is defective."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from fewshot_ad import arguments
from fewshot_ad.arrays import Float32Array, Progress
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.banks import extend_banks
from fewshot_ad.enrollment.embedding import places_to_draw
from fewshot_ad.enrollment.hygiene import drawn_score
from fewshot_ad.enrollment.known_defects import Seen, defect_patches, score_against, see
from fewshot_ad.enrollment.probes import DrawnDefect
from fewshot_ad.enrollment.support import SupportImage, SupportSet
from fewshot_ad.errors import SupportSetError
from fewshot_ad.product.adding import extended_product, known_likeness
from fewshot_ad.product.history import MAX_KNOWN_DEFECTS, MAX_PATCHES, KnownDefect
from fewshot_ad.product.product import Product
from fewshot_ad.scoring import Model, inspect_image

# Of each working scale, per level, (n, d) float32.
Patches: TypeAlias = tuple[Float32Array, ...]
# Of the drawn defects of the largest size that were caught before, so large a share may pass afterwards, and one.
LOST_SHARE = 0.25


class Drawn(NamedTuple):
    """A drawn defect: the patches that make its score, and the factor as in `KnownDefect`."""

    patches: Patches
    factor: float


def accept_image(
    product: Product,
    encoder: Encoder,
    support: SupportSet,
    drawn: Callable[[], Sequence[Drawn]],
    progress: Progress | None = None,
    force: bool = False,
) -> tuple[Product, tuple[str, ...]]:
    """The product with a good image that it rejects; see `Inspector.accept`.

    Args:
        product: The product as it is.
        encoder: Its encoder.
        support: The image.
        drawn: Gives the drawn defects, see `drawn_defects`; asked only where nothing else speaks against the image.
        progress: Called as `progress("coreset", done, total)`.
        force: Whether it is taken although defects would pass, or although it is like one.

    Returns:
        The product, and what was noticed; the first is the severity before and after.

    Raises:
        SupportSetError: It was enrolled or rejected already, cannot be judged, is like a known defect, or with it
            defects would pass that are caught now.
    """
    [image] = support.images
    enrollment = product.enrollment
    for name, sha256 in enrollment.support:
        if sha256 == image.sha256:
            raise SupportSetError(f"expected an image that is not enrolled, got {image.name}, which is: as {name}.")
    inspection = inspect_image(image.pixels, encoder, product.model, "")
    notes = [note for note in support.notes if not note.startswith("only one image")]
    if not inspection.is_anomalous:
        notes.append(f"{image.name} was judged good already; it is taken along")
    largest = drawn_score(product.calibration.defects)
    if inspection.score > largest > 0:
        notes.append(f"{image.name} is as unlike the good images as a defect drawn on them: look at it again")
    seen = see(image.pixels, product.model, encoder)
    refused = _reasons_before(product, image, seen, inspection.reason)
    if refused and not force:
        raise SupportSetError(_refusal(image, refused))
    settings = enrollment.settings
    extension = extend_banks(product.model, [image], settings, encoder, len(enrollment.support), progress)
    # The calibration stays. An image that was chosen because it was rejected says nothing of how often good ones are:
    # counted as one of the held-out scores, each would raise the threshold, and defects would pass.
    event, calibration = f"accepted {image.name}.", product.calibration
    extended = extended_product(product, encoder, [image], extension, calibration, event, notes)
    lost = _lost(product, extended, drawn())
    if lost and not force:
        raise SupportSetError(_refusal(image, lost))
    after = inspect_image(image.pixels, encoder, extended.model, "")
    change = f"{image.name} accepted: severity {inspection.severity_text} before, {after.severity_text} now"
    if after.is_anomalous:
        notes.append(
            f"{image.name} is still rejected: the memory bank keeps too little of it. Enroll again with a larger "
            "budget, or raise the threshold"
        )
    return extended, (change, *notes, *(f"taken as asked: {reason}" for reason in (*refused, *lost)))


def _refusal(image: SupportImage, reasons: list[str]) -> str:
    return (
        f"{image.name}: expected a good image of this product, got one that was not accepted: {'; '.join(reasons)}. "
        "Nothing was changed. Look at it; if it is good all the same, give force=True (command line: --force)."
    )


def _reasons_before(product: Product, image: SupportImage, seen: Seen, not_inspectable: str) -> list[str]:
    """What speaks against an image, before anything is made of it."""
    if not_inspectable:
        return [f"it cannot be judged ({not_inspectable})"]
    likeness = known_likeness(product, image, seen)
    return [likeness] if likeness else []


def _lost(product: Product, extended: Product, drawn: Sequence[Drawn]) -> list[str]:
    """Which defects are caught by a product and would pass the extended one, in words."""
    before, after = product.model, extended.model
    reasons = []
    for defect in product.known_defects:
        was, will = (defect.factor * score_against(defect.top, model) for model in (before, after))
        if was > before.threshold and will <= after.threshold:
            reasons.append(f"the known defect of {defect.name} would pass (severity {will / after.threshold:.2f})")
    caught = [one for one in drawn if one.factor * score_against(one.patches, before) > before.threshold]
    lost = sum(one.factor * score_against(one.patches, after) <= after.threshold for one in caught)
    if lost > max(1, LOST_SHARE * len(caught)):
        reasons.append(f"{lost} of {len(caught)} drawn defects that are caught now would pass")
    return reasons


def drawn_defects(product: Product, encoder: Encoder) -> tuple[Drawn, ...]:
    """The drawn defects of the largest size, on the images that are stored with the product."""
    found = []
    defects = product.calibration.defects
    largest = max((defect.size for defect in defects), default=0.0)
    for defect in defects:
        if defect.size == largest and defect.image < len(product.references):
            drawn = DrawnDefect(defect.image, defect.kind, defect.size, defect.seed)
            content = product.references[defect.image].content
            within = places_to_draw(content, product.enrollment.settings, encoder.threads)
            seen = see(drawn.draw(content, within), product.model, encoder)
            found.append(Drawn(*_top_patches(seen, product.model)))
    return tuple(found)


def _top_patches(seen: Seen, model: Model) -> tuple[Patches, float]:
    """What makes an image's score, and by which factor that differs from `score_against` of it."""
    patches = defect_patches(seen, model, None, MAX_PATCHES)
    return patches, max(1e-9, seen.score) / max(1e-9, score_against(patches, model))


def reject_image(
    product: Product, encoder: Encoder, image: SupportImage, region: tuple[int, int, int, int] | None
) -> tuple[Product, tuple[str, ...]]:
    """The product with a defect that the operator has shown; see `Inspector.reject`.

    Args:
        product: The product as it is.
        encoder: Its encoder.
        image: The image.
        region: x, y, width and height in pixels of the image; None where none was given.

    Returns:
        The product, and what was noticed.

    Raises:
        SupportSetError: The image was enrolled as a good one, or rejected already, the region lies beside it, or the
            product knows as many defects as it can hold.
    """
    for name, sha256 in product.enrollment.support:
        if sha256 == image.sha256:
            raise SupportSetError(
                f"expected a defective image, got {image.name}, which the product was enrolled from as a good one "
                f"({name}). Undo that (fewshot-ad undo), or enroll again without it."
            )
    if any(defect.sha256 == image.sha256 and defect.region == region for defect in product.known_defects):
        raise SupportSetError(f"expected a defect that is not known, got {image.name}, which was rejected already.")
    if len(product.known_defects) >= MAX_KNOWN_DEFECTS:
        raise SupportSetError(
            f"expected at most {MAX_KNOWN_DEFECTS} known defects, got another one. Calibrate on them "
            "(fewshot-ad calibrate --bad) instead."
        )
    seen = see(image.pixels, product.model, encoder)
    top, factor = _top_patches(seen, product.model)
    patches = top if region is None else defect_patches(seen, product.model, region, MAX_PATCHES)
    defect = KnownDefect(image.name, image.sha256, region, patches, top, factor)
    severity = seen.score / product.model.threshold
    notes = [
        f"{image.name} is rejected as it is (severity {severity:.2f}): it is kept as evidence"
        if seen.score > product.model.threshold
        else f"{image.name} passes (severity {severity:.2f}), and images like it still do: the threshold stays. Lower "
        "it, or calibrate on such images (fewshot-ad calibrate --bad)"
    ]
    return dataclasses.replace(product, known_defects=(*product.known_defects, defect)), tuple(notes)


def checked_region(region: object, image_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """A region x, y, width, height in pixels, cut to an image.

    Raises:
        SupportSetError: It is none, or shows nothing of the image.
    """
    if not isinstance(region, (tuple, list)) or len(region) != 4:
        raise SupportSetError(f"expected region as x, y, width, height in pixels, got {region!r}.")
    x, y, width, height = (
        arguments.whole_number(value, "region", -(2**31), 2**31, error=SupportSetError) for value in region
    )
    left, top = max(0, x), max(0, y)
    right, bottom = min(image_hw[1], x + width), min(image_hw[0], y + height)
    if right <= left or bottom <= top:
        raise SupportSetError(
            f"expected a region within the image of {image_hw[1]} x {image_hw[0]} pixels, got {tuple(region)}."
        )
    return left, top, right - left, bottom - top
