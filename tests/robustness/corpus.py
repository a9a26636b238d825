"""Intact files of every format, depth, layout and compression, to be damaged: those of the image matrix."""

from __future__ import annotations

import functools

from tests.images.test_matrix import CASES


@functools.cache
def variants() -> dict[str, bytes]:
    """Content by name."""
    return {case.name: case.content() for case in CASES}
