"""What is said of a fitted baseline's threshold: how far it can be relied on, and what another one changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fewshot_ad.check import Check
from fewshot_ad.zoo.components.score_scale import ScoreScale

# A threshold from fewer good images than this is provisional.
ENOUGH = 20
PROVISIONAL = "the threshold is provisional"


def provisional(count: int) -> tuple[str, ...]:
    """The note on a threshold that rests on so many good images; none where they are enough."""
    if count >= ENOUGH:
        return ()
    return (
        f"{PROVISIONAL}: it rests on {count} good image(s) that the method was not fitted on. Calibrate it on further "
        "ones before relying on it (`fewshot-ad calibrate`).",
    )


def without_provisional(notes: Sequence[str]) -> tuple[str, ...]:
    """The notes on all but the threshold."""
    return tuple(note for note in notes if not note.startswith(PROVISIONAL))


def few_good(check: Check) -> str:
    """Why a threshold cannot be calibrated: too few of the good images count."""
    reasons = [f"{one.name}: {one.reason.rstrip('.')}" for one in [*check.left_out, *check.unreadable][:3]]
    others = f" ({'; '.join(reasons)})" if reasons else ""
    good = len(check.scores("good"))
    return f"{check.product}: expected 2 or more good images that count, got {good}{others}. Give more."


def changes(check: Check, former: float, now: ScoreScale) -> Iterator[str]:
    """What another threshold changes for the images of a check, and where it comes from, line by line."""
    good, bad = check.scores("good"), check.scores("bad")
    uncounted = [*check.left_out, *check.unreadable]
    yield f"{check.product}: calibrated on {len(good)} good images: threshold {former:.6g} -> {now.threshold:.6g}."
    yield from (f"note: left out of the calibration: {one.name} ({one.truth}): {one.reason}" for one in uncounted)
    rejects = [sum(score > at for score in good) for at in (former, now.threshold)]
    yield f"Rejects of these {len(good)} good images: {rejects[0]} before, {rejects[1]} now."
    if bad:
        passes = [sum(score <= at for score in bad) for at in (former, now.threshold)]
        yield f"Passes of these {len(bad)} bad images: {passes[0]} before, {passes[1]} now."
    yield f"The threshold comes {now.explain()}."
