"""The first bytes of each format that is read, and what tells that a file holds a second image."""

from __future__ import annotations

from fewshot_ad.images.limits import several

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
# First bytes -> format.
MAGIC: tuple[tuple[bytes, str], ...] = (
    (PNG, "PNG"),
    (JPEG, "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    *((mark, "TIFF") for mark in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (b"BM", "BMP"),
    *((f"P{kind}{white}".encode(), "PNM") for kind in range(1, 7) for white in " \t\r\n\v\f#"),
)


def format_of(data: bytes, start: int = 0) -> str | None:
    """Name of the format, by its first bytes; None if it is none that is read.

    Args:
        data: The content of a file.
        start: Where in it the image begins.
    """
    if data.startswith(b"RIFF", start) and data.startswith(b"WEBP", start + 8):
        return "WebP"
    return next((name for magic, name in MAGIC if data.startswith(magic, start)), None)


def refuse_image_behind(data: bytes, end: int) -> None:
    """Refuse a file in which another image begins where the first ends, bytes of zero between them left out.

    JPEG behind JPEG is usual, see `jpeg.refuse_second_image`.

    Raises:
        ImageError: It holds two images.
    """
    while end < len(data) and data[end] == 0:
        end += 1
    name = format_of(data, end)
    if name and not (name == "JPEG" and data.startswith(JPEG)):
        raise several(f"several, a {name} image behind the first", "Save each as a file.")
