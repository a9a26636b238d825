"""In what the runs on record depart from the published methods, for the tables."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot_ad.benchmark.record import Record
from fewshot_ad.errors import ZooError


def departures(record: Record) -> tuple[str, ...] | None:
    """In what a run departs from the published method, in words; empty where it ran as published.

    Records from before it was written down are looked up in the zoo, by baseline and options.

    Returns:
        None where neither the record nor the zoo of this installation knows.
    """
    if record.differs is not None:
        return record.differs
    try:
        from fewshot_ad.zoo import differences

        return differences(record.baseline, record.options)
    except ZooError:
        return None


def means_nothing(departed: Sequence[str] | None) -> bool:
    """Whether the figures of a run say nothing of its method: pretrained networks held random weights."""
    return any("figures mean nothing" in text for text in departed or ())


def in_short(departed: Sequence[str] | None) -> str:
    """Departures in the few words of a table's cell: the options that differ, `method` for what else does."""
    if departed is None:
        return "unknown"
    if not departed:
        return "yes"
    words = [
        "RANDOM WEIGHTS" if means_nothing([text]) else text.split()[0] if "(published: " in text else "method"
        for text in departed
    ]
    return "no: " + ", ".join(dict.fromkeys(words))
