"""What images come from: a folder, a camera; and what takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import StationError
from fewshot_ad.line.record import Record


class BusyError(StationError):
    """Too many images wait; the same one may be sent again in a moment."""


class Submit(Protocol):
    """Takes an image and gives its record, once that is in the journal."""

    def __call__(
        self, image: bytes | Uint8Array, *, product: str | None, source: str, name: str, key: str | None = None
    ) -> Record:
        """Inspect an image.

        Args:
            image: An encoded image, or (H, W, 3) uint8 RGB.
            product: Name of the product; None finds out which of the catalog's the image shows.
            source: Where it comes from, see `Record.source`.
            name: What it is called there.
            key: With which a second image is not inspected, but answered with the record of the first.

        Returns:
            The record; of what is no image too, with the verdict `unreadable`.

        Raises:
            BusyError: Too many images wait.
            FewshotADError: There is no verdict: the journal takes none, or there is no such product.
        """
        ...


@dataclass(frozen=True)
class SourceState:
    """How a source is doing.

    Attributes:
        name: Its name.
        running: Whether images may come from it.
        error: What keeps them from coming; empty if nothing does.
        seen: Images that it has sent since it was started.
    """

    name: str
    running: bool
    error: str
    seen: int


class Source(Protocol):
    """What images come from, on threads of its own.

    Attributes:
        name: As in `Record.source`.
    """

    name: str

    @property
    def state(self) -> SourceState:
        """How it is doing now."""
        ...

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self, wait_s: float = 5.0) -> None:
        """End, after what has been begun.

        Args:
            wait_s: How long to wait for that.
        """
        ...
