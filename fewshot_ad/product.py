"""A product: all that is known of one part, and how it comes about and grows."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fewshot_ad.arrays import Progress
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.banks import Enrolled, Enrollment, build, extend, library_versions, odd_ones_out
from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.embedding import Embedded, Reference, embed_support, kept_references
from fewshot_ad.enrollment.precision import faster_precision
from fewshot_ad.enrollment.selection import choose
from fewshot_ad.enrollment.support import SupportSet, ViewsSpec
from fewshot_ad.errors import SupportSetError
from fewshot_ad.inspection import MapScale
from fewshot_ad.scoring import Model, ScoringConfig
from fewshot_ad.search.memory_bank import MemoryBank
from fewshot_ad.search.one_pass import OnePass


@dataclass(frozen=True, eq=False)
class Product:
    """What belongs together, exchanged as one.

    Attributes:
        model: What the decisions are made with.
        calibration: Where the threshold comes from.
        enrollment: How it was enrolled.
        references: Support images at the working scale.
    """

    model: Model
    calibration: Calibration
    enrollment: Enrollment
    references: tuple[Reference, ...]

    @property
    def threshold_set_by_hand(self) -> bool:
        """Whether the threshold is another than the calibration's."""
        return self.model.threshold != self.calibration.threshold

    def with_threshold(self, threshold: float) -> Product:
        """The same with another threshold; the maps' scale moves in proportion."""
        scale = map_scale(self.calibration, threshold)
        return dataclasses.replace(self, model=dataclasses.replace(self.model, threshold=threshold, map_scale=scale))


def enroll(
    support: SupportSet,
    name: str,
    encoder: Encoder,
    faster: Encoder | None,
    views: ViewsSpec,
    image_size: int | Literal["auto"],
    budget: int,
    scoring: ScoringConfig,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Encoder, Product]:
    """Enroll a product.

    Args:
        support: The support set.
        name: Of the product.
        encoder: The encoder.
        faster: The same in a faster precision, to be taken if it says the same; None for no other.
        views: See `Inspector.from_support`, as for the arguments that follow.
        image_size: Likewise.
        budget: Likewise.
        scoring: Likewise.
        seed: Likewise.
        progress: Likewise.

    Returns:
        The encoder that was taken, and the product.
    """
    images = support.images
    choice = choose(images, views, image_size, encoder, scoring, seed, progress)

    def made_with(encoder: Encoder, like: Enrolled | None = None) -> tuple[Embedded, Enrolled]:
        embedded = embed_support(images, choice.views, choice.image_size, encoder, scoring, seed, progress)
        picked = like.picked if like is not None else None
        return embedded, build(embedded, scoring, choice.image_size, budget, seed, encoder.threads, progress, picked)

    embedded, enrolled = made_with(encoder)
    reasons = choice.reasons
    if faster is not None:
        exact = enrolled
        made, reason = faster_precision(
            images,
            choice.views,
            choice.image_size,
            scoring,
            encoder,
            exact,
            faster,
            lambda candidate: made_with(candidate, exact),
        )
        reasons = (*reasons, reason)
        if made is not None:
            encoder, (embedded, enrolled) = faster, made
    names = [images[stand_in.image].name for stand_in in embedded.stand_ins]
    held_out: tuple[str, ...] = ()
    if len(embedded.stand_ins) < len(images):
        held_out = (
            f"{len(embedded.stand_ins)} of {len(images)} images, evenly chosen, were held out in turn for the "
            "threshold; all are in the bank.",
        )
    enrollment = Enrollment(
        product=name,
        image_size=choice.image_size,
        views=choice.views,
        budget=budget,
        seed=seed,
        support=tuple((image.name, image.sha256) for image in images),
        notes=(*support.notes, *held_out, *odd_ones_out(enrolled.calibration.scores, names)),
        reasons=reasons,
        created=_now(),
        versions=library_versions(encoder),
    )
    calibration = enrolled.calibration
    model = Model(
        choice.image_size,
        enrolled.banks,
        enrolled.level_scale,
        scoring,
        calibration.threshold,
        calibration.map_scale,
        one_pass(encoder, enrolled.banks, scoring),
    )
    return encoder, Product(model, calibration, enrollment, embedded.references)


def add_images(
    product: Product, encoder: Encoder, support: SupportSet, progress: Progress | None = None
) -> tuple[Product, tuple[str, ...]]:
    """The product with further good images; see `Inspector.add`.

    Args:
        product: The product as it is.
        encoder: Its encoder.
        support: The further images.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        The product with its calibration's threshold, and what was noticed.

    Raises:
        SupportSetError: None of them is new, or the product was enrolled from a single one.
    """
    before, model = product.enrollment, product.model
    known = {sha256: name for name, sha256 in before.support}
    new = [image for image in support.images if image.sha256 not in known]
    notes = [note for note in support.notes if not note.startswith("only one image")] + [
        f"left out, identical to {known[image.sha256]}: {image.name}"
        for image in support.images
        if image.sha256 in known
    ]
    if not new:
        raise SupportSetError(f"expected a new good image, got none: {'; '.join(notes)}.")
    embedded = embed_support(
        new, before.views, before.image_size, encoder, model.scoring, before.seed, progress, alone=False
    )
    enrolled = extend(
        Enrolled(model.banks, model.level_scale, product.calibration),
        embedded,
        model.scoring,
        before.image_size,
        before.budget,
        before.seed,
        len(before.support),
        encoder.threads,
        progress,
    )
    calibration = enrolled.calibration
    late = [new[stand_in.image].name for stand_in in embedded.stand_ins]
    notes += odd_ones_out(calibration.scores, late, len(calibration.scores) - len(late))
    passing = one_pass(encoder, enrolled.banks, model.scoring)
    if passing is not None and model.one_pass is not None:
        # So that the next image of the line does not wait for it.
        passing.compile(model.one_pass.sizes)
    enrollment = dataclasses.replace(
        before,
        support=(*before.support, *((image.name, image.sha256) for image in new)),
        notes=(*before.notes, *notes),
        reasons=(*before.reasons, f"{_now()}: added {', '.join(image.name for image in new)}."),
    )
    extended = dataclasses.replace(
        model,
        banks=enrolled.banks,
        threshold=calibration.threshold,
        map_scale=calibration.map_scale,
        one_pass=passing,
    )
    references = kept_references((*product.references, *embedded.references))
    return Product(extended, calibration, enrollment, references), tuple(notes)


def one_pass(encoder: Encoder, banks: Sequence[MemoryBank], scoring: ScoringConfig) -> OnePass | None:
    """Encoder and banks as one graph, where that can be."""
    return OnePass(encoder, banks) if scoring.image_score == "top_mean" and OnePass.fits(encoder) else None


def map_scale(calibration: Calibration, threshold: float) -> MapScale:
    """The calibrated scale of the maps, moved in proportion where the threshold was set by hand."""
    good, limit = calibration.map_scale.median_good, calibration.map_scale.threshold
    return MapScale(good, good + (limit - good) * threshold / calibration.threshold)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
