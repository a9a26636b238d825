"""What of the images counts: a region that was drawn, the part on its background, or all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from fewshot_ad.arrays import Progress, Uint8Array, in_steps
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.banks import enroll_scale
from fewshot_ad.enrollment.drawing import compared, probes_on
from fewshot_ad.enrollment.embedding import embed_support
from fewshot_ad.enrollment.foreground import find_foreground
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.selection import candidate_sizes
from fewshot_ad.enrollment.support import SupportImage
from fewshot_ad.errors import ArgumentError, SupportSetError
from fewshot_ad.images import Geometry, RegionOfInterest
from fewshot_ad.product.product import Product
from fewshot_ad.product.relighting import LightingChoice
from fewshot_ad.registration import scaled_image
from fewshot_ad.scoring import patch_weights

ForegroundChoice: TypeAlias = Literal["off", "auto", "part"]
# Of a region of interest: fewer patches say nothing of how good ones differ.
MIN_PATCHES = 9
# The part alone is looked at where drawn defects then stand out from good images by so much more, in logarithms.
MIN_GAIN = 0.05


class Where(NamedTuple):
    """What of the images counts, and of their light.

    Attributes:
        drawn: (H, W) uint8: how much each pixel of the first image counts, 0 to 255; None for all of it.
        foreground: `part`: only the part on its plain background; `auto`: that, where it helps; `off`.
        lighting: A kind of `images.Lighting`; `auto`: the better one, where it helps; `off`.
        reason: Why it is drawn like that, in words.
    """

    drawn: Uint8Array | None = None
    foreground: ForegroundChoice = "off"
    lighting: LightingChoice = "off"
    reason: str = "as it was drawn"


EVERYWHERE = Where()


def region_of_interest(
    images: Sequence[SupportImage],
    settings: EnrollmentSettings,
    where: Where,
    encoder: Encoder,
    progress: Progress | None = None,
) -> tuple[RegionOfInterest | None, tuple[str, ...]]:
    """The region that counts, in the frame of the registered image; None for all of it. And why.

    Args:
        images: The support set.
        settings: What was asked for, with registration.
        where: What was asked for of the region.
        encoder: The encoder.
        progress: Called as `progress("foreground", done, total)` where all and the part alone are compared.

    Raises:
        SupportSetError: An image has other proportions than the first, or the region is smaller than a few patches.
    """
    roi, reasons = None, list[str]()
    if where.drawn is not None:
        roi = _drawn(images, settings, where.drawn, encoder)
        _check(images, settings, roi, encoder)
        of = "the image" if settings.parts is None else "a part's own image"
        reasons.append(f"region of interest: {roi.share:.0%} of {of}, {where.reason}.")
    if where.foreground != "off":
        found, reason = _part(images, settings, where.foreground, roi, encoder, progress)
        roi = found or roi
        reasons.append(reason)
    return roi, tuple(reasons)


def narrow_region(product: Product, encoder: Encoder, drawn: Uint8Array) -> Product:
    """The product with less of the images counting; the memory bank and the threshold stay.

    Args:
        product: The product as it is.
        encoder: Its encoder.
        drawn: (H, W) uint8: how much each pixel of its first stored image counts, 0 to 255.

    Raises:
        ArgumentError: It has nothing in common with the region before.
        SupportSetError: It is smaller than a few patches.
    """
    settings, model, first = product.enrollment.settings, product.model, product.references[0]
    _, geometry, _ = scaled_image(
        first.content, max(model.image_sizes), encoder.spec.multiple, model.framing, encoder.threads
    )
    roi = dataclasses.replace(geometry, image_hw=first.image_hw).narrowed(drawn).roi
    if roi is None:
        raise ValueError("expected a region of interest")
    _require_patches(first.image_hw, min(model.image_sizes), roi, encoder)
    return dataclasses.replace(
        product,
        model=dataclasses.replace(model, roi=roi),
        enrollment=dataclasses.replace(product.enrollment, settings=dataclasses.replace(settings, roi=roi)),
    )


def _drawn(
    images: Sequence[SupportImage], settings: EnrollmentSettings, drawn: Uint8Array, encoder: Encoder
) -> RegionOfInterest:
    first, finest = images[0].pixels, max(candidate_sizes(images, settings))
    if settings.registration is None:
        return RegionOfInterest.of(drawn, first.shape[:2])  # type: ignore[arg-type]
    _, geometry, _ = scaled_image(first, finest, encoder.spec.multiple, settings.framing, encoder.threads)
    roi = geometry.narrowed(drawn).roi
    if roi is None:
        raise ValueError("expected a region of interest")
    return RegionOfInterest.of(roi.weights, roi.image_hw)


def _part(
    images: Sequence[SupportImage],
    settings: EnrollmentSettings,
    choice: ForegroundChoice,
    drawn: RegionOfInterest | None,
    encoder: Encoder,
    progress: Progress | None,
) -> tuple[RegionOfInterest | None, str]:
    """The part on its background, within what was drawn; None where all of that counts."""
    # By hash, so that the order of the support set decides nothing.
    ordered = sorted(images, key=lambda image: image.sha256)
    roi, reason = find_foreground([image.pixels for image in ordered], encoder, settings.registration)
    if roi is None:
        if choice == "part":
            raise SupportSetError(
                f"expected a part on a plain background for foreground='part', got none ({reason}) Photograph it on a "
                "plain background, draw a region of interest, or leave foreground out."
            )
        return None, reason
    try:
        if drawn is not None:
            roi = drawn.narrowed(roi.weights)
        _check(images, settings, roi, encoder)
    except (ArgumentError, SupportSetError) as error:
        if choice == "part":
            raise
        return None, f"foreground: all of the image; {error}"
    if choice == "part":
        return roi, f"{reason}."
    if len(images) < 2:
        return None, "foreground: all of the image; of a single image it cannot be told whether the part alone helps."
    gain = _gain(compared(images), settings, drawn, roi, encoder, progress)
    margin = f"drawn defects stand out {abs(gain):.0%} {'more' if gain > 0 else 'less'} where only the part counts"
    if gain < MIN_GAIN:
        return None, f"foreground: all of the image; {margin} ({MIN_GAIN:.0%} asked)."
    return roi, f"{reason}; {margin}."


def _gain(
    images: Sequence[SupportImage],
    settings: EnrollmentSettings,
    drawn: RegionOfInterest | None,
    part: RegionOfInterest,
    encoder: Encoder,
    progress: Progress | None,
) -> float:
    """By how much more drawn defects stand out from held-out good images with the part alone, in logarithms."""
    size = min(candidate_sizes(images, settings))
    alone = dataclasses.replace(settings, roi=part)
    ways = (dataclasses.replace(settings, roi=drawn), alone)
    embedded = [
        embed_support(images, one, size, encoder, in_steps(progress, at, len(ways), "foreground"))
        for at, one in enumerate(ways)
    ]
    # The same defects in the same places for both.
    probes = probes_on(images, embedded[1], alone, size, encoder)
    margins = []
    for one, of_one in zip(ways, embedded, strict=True):
        scale = enroll_scale(of_one, one, size, encoder, probes)
        good = np.log([max(m.score, 1e-12) for m in scale.good])
        margins.append(np.log(np.maximum(scale.defects, 1e-12)) - good.max())
    return float(np.mean(margins[1] - margins[0]))


def _check(
    images: Sequence[SupportImage], settings: EnrollmentSettings, roi: RegionOfInterest, encoder: Encoder
) -> None:
    """Whether a region fits the images, and shows enough of them.

    Raises:
        SupportSetError: It does not.
    """
    first = images[0].pixels
    other = next((image for image in images if not roi.fits(image.pixels.shape[:2])), None)  # type: ignore[arg-type]
    if other is not None:
        (height, width), (h, w) = first.shape[:2], other.pixels.shape[:2]
        raise SupportSetError(
            f"{other.name}: expected an image with the proportions of {images[0].name}, {width} x {height} pixels, for "
            f"which the region of interest holds, got {w} x {h}. Leave it out, or photograph it again."
        )
    _require_patches(first.shape[:2], min(candidate_sizes(images, settings)), roi, encoder)  # type: ignore[arg-type]


def _require_patches(image_hw: tuple[int, int], coarsest: int, roi: RegionOfInterest, encoder: Encoder) -> None:
    stride = max(encoder.spec.level_strides)
    geometry = Geometry.fit(image_hw, coarsest, encoder.spec.multiple, roi)
    grid = (geometry.input_hw[0] // stride, geometry.input_hw[1] // stride)
    if np.count_nonzero(patch_weights(geometry, grid, 1.0)) < MIN_PATCHES:
        raise SupportSetError(
            f"expected a region of interest of at least {MIN_PATCHES} patches of {stride} x {stride} pixels at the "
            f"working scale {coarsest}, got a smaller one. Draw it larger, or crop the images around it and enroll "
            "those."
        )
