"""A product from a support set."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from fewshot_ad.arrays import IndexArray, Progress, in_steps
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment import precision
from fewshot_ad.enrollment.banks import EnrolledScale, enroll_scale, join_scales
from fewshot_ad.enrollment.calibration import calibrate
from fewshot_ad.enrollment.drawing import probes_on
from fewshot_ad.enrollment.embedding import Embedded, embed_support, held_out_alike
from fewshot_ad.enrollment.hygiene import check_support, expectations_of
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.probes import Probes, distinct_images
from fewshot_ad.enrollment.selection import candidate_sizes, choose_scales, choose_views
from fewshot_ad.enrollment.support import SupportImage, SupportSet
from fewshot_ad.enrollment.views import View
from fewshot_ad.metrics import decision_flips, relative_difference
from fewshot_ad.printable import printable
from fewshot_ad.product.looking import EVERYWHERE, Where, region_of_interest
from fewshot_ad.product.product import Enrollment, Product, now
from fewshot_ad.product.relighting import choose_lighting
from fewshot_ad.registration import fit_registration, pose_estimator
from fewshot_ad.scoring import Scale


def enroll(
    support: SupportSet,
    product_name: str,
    settings: EnrollmentSettings,
    encoder: Encoder,
    faster: Encoder | None = None,
    progress: Progress | None = None,
    keep_outliers: bool = False,
    register: bool = False,
    where: Where = EVERYWHERE,
) -> tuple[Encoder, Product]:
    """Enroll a product.

    Args:
        support: The support set.
        product_name: Name of the product.
        settings: What was asked for.
        encoder: The encoder.
        faster: The same in a faster precision, to be used if it says the same; None for no other.
        progress: Called as `progress(stage, done, total)`.
        keep_outliers: Whether images that are unlike the others are enrolled from all the same.
        register: Whether images are brought into one pose, where the turn of the part can be told.
        where: What of the images counts, and of their light.

    Returns:
        The encoder that the product was enrolled with, and the product.
    """
    images = support.images
    pose_notes: tuple[str, ...] = ()
    pose_reasons: tuple[str, ...] = ()
    if register:
        settings, pose_notes, pose_reasons = _registered(images, settings, encoder)
    roi, where_reasons = region_of_interest(images, settings, where, encoder, progress)
    settings = dataclasses.replace(settings, roi=roi)
    lighting, light_reasons = choose_lighting(images, settings, where.lighting, encoder, progress)
    settings = dataclasses.replace(settings, lighting=lighting)
    settings, reasons, trial = choose_views(images, settings, encoder, progress)
    sizes = candidate_sizes(images, settings)
    # What the choice of the views has embedded and thinned already is not done again.
    done = {} if trial is None else {trial.image_size: trial}
    embedded = [
        done[size].embedded
        if size in done
        else embed_support(images, settings, size, encoder, in_steps(progress, at, len(sizes)))
        for at, size in enumerate(sizes)
    ]
    embedded = held_out_alike(embedded)
    coresets = [done[size].coresets if size in done else None for size in sizes]
    scales, probes = _enroll_scales(embedded, images, settings, sizes, encoder, coresets, progress)
    check = check_support(scales, images, settings, probes.series, keep=keep_outliers)
    if check.outliers:
        support = support.without(check.outliers)
        images = support.images
        embedded = [one.without(check.outliers) for one in embedded]
        coresets = [None] * len(sizes)
        scales, probes = _enroll_scales(embedded, images, settings, sizes, encoder, coresets, progress)
    distinct = distinct_images([image.pixels for image in images])
    scales, reason = choose_scales(scales, settings, encoder, probes.series, distinct)
    settings = dataclasses.replace(settings, image_sizes=tuple(scale.image_size for scale in scales))
    product = _product_of(scales, probes, distinct, support, product_name, settings, encoder)
    product = product.with_notes(*check.notes, *pose_notes).with_reasons(
        *pose_reasons, *where_reasons, *light_reasons, *reasons, *reason
    )
    if faster is None:
        return encoder, product
    return _faster_if_equal(product, encoder, faster, scales, distinct, support, progress)


def _registered(
    images: Sequence[SupportImage], settings: EnrollmentSettings, encoder: Encoder
) -> tuple[EnrollmentSettings, tuple[str, ...], tuple[str, ...]]:
    """The settings with a registration, if the part has a pose that can be told; notes and reasons."""
    half_turns = View("rotate", 180) in settings.views
    # By hash, so that the order of the support set decides nothing.
    pixels = [image.pixels for image in sorted(images, key=lambda image: image.sha256)]
    registration, reason = fit_registration(pixels, pose_estimator(encoder.threads), half_turns)
    if registration is None:
        return settings, (reason,), ()
    return dataclasses.replace(settings, registration=registration), (), (reason,)


def _enroll_scales(
    embedded: Sequence[Embedded],
    images: Sequence[SupportImage],
    settings: EnrollmentSettings,
    sizes: Sequence[int],
    encoder: Encoder,
    coresets: Sequence[Sequence[IndexArray] | None],
    progress: Progress | None,
) -> tuple[list[EnrolledScale], Probes]:
    """The support set at each working scale, and what was drawn on it."""
    probes = probes_on(images, embedded[0], settings, max(sizes), encoder)
    scales = [
        enroll_scale(
            one,
            settings,
            size,
            encoder,
            probes,
            coresets[at],
            in_steps(progress, at, len(sizes)),
        )
        for at, (one, size) in enumerate(zip(embedded, sizes, strict=True))
    ]
    return scales, probes


def _product_of(
    scales: Sequence[EnrolledScale],
    probes: Probes,
    distinct: int,
    support: SupportSet,
    product_name: str,
    settings: EnrollmentSettings,
    encoder: Encoder,
) -> Product:
    divisors, evidence = join_scales(scales, settings, probes.series, distinct)
    images, held_out = support.images, scales[0].held_out
    notes = list(support.notes)
    if len(held_out) < len(images):
        notes.append(
            f"{len(held_out)} of {len(images)} images, evenly chosen, were held out in turn for the threshold; all "
            "are in the bank."
        )
    if distinct < len(images):
        notes.append(
            f"only {distinct} of {len(images)} images differ by more than noise; the others count as the same. Give "
            "photographs of different parts."
        )
    enrollment = Enrollment(
        product_name=product_name,
        settings=dataclasses.replace(settings, precision=encoder.spec.precision),
        support=tuple((image.name, image.sha256) for image in images),
        notes=tuple(notes),
        reasons=(),
        created=now(),
        versions=library_versions(encoder),
    )
    return Product.assemble(
        encoder,
        [
            Scale(scale.image_size, scale.banks, scale.level_scale, divisor)
            for scale, divisor in zip(scales, divisors, strict=True)
        ],
        calibrate(evidence, settings),
        enrollment,
        scales[-1].embedded.references,
        expectations=expectations_of(scales),
    )


def _faster_if_equal(
    product: Product,
    encoder: Encoder,
    faster: Encoder,
    scales: Sequence[EnrolledScale],
    distinct: int,
    support: SupportSet,
    progress: Progress | None,
) -> tuple[Encoder, Product]:
    """The same product on a faster encoder, from the same patches, if that is faster and says the same."""
    enrollment, settings, name = product.enrollment, product.enrollment.settings, faster.spec.precision
    gain = precision.speedup(encoder, faster, settings.image_sizes)
    if gain < precision.MIN_SPEEDUP:
        return encoder, product.with_reasons(f"precision: f32; {name} is only {gain:.2f} times as fast here.")
    embedded = [
        embed_support(support.images, settings, size, faster, in_steps(progress, at, len(scales)))
        for at, size in enumerate(settings.image_sizes)
    ]
    embedded = held_out_alike(embedded)
    again, probes = _enroll_scales(
        embedded, support.images, settings, settings.image_sizes, faster, [scale.coresets for scale in scales], progress
    )
    candidate = _product_of(again, probes, distinct, support, enrollment.product_name, settings, faster)
    expected, other = (
        precision.severities(support.images, settings, e, p.model, p.calibration)
        for e, p in ((encoder, product), (faster, candidate))
    )
    worst = relative_difference(other, expected, 1.0)
    flips = decision_flips([severity > 1 for severity in other], [severity > 1 for severity in expected])
    difference = f"scores of {len(other)} support images and views differ by at most {worst:.1%} of the threshold"
    if flips or worst > precision.SEVERITY_TOLERANCE:
        return encoder, product.with_reasons(
            f"precision: f32; with {name} {difference} ({precision.SEVERITY_TOLERANCE:.0%} allowed), {flips} decisions "
            "flip."
        )
    reason = f"precision: {name}; {gain:.1f} times as fast as f32, and {difference}."
    notes = enrollment.notes[len(candidate.enrollment.notes) :]
    candidate = candidate.with_expectations(product.model.expectations)
    return faster, candidate.with_notes(*notes).with_reasons(*enrollment.reasons, reason)


def product_name(support: SupportSet) -> str:
    """The folder that all images of files have in common, as in MVTec's layout `.../bottle/train/good`."""
    folders = {image.source.parent.resolve() for image in support.images if image.source is not None}
    try:
        common = Path(os.path.commonpath(folders))
    except ValueError:  # no image is of a file, or they lie on several drives
        return "product"
    parts = [part for part in common.parts if part not in ("good", "train", "ok", common.anchor)]
    # A name of bytes that are no UTF-8 could not be stored.
    return printable(parts[-1]) if parts else "product"


def library_versions(encoder: Encoder) -> dict[str, str]:
    """Versions of what computes the scores, by package."""
    packages = ["fewshot-ad", "numpy", "opencv-python-headless", "faiss-cpu", encoder.engine_name]
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return versions
