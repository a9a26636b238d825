from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from fewshot_ad import ArgumentError, Inspector
from fewshot_ad.encoder import Encoder
from fewshot_ad.inspection.drift import FEWEST, KEPT, DriftMonitor, Jumper, stake
from fewshot_ad.inspection.inspectability import Appearance
from fewshot_ad.inspection.result import Inspection
from fewshot_ad.inspection.signals import Signals, center_of_structure
from fewshot_ad.metrics import population_stability_index
from tests.conftest import make_part


def test_a_gambler_on_what_does_not_change_wins_little() -> None:
    purses = []
    for seed in range(200):
        jumper, rng = Jumper(100.0, seed), np.random.default_rng(seed)
        most = 0.0
        for value in rng.normal(size=500) if seed % 2 else rng.integers(0, 5, 500):
            jumper.see(float(value))
            most = max(most, jumper.purse)
        purses.append(most)
    # Ville: a purse grows a hundredfold with a chance of at most one in a hundred.
    assert sum(most >= 100 for most in purses) <= 6
    assert np.mean([most >= 10 for most in purses]) <= 0.15


def test_the_gambler_is_a_mixture_of_simple_jumpers() -> None:
    values = np.random.default_rng(5).normal(size=60).tolist()
    jumper, rng = Jumper(1e9, 3), np.random.default_rng(3)
    # Each starts at its own image with its own stake; algorithm 1 of the paper with a jumping rate of 0.01.
    gamblers: list[dict[int, float]] = []
    seen: list[float] = []
    for number, value in enumerate(values, 1):
        jumper.see(value)
        seen.append(value)
        rank = (sum(v < value for v in seen) + rng.uniform() * sum(v == value for v in seen)) / len(seen)
        gamblers.append(dict.fromkeys((-1, 0, 1), stake(number) / 3))
        for at, shares in enumerate(gamblers):
            purse = sum(shares.values())
            kept = 1.0 if at == number - 1 else 0.99
            gamblers[at] = {
                bet: (kept * share + (1 - kept) / 3 * purse) * (1 + bet * (rank - 0.5)) for bet, share in shares.items()
            }
    put_in = sum(stake(number) for number in range(1, 61))
    assert jumper.purse == pytest.approx(sum(sum(g.values()) for g in gamblers) + 1 - put_in, rel=1e-9)


def test_what_is_put_in_never_exceeds_the_stake() -> None:
    assert 0.7 < sum(stake(number) for number in range(1, 1_000_000)) <= 1.0


def test_a_change_late_in_a_long_line_is_told_as_well() -> None:
    jumper, rng = Jumper(800.0, 0), np.random.default_rng(1)
    for value in rng.normal(size=8000):
        jumper.see(float(value))
    assert jumper.since is None
    for value in rng.normal(3, 1, 60):
        jumper.see(float(value))
    assert 8000 < (jumper.since or 0) <= 8060


def test_what_is_no_number_is_passed_over() -> None:
    jumper = Jumper(800.0, 0)
    for value in (1.0, math.nan, 2.0, math.inf):
        jumper.see(value)
    assert list(jumper._before) == [1.0, 2.0]
    for _ in range(3000):
        jumper.see(float(len(jumper._before)))
    assert math.isfinite(jumper.purse)


def test_a_change_is_told_and_stays_told() -> None:
    jumper, rng = Jumper(800.0, 0), np.random.default_rng(1)
    for value in rng.normal(size=200):
        jumper.see(float(value))
    assert jumper.since is None
    for value in rng.normal(3, 1, 40):
        jumper.see(float(value))
    assert 200 < (jumper.since or 0) < 240


def test_old_numbers_are_forgotten() -> None:
    jumper = Jumper(1e9, 0)
    for value in np.random.default_rng(0).normal(size=KEPT + 10):
        jumper.see(float(value))
    assert len(jumper._before) == len(jumper._order) == KEPT // 2 + 10
    assert list(jumper._before) == sorted(jumper._order)


def seen(rng: np.random.Generator, **changes: float) -> Inspection:
    """An inspection of a line with some spread, its measures changed by factors or summands."""
    shape = {
        "bright": 200 * changes.get("bright", 1) + rng.normal(0, 2),
        "contrast": 150 + rng.normal(0, 2),
        "saturated": 0.0,
        "sharpness": 0.03 * changes.get("sharp", 1) + rng.normal(0, 0.0005),
        "red_minus_blue": 5 + changes.get("tint", 0) + rng.normal(0, 0.4),
    }
    place = (0.5 + changes.get("across", 0) + rng.normal(0, 0.004), 0.5 + rng.normal(0, 0.004))
    score = math.exp(rng.normal(changes.get("score", 0), 0.1))
    signals = Signals(math.exp(rng.normal(changes.get("score", 0), 0.05)), Appearance(**shape), place)
    from fewshot_ad.inspection.regions import MapScale

    return Inspection(
        *("p", "e", score, 1.5, score > 1.5, score / 1.5, (), MapScale(0.5, 1.0), {}, np.zeros((4, 4, 3), np.uint8)),
        draw_map=lambda: np.zeros((4, 4), np.float32),
        signals=signals,
    )


def monitor(**changes: float) -> DriftMonitor:
    rng = np.random.default_rng(9)
    support = [seen(rng, **changes) for _ in range(8)]
    signals = [one.signals for one in support if one.signals is not None]
    return DriftMonitor([s.appearance for s in signals], [one.score for one in support], [s.place for s in signals])


def test_a_line_that_does_not_change_is_steady_however_often_one_asks() -> None:
    rng = np.random.default_rng(2)
    one = monitor()
    for count in range(3000):
        one.see(seen(rng))
        if count >= FEWEST and count % 10 == 0:
            assert one.drift().status == "steady"
    drift = one.drift()
    assert drift.stability is not None
    assert drift.stability < 0.1
    assert "nothing has changed over 3000 images" in drift.message


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda at: {"bright": 1 - 0.2 * at}, "brightness", "darker"),
        (lambda at: {"sharp": 1 - 0.4 * at, "score": 0.3 * at}, "sharpness", "softer"),
        (lambda at: {"tint": 8 * at}, "tint", "warmer"),
        (lambda at: {"across": 0.05 * at}, "place", "to the right"),
        (lambda at: {"score": 0.5 * at}, "part", "less like"),
    ],
)
def test_a_slow_change_is_told_with_its_kind(
    change: Callable[[float], dict[str, float]], kind: str, words: str
) -> None:
    rng, one = np.random.default_rng(4), monitor()
    for _ in range(100):
        one.see(seen(rng))
    assert one.drift().status == "steady"
    told = None
    for count in range(200):
        one.see(seen(rng, **change(count / 200)))
        if told is None and one.drift().status == "changed":
            told = one.drift(), count
    assert told is not None
    assert told[0].kind == kind
    assert told[1] < 120
    assert words in one.drift().message
    assert (one.drift().since or 0) > 100


def test_a_line_that_had_changed_before_it_began_is_told() -> None:
    rng, one = np.random.default_rng(6), monitor()
    for _ in range(FEWEST):
        one.see(seen(rng, bright=0.7))
    drift = one.drift()
    assert (drift.status, drift.kind, drift.since) == ("changed", "brightness", None)
    assert "against the images it was enrolled from: the light has become darker (-30%)" in drift.message


def test_what_is_certain_but_tiny_is_not_told() -> None:
    rng, one = np.random.default_rng(7), monitor()
    for count in range(400):
        one.see(seen(rng, bright=1.0 if count < 200 else 0.985))
    assert one._jumpers["brightness"].since is not None
    assert one.drift().status == "steady"


def test_the_inspector_watches_what_it_inspects(parts: list[np.ndarray], encoder: Encoder) -> None:
    own = Inspector.from_support(parts, encoder=encoder, views="none", image_size=128)
    assert own.drift().status == "too few images"
    line = [make_part(seed) for seed in range(200, 230)]
    threads = [threading.Thread(target=lambda: [own.inspect(part) for part in line]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert own.drift().images == 60
    assert own.drift().status == "steady"
    for part in line:
        own.inspect(np.clip(part * 0.75, 0, 255).astype(np.uint8))
    drift = own.drift(restart=True)
    assert (drift.status, drift.kind) == ("changed", "brightness")
    assert own.drift().images == 0
    assert copy.deepcopy(own).drift().images == 0
    # What is checked, accepted, or looked at in a region of its own is not the line; nor is a warm-up.
    own.check(line[:3])
    own.warm_up((64, 64))
    own.inspect(line[0], roi=(20, 20, 60, 60))
    assert own.drift().images == 0
    for part in line * 14:
        own.inspect(part)
    assert own.drift().stability is not None
    own.accept(make_part(900), force=True)
    assert own.drift().stability is None
    own.undo()
    assert own.drift().status == "steady"
    with pytest.raises(ArgumentError, match="restart"):
        own.drift(restart="yes")  # type: ignore[arg-type]


def test_the_place_of_a_part_is_read_to_a_part_of_a_percent() -> None:
    image = np.full((256, 320, 3), 200, np.uint8)
    cv2.circle(image, (140, 100), 50, (60, 60, 60), -1)
    moved = np.full((256, 320, 3), 200, np.uint8)
    cv2.circle(moved, (156, 90), 50, (60, 60, 60), -1)
    before, after = center_of_structure(image), center_of_structure(moved)
    assert after[0] - before[0] == pytest.approx(16 / 320, abs=0.003)
    assert after[1] - before[1] == pytest.approx(-10 / 256, abs=0.003)
    darker = center_of_structure((image * 0.6).astype(np.uint8))
    assert darker == pytest.approx(before, abs=0.002)
    assert center_of_structure(np.full((64, 64, 3), 7, np.uint8)) == (0.5, 0.5)


def test_the_stability_index_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    first, other = rng.normal(size=1000), rng.normal(0.5, 1, 800)
    edges = np.quantile(first, [0.2, 0.4, 0.6, 0.8])
    e, a = (
        (np.histogram(v, np.concatenate([[-np.inf], edges, [np.inf]]))[0] + 0.5) / (len(v) + 2.5)
        for v in (first, other)
    )
    assert population_stability_index(first, other) == pytest.approx(float(((a - e) * np.log(a / e)).sum()))
    assert population_stability_index(first, first) == pytest.approx(0, abs=1e-3)
