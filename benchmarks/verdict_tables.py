"""Tables of what the shipped threshold promises and what it does, from the committed records of `verdicts.py`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import drift
import former_list
import hygiene
import measurements
import numpy as np
import operator_line
import relighting
import several_parts
import small_defects
import verdicts
from measured_tables import table

from fewshot_ad.enrollment.presets import enrollment_settings


def promises() -> str:
    """By number of good photographs: means over products of the means of their draws."""
    judged = _judged()
    rows = []
    for shots in sorted({shots for shots, _, _ in judged}):
        own = [(product, one) for number, product, one in judged if number == shots]
        rejected, promised, bound, escaped, _ = _mean(own)
        within = sum(one.rejected <= one.bound for _, one in own)
        rows.append([f"{shots}", *_shares(promised, rejected, bound), f"{within} of {len(own)}", *_shares(escaped)])
    return table(
        ["good photographs", "promised", "rejected", "at most (95%)", "enrollments within it", "defects missed"], rows
    )


def by_product() -> str:
    """The same of each product, from eight photographs."""
    own = [(product, one) for shots, product, one in _judged() if shots == 8]
    rows = []
    for product in sorted({product for product, _ in own}):
        rejected, promised, bound, escaped, _ = _mean([pair for pair in own if pair[0] == product])
        rows.append([f"`{product}`", *_shares(promised, rejected, bound, escaped)])
    return table(["product", "promised", "rejected", "at most (95%)", "defects missed"], rows)


def rules() -> str:
    """The shipped threshold beside other rules, and beside one that has seen the labels of half of the test images."""
    by_rule = _by_rule()
    rows = []
    for shots in sorted({shots for shots, _, _ in by_rule}):
        for name in by_rule[0][2]:
            own = [(product, one[name]) for number, product, one in by_rule if number == shots]
            rejected, _, _, escaped, behind = _mean(own)
            rows.append([f"{shots}", name, *_shares(rejected, escaped), f"{100 * behind:.1f}"])
    return table(["K", "threshold", "false rejects", "escapes", "behind the best threshold, points"], rows)


def support_hygiene() -> str:
    """One bad photograph among eight: what becomes of it, and of good ones."""
    return hygiene.table(hygiene.read_rows(measurements.RECORDS / "hygiene.jsonl"))


def operator() -> str:
    """A line without and with an operator who corrects verdicts."""
    return operator_line.report(operator_line.read_rows(measurements.RECORDS / "operator_line.jsonl"))


def operator_steps() -> str:
    """How long each step of an operator takes, and what came of it."""
    return operator_line.steps(operator_line.read_rows(measurements.RECORDS / "operator_line.jsonl"))


def drifting() -> str:
    """How soon a change of a line is told."""
    return drift.report(drift.read_rows(measurements.RECORDS / "drift.jsonl"))


def relit() -> str:
    """Verdicts under other light, with each kind of `lighting`."""
    return relighting.report(relighting.read_rows(measurements.RECORDS / "relighting.jsonl"))


def trays() -> str:
    """Several parts on one image: each judged by itself, and the image as a whole."""
    return several_parts.report(several_parts.read_rows(measurements.RECORDS / "several_parts.jsonl"))


def small_defect_board() -> str:
    """Generated parts with defects of 1% of the side: means, by kind of defect and by kind of part."""
    return small_defects.report(small_defects.read_records(measurements.RECORDS / "small_defects.jsonl"))


def former_test_list() -> str:
    """Today's default on the test images of the first boards."""
    return former_list.report(former_list.read_rows(measurements.RECORDS / "former_list.jsonl"))


def tuned() -> str:
    """The encoder `lite0_tuned` beside the default, on the same draws, each with what its own records teach."""
    records = verdicts.read_records(measurements.RECORDS / "verdicts_tuned.jsonl")
    draws = {(record["product"], record["shots"], record["draw"]) for record in records}
    default = [
        record
        for record in verdicts.read_records(measurements.RECORDS / "verdicts.jsonl")
        if (record["product"], record["shots"], record["draw"]) in draws
    ]
    judged = {"lite0_parts": _shipped(_judge(default)), "lite0_tuned": _shipped(_judge(records))}
    rows = []
    for shots in sorted({shots for _, shots, _ in draws}):
        for encoder, one_by_one in judged.items():
            rejected, _, _, escaped, behind = _mean([(product, one) for n, product, one in one_by_one if n == shots])
            sums = [f"{100 * (rejected + escaped) / 2:.1f}", f"{100 * behind:.1f}"]
            rows.append([f"{shots}", f"`{encoder}`", *_shares(rejected, escaped), *sums])
    return table(["K", "encoder", "false rejects", "escapes", "mean of both", "behind"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "promises": promises,
    "promises-by-product": by_product,
    "rules": rules,
    "operator": operator,
    "operator-steps": operator_steps,
    "drift": drifting,
    "relighting": relit,
    "several-parts": trays,
    "hygiene": support_hygiene,
    "small-defects": small_defect_board,
    "former-list": former_test_list,
    "verdicts-tuned": tuned,
}


@functools.cache
def _by_rule() -> tuple[tuple[int, str, dict[str, verdicts.Judged]], ...]:
    return _judge(verdicts.read_records(measurements.RECORDS / "verdicts.jsonl"))


def _judged() -> tuple[tuple[int, str, verdicts.Judged], ...]:
    """Shots and product of each recorded enrollment, and what the threshold does that others have taught."""
    return _shipped(_by_rule())


def _shipped(
    judged: Sequence[tuple[int, str, dict[str, verdicts.Judged]]],
) -> tuple[tuple[int, str, verdicts.Judged], ...]:
    return tuple((shots, product, by_rule["shipped"]) for shots, product, by_rule in judged)


def _judge(records: Sequence[verdicts.Record]) -> tuple[tuple[int, str, dict[str, verdicts.Judged]], ...]:
    real = [record for record in records if not record["generated"] and record["shots"] > 1]
    fits = {product: verdicts.fit(records, without=product) for product in {record["product"] for record in real}}
    settings = enrollment_settings()
    return tuple(
        (record["shots"], record["product"], verdicts.judged(record, fits[record["product"]], settings))
        for record in real
    )


def _mean(judged: Sequence[tuple[str, verdicts.Judged]]) -> list[float]:
    """Each product counts the same, however many draws it has."""
    products = {product for product, _ in judged}
    means = [np.mean([one for name, one in judged if name == product], axis=0) for product in sorted(products)]
    return [float(value) for value in np.mean(means, axis=0)]


def _shares(*values: float) -> list[str]:
    return ["" if math.isnan(value) else f"{value:.1%}" for value in values]
