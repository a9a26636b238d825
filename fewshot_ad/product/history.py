"""What was done to a product since it was enrolled, and the defects that its operator has shown it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fewshot_ad.arrays import Float32Array, Uint8Array

ChangeKind: TypeAlias = Literal["add", "accept", "reject", "calibrate", "threshold", "roi"]
# What the steps back may take in the file, all together; beyond, the oldest changes stay on record alone.
UNDO_BYTES = 8 << 20
# Changes on record, at most; the oldest are forgotten.
MAX_CHANGES = 500
# Defects that an operator may show one product, and patches that are kept of each, per working scale and level.
MAX_KNOWN_DEFECTS, MAX_PATCHES = 100, 128
# The link of the first change.
NO_LINK = "0" * 64


@dataclass(frozen=True, eq=False)
class Change:
    """One change of a product.

    Attributes:
        kind: `add`, `accept`, `reject`, `calibrate`, `threshold` or `roi`.
        time: ISO date and time, UTC.
        text: What was done, in words.
        before: SHA-256 hash of the product before it, see `artifact.history`.
        previous: `link` of the change before.
        undo: (m,) uint8, what leads back; None where that was dropped.
        undo_sha256: Hash of `undo`, which stays.
    """

    kind: ChangeKind
    time: str
    text: str
    before: str
    previous: str
    undo: Uint8Array | None
    undo_sha256: str

    @property
    def link(self) -> str:
        """SHA-256 hash of all of it and of the change before: a link of a chain, in which none can be changed alone."""
        fields = [self.kind, self.time, self.text, self.before, self.previous, self.undo_sha256]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()

    @property
    def can_be_undone(self) -> bool:
        """Whether what leads back is still there."""
        return self.undo is not None


@dataclass(frozen=True, eq=False)
class KnownDefect:
    """A defect that the operator has shown.

    Attributes:
        name: Of its image.
        sha256: Hash of the image's pixels.
        region: x, y, width and height in pixels of the image; None where none was given.
        patches: Of each working scale, per level, (n, d) float32 embeddings of its patches, the most unusual first, of
            the region where one was given; what other images are compared with.
        top: The same of the whole image: what makes its score.
        factor: The score of the image over `known_defects.score_against` of `top`, when it was shown.
    """

    name: str
    sha256: str
    region: tuple[int, int, int, int] | None
    patches: tuple[Float32Array, ...]
    top: tuple[Float32Array, ...]
    factor: float
