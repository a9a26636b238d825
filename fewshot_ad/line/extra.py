"""What to say where the libraries of a station are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fewshot_ad.errors import StationError


@contextmanager
def needs_extra(extra: str = "line") -> Iterator[None]:
    """Put a library that is missing in the block into words.

    Raises:
        StationError: One is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "fewshot_ad":
            raise
        raise StationError(
            f"expected the libraries of a station, got no module {error.name}: pip install 'fewshot-ad[{extra}]'."
        ) from error
