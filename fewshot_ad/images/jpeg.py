"""JPEG, read by libjpeg-turbo in its strict mode: what it would only warn of is an error here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import simplejpeg

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images.channels import cmyk_to_rgb
from fewshot_ad.images.limits import check_memory, check_size, damaged, several
from fewshot_ad.images.orientation import exif_orientation, upright
from fewshot_ad.images.signatures import refuse_image_behind

HUFFMAN_TABLES, START_OF_SCAN, END_OF_IMAGE, EXIF, ADOBE = 0xC4, 0xDA, 0xD9, 0xE1, 0xEE
WITHOUT_PAYLOAD = frozenset({0x01, *range(0xD0, 0xD9)})
# Start-of-frame markers; arithmetic coding is read by most builds of the decoder.
READ_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
REFUSED_FRAMES = {
    0xC3: "lossless JPEG",
    0xCB: "lossless JPEG",
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG"),
}
# Each scan passes over all pixels: thousands of them take minutes.
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 2_000_000_000
# More takes longer than a few seconds.
MAX_INK_PIXELS = 100_000_000
MAX_SEGMENTS = 10_000
MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
# Within a scan 0xff stands before 0 (a data byte) or a restart marker.
END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
IMAGES_BEHIND = 100
# The decoder takes the zeros of a lost disk block for pixels. An encoder writes so many only where the image is flat,
# and only if its tables have the code 0 for that. libjpeg writes at most 125 elsewhere, of a refining scan's bits.
HOLE = bytes(256)


@dataclass
class Header:
    """What the segments of a JPEG say.

    Attributes:
        height: Rows.
        width: Columns.
        sampling: Horizontal and vertical sampling factor of each component.
        scans: Passes over the pixels.
        progressive: Whether each scan refines the pixels.
        flat_is_zeros: Whether its tables code a flat part of the image as zeros.
        adobe: Whether Adobe's marker is there: inks are stored inverted.
        orientation: EXIF's 1 to 8.
        end: Where the image ends in the file.
    """

    height: int = 0
    width: int = 0
    sampling: tuple[tuple[int, int], ...] = ()
    scans: int = 0
    progressive: bool = False
    flat_is_zeros: bool = True
    adobe: bool = False
    orientation: int = 1
    end: int = 0


def decode(data: bytes) -> Uint8Array:
    """Decode a JPEG file.

    Args:
        data: The file. What stands behind its end is ignored, unless it is another image of at least this size.

    Returns:
        (H, W, 3) uint8, RGB, upright.

    Raises:
        ImageError: It is damaged, holds several images, or is a kind that is not read.
    """
    header = read_header(data)
    check_size(header.height, header.width)
    refuse_second_image(data, header)
    inks = len(header.sampling) == 4
    if inks and header.height * header.width > MAX_INK_PIXELS:
        raise ImageError(
            f"expected a CMYK JPEG of at most {MAX_INK_PIXELS // 1_000_000} megapixels, got "
            f"{header.height * header.width / 1e6:.0f}. Save it as RGB, or cut it into tiles."
        )
    pixels = decode_samples(data, header, "CMYK" if inks else "RGB")
    if inks:
        pixels = cmyk_to_rgb(pixels, header.adobe)
    return upright(pixels, header.orientation)


def read_header(data: bytes) -> Header:
    """Walk the segments of a JPEG, without decoding.

    Raises:
        ImageError: It is damaged, or is a kind that is not read.
    """
    header = Header()
    scan: tuple[int, int] | None = None
    for marker, start, end in _segments(data, 0):
        if scan is not None and _has_hole(data, *scan, start, header):
            raise damaged("a hole of zeros in its pixels", header.height, header.width)
        scan = (start, end) if marker == START_OF_SCAN else None
        _read_segment(header, marker, data[start:end])
        header.end = end
    if not header.sampling or not header.scans:
        raise damaged("no image data before its end")
    if header.scans * header.height * header.width > MAX_SCANNED_PIXELS:
        raise ImageError(
            f"expected a JPEG that is decoded in seconds, got {header.width} x {header.height} pixels in "
            f"{header.scans} scans. Save it without the progressive option."
        )
    return header


def refuse_second_image(data: bytes, header: Header) -> None:
    """Refuse a JPEG behind which another image of at least its size stands; phones append previews and gain maps.

    Args:
        data: The file.
        header: What `read_header` gave.

    Raises:
        ImageError: There is one.
    """
    refuse_image_behind(data, header.end)
    position = header.end
    for _ in range(IMAGES_BEHIND):
        position = data.find(b"\xff\xd8\xff", position)
        if position < 0:
            return
        height, width = _frame_size(data, position)
        if height * width >= header.height * header.width:
            raise several(
                f"several of {header.width} x {header.height} and {width} x {height} pixels, one behind the other",
                "Save each as a file.",
            )
        position += 2


def decode_samples(data: bytes, header: Header, colors: str) -> Uint8Array:
    """Decode a JPEG whose header was read.

    Args:
        data: The file.
        header: What `read_header` gave.
        colors: `RGB`, `GRAY` or `CMYK`.

    Returns:
        (H, W, C) uint8, not turned.

    Raises:
        ImageError: It is damaged or takes too much memory.
    """
    fix = "Save it as RGB" if len(header.sampling) == 4 else "Save it without the progressive option"
    check_memory(len(data) + header.height * header.width * _bytes_per_pixel(header), f"{fix}, or cut it into tiles.")
    try:
        return simplejpeg.decode_jpeg(data, colorspace=colors, strict=True)
    except ValueError as error:
        if "subsampling" in str(error):
            raise ImageError(
                f"expected a JPEG of usual color subsampling, got factors {header.sampling}. Save it as PNG."
            ) from error
        raise damaged(str(error), header.height, header.width) from error


def _segments(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the payload of each segment; the last is the end of the image."""
    position += 2
    for _ in range(MAX_SEGMENTS):
        match = MARKER.match(data, position)
        if match is None:
            raise damaged("it breaks off, or bytes stand between its segments")
        marker, position = match[1][0], match.end()
        if marker in WITHOUT_PAYLOAD:
            continue
        if marker == END_OF_IMAGE:
            yield marker, position, position
            return
        start, position = position + 2, position + int.from_bytes(data[position : position + 2], "big")
        if position < start or position > len(data):
            raise damaged("it breaks off within a segment")
        yield marker, start, position
        if marker == START_OF_SCAN:
            match = END_OF_SCAN.search(data, position)
            if match is None:
                raise damaged("premature end: no end marker")
            position = match.start()
    raise ImageError(f"expected a JPEG of at most {MAX_SEGMENTS} segments, got more. Save it as PNG.")


def _read_segment(header: Header, marker: int, content: bytes) -> None:
    if marker in READ_FRAMES or marker in REFUSED_FRAMES:
        _read_frame(header, marker, content)
    elif marker == START_OF_SCAN:
        header.scans += 1
        if header.scans > MAX_SCANS:
            raise ImageError(f"expected a JPEG of at most {MAX_SCANS} scans, got more. Save it as PNG.")
    elif marker == HUFFMAN_TABLES:
        header.flat_is_zeros &= _codes_flat_as_zeros(content)
    elif marker == ADOBE and content[:5] == b"Adobe":
        header.adobe = True
    elif marker == EXIF and content[:6] == b"Exif\0\0" and header.orientation == 1:
        header.orientation = exif_orientation(content)


def _codes_flat_as_zeros(tables: bytes) -> bool:
    """Whether the first code, which is all zeros, of each table of higher frequencies means "no more of them"."""
    position = 0
    while position + 17 < len(tables):
        if tables[position] >> 4 and tables[position + 17]:
            return False
        position += 17 + sum(tables[position + 1 : position + 17])
    return True


def _has_hole(data: bytes, scan_header: int, scan: int, end: int, header: Header) -> bool:
    first_frequency = data[scan - 3] if scan - 3 > scan_header else 0
    has_all_channels = data[scan_header] == len(header.sampling)
    # A progressive scan of higher frequencies counts flat parts instead of writing them. One of a color channel alone
    # may be zeros throughout, of a gray part.
    can_be_zeros = first_frequency == 0 and (header.progressive or header.flat_is_zeros or not has_all_channels)
    return not can_be_zeros and data.find(HOLE, scan, end) >= 0


def _read_frame(header: Header, marker: int, frame: bytes) -> None:
    if header.sampling or len(frame) < 6 or len(frame) != 6 + 3 * frame[5]:
        raise damaged("its frame header makes no sense")
    if marker in REFUSED_FRAMES:
        raise ImageError(f"expected a baseline or progressive JPEG, got a {REFUSED_FRAMES[marker]}. Save it as PNG.")
    if frame[0] != 8:
        raise ImageError(f"expected a JPEG of 8 bits per channel, got {frame[0]} bits. Save it as PNG or TIFF.")
    if frame[5] not in (1, 3, 4):
        raise ImageError(f"expected a JPEG of 1, 3 or 4 channels, got {frame[5]}. Save it as PNG.")
    header.height, header.width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    header.sampling = tuple((factors >> 4 or 1, factors & 15 or 1) for factors in frame[7::3])
    header.progressive = marker in (0xC2, 0xCA)


def _bytes_per_pixel(header: Header) -> float:
    channels = len(header.sampling)
    result = 8.5 if channels == 4 else 6.0 if header.orientation > 1 else 3.0
    if header.progressive or header.scans > 1:
        # The decoder keeps all coefficients, 2 bytes each, until the last scan.
        largest = max(h for h, _ in header.sampling) * max(v for _, v in header.sampling)
        result = max(result, (3 if channels < 4 else 4) + 2 * sum(h * v for h, v in header.sampling) / largest)
    return result


def _frame_size(data: bytes, position: int) -> tuple[int, int]:
    """Height and width of the image that begins there; (0, 0) if none does."""
    try:
        for marker, start, _ in _segments(data, position):
            if marker in READ_FRAMES:
                return int.from_bytes(data[start + 1 : start + 3], "big"), int.from_bytes(
                    data[start + 3 : start + 5], "big"
                )
            if marker == START_OF_SCAN:
                break
    except ImageError:  # not an image: bytes of something else
        pass
    return 0, 0
