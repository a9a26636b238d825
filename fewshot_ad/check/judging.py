"""Judges the good and the bad images of a check."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fewshot_ad.arguments import image_sources
from fewshot_ad.arrays import Float32Array, Progress
from fewshot_ad.check.report import Check, CheckedDefect, CheckedImage, Truth, UncountedImage
from fewshot_ad.enrollment.known_defects import score_against
from fewshot_ad.enrollment.parts import part_name
from fewshot_ad.enrollment.probes import near_identical, thumbnail
from fewshot_ad.enrollment.support import distinct_names, pixel_hash
from fewshot_ad.errors import ArgumentError, ImageError
from fewshot_ad.host.lifetime import native_work
from fewshot_ad.images import ImageSource, expand_sources
from fewshot_ad.inspection.result import Inspection
from fewshot_ad.product import Product


class Subject(NamedTuple):
    """What is checked: a product, or something else that judges images of one.

    Attributes:
        name: Of the product.
        threshold: Scores above it are anomalous.
        support: Names of the images that it was made from, by `pixel_hash`.
        calibrated: Scores of the images that its threshold was calibrated on.
        known_defects: What becomes of the defects that it was shown.
    """

    name: str
    threshold: float
    support: Mapping[str, str]
    calibrated: Collection[float] = frozenset()
    known_defects: tuple[CheckedDefect, ...] = ()

    @classmethod
    def of(cls, product: Product) -> Subject:
        """A product."""
        model, threshold = product.model, product.model.threshold
        severities = [(d.name, d.factor * score_against(d.top, model) / threshold) for d in product.known_defects]
        return cls(
            product.enrollment.product_name,
            threshold,
            {sha256: name for name, sha256 in product.enrollment.support},
            # The product keeps the scores of the images that it was calibrated on, but not the images.
            {*product.calibration.further_scores, *product.calibration.bad_scores},
            tuple(CheckedDefect(name, severity, severity > 1) for name, severity in severities),
        )


def check_images(
    subject: Subject,
    inspect: Callable[[list[Any]], Iterator[Inspection | ImageError]],
    good: ImageSource | Iterable[ImageSource],
    bad: ImageSource | Iterable[ImageSource] | None,
    progress: Progress | None,
    *,
    bursts_count_once: bool = False,
) -> Check:
    """Judge images whose truth is known.

    Args:
        subject: What is checked.
        inspect: Inspects images with it, in order; gives its error for an image that cannot be used.
        good: Good images in any form `Inspector.from_support` takes.
        bad: Bad images; None for none.
        progress: Called as `progress("check", done, total)`.
        bursts_count_once: Whether good images that differ from one before by no more than noise are left out, too.

    Raises:
        ImageError: There is no usable good image, or no usable bad one where bad ones are given.
        ArgumentError: One image is given as good and as bad.
    """
    sources = _sources(good, "good") + ([] if bad is None else _sources(bad, "bad"))
    checked: list[CheckedImage] = []
    left_out: list[UncountedImage] = []
    unreadable: list[UncountedImage] = []
    known = _KnownImages(subject, bursts_count_once)
    results = inspect([source.image for source in sources])
    for done, (source, result) in enumerate(zip(_named(sources), results, strict=True), start=1):
        about = (source.name, source.file, source.truth)
        if isinstance(result, ImageError):
            unreadable.append(UncountedImage(*about, str(result)))
        elif reason := known.reason_to_leave_out(result, source):
            left_out.append(UncountedImage(*about, reason))
        else:
            checked += _checked(source, result, known.support)
        if progress is not None:
            progress("check", done, len(sources))
    _require_each_side({source.truth for source in sources}, checked, [*unreadable, *left_out])
    again = sum(image.score in subject.calibrated for image in checked)
    images, uncounted = tuple(checked), (tuple(left_out), tuple(unreadable))
    return Check(subject.name, subject.threshold, images, *uncounted, again, subject.known_defects)


def _checked(source: _Source, result: Inspection, enrolled: Collection[str]) -> list[CheckedImage]:
    """What counts of an image: of a good one with several parts each of them, since each is good.

    Args:
        source: The image.
        result: The verdict on it.
        enrolled: Hashes of what the product was enrolled from.
    """
    whole = CheckedImage(source.name, source.file, source.truth, result.score, result.severity, result.is_anomalous)
    if source.truth == "bad" or not result.parts:
        return [whole]
    return [
        dataclasses.replace(
            whole,
            name=part_name(source.name, part.number),
            score=part.score,
            severity=part.severity,
            is_anomalous=part.verdict == "anomalous",
        )
        for part in result.parts
        if part.inspection is not None
        and part.verdict != "not_inspectable"
        and pixel_hash(part.inspection.image) not in enrolled
    ]


class _Source(NamedTuple):
    """One image to check: what it is given as, its path if it has one, and the image, or why it was not found."""

    truth: Truth
    file: str | None
    image: Any
    name: str = ""


def _sources(images: Any, truth: Truth) -> list[_Source]:
    """The single images of one side.

    Raises:
        ImageError: None of what is given is there.
    """
    entries = expand_sources(image_sources(images, ImageError), keep_errors=True)
    errors = [entry for entry in entries if isinstance(entry, ImageError)]
    if len(errors) == len(entries):
        raise errors[0] if errors else ImageError(f"expected {truth} images to check, got an empty list. Give some.")
    return [
        _Source(truth, os.fspath(entry) if isinstance(entry, (str, os.PathLike)) else None, entry) for entry in entries
    ]


def _named(sources: Sequence[_Source]) -> Iterator[_Source]:
    """The sources with their names; an image from memory is counted within its side."""
    names_of_files = iter(distinct_names([source.file for source in sources if source.file is not None]))
    counts = {"good": 0, "bad": 0}
    for source in sources:
        number = counts[source.truth]
        counts[source.truth] += 1
        name = f"{source.truth}[{number}]" if source.file is None else next(names_of_files)
        yield source._replace(name=name)


class _KnownImages:
    """The support set and the images seen so far, by the hashes of their pixels."""

    def __init__(self, subject: Subject, bursts_count_once: bool) -> None:
        self.support = subject.support
        self._seen: dict[str, _Source] = {}
        self._bursts_count_once = bursts_count_once
        self._thumbnails: dict[str, Float32Array] = {}

    def reason_to_leave_out(self, result: Inspection, source: _Source) -> str | None:
        """Why an image says nothing; None for one that does.

        Raises:
            ArgumentError: It was given as good and as bad.
        """
        sha256 = pixel_hash(result.image)
        before = self._seen.get(sha256)
        self._seen[sha256] = source
        if before is not None and before.truth != source.truth:
            raise ArgumentError(
                f"expected each image to be good or bad, got the same one as both: {before.name} among the "
                f"{before.truth} images and {source.name} among the {source.truth} ones. Take it out of one of them."
            )
        # Of an image with several parts, the parts were enrolled.
        own = [pixel_hash(part.inspection.image) for part in result.parts if part.inspection is not None]
        if own and all(one in self.support for one in own):
            sha256 = own[0]
        if sha256 in self.support:
            reason = f"in the support set, as {self.support[sha256]}"
            return reason if source.truth == "good" else f"{reason}: enrolled as a good one; enroll again without it"
        if before is not None:
            return f"identical to {before.name}"
        if result.reason:
            return f"not inspectable: {result.reason}"
        if result.count is not None and result.count.finding:
            return f"anomalous whatever the threshold: {result.count.finding}"
        return self._part_of_a_burst(result, source)

    def _part_of_a_burst(self, result: Inspection, source: _Source) -> str | None:
        if not self._bursts_count_once or source.truth == "bad":
            return None
        with native_work():
            own = thumbnail(result.image)
        twin = near_identical(own, list(self._thumbnails.values()))
        if twin is None:
            self._thumbnails[source.name] = own
            return None
        return f"nearly identical to {list(self._thumbnails)[twin]}, and counts as the same: of different parts only"


def _require_each_side(sides: set[Truth], checked: Sequence[CheckedImage], uncounted: Sequence[UncountedImage]) -> None:
    """Refuse a check of which a side has no image that counts.

    Raises:
        ImageError: There is such a side.
    """
    for truth in sorted(sides - {image.truth for image in checked}):
        first = next(image for image in uncounted if image.truth == truth)
        raise ImageError(
            f"expected {truth} images to check, got none that counts; the first is {first.name} ({first.reason}). Give "
            "readable images that were not enrolled."
        )
