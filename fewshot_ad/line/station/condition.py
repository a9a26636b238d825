"""What a station stands on: journal, products, pictures, disks; and what is wrong with any of it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from fewshot_ad.errors import FewshotADError
from fewshot_ad.line.journal.database import file_of
from fewshot_ad.line.station.station import Station

# Below so many free bytes on a disk, and this share of it, health warns.
LOW_DISK, LOW_SHARE = 500_000_000, 0.1


def blocking(station: Station) -> list[str]:
    """What keeps verdicts from being given or written down, each with what to do."""
    found = [station.trouble] if station.trouble else []
    for look in (lambda: station.catalog.names, station.journal.check_place):
        try:
            look()
        except FewshotADError as error:
            found.append(str(error))
    return found


def problems(station: Station) -> list[str]:
    """All that is wrong, what blocks first; a problem that is told twice stands once."""
    pictures = [station.pictures.trouble] if station.pictures.trouble else []
    damaged = [f"{name}: {why}" for name, why in station.catalog.damaged.items()]
    low = [
        f"{what}: only {usage.free / 1e6:.0f} MB left on its disk"
        for what, usage in _disks(station).items()
        if usage.free < min(LOW_DISK, LOW_SHARE * usage.total)
    ]
    return list(dict.fromkeys([*blocking(station), *pictures, *damaged, *_twice(station), *low]))


def _twice(station: Station) -> list[str]:
    """Products whose file has come while a baseline judges what is called so."""
    with contextlib.suppress(FewshotADError):
        return [
            f"{name}: a fitted baseline judges it, and a product of that name, which is there too, does not. Rename one"
            for name in station.catalog.names
            if name in station.baselines
        ]
    return []


def disk_free(station: Station) -> dict[str, int]:
    """Free bytes by what is kept there."""
    return {what: usage.free for what, usage in _disks(station).items()}


def _disks(station: Station) -> dict[str, Any]:
    places = {"pictures": station.pictures.folder, "catalog": station.catalog.folder}
    journal = file_of(station.settings.journal)
    if journal is not None:
        places["journal"] = Path(journal).parent
    found = {}
    for what, place in places.items():
        # A folder of the network may be gone; that is told elsewhere.
        with contextlib.suppress(OSError):
            found[what] = shutil.disk_usage(place)
    return found
