"""The charts of a report, as SVG in HTML."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fewshot_ad.inspection.verdict import Verdict
from fewshot_ad.printable import printable

VERDICTS: tuple[Verdict, ...] = ("good", "review", "anomalous", "not_inspectable")
# Points of the run at most; beyond, good images are thinned.
MAX_POINTS = 3000
_WIDTH, _HEIGHT, _LEFT, _BELOW = 960, 220, 44, 34
_BINS = 48
# The lowest severity of a chart; what lies below stands there, too.
_LEAST = 0.25


@dataclass(frozen=True)
class Entry:
    """What stays of one inspection.

    Attributes:
        number: From 1, in the order in which images came.
        file: As it was named.
        verdict: The verdict.
        severity: Score / threshold.
        is_anomalous: The decision.
        finding: What is said besides: why it cannot be judged, which parts, and where.
        milliseconds: The inspection took.
    """

    number: int
    file: str
    verdict: Verdict
    severity: float
    is_anomalous: bool
    finding: str
    milliseconds: float


def histogram(all_entries: Sequence[Entry]) -> Iterator[str]:
    """How the severities of images lie, as HTML; nothing where none was judged."""
    entries = [entry for entry in all_entries if entry.verdict != "not_inspectable"]
    if not entries:
        return
    positions = [_position(entry.severity) for entry in entries]
    low, high = min(*positions, -0.5), max(*positions, 0.5)
    step = (high - low) / (_BINS - 1)
    # The threshold lies between two bars.
    low = -math.ceil(-low / step) * step
    stacks = [Counter[str]() for _ in range(_BINS)]
    for entry, position in zip(entries, positions, strict=True):
        stacks[min(_BINS - 1, int((position - low) / step))][entry.verdict] += 1
    tallest = max(sum(stack.values()) for stack in stacks)
    across, up = (_WIDTH - _LEFT - 8) / _BINS, _HEIGHT - _BELOW - 12
    bars = []
    for at, stack in enumerate(stacks):
        base = float(_HEIGHT - _BELOW)
        for verdict in VERDICTS:
            height = up * stack[verdict] / tallest
            base -= height
            if height:
                bars.append(
                    f'<rect class="{verdict}" x="{_LEFT + at * across:.1f}" y="{base:.1f}" '
                    f'width="{across - 1:.1f}" height="{height:.1f}"/>'
                )
    ticks = [value for value in (_LEAST, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20) if low <= _position(value) <= high]
    # What lies below the scale stands in its first bar.
    least = "\N{LESS-THAN OR EQUAL TO}" if any(entry.severity < _LEAST for entry in entries) else ""
    marks = [
        (
            _LEFT + (_position(value) - low) / step * across,
            f"{least if value == _LEAST else ''}{value:g}",
            "limit" if value == 1 else "",
        )
        for value in ticks
    ]
    yield "<section><h2>How the scores lie</h2>"
    yield from _chart(
        bars,
        marks,
        f"{tallest}",
        f"Histogram of the severity of {len(entries)} images; {sum(e.severity > 1 for e in entries)} lie above 1.",
    )
    yield (
        "<figcaption>Severity, 1 at the threshold, from left to right on a logarithmic scale; how many "
        "images, upward. Above 1, the dashed line, an image is anomalous; below it, by a missing part or something "
        "else alone.</figcaption></figure></section>"
    )


def run(all_entries: Sequence[Entry]) -> Iterator[str]:
    """The severities of images one after the other, as HTML; nothing of a single one."""
    judged = [entry for entry in all_entries if entry.verdict != "not_inspectable"]
    if len(judged) < 2:
        return
    good = [entry for entry in judged if entry.verdict == "good"]
    every = max(1, -(-len(good) // MAX_POINTS))
    others = [entry for entry in judged if entry.verdict != "good"]
    points = [*good[::every], *others[:: max(1, -(-len(others) // MAX_POINTS))]]
    positions = [_position(entry.severity) for entry in points]
    low, high = min(*positions, -0.5), max(*positions, 0.5)
    up, across = (_HEIGHT - _BELOW - 12) / (high - low), (_WIDTH - _LEFT - 16) / max(1, len(all_entries) - 1)

    def place(position: float) -> float:
        return _HEIGHT - _BELOW - up * (position - low)

    dots = [
        f'<circle class="{entry.verdict}" cx="{_LEFT + 4 + across * (entry.number - 1):.1f}" '
        f'cy="{place(position):.1f}" r="{2 if entry.verdict == "good" else 3.5}"/>'
        for entry, position in zip(points, positions, strict=True)
    ]
    line = f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH}" y1="{place(0):.1f}" y2="{place(0):.1f}"/>'
    label = f'<text x="{_LEFT - 6}" y="{place(0) + 4:.1f}" text-anchor="end">1</text>'
    last = len(all_entries)
    marks = [(_LEFT + 4 + across * (number - 1), f"{number}", "") for number in sorted({1, -(-last // 2), last})]
    yield "<section><h2>One after the other</h2>"
    yield from _chart([line, label, *dots], marks, "", f"Severity of {len(judged)} images in the order they came.")
    yield (
        "<figcaption>Severity of each image, in the order in which they came; the dashed line is the threshold."
        f"{'' if every == 1 else f' Of the good ones, one in {every} is drawn.'}</figcaption></figure></section>"
    )


def _position(severity: float) -> float:
    """Where a severity lies on a logarithmic scale; 0 is the threshold. What lies far off stands at the edge."""
    return math.log2(min(max(severity, _LEAST), 32))


def _chart(shapes: Sequence[str], marks: Sequence[tuple[float, str, str]], top: str, said: str) -> Iterator[str]:
    """A chart as SVG, with marks along its lower edge: place, text, and the class of the line there."""
    foot = _HEIGHT - _BELOW
    yield f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text_of(said)}">'
    yield from shapes
    yield f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{foot}" y2="{foot}"/>'
    for place, text, kind in marks:
        if kind:
            yield f'<line class="{kind}" x1="{place:.1f}" x2="{place:.1f}" y1="6" y2="{foot}"/>'
        yield f'<text x="{place:.1f}" y="{foot + 20}" text-anchor="middle">{text_of(text)}</text>'
    if top:
        yield f'<text x="{_LEFT - 6}" y="16" text-anchor="end">{text_of(top)}</text>'
    yield "</svg>"


def text_of(value: str) -> str:
    """A value as text of a page, whatever is in it."""
    return html.escape(printable(value))
