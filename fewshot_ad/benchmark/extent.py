"""What the figures of a table were measured on, in words: images, masks, and what a copy lacks of its dataset."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot_ad.benchmark.record import COPY, Record
from fewshot_ad.datasets import dataset_cards

# Categories that are named one by one, at most.
NAMED = 6


def extent(records: Sequence[Record]) -> str:
    """What methods were tested on, for below their table.

    Args:
        records: Those of one setting, shots and dataset.

    Returns:
        Sentences; empty where no record says it.
    """
    known = [r for r in records if r.status == "done" and {"test_good", "test_defective"} <= r.counts.keys()]
    if not known:
        return ""
    # Some methods are tested on a part only, which is marked; the largest test is closest to the dataset.
    largest: dict[str, Record] = {}
    for record in known:
        if record.category not in largest or _size(record) > _size(largest[record.category]):
            largest[record.category] = record
    sentences = [f"Tested on {_images(largest)}{_limit(known[0])}.", _without_masks(largest), *_unpublished(largest)]
    return " ".join(sentence for sentence in sentences if sentence)


def missing_images(record: Record) -> int:
    """How many images of a category its copy lacks; 0 where the reader does not know, or an old record does not say."""
    card = dataset_cards().get(record.layout)
    if card is None or record.category not in card.counts or not set(COPY) <= record.counts.keys():
        return 0
    expected = sum(count or 0 for count in card.counts[record.category])
    return max(0, expected - sum(record.counts[field] for field in COPY))


def _size(record: Record) -> int:
    return record.counts["test_good"] + record.counts["test_defective"]


def _images(largest: dict[str, Record]) -> str:
    if len(largest) > NAMED:
        good, defective = (sum(r.counts[name] for r in largest.values()) for name in ("test_good", "test_defective"))
        return f"{good:,} good and {defective:,} defective images of {len(largest)} categories"
    counts = {name: record.counts for name, record in largest.items()}
    return "; ".join(f"{name}: {c['test_good']} good, {c['test_defective']} defective" for name, c in counts.items())


def _limit(record: Record) -> str:
    limit = record.protocol.get("test_limit")
    return f" (at most {limit} good and {limit} defective ones of each category)" if limit else ""


def _without_masks(largest: dict[str, Record]) -> str:
    without = [name for name, record in largest.items() if not record.counts.get("masks")]
    if not without or len(without) == len(largest):
        return ""
    return f"Figures of pixels and maps are without {_listed(without)}: no masks there."


def _unpublished(largest: dict[str, Record]) -> list[str]:
    """Where what goes by the name of a dataset has other categories, or fewer images, than that."""
    some = next(iter(largest.values()))
    card = dataset_cards().get(some.layout)
    # Whoever gives a folder in that layout a name of its own claims nothing.
    if card is None or not card.counts or some.dataset.casefold() not in (some.layout, card.title.casefold()):
        return []
    foreign = [name for name in largest if name not in card.counts]
    fewer = []
    for name, record in largest.items():
        if missing := missing_images(record):
            expected = sum(count or 0 for count in card.counts[name])
            fewer.append(f"{name} ({expected - missing} of {expected} images)")
    return [
        *([f"No category of {card.title}: {_listed(foreign)}."] if foreign else []),
        *([f"Less than {card.title} has: {_listed(fewer)}; its published figures do not compare."] if fewer else []),
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
