"""Views and working scale of a product, chosen from its support set alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.defects import random_defect
from fewshot_ad.enrollment.embedding import PatchEmbeddings, ScaledImage, embed_image, scale_image
from fewshot_ad.enrollment.pose import TURNED, turned_parts
from fewshot_ad.enrollment.presets import BASE_SIZE, BASE_VIEWS, EnrollmentSettings
from fewshot_ad.enrollment.support import SupportImage, View, parse_views
from fewshot_ad.metrics import auroc
from fewshot_ad.scoring import ScoringConfig, top_mean_score
from fewshot_ad.search.nearest import NearestSearch, normalize, to_distance

LARGER_SIZES = (384, 512)
ROTATIONS = parse_views("rotate=45/90/135/225/270/315")

# How much is looked at. More images or defects say little more and cost enrollment time.
MAX_IMAGES = 5
MAX_HELD_OUT = 4
# Poses are compared on so many images; this share of turned parts is enough for rotated views. Not all turns are
# believed, so few already mean many.
MAX_POSES = 8
TURNED_SHARE = 0.25
DEFECTS = 32
PROBE_BANK = 4096

# A change must earn its cost: rotations make enrollment longer, a larger scale every inspection. With so few good
# images either figure alone is often lucky; both together seldom are.
MIN_GAIN_AUROC = 0.02
MIN_GAIN_MARGIN = 0.2
# No spread of good scores below this is believed.
MIN_SPREAD = 0.02


def choose_settings(
    images: Sequence[SupportImage],
    settings: EnrollmentSettings,
    encoder: Encoder,
    progress: Progress | None = None,
) -> tuple[EnrollmentSettings, tuple[str, ...]]:
    """Fill in what the caller left to `auto`.

    There are no defective images to compare settings on, so small defects are drawn on support images, each held out
    from the others in turn; the measure is how well their scores separate from those of the images as they are.
    Rotated views need no such proof if the parts lie at different angles (`pose.turned_parts`). No other image plays a
    part.

    Args:
        images: The support set.
        settings: What was asked for; `settings.auto` says which of it is to be chosen.
        encoder: The encoder.
        progress: Called as `progress("settings", done, total)`.

    Returns:
        The settings, and one sentence for each that was chosen.
    """
    if len(images) < 2:
        return _settings_of_one_image(settings)
    if not settings.auto:
        return settings, ()
    probe = Probe(images, encoder, settings.scoring, settings.seed)
    views_steps, size_steps = 2 * ("views" in settings.auto), len(LARGER_SIZES) * ("image_size" in settings.auto)
    done, total = 0, views_steps + size_steps

    def tick(steps: int) -> None:
        nonlocal done
        for _ in range(steps):
            done += 1
            if progress is not None:
                progress("settings", done, total)

    views, image_size, reasons = settings.views, settings.image_size, []
    if "views" in settings.auto:
        views, reason = choose_views(images, image_size, probe, encoder, tick)
        reasons.append(reason)
    if "image_size" in settings.auto:
        image_size, reason = choose_scale(views, image_size, probe, tick)
        reasons.append(reason)
    if progress is not None:
        progress("settings", total, total)
    return dataclasses.replace(settings, views=views, image_size=image_size), tuple(reasons)


def choose_views(
    images: Sequence[SupportImage], image_size: int, probe: Probe, encoder: Encoder, tick: Callable[[int], None]
) -> tuple[tuple[View, ...], str]:
    """No views, flips, or flips and rotations; and why.

    Args:
        images: The support set, at least two images.
        image_size: Working scale that the comparison is made at.
        probe: Compares settings.
        encoder: The encoder.
        tick: Called with the number of steps done, two in all.
    """
    rotated = (*BASE_VIEWS, *ROTATIONS)
    turned, compared = turned_parts([_shrunk(image.pixels, BASE_SIZE * 2) for image in images[:MAX_POSES]], encoder)
    if turned and turned >= TURNED_SHARE * compared:
        # A pose that none of so few images shows is the rule then, and held-out ones cannot tell.
        tick(2)
        return rotated, (
            f"views: flips and rotations; the part is turned by more than {TURNED} degrees against the first image on "
            f"{turned} of {compared} others."
        )
    flips = probe.separability(BASE_VIEWS, image_size)
    none = probe.separability((), image_size)
    tick(1)
    rotations = probe.separability(rotated, image_size)
    tick(1)
    views, name = BASE_VIEWS, "flips"
    if none.beats(flips) and none.auroc >= rotations.auroc:
        views, name = (), "none"
    elif rotations.beats(flips):
        views, name = rotated, "flips and rotations"
    return views, (
        f"views: {name}; drawn defects stand out from held-out good images with AUROC {none} without views, "
        f"{flips} with flips, {rotations} with rotations too."
    )


def choose_scale(
    views: tuple[View, ...], image_size: int, probe: Probe, tick: Callable[[int], None]
) -> tuple[int, str]:
    """The working scale in pixels, from `image_size` up as long as a larger one is clearly better; and why.

    Args:
        views: The views that were chosen.
        image_size: The smallest scale.
        probe: Compares settings.
        tick: Called with the number of steps done.
    """
    separabilities = {image_size: probe.separability(views, image_size)}
    for larger in LARGER_SIZES:
        separabilities[larger] = probe.separability(views, larger)
        tick(1)
        if not separabilities[larger].beats(separabilities[image_size]):
            break
        image_size = larger
    figures = ", ".join(f"{value} at {size}" for size, value in separabilities.items())
    return image_size, f"image size: {image_size}; AUROC of drawn defects {figures}."


def _settings_of_one_image(settings: EnrollmentSettings) -> tuple[EnrollmentSettings, tuple[str, ...]]:
    reasons: list[str] = []
    if "views" in settings.auto:
        reasons.append("views: flips, the default; there is no second image to compare them on.")
    if "image_size" in settings.auto:
        reasons.append(f"image size: {settings.image_size}, the default; there is no second image to compare sizes on.")
    views = settings.views
    if not any(view.shows_all for view in views):
        # Nothing else could stand in for a second image when the threshold is set.
        views = (*views, *(view for view in BASE_VIEWS if view not in views))
        reasons.append("views: flips added; one image has nothing else to set the threshold from.")
    return dataclasses.replace(settings, views=views), tuple(reasons)


class Probe:
    """Compares settings by how well drawn defects stand out from good images.

    Args:
        images: The support set, at least two images.
        encoder: The encoder.
        scoring: How distances become a score.
        seed: Of the drawn defects.
    """

    def __init__(self, images: Sequence[SupportImage], encoder: Encoder, scoring: ScoringConfig, seed: int) -> None:
        self._encoder = encoder
        self._scoring = scoring
        self._seed = seed
        # Twice the largest working scale is all the detail that can matter, and bounds the memory of the drawn copies.
        self._images = [_shrunk(image.pixels, 2 * max(LARGER_SIZES)) for image in images[:MAX_IMAGES]]
        rng = np.random.default_rng(seed)
        held_out = self._images[:MAX_HELD_OUT]
        self._defective = [[random_defect(image, rng) for _ in range(DEFECTS // len(held_out))] for image in held_out]
        # By identity: all images live as long as the probe.
        self._scaled: dict[tuple[int, int], ScaledImage] = {}
        self._support: dict[tuple[int, View | None, int], PatchEmbeddings] = {}
        self._separability: dict[tuple[tuple[View, ...], int], Separability] = {}

    def separability(self, views: tuple[View, ...], size: int) -> Separability:
        """How well drawn defects stand out with these views, at this working scale."""
        key = (views, size)
        if key not in self._separability:
            self._separability[key] = self._compare(views, size)
        return self._separability[key]

    def _compare(self, views: tuple[View, ...], size: int) -> Separability:
        good: list[float] = []
        bad: list[float] = []
        for at, defective in enumerate(self._defective):
            others = [i for i in range(len(self._images)) if i != at]
            pool = np.concatenate([self._bank_vectors(i, view, size) for i in others for view in (None, *views)])
            # A random subset finds the same ranking as a coreset and takes no time.
            subset = np.random.default_rng(self._seed).permutation(len(pool))[:PROBE_BANK]
            nearest = NearestSearch(pool[subset], self._encoder.threads, lasting=False)
            drawn = [self._embed(image, None, size) for image in defective]
            scores = self._scores([self._embed_support(at, None, size), *drawn], nearest)
            good.append(scores[0])
            bad.extend(scores[1:])
        log_good, log_bad = np.log(np.maximum(good, 1e-12)), np.log(np.maximum(bad, 1e-12))
        margin = (log_bad.mean() - log_good.mean()) / max(float(log_good.std(ddof=1)), MIN_SPREAD)
        return Separability(auroc([0] * len(good) + [1] * len(bad), good + bad), float(margin))

    def _scores(self, inspected: Sequence[PatchEmbeddings], nearest: NearestSearch) -> list[float]:
        """Image scores, `top_mean` whatever the product's own; it ranks settings as well and needs no neighbors.

        One search for all, so that it and the encoder do not take turns: hence not `scoring.measure`, but the function
        that scores patch distances there.
        """
        vectors = [self._vectors(patches) for patches in inspected]
        distances = to_distance(nearest(np.concatenate(vectors)), self._scoring.metric)
        starts = np.cumsum([len(v) for v in vectors])[:-1]
        return [
            top_mean_score([d.reshape(patches.levels[0].shape[:2])], patches.geometry, self._scoring)
            for patches, d in zip(inspected, np.split(distances, starts), strict=True)
        ]

    def _bank_vectors(self, at: int, view: View | None, size: int) -> Float32Array:
        patches = self._embed_support(at, view, size)
        return self._vectors(patches)[patches.inside(0)]

    def _vectors(self, patches: PatchEmbeddings) -> Float32Array:
        level = patches.levels[0]
        return normalize(level.reshape(-1, level.shape[2]), self._scoring.metric)

    def _embed_support(self, at: int, view: View | None, size: int) -> PatchEmbeddings:
        key = (at, view, size)
        if key not in self._support:
            self._support[key] = self._embed(self._images[at], view, size)
        return self._support[key]

    def _embed(self, image: Uint8Array, view: View | None, size: int) -> PatchEmbeddings:
        key = (id(image), size)
        if key not in self._scaled:
            self._scaled[key] = scale_image(image, size, self._encoder.spec.multiple)
        patches = embed_image(self._scaled[key], self._encoder, view)
        # The first level is enough to compare settings, and all that is kept.
        return dataclasses.replace(patches, levels=patches.levels[:1])


@dataclass(frozen=True)
class Separability:
    """How well drawn defects stand out from held-out good images.

    Attributes:
        auroc: AUROC of their scores, 0..1.
        margin: Mean log score of the drawn defects above that of the good, in standard deviations of the good.
    """

    auroc: float
    margin: float

    def beats(self, other: Separability) -> bool:
        """Whether it is better by enough to be more than luck."""
        return self.auroc >= other.auroc + MIN_GAIN_AUROC and self.margin >= other.margin + MIN_GAIN_MARGIN

    def __str__(self) -> str:
        return f"{self.auroc:.2f} (margin {self.margin:.1f})"


def _shrunk(image: Uint8Array, side: int) -> Uint8Array:
    height, width = image.shape[:2]
    if height * width <= side * side:
        return image
    scale = side / (height * width) ** 0.5
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
