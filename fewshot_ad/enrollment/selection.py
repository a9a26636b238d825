"""Views and working scales of a product, chosen from its support set alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fewshot_ad.arrays import Progress, in_steps
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.banks import EnrolledScale, enroll_scale, join_scales
from fewshot_ad.enrollment.calibration import calibrate
from fewshot_ad.enrollment.embedding import embed_support
from fewshot_ad.enrollment.pose import TURNED, turned_parts
from fewshot_ad.enrollment.precision import encode_ms
from fewshot_ad.enrollment.presets import BASE_SIZES, BASE_VIEWS, MAX_IMAGE_SIZE, EnrollmentSettings
from fewshot_ad.enrollment.probes import DrawnDefect, Probes, shrunk
from fewshot_ad.enrollment.support import SupportImage
from fewshot_ad.enrollment.views import View, parse_views
from fewshot_ad.errors import SupportSetError

ROTATIONS = parse_views("rotate=45/90/135/225/270/315")
# Poses are compared on so many images; this share of turned parts is enough for rotated views. Not all turns are
# believed, so few already mean many.
MAX_POSES = 8
TURNED_SHARE = 0.25
# Rotated views are also taken where held-out good images score no more than this much higher with them (natural
# logarithm): they take room in the bank, so that the good score higher unless rotated views explain them better. So
# round parts are noticed, which have no turn that could be seen. A bank of fewer images gains by any views.
MAX_RISE, MIN_IMAGES_FOR_GAIN = 0.005, 3
# The finest working scale shows the smallest defect that matters on at least so many pixels: a patch of its own.
DEFECT_PIXELS = 8
# Scales on which the smallest defect covers less than half the stride of a patch are not enough, whatever the drawn
# defects say: it is averaged away wherever it does not happen to fill a patch.
SEEN_PIXELS = 4
# A finer scale costs every inspection; where a coarser one catches this share of the smallest defects, it is enough. So
# it is where it catches this much more than with the finer one.
ENOUGH_CAUGHT, CLEARLY_MORE = 0.9, 0.1


class ViewChoice(NamedTuple):
    """Which views to enroll with.

    Attributes:
        settings: What was asked for, with the views.
        reasons: Why these.
        trial: The support set with these views at its coarsest working scale, where that was made to choose them; no
            probes are scored in it.
    """

    settings: EnrollmentSettings
    reasons: tuple[str, ...] = ()
    trial: EnrolledScale | None = None


def choose_views(
    images: Sequence[SupportImage], settings: EnrollmentSettings, encoder: Encoder, progress: Progress | None = None
) -> ViewChoice:
    """Flips, or flips and rotations where the parts lie at different angles, if the views were left to `auto`.

    Args:
        images: The support set.
        settings: What was asked for.
        encoder: The encoder.
        progress: Called as `progress("rotations", done, total)` where both are tried.
    """
    if len(images) < 2:
        return _views_of_one_image(settings)
    if "views" not in settings.auto:
        covered = with_whole_periods(settings)
        added = [str(view) for view in covered.views if view not in settings.views]
        reasons = (f"views: {', '.join(added)} added; registration leaves these turns open.",) if added else ()
        return ViewChoice(covered, reasons)
    flips = with_whole_periods(dataclasses.replace(settings, views=BASE_VIEWS))
    rotated = dataclasses.replace(flips, views=(*flips.views, *(view for view in ROTATIONS if view not in flips.views)))
    turned, compared = turned_parts([shrunk(image.pixels, 512) for image in images[:MAX_POSES]], encoder)
    if turned and turned >= TURNED_SHARE * compared:
        reason = (
            f"views: flips and rotations; as photographed, the part is turned by over {TURNED} degrees against the "
            f"first image on {turned} of {compared} others."
        )
        return ViewChoice(rotated, (reason,))
    if len(images) < MIN_IMAGES_FOR_GAIN:
        reason = f"views: flips; the part is upright against the first image on {compared} other(s)."
        return ViewChoice(flips, (reason,))
    size = min(candidate_sizes(images, settings))
    nothing = Probes({}, (), settings.seed, size)
    embedded = [
        embed_support(images, one, size, encoder, in_steps(progress, at, 2, "rotations"))
        for at, one in enumerate((flips, rotated))
    ]
    trials = [
        enroll_scale(of_one, one, size, encoder, nothing)
        for of_one, one in zip(embedded, (flips, rotated), strict=True)
    ]
    scores = [np.log([max(m.score, 1e-12) for m in trial.good]) for trial in trials]
    gain = float(np.median(scores[0] - scores[1]))
    fall = f"held-out good images score {abs(gain):.0%} {'lower' if gain > 0 else 'higher'} with rotated views"
    if gain >= -MAX_RISE:
        return ViewChoice(rotated, (f"views: flips and rotations; {fall}.",), trials[1])
    return ViewChoice(flips, (f"views: flips; {fall}.",), trials[0])


def with_whole_periods(settings: EnrollmentSettings) -> EnrollmentSettings:
    """The settings with views turned by whole periods of the registration, which leaves these turns open."""
    order = 1 if settings.registration is None else settings.registration.order
    turns = [View("rotate", 360 * k / order) for k in range(1, order)]
    return dataclasses.replace(settings, views=(*settings.views, *(v for v in turns if v not in settings.views)))


def _views_of_one_image(settings: EnrollmentSettings) -> ViewChoice:
    reasons: list[str] = []
    if "views" in settings.auto:
        reasons.append("views: flips, the default; there is no second image to compare poses with.")
    views = settings.views
    if not any(view.shows_all for view in views):
        # Nothing else could stand in for a second image when the threshold is set.
        views = (*views, *(view for view in BASE_VIEWS if view not in views))
        reasons.append("views: flips added; one image has nothing else to set the threshold from.")
    return ViewChoice(dataclasses.replace(settings, views=views), tuple(reasons))


def candidate_sizes(images: Sequence[SupportImage], settings: EnrollmentSettings) -> tuple[int, ...]:
    """Working scales to choose from: those given, or two, and a finer one where the smallest defect needs it.

    Args:
        images: The support set; no scale is finer than its images.
        settings: What was asked for.
    """
    if "image_size" not in settings.auto:
        return settings.image_sizes
    sizes = list(BASE_SIZES)
    height, width = images[0].pixels.shape[:2]
    finest = min(MAX_IMAGE_SIZE, int((height * width) ** 0.5))
    while sizes[-1] * settings.min_defect < DEFECT_PIXELS and 2 * sizes[-1] <= finest:
        sizes.append(2 * sizes[-1])
    # The coarsest for what is large, the finest for what is small; what lies between sees nothing that they do not.
    return (sizes[0], sizes[-1])


def choose_scales(
    scales: Sequence[EnrolledScale],
    settings: EnrollmentSettings,
    encoder: Encoder,
    series: Sequence[DrawnDefect],
    distinct: int,
) -> tuple[list[EnrolledScale], tuple[str, ...]]:
    """The cheapest working scales that still catch the smallest defect that matters, and why.

    Args:
        scales: The candidates, ascending.
        settings: What was asked for.
        encoder: The encoder, for the time that each takes.
        series: The drawn defects.
        distinct: Number of images that differ by more than noise.

    Raises:
        SupportSetError: None is within the time that was given.
    """
    if "image_size" not in settings.auto:
        return list(scales), ()
    # Only where it decides: it takes time, and differs from run to run.
    times = {
        scale: 0.0 if settings.max_ms is None else encode_ms(encoder, image_sizes=[scale.image_size])[0]
        for scale in scales
    }
    options = [list(scales[:count]) for count in range(1, len(scales) + 1)]
    affordable = [o for o in options if settings.max_ms is None or sum(times[s] for s in o) <= settings.max_ms]
    if not affordable:
        raise SupportSetError(
            f"expected max_ms of at least {times[scales[0]]:.1f}, what the encoder takes at {scales[0].image_size} "
            f"pixels here, got {settings.max_ms:g}. Raise it, or choose image_size yourself."
        )
    seen = [o for o in affordable if o[-1].image_size * settings.min_defect >= SEEN_PIXELS]
    affordable = seen or affordable[-1:]
    caught = [_caught(option, settings, series, distinct) for option in affordable]
    best = cheapest(caught)
    figures = ", ".join(
        f"{share:.0%} at {_names(option)}"
        + ("" if settings.max_ms is None else f" ({sum(times[s] for s in option):.1f} ms)")
        for share, option in zip(caught, affordable, strict=True)
    )
    chosen = affordable[best]
    return chosen, (
        f"image size: {_names(chosen)}; of drawn defects of {settings.min_defect:.1%} of the image's side are caught: "
        f"{figures}. The coarser is enough where it catches {ENOUGH_CAUGHT:.0%}, or {CLEARLY_MORE:.0%} more than both.",
    )


def cheapest(caught: Sequence[float]) -> int:
    """Which option to take, the cheapest first: the first that catches enough, or clearly more than the dearest.

    Args:
        caught: Share of the smallest defects that each catches, the cheapest option first.
    """
    enough = min(ENOUGH_CAUGHT, caught[-1] + CLEARLY_MORE)
    return next((at for at, share in enumerate(caught) if share >= enough), len(caught) - 1)


def _caught(
    scales: Sequence[EnrolledScale], settings: EnrollmentSettings, series: Sequence[DrawnDefect], distinct: int
) -> float:
    """Share of the drawn defects of the smallest size that matters above the threshold of some working scales."""
    _, evidence = join_scales(scales, settings, series, distinct)
    threshold = calibrate(evidence, settings).threshold
    smallest = [d.score > threshold for d in evidence.defects if d.size == settings.min_defect]
    return sum(smallest) / len(smallest)


def _names(scales: Sequence[EnrolledScale]) -> str:
    return " and ".join(str(scale.image_size) for scale in scales)
