"""Which images of a support set do not belong there: told by held-out scores, beside those of drawn defects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewshot_ad.arrays import Float64Array
from fewshot_ad.enrollment.banks import EnrolledScale, common_divisors, join_scales
from fewshot_ad.enrollment.calibration import Calibration
from fewshot_ad.enrollment.clusters import notes_on_groups
from fewshot_ad.enrollment.prediction import ScoredDefect
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.probes import DrawnDefect
from fewshot_ad.enrollment.support import SupportImage
from fewshot_ad.errors import SupportSetError
from fewshot_ad.inspection.inspectability import Expectations

# Of fewer images none is left out: two say nothing of which is the odd one, three hardly.
MIN_IMAGES = 4
# At most this share of the images is left out. Where more stand out, the product varies.
MAX_SHARE = 0.25
# Standard deviations of the others' log scores above their median. To lose a good image costs more than to look at one:
# where a product has a variant, its only image takes all of the variant along. Of 90 draws of 8 good images of nine
# products one in 30 has an image beyond 6, one in 3 beyond 2.3. benchmarks/hygiene.py measures the whole.
LEFT_OUT, NAMED = 6.0, 1.8
# The same for images that are to be added: a refusal asks, and loses nothing.
REFUSED = 2.3
# Where the score is far from that of drawn defects, it takes more to be named.
NAMED_ALONE = 2.8
# So much more for each image that is left out already: one bad image is likely, several are not.
EACH_FURTHER = 0.7
# And this much of the way from there to drawn defects, likewise in logarithms.
NEAR_DRAWN = 0.8
# The standard deviation that is expected before any score is seen, and how many images that expectation weighs as
# much as. Good images of most products lie within 0.05..0.2.
PRIOR_SPREAD, PRIOR_WEIGHT = 0.08, 4
# An image of which even the median patch is so much farther from the others than theirs are (natural logarithm) differs
# as a whole: a variant, another light or focus. A defect leaves most of the image as it was; on bottles, leather,
# transistors and hazelnuts it moves the median by at most 0.17, an odd kind of solar cell by 0.34. Farther still, it is
# no variant but another thing.
AS_A_WHOLE, ANOTHER_THING = 0.2, 0.5
# Size of the drawn defects that a bad image is compared with, as a share of the image's side.
DRAWN_SIZE = 0.045


@dataclass(frozen=True)
class SupportCheck:
    """What was found out about a support set.

    Attributes:
        outliers: Positions of the images to leave out.
        notes: What to say of the images, outliers and those that are kept.
    """

    outliers: tuple[int, ...]
    notes: tuple[str, ...]


def check_support(
    scales: Sequence[EnrolledScale],
    images: Sequence[SupportImage],
    settings: EnrollmentSettings,
    series: Sequence[DrawnDefect],
    keep: bool = False,
) -> SupportCheck:
    """Look for images that are unlike the others and as far off as a defect would be.

    One bad image does not change the held-out scores of the others much, but stands out by its own: its defect is in
    no other image. Both marks are asked for, since on a product that varies a good image stands out as well, and on
    one that does not, a harmless speck does.

    Args:
        scales: The support set at each working scale.
        images: The support set.
        settings: As enrolled.
        series: The drawn defects.
        keep: Whether outliers are to be kept; they are named all the same.
    """
    if len(images) < 2:
        return SupportCheck((), ())
    _, evidence = join_scales(scales, settings, series, len(images))
    held_out = scales[0].held_out
    names = [images[at].name for at in held_out]
    notes = notes_on_groups(scales[0].embedded.stand_ins, names)
    if notes:
        # Of two groups each is unlike the other, and neither is the odd one.
        return SupportCheck((), notes)
    drawn = drawn_score(evidence.defects)
    found = find_outliers(evidence.scores, drawn)
    variants = tuple(at for at in found if differs_as_a_whole([m.median_distance for m in scales[0].good], at))
    found = tuple(at for at in found if at not in variants)
    notes = notes_on(evidence.scores, drawn, names, found, keep, variants)
    return SupportCheck(() if keep else tuple(held_out[at] for at in found), notes)


def expectations_of(scales: Sequence[EnrolledScale]) -> Expectations:
    """What good images look like as a whole, at the coarsest of the working scales of a product."""
    coarsest, divisor = scales[0], common_divisors(scales)[0]
    return Expectations(coarsest.embedded.appearances, tuple(m.divided(divisor).closeness for m in coarsest.good))


def drawn_score(defects: Sequence[ScoredDefect]) -> float:
    """Median score of the drawn defects whose size is closest to `DRAWN_SIZE`; 0 if none were drawn."""
    if not defects:
        return 0.0
    size = min({defect.size for defect in defects}, key=lambda size: abs(size - DRAWN_SIZE))
    return float(np.median([defect.score for defect in defects if defect.size == size]))


def check_additions(
    calibration: Calibration, scores: Sequence[float], names: Sequence[str], force: bool = False
) -> tuple[str, ...]:
    """Look for further images that are unlike those that a product was enrolled from.

    Args:
        calibration: The product's, without them.
        scores: Their scores against its banks.
        names: Of them.
        force: Whether they are taken all the same.

    Returns:
        What to say of those that are taken all the same.

    Raises:
        SupportSetError: One of them is unlike the ones before.
    """
    before, drawn = calibration.scores, drawn_score(calibration.defects)
    median = float(np.median(before))
    odd = [
        f"{name} (score {score:.4g}, {score / median:.1f} times the held-out scores' median)"
        for name, score in zip(names, scores, strict=True)
        if len(before) > 1 and stands_out(score, before, drawn, REFUSED)
    ]
    if odd and not force:
        raise SupportSetError(
            f"expected further good images, got {len(odd)} of {len(names)} unlike those that the product was enrolled "
            f"from: {'; '.join(odd)}. Nothing was added. Look at them: leave them out, or, if they are good, give "
            "force=True (command line: --force)."
        )
    return tuple(f"taken as asked, though unlike the others: {text}. Look at it." for text in odd)


def find_outliers(scores: Sequence[float], drawn_score: float) -> tuple[int, ...]:
    """Positions of the scores that stand out, the worst first; none where that would be too many.

    Args:
        scores: Held-out score per image, positive.
        drawn_score: Median score of drawn defects.
    """
    if len(scores) < MIN_IMAGES:
        return ()
    found = _standing_out(scores, drawn_score)
    return found if len(found) <= max(1, int(MAX_SHARE * len(scores))) else ()


def _standing_out(scores: Sequence[float], drawn_score: float) -> tuple[int, ...]:
    """The worst first, each compared with those that have not been found yet: two must not hide each other."""
    found: list[int] = []
    left = list(range(len(scores)))
    while len(left) > 2:
        worst = max(left, key=lambda i: scores[i])
        others = [scores[i] for i in left if i != worst]
        if not stands_out(scores[worst], others, drawn_score, LEFT_OUT + EACH_FURTHER * len(found)):
            break
        found.append(worst)
        left.remove(worst)
    return tuple(found)


def stands_out(score: float, others: Sequence[float], drawn_score: float, limit: float) -> bool:
    """Whether a score is far from the others and nearly that of a drawn defect.

    Args:
        score: Of one image, positive.
        others: Of two or more others.
        drawn_score: Median score of drawn defects; 0 where it is not known.
        limit: Standard deviations of the others.
    """
    bar = float(np.median(others)) ** (1 - NEAR_DRAWN) * drawn_score**NEAR_DRAWN
    return score > bar and deviation(score, others) > limit


def deviation(score: float, others: Sequence[float]) -> float:
    """How far a score lies above the others' median, in standard deviations of the others, all in logarithms.

    Few scores say little about their spread, so it is drawn toward `PRIOR_SPREAD`. The largest `MAX_SHARE` of them
    does not count for it: there may be a second bad image among the others.

    Args:
        score: Of one image, positive.
        others: Of two or more others.
    """
    logs = np.sort(_logs(others))
    counted = logs[: max(2, len(logs) - max(1, int(MAX_SHARE * (len(logs) + 1))))]
    seen = len(counted) - 1
    variance = (PRIOR_WEIGHT * PRIOR_SPREAD**2 + seen * counted.var(ddof=1)) / (PRIOR_WEIGHT + seen)
    return float((_logs([score])[0] - np.median(logs)) / np.sqrt(variance))


def differs_as_a_whole(median_distances: Sequence[float], at: int) -> bool:
    """Whether not only part of an image is unlike the others, and yet it may be of the same product.

    Args:
        median_distances: Of the patches of each held-out image, positive.
        at: Position of the image.
    """
    others = [one for i, one in enumerate(median_distances) if i != at]
    farther = float(_logs([median_distances[at]])[0] - np.median(_logs(others)))
    return AS_A_WHOLE < farther <= ANOTHER_THING


def notes_on(
    scores: Sequence[float],
    drawn_score: float,
    names: Sequence[str],
    outliers: Sequence[int],
    kept: bool,
    variants: Sequence[int] = (),
) -> tuple[str, ...]:
    """What to say of the images, for people.

    Args:
        scores: Held-out score per image.
        drawn_score: Median score of drawn defects.
        names: Of the images.
        outliers: Positions of those that stand out.
        kept: Whether they are kept all the same.
        variants: Positions of those that stand out as a whole, and are kept.
    """
    if len(scores) == 2:
        return (
            "of two images it cannot be told whether one is bad, nor which: look at both, or give a third and a "
            "fourth one.",
        )
    notes = []
    many = () if outliers or variants or len(scores) < MIN_IMAGES else _standing_out(scores, drawn_score)
    if many:
        notes.append(
            f"{len(many)} of {len(scores)} images look unlike the others, too many to leave them out: "
            f"{', '.join(names[i] for i in many)}. Either the product varies that much, or they are bad: look at them."
        )
    for i, score in enumerate(scores):
        others = [s for j, s in enumerate(scores) if j != i and j not in outliers and j not in variants]
        far = deviation(score, others) if len(others) > 1 else 0.0
        apart = f"held-out score {score:.4g}, theirs {min(others):.4g} to {max(others):.4g}"
        if i in outliers:
            what = (
                "kept as asked, though unlike the others"
                if kept
                else "left out of bank and threshold, unlike the others"
            )
            advice = (
                "Look at it." if kept else "Look at it; if it is good, --keep-outliers (keep_outliers=True) keeps it."
            )
            notes.append(f"{what}: {names[i]} ({apart}, drawn defects {drawn_score:.4g}). {advice}")
        elif i in variants:
            notes.append(
                f"kept, but look at it: {names[i]} is unlike the others as a whole, not in one place ({apart}). "
                "Another kind of part, light or focus? If such parts are good, give more of them; if not, leave it out."
            )
        elif i not in many and (far > NAMED_ALONE or stands_out(score, others, drawn_score, NAMED)):
            notes.append(f"kept, but look at it: {names[i]} is somewhat unlike the others ({apart}).")
    return tuple(notes)


def _logs(scores: Sequence[float]) -> Float64Array:
    return np.log(np.maximum(np.asarray(scores, np.float64), 1e-12))
