"""A product: all that is known of one part, and how it comes about and grows."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot_ad import arguments
from fewshot_ad.arrays import IndexArray, Progress
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment import precision
from fewshot_ad.enrollment.banks import EnrolledScale, enroll_scale, extend_banks, join_scales
from fewshot_ad.enrollment.calibration import Calibration, calibrate, extended_calibration
from fewshot_ad.enrollment.embedding import Embedded, Reference, embed_support, kept_references
from fewshot_ad.enrollment.hygiene import check_additions, check_support, expectations_of
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.probes import MAX_DRAWN_ON, Probes, defect_series, distinct_images
from fewshot_ad.enrollment.selection import candidate_sizes, choose_scales, choose_views
from fewshot_ad.enrollment.support import SupportImage, SupportSet
from fewshot_ad.errors import FewshotADError, ImageError, SupportSetError, sentence
from fewshot_ad.images import check_size
from fewshot_ad.inspectability import Expectations
from fewshot_ad.metrics import decision_flips, relative_difference
from fewshot_ad.printable import printable
from fewshot_ad.scoring import Model, Scale, inspect_image
from fewshot_ad.search.one_pass import OnePass

# Characters of a product's name.
MAX_NAME = 4096


@dataclass(frozen=True)
class Enrollment:
    """The record of how a product was enrolled; all of it is stored in the artifact.

    Attributes:
        product_name: Name of the product.
        settings: The settings, after the choice of what was left to `auto`.
        support: Name and pixel hash of each support image.
        notes: What was noticed about the support set.
        reasons: Why the settings are what they are, where they were chosen; and what was added later.
        created: ISO date and time, UTC.
        versions: Versions of the libraries that computed it.
    """

    product_name: str
    settings: EnrollmentSettings
    support: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    reasons: tuple[str, ...]
    created: str
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class Product:
    """What belongs together, exchanged as one.

    Attributes:
        model: What the decisions are made with; the threshold that holds is here.
        calibration: Where the threshold comes from.
        enrollment: How it was enrolled.
        references: Support images at the working scale.
        threshold_set_by_hand: Whether the threshold that holds was set by hand, be it to the calibration's own.
    """

    model: Model
    calibration: Calibration
    enrollment: Enrollment
    references: tuple[Reference, ...]
    threshold_set_by_hand: bool = False

    @classmethod
    def assemble(
        cls,
        encoder: Encoder,
        scales: Sequence[Scale],
        calibration: Calibration,
        enrollment: Enrollment,
        references: Sequence[Reference],
        threshold: float | None = None,
        expectations: Expectations | None = None,
    ) -> Product:
        """Put a product together: enrolled, extended or loaded.

        Args:
            encoder: The encoder that the banks were filled with.
            scales: What images are compared with, ascending; the graphs of encoder and banks are made here.
            calibration: Where the threshold comes from.
            enrollment: How it was enrolled.
            references: Support images at the working scale; as many are kept as `embedding.REFERENCE_BYTES` hold.
            threshold: The threshold that was set by hand; None for the calibration's.
            expectations: What good images look like as a whole; None where that is not known.
        """
        settings, by_hand = enrollment.settings, threshold is not None
        threshold = calibration.threshold if threshold is None else threshold
        # Encoder and banks as one graph, where that can be.
        one_graph = settings.scoring.image_score == "top_mean" and OnePass.fits(encoder)
        model = Model(
            scales=tuple(
                dataclasses.replace(scale, one_pass=OnePass(encoder, scale.banks) if one_graph else None)
                for scale in scales
            ),
            scoring=settings.scoring,
            threshold=threshold,
            map_scale=calibration.map_scale_at(threshold),
            expectations=expectations,
        )
        return cls(model, calibration, enrollment, kept_references(references), by_hand)

    def with_threshold(self, threshold: float) -> Product:
        """The same with a threshold that was set by hand; the maps' scale moves in proportion."""
        scale = self.calibration.map_scale_at(threshold)
        model = dataclasses.replace(self.model, threshold=threshold, map_scale=scale)
        return dataclasses.replace(self, model=model, threshold_set_by_hand=True)

    def with_calibration(self, calibration: Calibration, event: str, notes: Sequence[str]) -> Product:
        """The same with another calibration, whose threshold holds from now on.

        Args:
            calibration: The calibration.
            event: What was done, for the record; the date is put before it.
            notes: What was noticed.
        """
        model = dataclasses.replace(self.model, threshold=calibration.threshold, map_scale=calibration.map_scale)
        enrollment = dataclasses.replace(self.enrollment, notes=(*self.enrollment.notes, *notes))
        changed = Product(model, calibration, enrollment, self.references)
        return changed.with_reasons(f"{_now()}: {event}")

    def with_expectations(self, expectations: Expectations | None) -> Product:
        """The same with what good images look like as a whole."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, expectations=expectations))

    def with_notes(self, *notes: str) -> Product:
        """The same with further notes on the support set."""
        enrollment = dataclasses.replace(self.enrollment, notes=(*self.enrollment.notes, *notes))
        return dataclasses.replace(self, enrollment=enrollment)

    def with_reasons(self, *reasons: str) -> Product:
        """The same with further reasons on record."""
        enrollment = dataclasses.replace(self.enrollment, reasons=(*self.enrollment.reasons, *reasons))
        return dataclasses.replace(self, enrollment=enrollment)


def enroll(
    support: SupportSet,
    product_name: str,
    settings: EnrollmentSettings,
    encoder: Encoder,
    faster: Encoder | None = None,
    progress: Progress | None = None,
    keep_outliers: bool = False,
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

    Returns:
        The encoder that the product was enrolled with, and the product.
    """
    images = support.images
    settings, reasons = choose_views(images, settings, encoder)
    sizes = candidate_sizes(images, settings)
    embedded = [
        embed_support(images, settings, size, encoder, _of_several(progress, at, len(sizes)))
        for at, size in enumerate(sizes)
    ]
    scales, probes = _enroll_scales(embedded, images, settings, sizes, encoder, None, progress)
    check = check_support(scales, images, settings, probes.series, keep=keep_outliers)
    if check.outliers:
        support = support.without(check.outliers)
        images = support.images
        embedded = [one.without(check.outliers) for one in embedded]
        scales, probes = _enroll_scales(embedded, images, settings, sizes, encoder, None, progress)
    distinct = distinct_images([image.pixels for image in images])
    scales, reason = choose_scales(scales, settings, encoder, probes.series, distinct)
    settings = dataclasses.replace(settings, image_sizes=tuple(scale.image_size for scale in scales))
    product = _product_of(scales, probes, distinct, support, product_name, settings, encoder)
    product = product.with_notes(*check.notes).with_reasons(*reasons, *reason)
    if faster is None:
        return encoder, product
    return _faster_if_equal(product, encoder, faster, scales, distinct, support, progress)


def _enroll_scales(
    embedded: Sequence[Embedded],
    images: Sequence[SupportImage],
    settings: EnrollmentSettings,
    sizes: Sequence[int],
    encoder: Encoder,
    coresets: Sequence[Sequence[IndexArray]] | None,
    progress: Progress | None,
) -> tuple[list[EnrolledScale], Probes]:
    """The support set at each working scale, and what was drawn on it."""
    # By hash, so that the order of the support set decides nothing.
    drawn_on = sorted(range(len(images)), key=lambda at: images[at].sha256)[:MAX_DRAWN_ON]
    probes = Probes(
        {at: images[at].pixels for at in drawn_on},
        defect_series(drawn_on, settings.min_defect, settings.seed),
        settings.seed,
        2 * max(sizes),
    )
    scales = [
        enroll_scale(
            one,
            settings,
            size,
            encoder,
            probes,
            None if coresets is None else coresets[at],
            _of_several(progress, at, len(sizes)),
        )
        for at, (one, size) in enumerate(zip(embedded, sizes, strict=True))
    ]
    return scales, probes


def _of_several(progress: Progress | None, at: int, count: int) -> Progress | None:
    """Progress of one of several scales as progress of the whole."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(stage, at * total + done, count * total)


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
        created=_now(),
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
        embed_support(support.images, settings, size, faster, _of_several(progress, at, len(scales)))
        for at, size in enumerate(settings.image_sizes)
    ]
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
    extension = extend_banks(model, new, settings, encoder, len(enrollment.support), progress)
    names = [new[stand_in.image].name for stand_in in extension.embedded.stand_ins]
    notes += check_additions(before, extension.scores, names, force)
    distinct = distinct_images([image.pixels for image in new])
    calibration = extended_calibration(before, extension.scores, extension.map_peaks, distinct, settings)
    expectations = model.expectations
    if expectations is not None:
        expectations = expectations.extended(extension.embedded.appearances, extension.closeness)
    if calibration is before:
        notes.append("the threshold stays as it was calibrated on further images; calibrate again to make use of these")
    extended = Product.assemble(
        encoder,
        extension.scales,
        calibration,
        dataclasses.replace(
            enrollment,
            support=(*enrollment.support, *((image.name, image.sha256) for image in new)),
            notes=(*enrollment.notes, *notes),
            reasons=(*enrollment.reasons, f"{_now()}: added {', '.join(image.name for image in new)}."),
        ),
        # They are the first images of the support set; where one of these is not stored, no later one is.
        product.references
        if len(product.references) < len(enrollment.support)
        else (*product.references, *extension.embedded.references),
        expectations=expectations,
    )
    for scale, former in zip(extended.model.scales, model.scales, strict=True):
        if scale.one_pass is not None and former.one_pass is not None:
            # So that the next image of the line does not wait for it.
            scale.one_pass.compile(former.one_pass.sizes)
    return extended, tuple(notes)


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


def size_of_images(
    references: Sequence[Reference], image_hw: tuple[int, int] | None, error: type[FewshotADError]
) -> tuple[int, int]:
    """Height and width of the images to come.

    Args:
        references: Support images that are stored with the product.
        image_hw: What the caller says; None takes the support set's.
        error: Class of the error.

    Raises:
        FewshotADError: Of class `error`: it is no size that an image may have, or nothing tells it.
    """
    if image_hw is None and not references:
        raise error(
            "expected image_hw for a product that holds no support image to tell the size from, got None. Give height "
            "and width of the images to come: image_hw=(480, 640) (command line: --size 640x480)."
        )
    height, width = arguments.height_and_width(
        references[0].image_hw if image_hw is None else image_hw, "image_hw", error
    )
    try:
        check_size(height, width)
    except ImageError as reason:
        raise error(str(reason)) from None
    return height, width


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


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
