"""Known defects of an earlier product, carried over into a new enrollment of the same part."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.known_defects import see
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.support import SupportImage, pixel_hash
from fewshot_ad.errors import SupportSetError
from fewshot_ad.product.adding import known_likeness
from fewshot_ad.product.product import Product
from fewshot_ad.registration.parts import cut_out
from fewshot_ad.scoring import Model
from fewshot_ad.search.memory_bank import MemoryBank

# Sides of the own images of two products' parts, at most.
ALIKE = 1.1


def at_scales_of(former: Product, settings: EnrollmentSettings) -> EnrollmentSettings:
    """The settings at the working scales that the known defects of a product are stored at.

    Raises:
        SupportSetError: Others are asked for.
    """
    sizes = former.model.image_sizes
    if not former.known_defects:
        return settings
    if "image_size" in settings.auto:
        auto = tuple(name for name in settings.auto if name != "image_size")
        return dataclasses.replace(settings, image_sizes=sizes, auto=auto)
    if settings.image_sizes != sizes:
        raise SupportSetError(
            f"expected image_size={sizes}, at which the known defects of {former.enrollment.product_name} are stored, "
            f"got {settings.image_sizes}. Leave image_size out, or known_defects."
        )
    return settings


def check_carried(former: Product, former_encoder: Encoder, encoder: Encoder, images: Sequence[SupportImage]) -> None:
    """What can be told before the enrollment.

    Raises:
        SupportSetError: The encoder is another, or an image was rejected as a defect.
    """
    if not former.known_defects:
        return
    # Another precision sees nearly the same.
    if dataclasses.replace(former_encoder.spec, precision=encoder.spec.precision) != encoder.spec:
        raise SupportSetError(
            f"expected the encoder of {former.enrollment.product_name} ({former_encoder.spec.name}), whose known "
            f"defects are to be carried over, got another one ({encoder.spec.name}). Give the same."
        )
    rejected = {defect.sha256: defect.name for defect in former.known_defects}
    for image in images:
        for sha256 in _hashes(image, former):
            if sha256 in rejected:
                raise SupportSetError(
                    f"expected good images, got {image.name}, which was rejected as a defect ({rejected[sha256]}). "
                    "Leave it out."
                )


def _hashes(image: SupportImage, former: Product) -> list[str]:
    """By what a product knows an image: of one with several parts, each as it cuts them out."""
    if former.model.parts is None:
        return [image.sha256]
    parts = cut_out(image.pixels, former.model.parts).parts
    return [pixel_hash(part.pixels) for part in parts if part.pixels is not None]


def _check_alike(product: Product, former: Product) -> None:
    """Whether two products look at images in the same way: patches of one mean nothing to the other otherwise.

    Raises:
        SupportSetError: They do not.
    """
    ways: list[dict[str, object]] = []
    for settings in (product.enrollment.settings, former.enrollment.settings):
        lighting = "off" if settings.lighting is None else settings.lighting.kind
        ways.append(
            {
                "parts": settings.parts is not None,
                "register": settings.registration is not None,
                "lighting": lighting,
                "metric": settings.scoring.metric,
            }
        )
    own, other = ways
    layouts = [one.enrollment.settings.parts for one in (product, former)]
    if layouts[0] is not None and layouts[1] is not None:
        # The same working scale then shows a part at the same size.
        ratios = [a / b for a, b in zip(layouts[0].size, layouts[1].size, strict=True)]
        if not all(1 / ALIKE <= ratio <= ALIKE for ratio in ratios):
            own["size of parts"], other["size of parts"] = layouts[0].size, layouts[1].size
    differing = [f"{name} {own[name]} here, {other[name]} there" for name in own if own[name] != other[name]]
    if differing:
        raise SupportSetError(
            f"expected the settings of {former.enrollment.product_name}, whose known defects are to be carried over, "
            f"got others: {', '.join(differing)}. Enroll with the same."
        )


def carry_defects(
    product: Product, former: Product, encoder: Encoder, images: Sequence[SupportImage], keep: bool
) -> Product:
    """The product with the known defects of a former one.

    Args:
        product: As enrolled.
        former: The product whose operator has shown defects.
        encoder: The encoder of both.
        images: What it was enrolled from, in the order of the bank's origins.
        keep: Whether images that are like a known defect are kept all the same, and named.

    Raises:
        SupportSetError: An image has patches like those of a known defect, compared with the other images.
    """
    if not former.known_defects:
        return product
    _check_alike(product, former)
    carried = dataclasses.replace(product, known_defects=former.known_defects)
    enrolled = {sha256 for _, sha256 in product.enrollment.support}
    reasons = []
    kept = [image for image in images if image.sha256 in enrolled]
    for at, image in enumerate(kept if len(kept) > 1 else ()):
        others = dataclasses.replace(carried, model=_without(product.model, at, encoder))
        if likeness := known_likeness(others, image, see(image.pixels, others.model, encoder)):
            reasons.append(f"{image.name} ({likeness})")
    if not reasons:
        return carried
    if not keep:
        raise SupportSetError(
            f"expected good images, got {len(reasons)} of {len(kept)} with patches like those of a known defect: "
            f"{', '.join(reasons)}. Look at them: leave them out, or, if they are good, give keep_outliers=True "
            "(command line: --keep-outliers)."
        )
    return carried.with_notes(f"kept, like a known defect: {', '.join(reasons)}")


def _without(model: Model, image: int, encoder: Encoder) -> Model:
    """The same compared with the patches of all other images."""
    scales = []
    for scale in model.scales:
        banks = []
        for bank in scale.banks:
            rows = np.flatnonzero(bank.origin.image != image)
            rows = rows if len(rows) else np.arange(len(bank))
            banks.append(MemoryBank(bank.vectors[rows], bank.origin[rows], bank.metric, encoder.threads, lasting=False))
        scales.append(dataclasses.replace(scale, banks=tuple(banks), one_pass=None))
    return dataclasses.replace(model, scales=tuple(scales))
