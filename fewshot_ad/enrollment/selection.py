"""Views and working scale of a product, chosen from its support set alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.defects import random_defect
from fewshot_ad.enrollment.pose import TURNED, turned_parts
from fewshot_ad.enrollment.support import SupportImage, View, ViewsSpec, parse_views
from fewshot_ad.images import Geometry, inside_patches
from fewshot_ad.metrics import auroc
from fewshot_ad.scoring import ScoringConfig, patch_weights, top_mean
from fewshot_ad.search.nearest import NearestSearch, normalize, to_distance

BASE_SIZE = 256
LARGER_SIZES = (384, 512)
FLIPS = parse_views("hflip,vflip,rotate=180")
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


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        views: Views besides the images themselves.
        image_size: Working scale in pixels.
        reasons: One sentence a choice that was made automatically.
    """

    views: tuple[View, ...]
    image_size: int
    reasons: tuple[str, ...]


def choose(
    images: Sequence[SupportImage],
    views: ViewsSpec,
    image_size: int | Literal["auto"],
    encoder: Encoder,
    scoring: ScoringConfig,
    seed: int,
    progress: Progress | None = None,
) -> Choice:
    """Fill in what the caller left to `auto`.

    There are no defective images to compare settings on, so small defects are drawn on support images, each
    held out from the others in turn; the measure is how well their scores separate from those of the images as
    they are. Rotated views need no such proof if the parts lie at different angles (`pose.turned_parts`). No other
    image plays a part.

    Args:
        images: The support set.
        views: `"auto"`, or a choice of views that is taken as it is.
        image_size: `"auto"`, or a working scale that is taken as it is.
        encoder: The encoder.
        scoring: How distances become a score.
        seed: Of the drawn defects.
        progress: Called as `progress("settings", done, total)`.
    """
    size = BASE_SIZE if image_size == "auto" else image_size
    reasons: list[str] = []
    if len(images) < 2:
        if views == "auto":
            reasons.append("views: flips, the default; there is no second image to compare them on.")
        if image_size == "auto":
            reasons.append(f"image size: {size}, the default; there is no second image to compare sizes on.")
        given = FLIPS if views == "auto" else parse_views(views)
        if not any(view.shows_all for view in given):
            # Nothing else could stand in for a second image when the threshold is set.
            given = (*given, *(view for view in FLIPS if view not in given))
            reasons.append("views: flips added; one image has nothing else to set the threshold from.")
        return Choice(given, size, tuple(reasons))
    if views != "auto" and image_size != "auto":
        return Choice(parse_views(views), size, ())
    probe = Probe(images, encoder, scoring, seed)
    total = 2 * (views == "auto") + len(LARGER_SIZES) * (image_size == "auto")
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("settings", done, total)

    chosen = FLIPS if views == "auto" else parse_views(views)
    turned, compared = 0, 0
    if views == "auto":
        turned, compared = turned_parts(
            [_at_most(image.pixels, BASE_SIZE * 2) for image in images[:MAX_POSES]], encoder
        )
    if turned and turned >= TURNED_SHARE * compared:
        # A pose that none of so few images shows is the rule then, and held-out ones cannot tell.
        chosen = (*FLIPS, *ROTATIONS)
        tick()
        tick()
        reasons.append(
            f"views: flips and rotations; the part is turned by more than {TURNED} degrees against the first "
            f"image on {turned} of {compared} others."
        )
    elif views == "auto":
        flips = probe.separability(FLIPS, size)
        none = probe.separability((), size)
        tick()
        rotations = probe.separability((*FLIPS, *ROTATIONS), size)
        tick()
        name = "flips"
        if none.beats(flips) and none.auroc >= rotations.auroc:
            chosen, name = (), "none"
        elif rotations.beats(flips):
            chosen, name = (*FLIPS, *ROTATIONS), "flips and rotations"
        reasons.append(
            f"views: {name}; drawn defects stand out from held-out good images with AUROC {none} without views, "
            f"{flips} with flips, {rotations} with rotations too."
        )
    if image_size == "auto":
        separabilities = {size: probe.separability(chosen, size)}
        for larger in LARGER_SIZES:
            separabilities[larger] = probe.separability(chosen, larger)
            tick()
            if not separabilities[larger].beats(separabilities[size]):
                break
            size = larger
        figures = ", ".join(f"{value} at {at}" for at, value in separabilities.items())
        reasons.append(f"image size: {size}; AUROC of drawn defects {figures}.")
    if progress is not None:
        progress("settings", total, total)
    return Choice(chosen, size, tuple(reasons))


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
        self._images = [_at_most(image.pixels, 2 * max(LARGER_SIZES)) for image in images[:MAX_IMAGES]]
        rng = np.random.default_rng(seed)
        held_out = self._images[:MAX_HELD_OUT]
        self._defective = [[random_defect(image, rng) for _ in range(DEFECTS // len(held_out))] for image in held_out]
        # By identity: all images live as long as the probe.
        self._scaled: dict[tuple[int, int], Uint8Array] = {}
        self._embeddings: dict[tuple[int, View | None, int], tuple[Float32Array, Float32Array]] = {}
        self._separability: dict[tuple[tuple[View, ...], int], Separability] = {}

    def _embed(self, image: Uint8Array, view: View | None, size: int) -> tuple[Float32Array, Float32Array]:
        """Embeddings (n, d) of the patches that show the image, and their weights (n,) in the score."""
        geometry = Geometry.fit(image.shape[:2], size, self._encoder.spec.multiple)  # type: ignore[arg-type]
        key = (id(image), size)
        if key not in self._scaled:
            self._scaled[key] = geometry.scale(image)
        picture, shown = self._scaled[key], np.full(geometry.content_hw, 255, np.uint8)
        if view is not None:
            picture, shown, _ = view.apply(picture, shown)
        # The first level is enough to compare settings.
        level = self._encoder.encode(geometry.pad(picture))[0]
        partly = view is None or view.shows_all
        keep = inside_patches(geometry.content_mask(shown), level.shape[:2], partly).ravel()
        weights = patch_weights(geometry, level.shape[:2], self._scoring.edge_weight).ravel()[keep]
        return normalize(level.reshape(-1, level.shape[2])[keep], self._scoring.metric), weights

    def _support(self, at: int, view: View | None, size: int) -> tuple[Float32Array, Float32Array]:
        key = (at, view, size)
        if key not in self._embeddings:
            self._embeddings[key] = self._embed(self._images[at], view, size)
        return self._embeddings[key]

    def separability(self, views: tuple[View, ...], size: int) -> Separability:
        """How well drawn defects stand out with these views, at this working scale."""
        key = (views, size)
        if key not in self._separability:
            self._separability[key] = self._measure(views, size)
        return self._separability[key]

    def _measure(self, views: tuple[View, ...], size: int) -> Separability:
        good: list[float] = []
        bad: list[float] = []
        for at, defective in enumerate(self._defective):
            others = [i for i in range(len(self._images)) if i != at]
            pool = np.concatenate([self._support(i, view, size)[0] for i in others for view in (None, *views)])
            # A random subset finds the same ranking as a coreset and takes no time.
            subset = np.random.default_rng(self._seed).permutation(len(pool))[:PROBE_BANK]
            nearest = NearestSearch(pool[subset], self._encoder.threads, lasting=False)
            # One search a fold, so that it and the encoder do not take turns.
            queries = [self._support(at, None, size), *(self._embed(p, None, size) for p in defective)]
            distances = to_distance(nearest(np.concatenate([q for q, _ in queries])), self._scoring.metric)
            distances *= np.concatenate([weights for _, weights in queries])
            starts = np.cumsum([len(q) for q, _ in queries])[:-1]
            scores = [top_mean(d, self._scoring.top_fraction) for d in np.split(distances, starts)]
            good.append(scores[0])
            bad.extend(scores[1:])
        log_good, log_bad = np.log(np.maximum(good, 1e-12)), np.log(np.maximum(bad, 1e-12))
        margin = (log_bad.mean() - log_good.mean()) / max(float(log_good.std(ddof=1)), MIN_SPREAD)
        return Separability(auroc([0] * len(good) + [1] * len(bad), good + bad), float(margin))


def _at_most(image: Uint8Array, side: int) -> Uint8Array:
    height, width = image.shape[:2]
    if height * width <= side * side:
        return image
    scale = side / (height * width) ** 0.5
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
