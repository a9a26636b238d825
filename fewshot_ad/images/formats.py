"""Tells a file's format by its content, and decodes it or says by name why not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import cv2

from fewshot_ad.arrays import Uint8Array
from fewshot_ad.errors import ImageError
from fewshot_ad.images import bmp, gif, jpeg, png, pnm, tiff, webp
from fewshot_ad.images.limits import damaged
from fewshot_ad.images.signatures import format_of

READ = "PNG, JPEG, BMP, TIFF, WebP, PNM or single-frame GIF"
DECODERS: dict[str, Callable[[bytes], Uint8Array]] = {
    "PNG": png.decode,
    "JPEG": jpeg.decode,
    "BMP": bmp.decode,
    "WebP": webp.decode,
    "PNM": pnm.decode,
    "GIF": gif.decode,
}
# First bytes of what is refused by its name.
REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"#?RADIANCE", "a Radiance HDR file"),
    (b"#?RGBE", "a Radiance HDR file"),
    (b"v/1\x01", "an OpenEXR file"),
    (b"Pf", "a PFM file"),
    (b"PF", "a PFM file"),
    (b"P7", "a PAM file"),
    (b"\x59\xa6\x6a\x95", "a Sun raster file"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 file, whose decoder cannot tell a damaged file from a whole one"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file, whose decoder cannot tell a damaged file from a whole one"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (b"II\xbc", "a JPEG XR file"),
    (b"8BPS", "a Photoshop file"),
    (b"DDS ", "a DDS texture"),
    (b"qoif", "a QOI file"),
    (b"\0\0\1\0", "an icon"),
    (b"%PDF", "a PDF document"),
    (b"PK\3\4", "a ZIP archive (or an office document)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x93NUMPY", "a saved numpy array: give numpy.load(...)"),
    (b"\x89HDF", "an HDF5 file"),
)


def decode(data: bytes, page: int | None) -> Uint8Array:
    """Decode an encoded image.

    Args:
        data: The content of a file.
        page: Which page, counted from 0; None = the only one.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        ImageError: It is no image that is read, it is damaged, or it has several pages and none was chosen.
    """
    if not data:
        raise ImageError("expected an image, got an empty file (0 bytes). Copy or record it again.")
    name = format_of(data)
    if name is None:
        raise _refusal(data)
    if page and name != "TIFF":
        raise ImageError(f"expected page=0 or none of a {name} image, which has no pages, got page={page}.")
    try:
        return tiff.decode(data, page) if name == "TIFF" else DECODERS[name](data)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(
            "expected enough memory to decode it, but the system gives no more. Scale it down or cut it into tiles."
        ) from error
    except (ValueError, IndexError, OverflowError, TypeError, struct.error, zlib.error, cv2.error) as error:
        # What a decoder says of content that none of the checks foresaw.
        raise damaged(f"{type(error).__name__}: {str(error).strip()}") from error


def _refusal(data: bytes) -> ImageError:
    what = next((name for magic, name in REFUSED if data.startswith(magic)), None) or _container(data)
    if what is not None:
        return ImageError(f"expected an image ({READ}), got {what}. Save it as PNG.")
    return ImageError(
        f"expected an image ({READ}), but the content is none of these (it starts with {data[:8]!r}). "
        "Check that the file really is a picture."
    )


def _container(data: bytes) -> str | None:
    """What a file is that has no bytes of its own at its start."""
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("latin-1").strip()
        return f"a file of the family of AVIF, HEIC and MP4 ({brand!r})"
    if data[8:9] == b"{" and b'"' in data[9:64]:
        return "a .fsad product or other safetensors file, which is not an image: give it where a product is expected"
    return None
