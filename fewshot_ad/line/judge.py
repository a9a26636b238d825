"""What else than an `Inspector` judges images of a product: a fitted baseline of the zoo, say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from fewshot_ad.check import Check
from fewshot_ad.inspection.result import Inspection


@runtime_checkable
class Judge(Protocol):
    """Judges images of one product; it may be used on several threads."""

    name: str
    """Name of the method."""

    product: str
    """Name of the product."""

    artifact: str
    """SHA-256 of what it was loaded from."""

    def facts(self) -> dict[str, str]:
        """What there is to know of it, in words, by their names."""

    def info(self) -> dict[str, Any]:
        """The same as plain JSON types."""

    def inspect(self, image: Any) -> Inspection:
        """See `Inspector.inspect`."""

    def check(self, good: Any, bad: Any = None, *, progress: Any = None) -> Check:
        """See `Inspector.check`."""


# Reads one from a folder.
LoadJudge: TypeAlias = Callable[[Path], Judge]
