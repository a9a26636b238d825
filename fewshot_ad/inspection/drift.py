"""Whether light, camera or part have changed since the line was started: told in time, and seldom without cause.

Each image leaves a few numbers behind: its score, the median distance of its patches, brightness, contrast, sharpness,
tint and place. As long as nothing changes, the rank of the next number among all before it is as likely to be high as
low. A gambler who bets on the ranks then wins nothing in the long run, however often one looks at his purse: the chance
that it ever grows a hundredfold is one in a hundred. Where a number drifts, its ranks pile up at one end, and he gains.

Apart from that, the medians of the latest images are compared with the support images: a line that had changed before
the first image is told so.

Source: conformal test martingales, Vovk, Gammerman, Shafer 2005, Algorithmic Learning in a Random World; the betting
strategy is the Simple Jumper of Vovk et al. 2021, "Retrain or not retrain: conformal test martingales for change-point
detection", algorithm 1.
"""

from __future__ import annotations

import bisect
import math
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from fewshot_ad.inspection.inspectability import Appearance
from fewshot_ad.inspection.result import Inspection
from fewshot_ad.metrics import population_stability_index

DRIFT_SCHEMA = "fewshot-ad/drift/1"
DriftKind: TypeAlias = Literal["brightness", "contrast", "sharpness", "tint", "place", "part"]
DriftStatus: TypeAlias = Literal["steady", "changed", "too few images"]
Measure: TypeAlias = Literal["score", "distance", "brightness", "contrast", "sharpness", "tint", "across", "down"]
MEASURES: tuple[Measure, ...] = ("score", "distance", "brightness", "contrast", "sharpness", "tint", "across", "down")
# What each measure tells of, and in what order of belief: light and camera explain a score, not the other way round.
KINDS: dict[Measure, DriftKind] = {
    "brightness": "brightness",
    "tint": "tint",
    "sharpness": "sharpness",
    "across": "place",
    "down": "place",
    "contrast": "contrast",
    "distance": "part",
    "score": "part",
}
WORDS: dict[DriftKind, str] = {
    "brightness": "the light has become {way} ({amount}): a lamp, the exposure, or daylight",
    "contrast": "the contrast has {way} ({amount}): stray light, or a dirty lens",
    "sharpness": "the images have become {way} ({amount}): focus, a dirty lens, or vibration",
    "tint": "the color of the light has become {way} ({amount}): a lamp, or the white balance",
    "place": "the part lies elsewhere in the image ({amount}): the camera, or the stop, has moved",
    "part": "the parts themselves look {way} the good ones than before ({amount}), and light, focus and place do not "
    "explain it: material, tool, or another variant",
}
# How small the chance is that it is ever said of a line that does not change.
ALARM = 0.01
# Of the Simple Jumper: how readily it changes its mind, and how hard it bets.
JUMP, BET = 0.01, (-1.0, 0.0, 1.0)
RICH = 1e100
# Images that the latest figures are of, and the fewest that say anything.
RECENT, FEWEST = 50, 20
# Changes below are not told, however certain they are: shares, gray levels of tint, shares of the image's side.
RELEVANT: dict[Measure, float] = {
    "score": 0.03,
    "distance": 0.03,
    "brightness": 0.02,
    "contrast": 0.03,
    "sharpness": 0.05,
    "tint": 1.0,
    "across": 0.005,
    "down": 0.005,
}
# Images that a change is put in figures by: it may have only begun.
LATEST = 10
# Scores that the stability index compares, the first and the latest.
COMPARED = 200
# Numbers that are kept of each measure; then the oldest half is forgotten.
KEPT = 20_000
# The latest median may be so far from that of the support images: a share of it, or the unit's own.
FAR: dict[Measure, float] = {
    "brightness": 0.12,
    "contrast": 0.25,
    "sharpness": 0.3,
    "tint": 8.0,
    "across": 0.04,
    "down": 0.04,
}
# And so many standard deviations of the support images.
FAR_DEVIATIONS = 4.0


@dataclass(frozen=True)
class Drift:
    """What `Inspector.drift` says.

    Attributes:
        status: `steady`, `changed`, or `too few images` to say.
        kind: What has most likely changed: `brightness`, `contrast`, `sharpness`, `tint`, `place` or `part`; None where
            nothing has.
        message: The same in words, with what to look at.
        images: Images that were looked at since the start.
        since: Number of the image at which the change was first told, from 1; None where it was not, or is only against
            the support images.
        evidence: How many times its stake the gambler holds who bets on the measure that changed most, above 1 / 0.01 a
            change for each of the 8 measures; see `drift`.
        stability: Population stability index of the latest scores against the first ones; below 0.1 is called steady,
            above 0.25 changed; None where there are too few.
        recent: Median of each measure over the latest images: `score` (its logarithm), `distance` (likewise),
            `brightness` and `tint` (red less blue) in gray levels, `contrast` (over the brightness), `sharpness`, and
            `across` and `down` in shares of the image.
        reference: The same of the support images; NaN where they do not say it.
    """

    status: DriftStatus
    kind: DriftKind | None
    message: str
    images: int
    since: int | None
    evidence: float
    stability: float | None
    recent: dict[Measure, float]
    reference: dict[Measure, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types; `schema` names them, see docs/reference/schemas/drift.json."""
        numbers = {
            name: {measure: None if math.isnan(value) else round(value, 5) for measure, value in of.items()}
            for name, of in (("recent", self.recent), ("reference", self.reference))
        }
        return {
            "schema": DRIFT_SCHEMA,
            "status": self.status,
            "kind": self.kind,
            "message": self.message,
            "images": self.images,
            "since": self.since,
            "evidence": round(min(self.evidence, 1e12), 3),
            "stability": None if self.stability is None else round(self.stability, 4),
            **numbers,
        }


class Jumper:
    """A gambler who bets that the ranks of a measure pile up at one end.

    A part of the stake is held back and put in little by little, so that a change after a thousand images finds money
    on the table that a thousand steady ones have not eaten: it is a mixture of gamblers who start at different times.

    Attributes:
        purse: What it holds of a stake of 1.
        since: Number of the image at which it first held enough; None where it never did.
    """

    def __init__(self, enough: float, seed: int, images: int = 0) -> None:
        self.purse = 1.0
        self.since: int | None = None
        self._enough = enough
        self._shares = np.zeros(len(BET))
        self._held_back = 1.0
        # Sorted, and as they came. Of every product of a station there are some, so no objects.
        self._before, self._order = array("d"), array("d")
        self._images = images
        self._seen = 0
        self._rng = np.random.default_rng(seed)

    def see(self, value: float) -> None:
        """Bet on the rank of the next value, then take it to those before."""
        self._images += 1
        if not math.isfinite(value):
            return
        below, upto = bisect.bisect_left(self._before, value), bisect.bisect_right(self._before, value)
        # Ties are broken at random, the value itself among them: the rank of an exchangeable value is then uniform.
        rank = (below + self._rng.uniform() * (upto - below + 1)) / (len(self._before) + 1)
        self._seen += 1
        put_in = min(self._held_back, stake(self._seen))
        self._held_back -= put_in
        total = float(self._shares.sum())
        self._shares = (1 - JUMP) * self._shares + (JUMP * total + put_in) / len(BET)
        self._shares *= 1 + np.asarray(BET) * (rank - 0.5)
        # Of one that is rich enough it does not matter how rich; what overflows would be no number.
        self._shares /= max(1.0, float(self._shares.sum()) / RICH)
        self.purse = float(self._shares.sum()) + self._held_back
        if self.since is None and self.purse >= self._enough:
            self.since = self._images
        bisect.insort(self._before, value)
        self._order.append(value)
        if len(self._order) > KEPT:
            for old in self._order[: KEPT // 2]:
                del self._before[bisect.bisect_left(self._before, old)]
            del self._order[: KEPT // 2]


def stake(number: int) -> float:
    """What is put in at an image, counted from 1: a series whose sum is 1, and that falls slowly."""
    at = number + 20.0
    return 3.0 / (at * math.log(at) ** 2)


class DriftMonitor:
    """What the images of a line have said since the start.

    Args:
        appearances: Of the support images; empty where they are not known.
        scores: Their held-out scores.
        places: Where the structure of support images has its center, see `signals.center_of_structure`.
        place: Whether the place of the part means anything: it does not where parts are brought into one pose.
    """

    def __init__(
        self,
        appearances: Sequence[Appearance],
        scores: Sequence[float],
        places: Sequence[tuple[float, float]],
        place: bool = True,
    ) -> None:
        self._measures = tuple(m for m in MEASURES if place or m not in ("across", "down"))
        enough = len(self._measures) / ALARM
        self._jumpers = {measure: Jumper(enough, at) for at, measure in enumerate(self._measures)}
        self._support: dict[Measure, list[float]] = {
            "score": [math.log(max(score, 1e-12)) for score in scores],
            "brightness": [a.bright for a in appearances],
            "contrast": [a.contrast / max(a.bright, 1.0) for a in appearances],
            "sharpness": [a.sharpness for a in appearances],
            "tint": [a.red_minus_blue for a in appearances],
        }
        if place:
            self._support |= {"across": [across for across, _ in places], "down": [down for _, down in places]}
        self._recent: dict[Measure, deque[float]] = {measure: deque(maxlen=RECENT) for measure in self._measures}
        self._first: dict[Measure, list[float]] = {measure: [] for measure in self._measures}
        self._scores: tuple[list[float], deque[float]] = [], deque(maxlen=COMPARED)
        self._compared = 0
        self._images = 0

    def see(self, inspection: Inspection) -> None:
        """Take an image along, whatever its verdict: a line that drifts rejects good parts."""
        signals = inspection.signals
        if signals is None:
            return
        seen, (across, down) = signals.appearance, signals.place
        values: dict[Measure, float] = {
            "score": math.log(max(inspection.score, 1e-12)),
            "distance": math.log(max(signals.distance, 1e-12)),
            "brightness": seen.bright,
            # Dimming alone leaves it.
            "contrast": seen.contrast / max(seen.bright, 1.0),
            "sharpness": seen.sharpness,
            "tint": seen.red_minus_blue,
            "across": across,
            "down": down,
        }
        self._images += 1
        for measure, jumper in self._jumpers.items():
            jumper.see(values[measure])
            self._recent[measure].append(values[measure])
            if len(self._first[measure]) < RECENT:
                self._first[measure].append(values[measure])
        self._compared += 1
        self._scores[1].append(values["score"])
        if len(self._scores[0]) < COMPARED:
            self._scores[0].append(values["score"])

    def restart_scores(self) -> None:
        """Forget the scores: the product has changed, and with it what they are measured against."""
        scores: tuple[Measure, ...] = ("score", "distance")
        for measure in scores:
            at = self._measures.index(measure)
            self._jumpers[measure] = Jumper(len(self._measures) / ALARM, at, self._images)
            self._recent[measure].clear()
            self._first[measure].clear()
        self._scores = [], deque(maxlen=COMPARED)
        self._compared = 0

    def drift(self) -> Drift:
        """What has changed, as far as it can be told."""
        recent = {m: float(np.median(v)) if v else math.nan for m, v in self._recent.items()}
        reference = {m: float(np.median(self._support[m])) if self._support.get(m) else math.nan for m in recent}
        evidence = max(jumper.purse for jumper in self._jumpers.values())
        stability = None
        if self._compared >= 2 * COMPARED:
            stability = population_stability_index(self._scores[0], list(self._scores[1]))
        if self._images < FEWEST:
            message = f"{self._images} image(s) since the start; {FEWEST} are needed to say whether anything changes."
            return Drift("too few images", None, message, self._images, None, evidence, stability, recent, reference)
        told = [measure for measure in KINDS if measure in self._jumpers and self._told(measure)]
        if told:
            # Light and camera first, and of these what changed most for its own spread.
            outside = [measure for measure in told if KINDS[measure] != "part"]
            measure = max(outside or told, key=self._moved)
            since = min(self._jumpers[one].since or 0 for one in told)
            message = f"since image {since}: {_words(measure, *self._ends(measure))}."
            kind = KINDS[measure]
            return Drift("changed", kind, message, self._images, since, evidence, stability, recent, reference)
        far = [measure for measure in FAR if measure in recent and self._far(measure, recent[measure])]
        if far:
            measure = far[0] if len(far) == 1 else max(far, key=lambda m: self._excess(m, recent[m]))
            words = _words(measure, reference[measure], recent[measure])
            message = f"against the images it was enrolled from: {words}."
            kind = KINDS[measure]
            return Drift("changed", kind, message, self._images, None, evidence, stability, recent, reference)
        message = f"nothing has changed over {self._images} images."
        return Drift("steady", None, message, self._images, None, evidence, stability, recent, reference)

    def _told(self, measure: Measure) -> bool:
        """Whether a change is certain, and large enough to matter."""
        if self._jumpers[measure].since is None or not self._recent[measure]:
            return False
        before, now = self._ends(measure)
        unit = max(abs(before), 1e-9) if measure in ("brightness", "contrast", "sharpness") else 1.0
        return abs(now - before) / unit >= RELEVANT[measure]

    def _ends(self, measure: Measure) -> tuple[float, float]:
        """Median of the first images and of the latest few."""
        return float(np.median(self._first[measure])), float(np.median(list(self._recent[measure])[-LATEST:]))

    def _moved(self, measure: Measure) -> float:
        """How far the latest median is from the first one, in spreads of the first images."""
        first, recent = self._first[measure], self._recent[measure]
        spread = float(np.subtract(*np.quantile(first, (0.75, 0.25))))
        least = {"tint": 0.5, "brightness": 1.0, "across": 0.002, "down": 0.002}.get(measure, 0.01)
        return abs(float(np.median(recent)) - float(np.median(first))) / max(spread, least)

    def _far(self, measure: Measure, value: float) -> bool:
        return self._excess(measure, value) > 1

    def _excess(self, measure: Measure, value: float) -> float:
        """Distance from the support images over what is allowed; 0 where they do not say it."""
        own = self._support.get(measure)
        if not own or len(own) < 2:
            return 0.0
        median, relative = float(np.median(own)), measure in ("brightness", "contrast", "sharpness")
        allowed = max(FAR[measure] * (abs(median) if relative else 1), FAR_DEVIATIONS * float(np.std(own)))
        return abs(value - median) / max(allowed, 1e-9)


def _words(measure: Measure, before: float, now: float) -> str:
    """What a change of a measure means, and how large it is."""
    kind, grew = KINDS[measure], now > before
    if kind == "place":
        direction = {"across": ("left", "right"), "down": ("up", "down")}[measure][grew]
        return WORDS[kind].format(amount=f"{abs(now - before):.1%} of the image's side to the {direction}")
    ways = {
        "brightness": ("darker", "brighter"),
        "contrast": ("gone down", "gone up"),
        "sharpness": ("softer", "sharper"),
        "tint": ("colder", "warmer"),
        "part": ("more like", "less like"),
    }[kind]
    if kind == "tint":
        amount = f"red less blue {before:+.1f} before, {now:+.1f} gray levels now"
    elif kind == "part":
        amount = f"{measure} {math.expm1(now - before):+.0%}"
    else:
        amount = f"{now / max(before, 1e-9) - 1:+.0%}"
    return WORDS[kind].format(way=ways[grew], amount=amount)
