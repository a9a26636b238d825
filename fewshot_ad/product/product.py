"""A product: all that is known of one part."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from fewshot_ad import arguments
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.embedding import Reference, kept_references
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.errors import FewshotADError, ImageError
from fewshot_ad.images import check_size
from fewshot_ad.inspection.inspectability import Expectations
from fewshot_ad.product.history import Change, KnownDefect
from fewshot_ad.scoring import Model, Scale
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
        history: What was done to it since it was enrolled, the latest last.
        known_defects: Those that its operator has shown.
    """

    model: Model
    calibration: Calibration
    enrollment: Enrollment
    references: tuple[Reference, ...]
    threshold_set_by_hand: bool = False
    history: tuple[Change, ...] = ()
    known_defects: tuple[KnownDefect, ...] = ()

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
        history: tuple[Change, ...] = (),
        known_defects: tuple[KnownDefect, ...] = (),
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
            history: What was done to it since it was enrolled.
            known_defects: Those that its operator has shown.
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
            registration=settings.registration,
            roi=settings.roi,
            lighting=settings.lighting,
            parts=settings.parts,
            review_threshold=calibration.review_below(threshold),
        )
        return cls(model, calibration, enrollment, kept_references(references), by_hand, history, known_defects)

    def with_threshold(self, threshold: float) -> Product:
        """The same with a threshold that was set by hand; the maps' scale moves in proportion."""
        scale = self.calibration.map_scale_at(threshold)
        review = self.calibration.review_below(threshold)
        model = dataclasses.replace(self.model, threshold=threshold, map_scale=scale, review_threshold=review)
        return dataclasses.replace(self, model=model, threshold_set_by_hand=True)

    def with_calibration(self, calibration: Calibration, event: str, notes: Sequence[str]) -> Product:
        """The same with another calibration, whose threshold holds from now on.

        Args:
            calibration: The calibration.
            event: What was done, for the record; the date is put before it.
            notes: What was noticed.
        """
        model = dataclasses.replace(
            self.model,
            threshold=calibration.threshold,
            map_scale=calibration.map_scale,
            review_threshold=calibration.review_below(calibration.threshold),
        )
        changed = dataclasses.replace(self, model=model, calibration=calibration, threshold_set_by_hand=False)
        return changed.with_notes(*notes).with_reasons(f"{now()}: {event}")

    def with_expectations(self, expectations: Expectations | None) -> Product:
        """The same with what good images look like as a whole."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, expectations=expectations))

    def warm_up_like(self, former: Product) -> None:
        """Compile for the sizes that a former product was compiled for: the next image must not wait for that."""
        for scale, of in zip(self.model.scales, former.model.scales, strict=False):
            if scale.one_pass is not None and of.one_pass is not None:
                scale.one_pass.compile(of.one_pass.sizes)

    def with_notes(self, *notes: str) -> Product:
        """The same with further notes on the support set."""
        enrollment = dataclasses.replace(self.enrollment, notes=(*self.enrollment.notes, *notes))
        return dataclasses.replace(self, enrollment=enrollment)

    def with_reasons(self, *reasons: str) -> Product:
        """The same with further reasons on record."""
        enrollment = dataclasses.replace(self.enrollment, reasons=(*self.enrollment.reasons, *reasons))
        return dataclasses.replace(self, enrollment=enrollment)


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


def now() -> str:
    """The time, as ISO date and time in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
