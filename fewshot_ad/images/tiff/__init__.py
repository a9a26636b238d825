"""TIFF: page -> layout -> segments (strips or tiles) -> RGB. A segment that is missing or damaged is an error."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images.channels import check_values, cmyk_to_rgb, row_blocks, to_uint8
from fewshot_ad.images.limits import CUT, FEWER_BITS, check_memory, check_size, damaged, several
from fewshot_ad.images.orientation import upright
from fewshot_ad.images.tiff.layout import CMYK, GRAY, PALETTE, WHITE_IS_ZERO, Layout, read_layout
from fewshot_ad.images.tiff.segments import copies, read_segments
from fewshot_ad.images.tiff.tags import Tags, walk_pages

REDUCED, MASK = 1, 4
MAX_PAGES = 10_000


def decode(data: bytes, page: int | None = None) -> Uint8Array:
    """Decode one page of a TIFF or BigTIFF file.

    Args:
        data: The file.
        page: Which page, counted from 0; None = the only one. Thumbnails, smaller levels of a pyramid and masks are
            no pages.

    Returns:
        (H, W, 3) uint8, RGB, upright.

    Raises:
        ImageError: It is damaged, is a kind that is not read, or has several pages and none was chosen.
    """
    tags = _choose(data, page)
    layout = read_layout(tags)
    check_size(layout.height, layout.width)
    pixels = layout.height * layout.width
    result_bytes = pixels * (6 if layout.orientation > 1 else 3)
    check_memory(
        len(data) + result_bytes + layout.segment_bytes * copies(layout), FEWER_BITS if layout.bits > 8 else CUT
    )
    rgb = np.empty((layout.height, layout.width, 3), np.uint8)
    for batch in layout.batches():
        samples = read_segments(data, layout, batch)
        for index in batch:
            plane, top, left = layout.position(index)
            target = rgb[top : top + layout.segment_hw[0], left : left + layout.segment_hw[1]]
            _place(target, samples[: target.shape[0], : target.shape[1]], plane, layout)
            samples = samples[layout.rows_of(index) :]
    return upright(rgb, layout.orientation)


def _choose(data: bytes, page: int | None) -> Tags:
    pages = (tags for tags in islice(walk_pages(data), MAX_PAGES) if not _is_auxiliary(tags))
    if page is None:
        first_two = list(islice(pages, 2))
        if len(first_two) > 1 or (first_two and first_two[0].hidden_pages() > 1):
            raise several(
                "a TIFF of several pages",
                "Give the array that fewshot_ad.read_image(path, page=0) returns, or save the page you mean as a file.",
            )
        if not first_two:
            raise damaged("it holds no page but at most previews")
        return first_two[0]
    tags = next(islice(pages, page, None), None)
    if tags is None:
        raise ImageError(f"expected page={page}, but the TIFF has fewer pages; they count from 0. Give a smaller one.")
    return tags


def _is_auxiliary(tags: Tags) -> bool:
    return bool(tags.number(254, 0) & (REDUCED | MASK)) or tags.number(255, 1) == 2


def _place(target: Uint8Array, samples: npt.NDArray[Any], plane: int, layout: Layout) -> None:
    """Convert the samples (h, w, C) of a segment, block by block, into their place (h, w, 3)."""
    for rows in row_blocks(*target.shape[:2]):
        block = samples[rows]
        check_values(block)
        levels = _levels(block, layout)
        if layout.planar and layout.colors > 1:
            target[rows, :, plane] = levels[..., 0]
        else:
            target[rows] = levels


def _levels(block: npt.NDArray[Any], layout: Layout) -> Uint8Array:
    """Gray levels (h, w, 1) or colors (h, w, 3)."""
    if layout.photometric == PALETTE:
        return layout.palette[block[..., 0]]
    levels = to_uint8(block[..., : layout.colors])
    if layout.photometric == CMYK:
        return cmyk_to_rgb(levels, inverted=False)
    if layout.photometric in GRAY and layout.bits < 8:
        levels = levels * np.uint8(255 // ((1 << layout.bits) - 1))
    return 255 - levels if layout.photometric == WHITE_IS_ZERO else levels
