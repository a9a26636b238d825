"""The facade: enroll a product from a few good images, inspect the next ones, save and load."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np

from fewshot_ad import arguments
from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.artifact import (
    checked_spec,
    describe,
    load_allowed,
    pack,
    read_artifact,
    recorded,
    replace_product,
    undone,
    unpack,
)
from fewshot_ad.batch import Reading, read, verdicts
from fewshot_ad.check import Check, Recalibration, Subject, check_images, draw_limits, recalibration
from fewshot_ad.encoder import DEFAULT_ENCODER, DEFAULT_NORM_POWER, Encoder, Fusion, load_encoders
from fewshot_ad.encoder.engine import Device, EngineName, Precision
from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.embedding import Reference, places_of
from fewshot_ad.enrollment.presets import FALSE_REJECTS, PresetName, SizesSpec, defect_share, enrollment_settings
from fewshot_ad.enrollment.sensitivity import Sensitivity, sensitivity
from fewshot_ad.enrollment.support import SupportSet, read_support
from fewshot_ad.enrollment.views import ViewsSpec
from fewshot_ad.errors import ArgumentError, ArtifactError, ImageError, SupportSetError
from fewshot_ad.host.lifetime import ForkSafeLock, at_hand, interruptible, native_work
from fewshot_ad.images import ColorOrder, ImageSource, RegionSpec, drawn_weights, loaded_region
from fewshot_ad.inspection.drift import Drift, DriftMonitor
from fewshot_ad.inspection.result import Inspection
from fewshot_ad.product import (
    LIGHTING_CHOICES,
    MAX_NAME,
    Change,
    ChangeKind,
    Drawn,
    Enrollment,
    ForegroundChoice,
    KnownDefect,
    LightingChoice,
    PartsChoice,
    Product,
    Where,
    accept,
    add_images,
    at_scales_of,
    carry_defects,
    check_carried,
    checked_region,
    drawn_defects,
    enroll,
    narrow_region,
    one_by_one,
    parts_of,
    product_name,
    reject,
    size_of_images,
    taken_names,
)
from fewshot_ad.scoring import (
    MAX_DISTANCE,
    MIN_DISTANCE,
    Model,
    Prepared,
    PreparedParts,
    ScoringConfig,
    inspect_frame,
    inspect_image,
    prepare,
    prepare_frame,
)
from fewshot_ad.search.memory_bank import MemoryBank

logger = logging.getLogger(__name__)


class Inspector:
    """Says of each image of a product whether it is good, by how much, and where it is not.

    Get one from `Inspector.from_support` or `Inspector.load`. It may be used on several threads, pickled and copied,
    and goes on working in a forked child, see docs/how-to/python.md.

    Examples:
        >>> inspector = Inspector.from_support("good/")             # doctest: +SKIP
        >>> inspection = inspector.inspect("line/0001.png")         # doctest: +SKIP
        >>> inspection.is_anomalous, inspection.severity            # doctest: +SKIP
        (True, 1.84)
    """

    def __init__(self, encoder: Encoder, product: Product) -> None:
        self._encoder = encoder
        self._product = product
        self._setting = ForkSafeLock()
        self._adding = ForkSafeLock()
        # What this object has read from a file or written to it last, by path: the hash that the file bore then.
        self._stored: dict[str, str] = {}
        # What `accept` must not let pass, made when it is first called: drawn defects stay those of the enrollment.
        self._drawn: tuple[Drawn, ...] | None = None
        # What was inspected since the start, made when it is first needed.
        self._monitor: DriftMonitor | None = None
        self._watching = ForkSafeLock()

    @classmethod
    @native_work()
    def from_support(  # noqa: PLR0913 - keywords of the facade, each with a default
        cls,
        images: ImageSource | Iterable[ImageSource],
        *,
        product: str | None = None,
        encoder: str | Encoder = DEFAULT_ENCODER,
        preset: PresetName = "balanced",
        views: ViewsSpec | None = None,
        image_size: SizesSpec | None = None,
        budget: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        color: ColorOrder = "rgb",
        scoring: ScoringConfig | None = None,
        min_defect: float | None = None,
        min_defect_px: float | None = None,
        min_defect_mm: float | None = None,
        mm_per_px: float | None = None,
        max_ms: float | None = None,
        max_false_reject: float | None = None,
        engine: EngineName | None = None,
        precision: Precision | Literal["auto"] | None = None,
        stages: Sequence[int] | None = None,
        fusion: Fusion = "concat",
        norm_power: float = DEFAULT_NORM_POWER,
        weights: str | os.PathLike[str] | None = None,
        allow_download: bool = False,
        threads: int | None = None,
        device: Device = "cpu",
        keep_outliers: bool = False,
        register: bool = False,
        roi: RegionSpec | None = None,
        ignore: RegionSpec | None = None,
        foreground: ForegroundChoice = "off",
        lighting: LightingChoice = "off",
        parts: PartsChoice = "off",
        expect: int | None = None,
        known_defects: Inspector | None = None,
    ) -> Inspector:
        """Enroll a product from good images, 2 to 8 of them as a rule.

        Args:
            images: A folder, a glob, or images as paths, PIL images or arrays (see `images.read_image`).
            product: Name of the product. By default the name of the folder that the images have in common; folders
                named `good`, `train` and `ok` are skipped, so `bottle/train/good/` gives `bottle`. `product` for images
                from memory.
            encoder: A shipped encoder, `dinov2_small` (extra `dinov2`), the name of a timm model (extra `torch`), or an
                `Encoder` already loaded, in which case the arguments from `engine` to `device` are ignored.
            preset: `fast`, `balanced` or `accurate`: what views, image_size, budget and precision are unless given,
                see `presets.PRESETS`.
            views: `"auto"` chooses from the support set alone; `"none"`; or a choice as in `support.parse_views`.
            image_size: Working scale: each image is scaled to about this many pixels squared, its aspect kept. Of
                several, such as (256, 512), each is looked at. `"auto"` chooses from the support set alone.
            budget: Vectors per memory bank, at most.
            seed: Of everything random.
            progress: Called as `progress(stage, done, total)`.
            color: Channel order of arrays with color.
            scoring: Metric, image score and smoothing; None takes the defaults.
            min_defect: Size of the smallest defect that matters, as a share of the image's side (the square root of
                its area), 0.001..0.5; by default 0.02. It decides the working scale, see `inspector.sensitivity`.
            min_defect_px: The same in pixels of the image, instead.
            min_defect_mm: The same in millimeters, instead, with `mm_per_px`.
            mm_per_px: Millimeters per pixel of the image.
            max_ms: Milliseconds that the encoder may take per inspection on this machine; None sets no limit.
            max_false_reject: Share of good parts that may be rejected, 0.0001..0.5: the threshold is the lowest that is
                expected to reject no more. By default false rejects and escapes weigh the same.
            engine: See `encoder.load_encoder`, as for the arguments that follow.
            precision: `f32`, the same scores on every processor; `bf16`, faster where the processor has it, and refused
                elsewhere; or `auto`, the faster of the two if the scores of the support set and its views stay the
                same to `precision.SEVERITY_TOLERANCE`. The choice is stored.
            stages: Stages of the backbone.
            fusion: `concat` or `separate`.
            norm_power: 0..1, see `encoder.EncoderSpec`.
            weights: Local weights of a timm model.
            allow_download: Let timm fetch weights from the internet.
            threads: Number of CPU threads; None takes all. OpenVINO pins them to cores of their own.
            device: `cpu`, or `cuda`, see `encoder.load_encoder`.
            keep_outliers: Enroll also from images that are unlike the others. By default they are left out of bank and
                threshold where there are at least four, and `enrollment.notes` names them either way.
            register: Bring every image into one pose before it is compared, for parts that lie at any angle. The part's
                turn and place are read by a small trained network; where the support set shows that it cannot tell
                them, images stay as they lie and `enrollment.notes` says so. What is turned out of the image, its
                corners, is not inspected: leave a margin around the part.
            roi: Region of interest, where images are looked at: a box (x, y, width, height), a polygon of (x, y),
                several of these, or a mask image, in pixels of the first image. Nothing outside joins the memory bank,
                the score, the map or the threshold. In a mask 255 counts in full, 0 not at all, and in between less.
                It lies where it was drawn, whatever the part does; with `register`, it follows the part.
            ignore: What does not count, in the same forms, cut out of that.
            foreground: `part`: only the part on its plain background counts, and what is close to it; `auto`: so it
                does where drawn defects stand out more from held-out good images then; `enrollment.reasons` say which.
            lighting: `normalized`: exposure and tint of each image are brought to the support set's;
                `log_chromaticity`: an input of one channel that light hardly changes (Maddern et al. 2014), for parts
                of color; `auto`: the one by which drawn defects stand out more from support images under other light.
            parts: `auto`: images show several parts, or one that may lie anywhere, on a plain background. Each is cut
                out, brought into one pose and judged by itself, see `Inspection.parts`; sizes such as `min_defect` are
                then those of a part's own image.
            expect: How many parts each image shows: with fewer or more an image is anomalous. None for any number.
            known_defects: An earlier product of the same part: what was shown to it by `reject` is carried over, and
                good images with patches like that are refused, or kept and named with `keep_outliers`. None for none.

        Raises:
            SupportSetError: No usable image, a setting that makes no sense, or no parts where there should be.
            ArgumentError: A region is none, or arguments contradict each other.
            WeightsError: The encoder cannot be had.
        """
        arguments.function(progress, "progress")
        arguments.flag(keep_outliers, "keep_outliers", ArgumentError)
        arguments.flag(register, "register", ArgumentError)
        if product is not None:
            arguments.text(product, "product", MAX_NAME)
        settings = enrollment_settings(
            preset,
            views=views,
            image_size=image_size,
            budget=budget,
            precision=precision,
            scoring=scoring,
            seed=seed,
            min_defect=min_defect,
            max_ms=max_ms,
            max_false_reject=max_false_reject,
        )
        images, progress = at_hand(images), interruptible(progress)
        support = read_support(images, color, progress)
        if known_defects is not None:
            if not isinstance(known_defects, Inspector):
                raise ArgumentError(
                    f"expected known_defects as an Inspector, got {type(known_defects).__name__}. Load it: "
                    "Inspector.load(path)."
                )
            settings = at_scales_of(known_defects._product, settings)
        name = product or product_name(support)
        cut = parts_of(support, parts, expect, {"roi": roi, "ignore": ignore, "register": register}, progress)
        given, support = support, support if cut is None else cut.support
        image_hw = support.images[0].pixels.shape[:2]
        arguments.choice(foreground, "foreground", get_args(ForegroundChoice), ArgumentError)
        arguments.choice(lighting, "lighting", LIGHTING_CHOICES, ArgumentError)
        drawn = None if roi is None and ignore is None else drawn_weights(roi, ignore, image_hw)
        where = Where(drawn, foreground, lighting)
        if cut is not None:
            where = Where(cut.weights, foreground, lighting, "the part and what is close to it")
            settings = dataclasses.replace(settings, parts=cut.layout)
        share = defect_share(image_hw, min_defect, min_defect_px, min_defect_mm, mm_per_px)
        if share is not None:
            settings = dataclasses.replace(settings, min_defect=round(share, 6))
        network, faster = load_encoders(
            encoder,
            settings.precision,
            engine=engine,
            stages=stages,
            fusion=fusion,
            norm_power=norm_power,
            weights=weights,
            allow_download=allow_download,
            threads=threads,
            device=device,
        )
        if known_defects is not None:
            check_carried(known_defects._product, known_defects.encoder, network, given.images)
        network, enrolled = enroll(support, name, settings, network, faster, progress, keep_outliers, register, where)
        if cut is not None:
            enrolled = enrolled.with_reasons(cut.reason)
        if known_defects is not None:
            enrolled = carry_defects(enrolled, known_defects._product, network, support.images, keep_outliers)
        for note in enrolled.enrollment.notes:
            logger.warning("%s: %s", enrolled.enrollment.product_name, note)
        return cls(network, enrolled)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        encoder: str | os.PathLike[str] | Encoder | None = None,
        engine: EngineName | None = None,
        weights: str | os.PathLike[str] | None = None,
        allow_download: bool = False,
        threads: int | None = None,
        device: Device = "cpu",
    ) -> Inspector:
        """Load a product; what was enrolled elsewhere gives the same number here, or is refused with the reason.

        A file does not decide what is loaded: only a shipped encoder of the same hash, or what is passed here.

        Args:
            path: The `.fsad` file.
            encoder: The encoder it was enrolled with, if that does not ship: its card (`.json`), wherever it lies now,
                or the name of a timm model. Or an `Encoder` already loaded, to share it between products; the arguments
                that follow are then ignored. None takes the shipped encoder.
            engine: Engine to run on; any gives the same scores.
            weights: Local weights, if the product was enrolled with a timm model.
            allow_download: Let timm fetch the weights of the model that `encoder` names from the internet.
            threads: Number of CPU threads; None takes all. OpenVINO pins them to cores of their own.
            device: `cpu`, or `cuda`, see `encoder.load_encoder`.

        Raises:
            NotEnrolledError: There is no such file.
            ArtifactError: It is damaged, of another format, holds a value that no product has, does not fit the
                encoder, or its encoder does not ship and none is passed.
            WeightsError: The encoder cannot be had.
        """
        tensors, record = read_artifact(path)
        network = load_allowed(
            checked_spec(record, path),
            encoder,
            path,
            weights,
            engine=engine,
            allow_download=allow_download,
            threads=threads,
            device=device,
        )
        inspector = cls(network, unpack(tensors, record, network, path))
        inspector._stored[os.path.realpath(path)] = record["sha256"]
        return inspector

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as what `save` writes and `load` reads; a copy shares nothing with the original."""
        return _unpickled, (self._encoder, *pack(self._encoder.spec, self._product), dict(self._stored))

    @native_work()
    def inspect(self, image: ImageSource, *, color: ColorOrder = "rgb", roi: RegionSpec | None = None) -> Inspection:
        """Inspect one image.

        Args:
            image: A path, a PIL image or an array (see `images.read_image`).
            color: Channel order of an array with color.
            roi: Where this one is looked at, as `from_support` takes it, in pixels of this image. Of the product's own
                region only what lies in both counts, since the product knows nothing of what lies outside.

        Raises:
            ImageError: The image cannot be used, or the region has nothing in common with it or the product's own.
            ArgumentError: The region is none.
        """
        roi = None if roi is None else loaded_region(roi, "roi")
        reading = read(image, color)
        if roi is not None and not isinstance(reading.pixels, ImageError):
            reading = dataclasses.replace(reading, prepared=self._prepared(reading.pixels, roi))
        return self._judge(reading, watch=roi is None)

    def inspect_batch(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        color: ColorOrder = "rgb",
        errors: Literal["raise", "return"] = "raise",
        roi: RegionSpec | None = None,
    ) -> Iterator[Inspection | ImageError]:
        """Inspect many images, in order.

        Args:
            images: A folder, a glob, or a sequence of images, of which the next are decoded while one is
                inspected; or an iterator, such as a camera's frames, which is asked for the next image only after
                the verdict on the last has been taken.
            color: Channel order of arrays.
            errors: What to do with an image that cannot be used, or a folder that holds none: `raise` its
                `ImageError`, or `return` it in its place and go on.
            roi: Where all of them are looked at, see `inspect`.

        Returns:
            An iterator of one `Inspection` per image, or its `ImageError`.

        Raises:
            ArgumentError: `errors` is neither.
            ImageError: `color` is no channel order; those of the images come from the iterator.
        """
        if errors not in ("raise", "return"):
            raise ArgumentError(f"expected errors='raise' or 'return', got {errors!r}.")
        arguments.choice(color, "color", get_args(ColorOrder), ImageError)
        only = None if roi is None else loaded_region(roi, "roi")
        return verdicts(
            arguments.image_sources(images, ImageError),
            color,
            lambda pixels: self._prepared(pixels, only),
            functools.partial(self._judge if errors == "raise" else self._judge_or_tell, watch=roi is None),
        )

    def check(
        self,
        good: ImageSource | Iterable[ImageSource],
        bad: ImageSource | Iterable[ImageSource] | None = None,
        *,
        color: ColorOrder = "rgb",
        progress: Progress | None = None,
    ) -> Check:
        """Judge images whose truth is known; the product stays as it is.

        Args:
            good: Good images that were not enrolled, in any form `from_support` takes.
            bad: Images of defective parts; None for none.
            color: Channel order of arrays with color.
            progress: Called as `progress("check", done, total)`.

        Returns:
            The mistakes by name, the rates with their intervals, and a suggested threshold. Images that cannot be used,
            those of the support set and exact copies are named in it and not counted.

        Raises:
            ImageError: No good image counts, or `bad` is given and no bad image does.
            ArgumentError: The same image is given as good and as bad.
        """
        arguments.function(progress, "progress")
        return self._checked(good, bad, color, progress)

    def calibrate(
        self,
        good: ImageSource | Iterable[ImageSource],
        bad: ImageSource | Iterable[ImageSource] | None = None,
        max_false_reject: float | None = None,
        *,
        max_review: float | None = None,
        color: ColorOrder = "rgb",
        progress: Progress | None = None,
    ) -> Recalibration:
        """Set the threshold from further images whose truth is known; the memory bank stays as it is.

        It replaces a threshold that was set by hand, and an earlier calibration. The product goes on inspecting
        meanwhile, and nothing is changed if it fails.

        Args:
            good: Good images that were not enrolled, in any form `from_support` takes. With good ones alone the
                threshold weighs their scores against those of the defects drawn at enrollment.
            bad: Images of defective parts; the threshold is then chosen between both. None for none.
            max_false_reject: Highest share of good parts to be rejected, 0.0001 to 0.5: a promise where there are
                `metrics.needed_for` of it good images, else a prediction. None takes that of the enrollment, if any.
            max_review: Share of good parts that someone may have to look at, those rejected among them: images whose
                scores are so high and not above the threshold have the verdict `review`. None for no such band.
            color: Channel order of arrays with color.
            progress: Called as `progress("calibrate", done, total)`.

        Returns:
            Before and after, and what is promised. Images that cannot be used, those of the support set, copies, and
            good ones that differ from another by no more than noise are named in it and not counted.

        Raises:
            ImageError: No good image counts, or `bad` is given and no bad image does.
            ArgumentError: The same image is given as good and as bad, or the limit is out of range.
        """
        arguments.function(progress, "progress")
        if max_false_reject is not None:
            arguments.number(max_false_reject, "max_false_reject", *FALSE_REJECTS)
        if max_review is not None:
            arguments.number(max_review, "max_review", *FALSE_REJECTS)
        step = None if progress is None else lambda _, done, total: progress("calibrate", done, total)
        with self._adding:
            check = self._checked(good, bad, color, step, bursts_count_once=True)
            with self._setting:
                change = recalibration(self._product, check, max_false_reject, max_review)
                changed = self._product.with_calibration(change.calibration, change.event, change.notes)
                self._change(changed, "calibrate", change.event)
        return change

    def add(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        color: ColorOrder = "rgb",
        progress: Progress | None = None,
        force: bool = False,
    ) -> tuple[str, ...]:
        """Take further good images into the product, while it goes on inspecting.

        Views, scale and all other settings stay. The threshold is set again from all held-out scores, unless it was
        set by hand or rests on further images (`calibrate`). Nothing is changed if it fails.

        Args:
            images: Images in any form `from_support` takes.
            color: Channel order of arrays with color.
            progress: Called as `progress(stage, done, total)`.
            force: Take images, too, that are unlike those that the product was enrolled from, or like a known defect.

        Returns:
            What was noticed: images that were left out, are known already or look unlike the others.

        Raises:
            SupportSetError: No usable new image, one that is unlike those before or like a known defect (nothing is
                added then), or the product was enrolled from a single one.
        """
        arguments.function(progress, "progress")
        arguments.flag(force, "force", ArgumentError)
        images, progress = at_hand(images), interruptible(progress)
        with self._adding, native_work():
            taken = taken_names(self._product)
            support = one_by_one(self._product, read_support(images, color, progress, taken))
            extended, notes = add_images(self._product, self._encoder, support, progress, force)
            with self._setting:
                # Looked at last: a threshold may have been set by hand meanwhile.
                by_hand = self._product.threshold_set_by_hand
                extended = extended.with_threshold(self.threshold) if by_hand else extended
                added = [name for name, _ in extended.enrollment.support[len(self.enrollment.support) :]]
                self._change(extended, "add", f"added {', '.join(added)}")
        return notes

    def accept(
        self,
        image: ImageSource,
        *,
        color: ColorOrder = "rgb",
        progress: Progress | None = None,
        force: bool = False,
    ) -> tuple[str, ...]:
        """Take an image that was rejected and is good into the product: it and images like it are good from then on.

        Its patches join the memory bank, within the budget; the notes say so where that was not enough. The threshold
        stays: an image that was chosen because it was rejected says nothing of how often good ones are. It is refused
        where defects that are caught now would then pass: a known one, or more than a quarter of the drawn ones of the
        largest size. `undo` takes it back.

        Args:
            image: The image, as `inspect` takes it.
            color: Channel order of an array with color.
            progress: Called as `progress("coreset", done, total)`.
            force: Take it although it cannot be judged, is like a known defect, or lets defects pass.

        Returns:
            The severity before and after, and what was noticed.

        Raises:
            SupportSetError: It cannot be read or judged, was enrolled or rejected already, is like a known defect, or
                defects would pass; nothing is changed.
        """
        arguments.function(progress, "progress")
        arguments.flag(force, "force", ArgumentError)
        with self._adding, native_work():
            support = self._single(image, color)
            product, encoder = self._product, self._encoder

            def drawn() -> tuple[Drawn, ...]:
                if self._drawn is None:
                    self._drawn = drawn_defects(product, encoder)
                return self._drawn

            extended, notes = accept(product, encoder, support, drawn, interruptible(progress), force)
            with self._setting:
                by_hand = self._product.threshold_set_by_hand
                extended = extended.with_threshold(self.threshold) if by_hand else extended
                self._change(extended, "accept", f"accepted {support.images[0].name}")
        return notes

    def reject(
        self,
        image: ImageSource,
        region: Sequence[int] | None = None,
        *,
        color: ColorOrder = "rgb",
    ) -> tuple[str, ...]:
        """Keep an image of a defective part as evidence.

        `add` and `accept` then refuse images with patches like its own, and `accept` whatever would let it pass. The
        bank and the threshold stay: an image like it is judged as before. `undo` takes it back.

        Args:
            image: The image, as `inspect` takes it.
            region: x, y, width and height of the defect in pixels of the image; None takes what is most unusual.
            color: Channel order of an array with color.

        Returns:
            What was noticed: whether it is rejected as it is, or passes.

        Raises:
            SupportSetError: It cannot be read, was enrolled as a good one or rejected already, the region shows nothing
                that is inspected, or 100 defects are known already; nothing is changed.
        """
        with self._adding, native_work():
            [read_one] = self._single(image, color).images
            place = None if region is None else checked_region(region, read_one.pixels.shape[:2])  # type: ignore[arg-type]
            changed, notes = reject(self._product, self._encoder, read_one, place)
            with self._setting:
                # A threshold may have been set by hand meanwhile.
                changed = dataclasses.replace(self._product, known_defects=changed.known_defects)
                self._change(changed, "reject", f"rejected {read_one.name}")
        return notes

    def history(self) -> tuple[Change, ...]:
        """What was done to the product since it was enrolled, the latest last; it is stored with it."""
        return self._product.history

    def undo(self) -> Change:
        """Take the last change back: the product is what it was before it.

        Its file then is the former one to the byte, if this version wrote that and no older step back had to be
        dropped: a file keeps the last 8 MiB of them. Thresholds that were set one after the other are one change.

        Returns:
            The change that was taken back.

        Raises:
            ArtifactError: There is none, its step back was dropped, or it does not lead to the former product.
        """
        with self._adding, self._setting, native_work():
            former, change = undone(self._encoder.spec, self._product, self._encoder)
            former.warm_up_like(self._product)
            self._product = former
            self._drawn = None
            self._restart_scores()
        return change

    @property
    def roi(self) -> Uint8Array | None:
        """How much each place of an image counts, (h, w) uint8, 0 (don't care) to 255; None for all of it.

        It lies over the whole image whatever its size; of a registered product, over the registered image.
        """
        roi = self._product.model.roi
        return None if roi is None else roi.weights

    def narrow_roi(self, roi: RegionSpec | None = None, ignore: RegionSpec | None = None) -> tuple[str, ...]:
        """Look at less of the images from now on; `undo` takes it back.

        The memory bank and the threshold stay, so the region can only become smaller. For another one, or for a
        threshold that was set for it, enroll again with `roi`.

        Args:
            roi: What counts, as `from_support` takes it, in pixels of the first support image.
            ignore: What does not, cut out of that.

        Returns:
            What was noticed.

        Raises:
            ArgumentError: Neither is given, or one is no region, or nothing of the region before is left.
            SupportSetError: The product holds no support image to tell the size from, or too little is left.
        """
        if roi is None and ignore is None:
            raise ArgumentError("expected roi or ignore, got neither. Give roi=(x, y, width, height), say.")
        drawn = drawn_weights(roi, ignore, size_of_images(self.references, None, SupportSetError))
        with self._adding, self._setting, native_work():
            narrowed = narrow_region(self._product, self._encoder, drawn)
            share = 0.0 if narrowed.model.roi is None else narrowed.model.roi.share
            self._drawn = None
            self._change(narrowed, "roi", f"region of interest narrowed to {share:.0%} of the image")
        return (
            f"{share:.0%} of the image counts now; the threshold stays as it was set before: calibrate on further good "
            "images, or enroll again with this region",
        )

    def drift(self, *, restart: bool = False) -> Drift:
        """Whether light, camera or part have changed, from all that this object has inspected since it was made.

        However often it is asked, a line that does not change is said to have changed with a chance of 1% at most,
        if its images are as good as in random order. Nothing adapts to a change by itself: put the cause right, or
        take the images into the product (`accept`, `add`, `calibrate`), or enroll again.

        Args:
            restart: Whether to start over after this answer, since the cause was found.
        """
        arguments.flag(restart, "restart", ArgumentError)
        with self._watching:
            drift = self._watched().drift()
            if restart:
                self._monitor = None
        return drift

    def new_monitor(self) -> DriftMonitor:
        """A monitor of this product's line that has seen nothing yet, for images that are inspected elsewhere.

        `Inspector.drift` has one of its own; a station that inspects through a `Catalog` feeds this one, with
        `Inspection.one_part` of each image.
        """
        product = self._product
        expectations = product.model.expectations
        return DriftMonitor(
            () if expectations is None else expectations.appearances,
            product.calibration.scores,
            places_of(
                product.references, min(product.model.image_sizes), self._encoder.spec.multiple, product.model.roi
            ),
            place=product.model.registration is None and product.model.parts is None,
        )

    @property
    def known_defects(self) -> tuple[KnownDefect, ...]:
        """The defects that were shown by `reject`."""
        return self._product.known_defects

    def warm_up(self, image_hw: tuple[int, int] | None = None) -> None:
        """Do what the first inspection of a size takes longer for: compile the network (a few tenths of a second).

        Args:
            image_hw: Height and width of the images to come; None takes the support set's.

        Raises:
            ImageError: The size is none that an image may have, or none was given and the product holds no support
                image to tell it from.
        """
        model = self._product.model
        height, width = size_of_images(self.references, image_hw, ImageError)
        if model.parts is not None and image_hw is not None:
            # The stored images are of parts already.
            width, height = model.parts.window((height, width))
        image = np.zeros((height, width, 3), np.uint8)
        with native_work():
            inputs = prepare(image, self._encoder, model).inputs
            for scale, view in zip(model.scales, inputs, strict=True):
                if scale.one_pass is not None:
                    scale.one_pass.compile([(1, *view.pixels.shape)])
            # Not by `inspect`: it is no image of the line.
            inspect_image(image, self._encoder, model, self.product)

    @native_work()
    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the product to one `.fsad` file, whole or not at all.

        What this object has read from that file or written to it last is replaced, and so is an older enrollment of a
        product of the same name, so that a script can be run again; anything else is not. A symbolic link stays, and
        what it leads to is replaced; mode and owner stay where the system lets them.

        Args:
            path: The file; its name ends in `.fsad`.
            force: Whether to replace other products, too: of another name, with images added or a threshold set by
                hand, or changed by others since this object read or wrote that file.

        Raises:
            ArtifactError: It cannot be written, its name does not end in `.fsad`, or what is there must stay; an older
                file there is untouched.
        """
        path = arguments.file_name(path, "path", ArtifactError)
        arguments.flag(force, "force", ArtifactError)
        replace_product(path, *pack(self._encoder.spec, self._product), self._stored, force=force)

    def info(self) -> dict[str, Any]:
        """All that is known of the product, as plain JSON types."""
        return describe(*pack(self._encoder.spec, self._product)) | {"engine": self._encoder.engine_name}

    @property
    def product(self) -> str:
        """Name of the product."""
        return self._product.enrollment.product_name

    @property
    def calibration(self) -> Calibration:
        """Where the threshold comes from, unless one set by hand is in force; see `threshold_set_by_hand`."""
        return self._product.calibration

    @property
    def threshold_set_by_hand(self) -> bool:
        """Whether the threshold in force was set by hand, be it to the calibration's own."""
        return self._product.threshold_set_by_hand

    @property
    def sensitivity(self) -> Sensitivity | None:
        """Which drawn defects the product catches at its threshold; None for products of earlier versions."""
        product = self._product
        return sensitivity(product.calibration, product.model.threshold, product.enrollment.settings.min_defect)

    def limits_picture(self) -> Uint8Array:
        """What the product sees and what it does not, (H, W, 3) uint8 RGB.

        Of each kind of drawn defect: the smallest that is caught and the largest that is missed at the threshold, with
        its size in pixels of the photograph.

        Raises:
            ArtifactError: The product holds no drawn defects (earlier versions), no image to draw them on, or its
                region was narrowed since.
        """
        product, enrollment = self._product, self._product.enrollment
        return draw_limits(
            enrollment.product_name,
            product.calibration,
            product.references,
            len(enrollment.support),
            product.model.threshold,
            enrollment.settings,
            narrowed=any(change.kind == "roi" for change in product.history),
        )

    @property
    def enrollment(self) -> Enrollment:
        """How the product was enrolled."""
        return self._product.enrollment

    @property
    def enrolment(self) -> Enrollment:
        """Former name of `enrollment`, until version 0.3."""
        warnings.warn("Inspector.enrolment is now Inspector.enrollment.", DeprecationWarning, stacklevel=2)
        return self.enrollment

    @property
    def references(self) -> tuple[Reference, ...]:
        """Support images at the working scale, as many as travel with the product."""
        return self._product.references

    @property
    def threshold(self) -> float:
        """Image scores above it are anomalous. Settable while running, in 1e-30..1e30; the maps' scale follows."""
        return self._product.model.threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        threshold = arguments.number(value, "threshold", MIN_DISTANCE, MAX_DISTANCE)
        with self._setting:
            self._change(
                self._product.with_threshold(threshold), "threshold", f"threshold set to {threshold:.6g} by hand"
            )

    @property
    def scoring(self) -> ScoringConfig:
        """How distances become a score and a map."""
        return self._product.model.scoring

    @property
    def model(self) -> Model:
        """What the decisions are made with."""
        return self._product.model

    @property
    def banks(self) -> tuple[MemoryBank, ...]:
        """The memory banks: of each working scale, one per level."""
        return tuple(bank for scale in self._product.model.scales for bank in scale.banks)

    @property
    def encoder(self) -> Encoder:
        """The encoder; pass it to the next `from_support` or `load` to share it between products."""
        return self._encoder

    def _change(self, changed: Product, kind: ChangeKind, text: str) -> None:
        """Replace the product, and put down what was done; the caller holds `_setting`."""
        self._product = recorded(self._encoder.spec, self._product, changed, kind, text)
        if kind in ("add", "accept", "roi"):
            self._restart_scores()

    def _restart_scores(self) -> None:
        """What was seen of scores was measured against another product."""
        with self._watching:
            if self._monitor is not None:
                self._monitor.restart_scores()

    def _single(self, image: ImageSource, color: ColorOrder) -> SupportSet:
        """One image, with a name that no other image of the product has."""
        support = read_support([image], color, None, taken_names(self._product))
        if len(support.images) != 1:
            raise SupportSetError(f"expected one image, got {len(support.images)}. Give them one after the other.")
        return support

    def _checked(
        self,
        good: ImageSource | Iterable[ImageSource],
        bad: ImageSource | Iterable[ImageSource] | None,
        color: ColorOrder,
        progress: Progress | None,
        *,
        bursts_count_once: bool = False,
    ) -> Check:
        # As it is now: others may set the threshold meanwhile.
        unchanged = Inspector(self._encoder, self._product)

        def judge(images: ImageSource | Iterable[ImageSource]) -> Iterator[Inspection | ImageError]:
            return unchanged.inspect_batch(images, color=color, errors="return")

        subject = Subject.of(unchanged._product)
        return check_images(subject, judge, good, bad, progress, bursts_count_once=bursts_count_once)

    def _prepared(self, pixels: Uint8Array, roi: RegionSpec | None) -> Prepared | PreparedParts:
        """An image (H, W, 3) uint8 RGB made ready, looked at only in a region."""
        try:
            only = None if roi is None else drawn_weights(roi, None, pixels.shape[:2])  # type: ignore[arg-type]
            return prepare_frame(pixels, self._encoder, self._product.model, only)
        except ArgumentError as error:
            raise ImageError(str(error)) from error

    @native_work()
    def _judge(self, reading: Reading, watch: bool = True) -> Inspection:
        if isinstance(reading.pixels, ImageError):
            raise reading.pixels
        inspection = inspect_frame(
            reading.pixels,
            self._encoder,
            self._product.model,
            self.product,
            reading.name,
            reading.milliseconds,
            reading.prepared,
        )
        # One that is looked at in a region of its own says nothing of how the others score.
        if watch:
            with self._watching:
                self._watched().see(inspection.one_part)
        return inspection

    def _watched(self) -> DriftMonitor:
        """The monitor; the caller holds `_watching`."""
        if self._monitor is None:
            self._monitor = self.new_monitor()
        return self._monitor

    def _judge_or_tell(self, reading: Reading, watch: bool = True) -> Inspection | ImageError:
        return reading.pixels if isinstance(reading.pixels, ImageError) else self._judge(reading, watch)

    def __repr__(self) -> str:
        return (
            f"Inspector(product={self.product!r}, encoder={self._encoder.spec.name!r}, "
            f"shots={len(self.enrollment.support)}, image_sizes={self.enrollment.settings.image_sizes}, "
            f"views={len(self.enrollment.settings.views)}, bank={sum(len(b) for b in self.banks)}, "
            f"threshold={self.threshold:.4g})"
        )


def _unpickled(encoder: Encoder, tensors: dict[str, Any], record: dict[str, Any], stored: dict[str, str]) -> Inspector:
    inspector = Inspector(encoder, unpack(tensors, record, encoder, "a pickled product"))
    inspector._stored.update(stored)
    return inspector
