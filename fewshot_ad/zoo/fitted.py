"""A fitted baseline that a user stores and inspects with, as with a product of this package."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from fewshot_ad import __version__, arguments
from fewshot_ad.arrays import Float32Array, Progress
from fewshot_ad.batch import read
from fewshot_ad.check import Check, Subject, check_images
from fewshot_ad.enrollment.presets import FALSE_REJECTS
from fewshot_ad.enrollment.support import read_support
from fewshot_ad.errors import ArgumentError, FewshotADError, ImageError, ZooError
from fewshot_ad.host.lifetime import ForkSafeLock
from fewshot_ad.images import ColorOrder, ImageSource, expand_sources
from fewshot_ad.inspection.regions import MapScale, find_regions
from fewshot_ad.inspection.result import Inspection
from fewshot_ad.product import MAX_NAME
from fewshot_ad.zoo.components.calibration_words import changes, few_good, provisional, without_provisional
from fewshot_ad.zoo.components.curves import Curves
from fewshot_ad.zoo.components.model_folder import SCHEMA, model_read, write_model
from fewshot_ad.zoo.components.scan_sources import read_scan, read_scans
from fewshot_ad.zoo.components.score_scale import (
    Fitting,
    ScoreScale,
    by_hand,
    finite,
    map_scale_of,
    scale_with_threshold,
    score_scale,
)
from fewshot_ad.zoo.configuration import MEANINGLESS, check_settings, differences
from fewshot_ad.zoo.fit_memory import require_fit_memory
from fewshot_ad.zoo.method import Labeled, Method, Predictions, cards, create

MAX_FALSE_REJECT = 0.05
# The note on one whose pretrained networks hold random weights.
RANDOM_WEIGHTS = "random weights: its verdicts mean nothing"
# Baselines scale every image to one square. By how much an image may be wider or narrower than those of the fit, before
# its part looks like another one.
ASPECT_SLACK = 1.1


@dataclass(eq=False)
class Baseline:
    """A baseline, fitted to one product, with a threshold from good images.

    It may be used on several threads, and judges one image at a time.

    Attributes:
        name: Name in the zoo.
        settings: Hyper-parameters that differ from its defaults.
        seed: Of everything random.
        product: Name of the product.
        method: The fitted method.
        scores: What its scores mean.
        map_scale: What its maps mean.
        support: Names of the images it was fitted on.
        notes: What was noticed while fitting.
        aspects: Least and greatest width by height of the images it was fitted on; None of one that was stored
            without them, which judges images of any.
        seen: Names of the images that it was fitted on or that set its threshold, by the SHA-256 of their pixels; empty
            of one that was stored without them.
        artifact: SHA-256 of what it was loaded from; empty of one that was not.
        calibrated: Scores of the good images that its threshold was calibrated on; empty where it was not.
    """

    name: str
    settings: Mapping[str, Any]
    seed: int
    product: str
    method: Method = field(repr=False)
    scores: ScoreScale
    map_scale: MapScale = field(repr=False)
    support: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    aspects: tuple[float, float] | None = None
    seen: Mapping[str, str] = field(default_factory=dict, repr=False)
    artifact: str = ""
    calibrated: tuple[float, ...] = field(default=(), repr=False)
    _lock: ForkSafeLock = field(default_factory=ForkSafeLock, init=False, repr=False)

    @classmethod
    def fit(  # noqa: PLR0913 - keywords of a facade, each with a default
        cls,
        name: str,
        images: ImageSource | Iterable[ImageSource],
        *,
        product: str = "product",
        labeled: Sequence[Labeled] = (),
        threshold: float | None = None,
        max_false_reject: float = MAX_FALSE_REJECT,
        seed: int = 0,
        published: bool = False,
        allow_download: bool = False,
        color: ColorOrder = "rgb",
        curves: Curves | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Baseline:
        """Fit a baseline, and set its threshold.

        The threshold comes from the scores of good images that it was not fitted on. A method without gradient steps is
        fitted several times without some of them, then once on all. One that takes gradient steps is fitted once, on
        three quarters; the others are judged in small variations, since the scores of two trainings do not compare.
        Above the threshold, by Student's t distribution, is a share `max_false_reject` of good parts.

        Args:
            name: A baseline other than `fewshot_ad`, whose products `Inspector` makes.
            images: Good images, in any form `Inspector.from_support` takes; of a method that needs the position of
                each pixel (CFM), in the forms of `read_scans`.
            product: Name of the product.
            labeled: Images of defective parts, for baselines that learn from them.
            threshold: Set by hand; the baseline is then fitted once, on all images, and small variations of these stand
                for good images that it has not seen.
            max_false_reject: Share of good parts that may be rejected, 0.0001 to 0.5.
            seed: Of everything random.
            published: See `create`.
            allow_download: See `create`.
            color: Channel order of arrays.
            curves: Where training curves go; None = nowhere.
            progress: Called as `progress(stage, done, total)`.
            settings: Hyper-parameters, and how it runs: `device` (`cpu`, `cuda`, `cuda:N`) and `precision` (`f32`,
                `bf16`).

        Raises:
            ZooError: There is no such baseline, it cannot learn from these images, or cannot be stored.
            SupportSetError: There are no usable images.
        """
        if name == "fewshot_ad":
            raise ZooError(
                "expected a baseline of others, got fewshot_ad: enroll products of it (Inspector.from_support)."
            )
        arguments.number(max_false_reject, "max_false_reject", *FALSE_REJECTS)
        arguments.whole_number(seed, "seed", 0)
        arguments.text(product, "product", MAX_NAME)
        if any(sign in product for sign in "/\\\0") or product.startswith("."):
            raise ZooError(
                f"expected a product's name without slashes, and no dot before it, got {product!r}. Choose another one."
            )
        # What is wrong with name or settings is said before images are read.
        check_settings(name, settings)
        create(name, published=published, allow_download=allow_download, **settings)
        card = cards()[name]
        if card.supervision == "labeled defects" and not labeled:
            kind, way = (
                ("images of defects with masks", " and --masks") if card.needs_masks else ("images of defects", "")
            )
            raise ZooError(f"{name}: expected {kind}, from which it learns, got none. Give labeled= (--defects{way}).")
        asked: dict[str, Any] = {"seed": seed, "published": published, "allow_download": allow_download, **settings}
        if published:
            settings = {**cards()[name].original.options, **settings}
        pixels: list[Any]
        if card.needs_points:
            support, pixels = read_scans(images, color, progress)
        else:
            support = read_support(images, color, progress)
            pixels = [image.pixels for image in support.images]
        require_fit_memory(name, settings, len(pixels))
        fitting = Fitting(name, asked, pixels, labeled, progress)
        with (
            _explained(name),
            curves.drawn(f"{product} {name}") if curves is not None and card.trains else contextlib.nullcontext(),
        ):
            if threshold is None:
                fitted = fitting.with_held_out()
                scale = score_scale(name, fitted.scores, fitted.held_out, max_false_reject)
            else:
                arguments.number(threshold, "threshold", -1e30, 1e30)
                fitted = fitting.on_all()
                scale = by_hand(name, fitted, float(threshold), max_false_reject)
        notes = (*support.notes, *(() if threshold is not None else provisional(fitted.held_out)))
        if any(MEANINGLESS in text for text in differences(name, settings)):
            notes += (RANDOM_WEIGHTS,)
        names = tuple(support.images[i].name for i in fitted.fitted_on)
        map_scale = map_scale_of(fitted.maps, max_false_reject)
        # Where it computes is for the reader of the folder to say again.
        settings.pop("device", None)
        shapes = [image.shape[1] / image.shape[0] for image in pixels]
        aspects = (min(shapes), max(shapes))
        seen = {image.sha256: image.name for image in support.images}
        return cls(name, dict(settings), seed, product, fitted.method, scale, map_scale, names, notes, aspects, seen)

    @property
    def threshold(self) -> float:
        """Scores above it are anomalous.

        Setting it by hand replaces the one of the fit.

        Raises:
            ZooError: On setting: half of the good images would be above it.
        """
        return self.scores.threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        value = float(arguments.number(value, "threshold", -1e30, 1e30))
        self.scores = scale_with_threshold(self.name, self.scores.median_good, value, self.scores.max_false_reject)
        self.calibrated, self.notes = (), without_provisional(self.notes)

    def inspect(self, image: ImageSource, *, color: ColorOrder = "rgb") -> Inspection:
        """Inspect one image.

        Args:
            image: In any form `Inspector.inspect` takes; of a method that needs the position of each pixel, in one
                of `read_scan`.
            color: Channel order of an array.

        Returns:
            The verdict; `not_inspectable` of an image that is a tenth wider or narrower than those of the fit, which
            the method would see distorted. Its severity is 0 for a median good image and 1 at the threshold, since
            scores of baselines have no zero; `encoder` is the baseline's name, and all of its time is `encode`.

        Raises:
            ImageError: The image cannot be used.
        """
        arguments.choice(color, "color", get_args(ColorOrder), ImageError)
        return self._judged(image, color)

    def inspect_batch(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        color: ColorOrder = "rgb",
        errors: Literal["raise", "return"] = "raise",
    ) -> Iterator[Inspection | ImageError]:
        """Inspect many images, in order; as `Inspector.inspect_batch`."""
        arguments.choice(errors, "errors", ("raise", "return"), ArgumentError)
        arguments.choice(color, "color", get_args(ColorOrder), ImageError)
        for source in expand_sources(arguments.image_sources(images, ImageError), keep_errors=True):
            try:
                yield self._judged(source, color)
            except ImageError as error:
                if errors == "raise":
                    raise
                yield error

    def check(
        self,
        good: ImageSource | Iterable[ImageSource],
        bad: ImageSource | Iterable[ImageSource] | None = None,
        *,
        color: ColorOrder = "rgb",
        progress: Progress | None = None,
    ) -> Check:
        """Judge images whose truth is known; see `Inspector.check`.

        Images that it was fitted on, or that set its threshold, are named and not counted.

        Raises:
            ZooError: It was stored by an earlier version, and does not know which these are.
        """
        arguments.function(progress, "progress")
        if not self.seen:
            raise ZooError(
                f"{self.product}: expected a baseline that knows the images it was fitted on, got one of an earlier "
                "version, which does not: they would be counted. Fit it again."
            )

        def judged(images: list[ImageSource]) -> Iterator[Inspection | ImageError]:
            return self.inspect_batch(images, color=color, errors="return")

        subject = Subject(self.product, self.threshold, self.seen, frozenset(self.calibrated))
        return check_images(subject, judged, good, bad, progress)

    def calibrate(
        self,
        good: ImageSource | Iterable[ImageSource],
        bad: ImageSource | Iterable[ImageSource] | None = None,
        max_false_reject: float | None = None,
        *,
        color: ColorOrder = "rgb",
        progress: Progress | None = None,
    ) -> str:
        """Set the threshold from further good images, as `fit` does; the method stays as it is.

        Args:
            good: Two or more good images that it was not fitted on.
            bad: Images of defective parts, which only say how many of them pass; None for none.
            max_false_reject: Share of good parts that may be rejected, 0.0001 to 0.5; None takes that of the fit.
            color: Channel order of arrays.
            progress: Called as `progress("check", done, total)`.

        Returns:
            What was done, in words.

        Raises:
            ArgumentError: The bad images mostly score below the good ones, or an argument is out of range.
            ZooError: No threshold follows from them.
            ImageError: There are no images that count.
        """
        if max_false_reject is not None:
            arguments.number(max_false_reject, "max_false_reject", *FALSE_REJECTS)
        check = self.check(good, bad, color=color, progress=progress)
        scores, former = check.scores("good"), self.threshold
        if len(scores) < 2:
            raise ZooError(few_good(check))
        if check.looks_swapped:
            raise ArgumentError(
                "expected bad images that mostly score above the good ones, got them below. Are the two swapped? "
                "Nothing was changed; `fewshot-ad check` names each."
            )
        share = self.scores.max_false_reject if max_false_reject is None else max_false_reject
        self.scores = score_scale(self.name, np.array(scores, np.float32), len(scores), share)
        self.calibrated = tuple(scores)
        self.notes = (*without_provisional(self.notes), *provisional(len(scores)))
        return "\n".join(changes(check, former, self.scores))

    def _judged(self, source: ImageSource | ImageError, color: ColorOrder) -> Inspection:
        scan: Any
        if self._needs_points:
            reading, scan = read_scan(source, color)
        else:
            reading = read(source, color)
            scan = reading.pixels
        image = reading.pixels
        if isinstance(image, ImageError):
            raise image
        start = time.perf_counter()
        predicted = self._predicted(scan, f"{source}: " if isinstance(source, (str, os.PathLike)) else "")
        predict_ms = (time.perf_counter() - start) * 1e3
        score = float(predicted.scores[0])
        # A method without maps says nothing of where.
        heat = predicted.maps[0] if predicted.maps else np.zeros(image.shape[:2], np.float32)
        reason = self._other_shape(image.shape[1] / image.shape[0])
        is_anomalous = score > self.threshold or bool(reason)
        has_place = is_anomalous and predicted.maps is not None
        return Inspection(
            product=self.product,
            encoder=self.name,
            score=score,
            threshold=self.threshold,
            is_anomalous=is_anomalous,
            severity=self.scores.severity(score),
            regions=find_regions(heat, self.map_scale, (image.shape[0], image.shape[1])) if has_place else (),
            map_scale=self.map_scale,
            timings_ms={
                "decode": reading.milliseconds,
                "resize": 0.0,
                "encode": predict_ms,
                "search": 0.0,
                "map": 0.0,
                "total": reading.milliseconds + predict_ms,
            },
            image=image,
            draw_map=functools.partial(_same, heat),
            name=reading.name,
            reason=reason,
        )

    @functools.cached_property
    def _needs_points(self) -> bool:
        return self.name in cards() and cards()[self.name].needs_points

    def _predicted(self, image: Any, place: str) -> Predictions:
        with self._lock:
            try:
                return finite(self.name, self.method.predict([image]))
            except ZooError as error:
                if not self._needs_points:
                    raise
                # The scanner saw too little in this one image: the next one may be well.
                raise ImageError(f"{place}{error}") from error

    def _other_shape(self, aspect: float) -> str:
        """Why an image of this width by height cannot be judged; empty if it can."""
        if self.aspects is None:
            return ""
        if self.aspects[0] <= aspect * ASPECT_SLACK and aspect <= self.aspects[1] * ASPECT_SLACK:
            return ""
        low, high = (f"{one:.2f}" for one in self.aspects)
        return (
            f"another shape: width by height is {aspect:.2f}, that of the good images "
            f"{low if low == high else f'{low} to {high}'}, and {self.name} scales all to one square"
        )

    def facts(self) -> dict[str, str]:
        """What a report says of it, in words."""
        differs = differences(self.name, self.settings)
        facts = {
            "Baseline": self.name,
            "Settings": ", ".join(f"{name} {value}" for name, value in self.settings.items()) or "its defaults",
            "Differs from the published method in": "; ".join(differs) or "nothing",
            "Fitted on": f"{len(self.support)} images",
            "Threshold": f"{self.threshold:.6g}",
            "Where it comes from": self.scores.explain(),
            "Severity": "0 for a median good image, 1 at the threshold",
        }
        if self.notes:
            facts["What was noticed"] = " ".join(self.notes)
        return facts

    def info(self) -> dict[str, Any]:
        """All that is known of it, as plain JSON types, but for the tensors."""
        return {
            "schema": SCHEMA,
            "baseline": self.name,
            "settings": dict(self.settings),
            "differs": list(differences(self.name, self.settings)),
            "seed": self.seed,
            "product": self.product,
            "support": list(self.support),
            "scores": asdict(self.scores),
            "map_scale": asdict(self.map_scale),
            "notes": list(self.notes),
            "aspects": None if self.aspects is None else list(self.aspects),
            "seen": dict(self.seen),
            "calibrated": list(self.calibrated),
            "version": __version__,
        }

    def save(self, folder: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write it to a folder, whole or not at all: `baseline.json` and `tensors.safetensors`.

        Args:
            folder: The folder; an earlier baseline in it is replaced with `force`, other files stay.
            force: Whether to replace one, or to write beside other files.

        Raises:
            ZooError: It cannot be written or must stay as it is, or the method leaves behind what cannot be stored.
        """
        arguments.flag(force, "force", ZooError)
        folder = Path(arguments.file_name(folder, "folder", ZooError))
        write_model(folder, self.info, self.name, self.method, force=force)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: str = "cpu") -> Baseline:
        """Read what `save` wrote. It needs none of the files of weights that it was fitted with.

        Args:
            folder: The folder.
            device: Where it computes: `cpu`, `cuda` or `cuda:N`, wherever it was fitted.

        Raises:
            ZooError: There is none, it is damaged, or does not fit this installation.
        """
        folder = Path(arguments.file_name(folder, "folder", ZooError))
        with model_read(folder, device) as (said, method):
            return cls(
                said["baseline"],
                said["settings"],
                said["seed"],
                said["product"],
                method,
                ScoreScale(**said["scores"]),
                MapScale(**said["map_scale"]),
                tuple(said["support"]),
                tuple(said["notes"]),
                _aspects(said.get("aspects")),
                dict(said.get("seen", {})),
                said["manifest_sha256"],
                tuple(map(float, said.get("calibrated", ()))),
            )


def _aspects(said: Any) -> tuple[float, float] | None:
    """What a stored baseline says of the shapes of its images; None where it says nothing."""
    if said is None:
        return None
    low, high = map(float, said)
    return low, high


def _same(heat: Float32Array) -> Float32Array:
    return heat


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn the errors of libraries, which settings out of any range lead to, into one of this package."""
    try:
        yield
    except FewshotADError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError, IndexError, cv2.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise ZooError(
            f"{name}: expected settings and images that it can work with ({type(error).__name__}: {reason}). "
            f"`fewshot-ad zoo {name}` lists the settings."
        ) from error
