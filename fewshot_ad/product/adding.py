"""A product with further good images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fewshot_ad.arrays import Progress
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.banks import Extension, extend_banks
from fewshot_ad.enrollment.calibration import Calibration, extended_calibration
from fewshot_ad.enrollment.hygiene import check_additions
from fewshot_ad.enrollment.known_defects import LIKE, Seen, like_defect, see
from fewshot_ad.enrollment.probes import distinct_images
from fewshot_ad.enrollment.support import SupportImage, SupportSet
from fewshot_ad.errors import SupportSetError, sentence
from fewshot_ad.product.product import Product, now
from fewshot_ad.scoring import inspect_image


def add_images(
    product: Product,
    encoder: Encoder,
    support: SupportSet,
    progress: Progress | None = None,
    force: bool = False,
) -> tuple[Product, tuple[str, ...]]:
    """The product with further good images; see `Inspector.add`.

    Args:
        product: The product as it is.
        encoder: Its encoder.
        support: The further images.
        progress: Called as `progress(stage, done, total)`.
        force: Whether images are taken that are unlike the ones before.

    Returns:
        The product with its calibration's threshold, and what was noticed.

    Raises:
        SupportSetError: None of them is new, one is unlike the ones before, or the product was enrolled from a single
            one.
    """
    model, enrollment = product.model, product.enrollment
    settings = enrollment.settings
    known = {sha256: name for name, sha256 in enrollment.support}
    new = [image for image in support.images if image.sha256 not in known]
    notes = [note for note in support.notes if not note.startswith("only one image")] + [
        f"left out, identical to {known[image.sha256]}: {image.name}"
        for image in support.images
        if image.sha256 in known
    ]
    if not new:
        raise SupportSetError(f"expected a new good image, got none: {sentence('; '.join(notes))}")
    before = product.calibration
    if before.method == "leave-one-view-out" or len(before.map_peaks) != len(before.scores):
        raise SupportSetError(
            "expected a product enrolled from at least two images by this version, got one whose held-out scores say "
            "nothing about a further image. Enroll again from all images together."
        )
    if not force:
        _require_inspectable(product, encoder, new)
        _require_unlike_defects(product, encoder, new)
    extension = extend_banks(model, new, settings, encoder, len(enrollment.support), progress)
    names = [new[stand_in.image].name for stand_in in extension.embedded.stand_ins]
    if len(names) < len(new):
        notes.append(
            f"{len(names)} of {len(new)} images, evenly chosen, were scored for the threshold; all are in the bank."
        )
    notes += check_additions(before, extension.scores, names, force)
    distinct = distinct_images([image.pixels for image in new])
    calibration = extended_calibration(before, extension.scores, extension.map_peaks, distinct, settings)
    if calibration is before:
        notes.append("the threshold stays as it was calibrated on further images; calibrate again to make use of these")
    event = f"added {', '.join(image.name for image in new)}."
    return extended_product(product, encoder, new, extension, calibration, event, notes), tuple(notes)


def extended_product(
    product: Product,
    encoder: Encoder,
    new: Sequence[SupportImage],
    extension: Extension,
    calibration: Calibration,
    event: str,
    notes: Sequence[str],
) -> Product:
    """The product with images that its banks have been extended by.

    Args:
        product: The product as it is.
        encoder: Its encoder.
        new: The images.
        extension: The banks with them.
        calibration: Where the threshold comes from then.
        event: What was done, for the record.
        notes: What was noticed of the images, for the record.
    """
    model, enrollment = product.model, product.enrollment
    expectations = model.expectations
    if expectations is not None:
        expectations = expectations.extended(extension.embedded.appearances, extension.closeness)
    extended = Product.assemble(
        encoder,
        extension.scales,
        calibration,
        dataclasses.replace(
            enrollment,
            support=(*enrollment.support, *((image.name, image.sha256) for image in new)),
            notes=(*enrollment.notes, *notes),
            reasons=(*enrollment.reasons, f"{now()}: {event}"),
        ),
        # They are the first images of the support set; where one of these is not stored, no later one is.
        product.references
        if len(product.references) < len(enrollment.support)
        else (*product.references, *extension.embedded.references),
        product.model.threshold if product.threshold_set_by_hand else None,
        expectations,
        history=product.history,
        known_defects=product.known_defects,
    )
    extended.warm_up_like(product)
    return extended


def _require_unlike_defects(product: Product, encoder: Encoder, images: Sequence[SupportImage]) -> None:
    """Make sure that no image to be added shows a defect that the operator has shown.

    Raises:
        SupportSetError: One does; nothing has been changed.
    """
    if not product.known_defects:
        return
    reasons = [
        f"{image.name} ({likeness})"
        for image in images
        if (likeness := known_likeness(product, image, see(image.pixels, product.model, encoder)))
    ]
    if reasons:
        raise SupportSetError(
            f"expected further good images, got {len(reasons)} of {len(images)} with patches like those of a known "
            f"defect: {', '.join(reasons)}. Nothing was added. Look at them: leave them out, or, if they are good, "
            "give force=True (command line: --force)."
        )


def known_likeness(product: Product, image: SupportImage, seen: Seen) -> str:
    """Which known defect an image is like, in words; empty where it is like none.

    Args:
        product: The product.
        image: The image.
        seen: The same as the product sees it.
    """
    if any(defect.sha256 == image.sha256 for defect in product.known_defects):
        return "it was rejected as a defect"
    for defect in product.known_defects:
        if like_defect(seen, product.model, defect.patches) >= LIKE:
            return f"like the defect of {defect.name}"
    return ""


def _require_inspectable(product: Product, encoder: Encoder, images: Sequence[SupportImage]) -> None:
    """Make sure that images to be added could be judged; what they look like is expected from then on.

    Raises:
        SupportSetError: One could not; nothing has been changed.
    """
    reasons = [
        f"{image.name}: {reason}"
        for image in images
        if (reason := inspect_image(image.pixels, encoder, product.model, "").reason)
    ]
    if reasons:
        raise SupportSetError(
            f"expected further good images, got {len(reasons)} of {len(images)} that cannot be judged: "
            f"{'; '.join(reasons)}. Nothing was added. Photograph them again, or, if the line looks like that from now "
            "on, give force=True (command line: --force)."
        )
