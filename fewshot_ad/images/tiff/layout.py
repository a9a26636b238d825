"""How the samples of a TIFF page are stored, or why they are not read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images.limits import damaged
from fewshot_ad.images.tiff.tags import Tags

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
GRAY = (WHITE_IS_ZERO, BLACK_IS_ZERO)
COLORS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
REFUSED_PHOTOMETRICS = {
    4: "a transparency mask",
    8: "CIE L*a*b* colors",
    9: "ICC L*a*b* colors",
    10: "ITU L*a*b* colors",
    32803: "the raw pattern of a color sensor, not yet demosaicked",
    32844: "LogL values",
    32845: "LogLuv values",
    34892: "linear raw values",
}
NONE, LZW, OLD_JPEG, JPEG, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA = 1, 5, 6, 7, 8, 32946, 32773, 34925
ZSTD, WEBP = 50000, 50001
ALPHA = (1, 2)
MAX_SEGMENTS = 65_536
BATCH_BYTES = 1 << 18


@dataclass(frozen=True, eq=False)
class Layout:
    """How the samples of a page are stored.

    Attributes:
        height: Rows of the page.
        width: Columns of the page.
        photometric: What the samples mean.
        bits: Bits of a sample.
        is_float: Whether samples are floats.
        samples: Samples per pixel, with those that are not read.
        colors: Samples per pixel that are read.
        planar: Whether each sample has segments of its own.
        compression: TIFF's number.
        predictor: 1 = none, 2 = differences, 3 = differences of the bytes of floats.
        tiled: Whether segments are tiles; strips otherwise.
        segment_hw: Height and width of a whole segment.
        offsets: Where each segment stands in the file.
        counts: Bytes of each segment.
        order: `<` or `>`.
        reversed_bits: Whether the bits in each byte stand in reversed order.
        orientation: EXIF's 1 to 8.
        palette: (2 ** bits, 3) uint8 RGB; empty without a palette.
        jpeg_tables: Beginning of each JPEG segment; empty without.
    """

    height: int
    width: int
    photometric: int
    bits: int
    is_float: bool
    samples: int
    colors: int
    planar: bool
    compression: int
    predictor: int
    tiled: bool
    segment_hw: tuple[int, int]
    offsets: npt.NDArray[Any]
    counts: npt.NDArray[Any]
    order: str
    reversed_bits: bool
    orientation: int
    palette: Uint8Array
    jpeg_tables: bytes

    @property
    def segment_samples(self) -> int:
        """Samples per pixel in a segment."""
        return 1 if self.planar else self.samples

    @property
    def row_bytes(self) -> int:
        """Bytes of a segment's row."""
        return (self.segment_hw[1] * self.segment_samples * self.bits + 7) // 8

    @property
    def segment_bytes(self) -> int:
        """Bytes of a whole segment."""
        return self.segment_hw[0] * self.row_bytes

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Segments below and beside each other."""
        return -(-self.height // self.segment_hw[0]), -(-self.width // self.segment_hw[1])

    @property
    def segment_count(self) -> int:
        """Number of segments."""
        return self.grid_hw[0] * self.grid_hw[1] * (self.samples if self.planar else 1)

    def position(self, index: int) -> tuple[int, int, int]:
        """Plane, first row and first column of a segment."""
        rows, columns = self.grid_hw
        plane, index = divmod(index, rows * columns)
        return plane, index // columns * self.segment_hw[0], index % columns * self.segment_hw[1]

    def batches(self) -> Iterator[list[int]]:
        """The segments that are read, in groups of about `BATCH_BYTES` of a plane, since many are a few rows only."""
        grid = self.grid_hw[0] * self.grid_hw[1]
        size = 1 if self.compression in (JPEG, WEBP) else max(1, BATCH_BYTES // self.segment_bytes)
        for plane in range(self.colors if self.planar else 1):
            indices = range(plane * grid, (plane + 1) * grid)
            yield from (list(indices[start : start + size]) for start in range(0, grid, size))

    def rows_of(self, index: int) -> int:
        """Rows that a segment must have: the last strip ends with the page, a tile is whole."""
        top = self.position(index)[1]
        return self.segment_hw[0] if self.tiled else min(self.segment_hw[0], self.height - top)


def read_layout(tags: Tags) -> Layout:
    """Read the layout of a page.

    Raises:
        ImageError: It makes no sense, or is a kind that is not read.
    """
    height, width = tags.number(257, 0), tags.number(256, 0)
    if height < 1 or width < 1:
        raise damaged(f"its size is {width} x {height}")
    bits, is_float = _sample_type(tags)
    photometric = tags.number(262, -1)
    samples = tags.number(277, 1)
    compression = tags.number(259, NONE)
    if photometric not in COLORS:
        what = REFUSED_PHOTOMETRICS.get(photometric, f"photometric interpretation {photometric}")
        raise ImageError(f"expected a TIFF in gray, RGB, CMYK or with a palette, got {what}. Save it as 8-bit RGB.")
    tiled = 322 in tags.entries
    # A strip's height may be given as 2 ** 32 - 1 for "all rows".
    segment = (tags.number(323, 0), tags.number(322, 0)) if tiled else (min(tags.number(278, height), height), width)
    orientation = tags.number(274, 1)
    layout = Layout(
        height=height,
        width=width,
        photometric=photometric,
        bits=bits,
        is_float=is_float,
        samples=samples,
        colors=COLORS[photometric],
        planar=tags.number(284, 1) == 2 and samples > 1,
        compression=compression,
        predictor=tags.number(317, 1),
        tiled=tiled,
        segment_hw=segment,
        offsets=tags.numbers(324 if tiled and 324 in tags.entries else 273),
        counts=tags.numbers(325 if tiled and 325 in tags.entries else 279),
        order=tags.order,
        reversed_bits=tags.number(266, 1) == 2,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        palette=_palette(tags, bits) if photometric == PALETTE else np.zeros((0, 3), np.uint8),
        jpeg_tables=tags.numbers(347).tobytes(),
    )
    if tags.number(32997, 1) > 1:
        raise ImageError("expected a flat image, got a TIFF of a volume. Save the slice you mean as PNG.")
    _check_samples(layout, tags)
    _check_segments(layout, len(tags.data))
    return layout


def _sample_type(tags: Tags) -> tuple[int, bool]:
    bits, formats = set(tags.numbers(258).tolist()) or {1}, set(tags.numbers(339).tolist()) or {1}
    if len(bits) > 1 or len(formats) > 1:
        raise ImageError(f"expected channels of one depth, got {sorted(bits)} bits. Save it as 8-bit RGB.")
    depth, form = bits.pop(), formats.pop()
    if (form, depth) not in {(1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (3, 16), (3, 32), (3, 64)}:
        kind = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex"}.get(form, "unknown type ")
        raise ImageError(
            f"expected a TIFF of dtype uint8, uint16 or float in 0..1, got {kind}{depth}. Scale it to 8 or 16 bits."
        )
    return depth, form == 3


def _palette(tags: Tags, bits: int) -> Uint8Array:
    values = tags.numbers(320)
    if bits > 8 or len(values) != 3 << bits:
        raise damaged("its palette is missing or has another size")
    # 16 bits by the specification, of which writers fill the upper 8 with the color and the lower with anything.
    return np.ascontiguousarray((values >> 8).astype(np.uint8).reshape(3, -1).T)


def _check_samples(layout: Layout, tags: Tags) -> None:
    extra = layout.samples - layout.colors
    is_alpha = layout.photometric == RGB or set(tags.numbers(338).tolist()) <= {*ALPHA} != set()
    if extra < 0:
        raise damaged(f"it has {layout.samples} channels instead of {layout.colors}")
    if extra > 1 or (extra == 1 and not is_alpha):
        raise ImageError(
            f"expected a TIFF of {layout.colors} channels and alpha, got {layout.samples} channels. "
            "Save those you mean as gray or RGB."
        )
    eight_bit_only = layout.photometric in (CMYK, YCBCR) or layout.compression == JPEG
    few_bits = layout.bits < 8 and (layout.samples > 1 or layout.predictor > 1)
    is_jpeg_color = layout.compression == JPEG and layout.photometric in (PALETTE, CMYK)
    wrong_planes = layout.planar and layout.photometric in (CMYK, YCBCR)
    if (eight_bit_only and layout.bits != 8) or few_bits or is_jpeg_color or wrong_planes:
        raise ImageError(
            f"expected a usual TIFF, got {layout.samples} channels of {layout.bits} bits with photometric "
            f"interpretation {layout.photometric} and compression {layout.compression}. Save it as 8-bit RGB."
        )
    if layout.photometric == YCBCR and layout.compression != JPEG:
        raise ImageError("expected a TIFF in RGB, got YCbCr without JPEG compression. Save it as 8-bit RGB.")
    if layout.predictor not in (1, 2, 3) or (layout.predictor == 3) > layout.is_float:
        raise damaged(f"predictor {layout.predictor} does not suit its samples")


def _check_segments(layout: Layout, file_bytes: int) -> None:
    if min(layout.segment_hw) < 1:
        raise damaged("its strips or tiles have no size")
    if layout.tiled and layout.segment_hw[0] * layout.segment_hw[1] > 4 * max(layout.height * layout.width, 1 << 20):
        raise damaged("its tiles are larger than the page")
    if layout.segment_count > MAX_SEGMENTS:
        raise ImageError(
            f"expected a TIFF of at most {MAX_SEGMENTS} strips or tiles, got {layout.segment_count}. Save it again "
            "with larger ones."
        )
    if min(len(layout.offsets), len(layout.counts)) < layout.segment_count:
        raise damaged("places or lengths of its strips or tiles are missing", layout.height, layout.width)
    # Many segments may not unpack the same bytes again and again.
    if int(layout.counts[: layout.segment_count].sum(dtype=np.float64)) > file_bytes:
        raise damaged("its strips or tiles are longer than the file", layout.height, layout.width)
