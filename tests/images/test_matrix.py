"""Format x depth x channels x compression x layout: read exactly as an independent reader does, or refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from fewshot_ad.errors import ImageError
from fewshot_ad.images import read_image

imageio = pytest.importorskip("imageio.v3")
tifffile = pytest.importorskip("tifffile")
imagecodecs = pytest.importorskip("imagecodecs")

HEIGHT, WIDTH = 37, 53  # odd, so that rows end within a byte, a tile and a block
Reader = Callable[[bytes], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A file, and the pixels another program reads from it, or why it is refused."""

    name: str
    content: Callable[[], bytes]
    expected: Reader | str
    tolerance: int = 0


@cache
def picture() -> np.ndarray:
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5) // 2 + noise // 2


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """(H, W[, C]) of any type over its full range -> RGB uint8, by the definition."""
    if pixels.dtype == np.bool_:
        levels = pixels * 255.0
    else:
        full = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
        levels = pixels.astype(np.float64) / full * 255
    levels = np.rint(levels).astype(np.uint8)
    if levels.ndim == 2:
        levels = levels[..., None]
    return np.repeat(levels[..., :1], 3, 2) if levels.shape[2] < 3 else levels[..., :3]


def by_pillow(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def by_imageio(content: bytes) -> np.ndarray:
    return as_rgb(imageio.imread(content))


def by_tifffile(content: bytes) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        pixels = page.asarray()
        if page.planarconfig == 2 and pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, -1)
        if page.photometric == 3:
            return (page.colormap >> 8).astype(np.uint8).T[pixels]
        if page.photometric == 0:
            pixels = ~pixels if pixels.dtype.kind != "f" else 1 - pixels
    return as_rgb(pixels)


def by_imagecodecs_png(content: bytes) -> np.ndarray:
    return as_rgb(imagecodecs.png_decode(content))


# ---- TIFF


def samples(dtype: str, channels: int) -> np.ndarray:
    pixels = picture()[..., 0] if channels == 1 else picture()[..., :channels]
    if dtype == "bool":
        return pixels > 127
    if dtype.startswith("f"):
        return (pixels / 255).astype(dtype)
    if dtype == "u2":
        noise = np.random.default_rng(4).integers(0, 256, pixels.shape, dtype=np.uint16)
        return pixels.astype(np.uint16) * 256 + noise
    return pixels


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, metadata=None, **options)
    return buffer.getvalue()


LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rowsperstrip": 5},
    "tiles": {"tile": (16, 16)},
}


def tiff_cases() -> Iterator[Case]:
    kinds = [("gray", 1, "minisblack"), ("white is zero", 1, "miniswhite"), ("rgb", 3, "rgb"), ("rgba", 4, "rgb")]
    for (kind, channels, photometric), dtype, (layout, options) in product(kinds, ("u1", "u2", "f4"), LAYOUTS.items()):
        for compression in (None, "lzw", "zlib", "packbits"):
            yield tiff_case(kind, dtype, layout, compression, samples(dtype, channels), photometric, options)
    for (kind, channels, photometric), dtype, compression in product(kinds, ("u1", "u2"), ("lzw", "zlib", "zstd")):
        pixels = samples(dtype, channels)
        options = {"predictor": True, "rowsperstrip": 7}
        yield tiff_case(kind, dtype, "strips, predictor", compression, pixels, photometric, options)
    for (_, channels, _), dtype, order in product((kinds[0], kinds[2]), ("f2", "f4", "f8"), "<>"):
        options = {"predictor": True, "rowsperstrip": 7, "byteorder": order}
        photometric = "minisblack" if channels == 1 else "rgb"
        yield tiff_case(
            f"{channels}", dtype, f"float predictor {order}", "zlib", samples(dtype, channels), photometric, options
        )
    for dtype, (layout, options), compression in product(("u1", "u2"), LAYOUTS.items(), (None, "lzw", "zlib")):
        planes = np.moveaxis(samples(dtype, 3), -1, 0)
        more = {**options, "planarconfig": "separate"}
        yield tiff_case("rgb", dtype, f"{layout}, planes", compression, planes, "rgb", more)
    for dtype, compression, big in product(("u2", "f4"), (None, "lzw", "zlib"), (False, True)):
        options = {"byteorder": ">", "bigtiff": big, "rowsperstrip": 9}
        yield tiff_case("rgb", dtype, f"big-endian, BigTIFF {big}", compression, samples(dtype, 3), "rgb", options)
    for dtype, channels, compression in product(("u1", "u2"), (1, 3), ("lzw", "zlib")):
        options = {"predictor": True, "tile": (16, 16)}
        photometric = "minisblack" if channels == 1 else "rgb"
        pixels = samples(dtype, channels)
        yield tiff_case(f"{channels}", dtype, "tiles, predictor", compression, pixels, photometric, options)
    for compression in ("zstd", "lzma"):
        yield tiff_case("rgb", "u2", "strips", compression, samples("u2", 3), "rgb", {"rowsperstrip": 5})
    for compression in (None, "lzw", "zlib", "packbits"):
        palette = np.random.default_rng(5).integers(0, 65536, (3, 256), dtype=np.uint16)
        yield tiff_case("palette", "u1", "", compression, samples("u1", 1), "palette", {"colormap": palette})
    for photometric in ("minisblack", "miniswhite"):
        yield tiff_case(photometric, "bool", "strips", None, samples("bool", 1), photometric, {"rowsperstrip": 5})
    for (layout, options), channels in product(LAYOUTS.items(), (1, 3)):
        photometric = "minisblack" if channels == 1 else "rgb"
        more = {**options, "compressionargs": {"level": 95}}
        if layout == "strips":
            more["rowsperstrip"] = 8
        # The same library decodes it (libjpeg-turbo), by another wrapper and another build.
        yield tiff_case(f"{channels}", "u1", layout, "jpeg", samples("u1", channels), photometric, more, tolerance=1)
    yield tiff_case("ycbcr", "u1", "strips", "jpeg", samples("u1", 3), "ycbcr", {"rowsperstrip": 16}, tolerance=2)


def tiff_case(
    kind: str,
    dtype: str,
    layout: str,
    compression: str | None,
    pixels: np.ndarray,
    photometric: str,
    options: dict[str, Any],
    tolerance: int = 0,
) -> Case:
    if photometric == "miniswhite" and dtype.startswith("f"):
        tolerance = 1  # 1 - v is rounded
    return Case(
        f"TIFF {kind} {dtype} {layout} {compression}",
        lambda: tiff(pixels, photometric=photometric, compression=compression, **options),
        by_tifffile,
        tolerance,
    )


def other_writers_of_tiff() -> Iterator[Case]:
    for dtype, channels, compression in product(("u1", "u2", "f4"), (1, 3), (1, 5, 8, 32773)):
        pixels = samples(dtype, channels)
        yield Case(
            f"TIFF by OpenCV {dtype} {channels} {compression}",
            lambda pixels=pixels, compression=compression: by_opencv(".tif", pixels, (259, compression)),
            by_tifffile,
        )
    for mode, compression in product(
        ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"), ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")
    ):
        yield Case(
            f"TIFF by Pillow {mode} {compression}",
            lambda mode=mode, compression=compression: pillow(mode, "TIFF", compression=compression),
            by_tifffile if mode == "I;16" else by_pillow,
            1 if mode == "CMYK" else 0,
        )
    yield Case("TIFF by Pillow, JPEG", lambda: pillow("RGB", "TIFF", compression="jpeg"), by_pillow, 2)
    for orientation in range(1, 9):
        yield Case(
            f"TIFF orientation {orientation}",
            lambda orientation=orientation: tiff(
                samples("u1", 3), photometric="rgb", extratags=[(274, "H", 1, orientation)]
            ),
            lambda content, orientation=orientation: turned(by_tifffile(content), orientation),
        )


def few_bits_of_tiff() -> Iterator[Case]:
    for bits, photometric, reversed_bits in product((1, 2, 4), (0, 1, 3), (1, 2)):
        is_reversed = reversed_bits == 2
        if (photometric == 3 and (bits == 2 or is_reversed)) or (is_reversed and bits > 1):
            continue  # Pillow reads no such file
        yield Case(
            f"TIFF {bits} bits, photometric {photometric}, fill order {reversed_bits}",
            lambda bits=bits, photometric=photometric, order=reversed_bits: raw_tiff(bits, photometric, order),
            by_pillow,
        )


def raw_tiff(bits: int, photometric: int, fill_order: int) -> bytes:
    """One strip without compression, which Pillow and tifffile do not write with so few bits."""
    rng = np.random.default_rng(bits)
    strip = rng.bytes((WIDTH * bits + 7) // 8 * HEIGHT)
    palette = (rng.integers(0, 256, 3 << bits) * 257).astype("<u2").tobytes() if photometric == 3 else b""
    tags = [
        (256, 3, 1, WIDTH), (257, 3, 1, HEIGHT), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, photometric),
        (266, 3, 1, fill_order), (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, HEIGHT), (279, 4, 1, len(strip)),
    ]  # fmt: skip
    if palette:
        tags.append((320, 3, 3 << bits, 8 + len(strip)))
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8 + len(strip) + len(palette)) + strip + palette + directory


def by_opencv(suffix: str, pixels: np.ndarray, *parameters: tuple[int, int]) -> bytes:
    bgr = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    ok, content = cv2.imencode(suffix, np.ascontiguousarray(bgr), [int(value) for pair in parameters for value in pair])
    assert ok
    return content.tobytes()


def pillow(mode: str, kind: str, **options: Any) -> bytes:
    if mode == "I;16":
        image = Image.fromarray(samples("u2", 1))
    elif mode == "RGBA":
        image = Image.fromarray(picture())
    else:
        image = Image.fromarray(picture()[..., :3]).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """By the table of the EXIF specification: where row 0 and column 0 are."""
    if orientation > 4:
        pixels = pixels.transpose(1, 0, 2)
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return pixels[rows, columns]


def refused_tiffs() -> Iterator[Case]:
    gray = samples("u1", 1)
    for dtype in ("int8", "int16", "uint32", "int32", "uint64", "complex64"):
        yield Case(
            f"TIFF {dtype}",
            lambda dtype=dtype: tiff(gray.astype(dtype), photometric="minisblack"),
            f"got {dtype}|complex",
        )
    yield Case(
        "TIFF float beyond 1", lambda: tiff(gray.astype(np.float32), photometric="minisblack"), r"floats in 0\.\.1"
    )
    yield Case("TIFF 2 pages", lambda: tiff(np.stack([gray, gray]), photometric="minisblack"), "several pages")
    yield Case("TIFF 5 channels", lambda: tiff(np.dstack([gray] * 5), photometric="rgb"), "5 channels")
    yield Case(
        "TIFF 2 channels",
        lambda: tiff(np.dstack([gray] * 2), photometric="minisblack", planarconfig="contig"),
        "2 channels",
    )
    yield Case(
        "TIFF JPEG 2000",
        lambda: tiff(np.pad(samples("u1", 3), ((0, 27), (0, 11), (0, 0))), photometric="rgb", compression="jpeg2000"),
        "JPEG 2000",
    )
    yield Case("TIFF CCITT", lambda: pillow("1", "TIFF", compression="group4"), "CCITT")
    yield Case("TIFF cfa", lambda: tiff(gray, photometric="cfa"), "demosaicked")
    yield Case("TIFF JPEG XL", lambda: tiff(gray, photometric="minisblack", compression="jpegxl"), "JPEG XL")


# ---- PNG


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(depth: int, color: int, extra: bytes = b"", ending: bytes = b"") -> bytes:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    row = (WIDTH * channels * depth + 7) // 8
    rng = np.random.default_rng(depth + color)
    raw = b"".join(b"\0" + rng.bytes(row) for _ in range(HEIGHT))
    palette = chunk(b"PLTE", rng.bytes(3 << depth)) if color == 3 else b""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color, 0, 0, 0)
    packed = zlib.compress(raw)
    pieces = chunk(b"IDAT", packed[:100]) + chunk(b"IDAT", packed[100:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + extra + pieces + ending + chunk(b"IEND", b"")


TRANSPARENT = {0: b"\0\1", 2: b"\0\1\0\1\0\1", 3: b"\0\1"}


def png_cases() -> Iterator[Case]:
    variants = [
        *((0, depth) for depth in (1, 2, 4, 8, 16)),
        *((3, depth) for depth in (1, 2, 4, 8)),
        *product((2, 4, 6), (8, 16)),
    ]
    for color, depth in variants:
        reader = by_imagecodecs_png if depth == 16 else by_pillow
        yield Case(f"PNG color {color} depth {depth}", lambda color=color, depth=depth: png(depth, color), reader)
        if color in TRANSPARENT:
            extra = chunk(b"tRNS", TRANSPARENT[color])
            yield Case(
                f"PNG color {color} depth {depth} tRNS",
                lambda color=color, depth=depth, extra=extra: png(depth, color, extra),
                reader,
            )
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA"):
        yield Case(
            f"PNG by Pillow {mode}", lambda mode=mode: pillow(mode, "PNG"), by_imageio if mode == "RGB" else by_pillow
        )
    for dtype, channels in product(("u1", "u2"), (1, 3, 4)):
        pixels = samples(dtype, channels)
        yield Case(
            f"PNG by OpenCV {dtype} {channels}", lambda pixels=pixels: by_opencv(".png", pixels), by_imagecodecs_png
        )
    for color, depth in ((0, 1), (0, 8), (0, 16), (2, 8), (2, 16), (3, 4), (6, 8), (6, 16)):
        reader = by_imagecodecs_png if depth == 16 else by_pillow
        yield Case(f"PNG interlaced {color} {depth}", lambda color=color, depth=depth: interlaced(depth, color), reader)
    for name, content in (("gAMA", struct.pack(">I", 100000)), ("sRGB", b"\0"), ("tEXt", b"a\0b"), ("pHYs", b"\0" * 9)):
        yield Case(
            f"PNG with {name}", lambda name=name, content=content: png(8, 2, chunk(name.encode(), content)), by_pillow
        )
    for orientation in range(1, 9):
        exif = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1" + struct.pack(">H", orientation) + b"\0\0\0\0\0\0"
        yield Case(
            f"PNG eXIf {orientation}",
            lambda exif=exif: png(8, 2, chunk(b"eXIf", exif)),
            lambda content, orientation=orientation: turned(by_pillow(content), orientation),
        )
    yield Case("PNG damaged eXIf", lambda: png(8, 2, chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff")), by_pillow)
    yield Case("PNG damaged text", lambda: png(8, 2, chunk(b"tEXt", b"a\0b")[:-1] + b"?"), by_pillow_without_text)
    yield Case("PNG animated", lambda: animated("PNG"), "several frames")
    yield Case("PNG critical chunk", lambda: png(8, 2, chunk(b"CgBI", b"\0\0\0\0")), "chunk b'CgBI'")
    yield Case("PNG twice", lambda: png(8, 2) * 2, "several")
    yield Case("PNG wrong checksum", lambda: png(8, 2).replace(b"IDAT", b"IDAu", 1), "checksum")
    yield Case("PNG short data", short_png, "ends early")


def by_pillow_without_text(content: bytes) -> np.ndarray:
    return by_pillow(png(8, 2))


def interlaced(depth: int, color: int) -> bytes:
    """Adam7, pass after pass, unfiltered."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    rng = np.random.default_rng(9)
    raw = b""
    for x, y, step_x, step_y in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        width, height = -(-(WIDTH - x) // step_x), -(-(HEIGHT - y) // step_y)
        raw += b"".join(b"\0" + rng.bytes((width * channels * depth + 7) // 8) for _ in range(height))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color, 0, 0, 1)
    palette = chunk(b"PLTE", rng.bytes(3 << depth)) if color == 3 else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + palette
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def short_png() -> bytes:
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 900)) + chunk(b"IEND", b"")
    )


def animated(kind: str) -> bytes:
    first, second = Image.fromarray(picture()[..., :3]), Image.fromarray(picture()[::-1, :, :3].copy())
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=[second])
    return buffer.getvalue()


# ---- JPEG, WebP, GIF, BMP, PNM, and what is refused by name


def jpeg_cases() -> Iterator[Case]:
    # Pillow's pixels: the same library, in another build, decodes them; CMYK is rounded once more.
    for mode, progressive, subsampling in product(("L", "RGB", "CMYK"), (False, True), (0, 1, 2)):
        is_usual = mode != "CMYK" or subsampling == 0
        yield Case(
            f"JPEG {mode} progressive {progressive} subsampling {subsampling}",
            lambda mode=mode, options=(progressive, subsampling): pillow(
                mode, "JPEG", quality=92, progressive=options[0], subsampling=options[1]
            ),
            by_pillow if is_usual else "usual color subsampling",
            1,
        )
    yield Case("JPEG YCCK by Adobe", lambda: imagecodecs_jpeg("ycck"), by_pillow, 3)
    yield Case(
        "JPEG restart intervals",
        lambda: by_opencv(".jpg", samples("u1", 3), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
        by_pillow,
        1,
    )
    yield Case("JPEG RGB without transform", lambda: pillow("RGB", "JPEG", keep_rgb=True), by_pillow, 1)
    yield Case("JPEG optimized", lambda: pillow("RGB", "JPEG", optimize=True), by_imageio, 1)
    yield Case("JPEG with bytes behind", lambda: pillow("RGB", "JPEG") + b"camera data\0\xff\xd8\xff", by_pillow, 1)
    yield Case("JPEG with a preview behind", lambda: pillow("RGB", "JPEG") + preview(), by_pillow, 1)
    yield Case("JPEG damaged EXIF", lambda: pillow("RGB", "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), by_pillow, 1)
    yield Case("JPEG twice", lambda: pillow("RGB", "JPEG") * 2, "several of 53 x 37")
    yield Case("JPEG MPO", lambda: animated("MPO"), "several of 53 x 37")
    yield Case("JPEG cut", lambda: pillow("RGB", "JPEG")[:-200], "truncated or damaged")
    yield Case("JPEG without its end marker", lambda: pillow("RGB", "JPEG")[:-2], "truncated or damaged")
    yield Case("JPEG 12 bits", lambda: patched_frame(0, 12), "12 bits")
    yield Case("JPEG lossless", lambda: imagecodecs.ljpeg_encode(samples("u1", 1)), "lossless")
    yield Case("JPEG 2000", lambda: imagecodecs.jpeg2k_encode(samples("u1", 3)), "JPEG 2000")


def imagecodecs_jpeg(colorspace: str) -> bytes:
    return imagecodecs.jpeg8_encode(picture(), level=95, colorspace="cmyk", outcolorspace=colorspace)


def preview() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture()[::2, ::2, :3].copy()).save(buffer, "JPEG")
    return buffer.getvalue()


def patched_frame(offset: int, value: int) -> bytes:
    content = bytearray(pillow("RGB", "JPEG"))
    content[content.index(b"\xff\xc0") + 4 + offset] = value
    return bytes(content)


def other_cases() -> Iterator[Case]:
    for mode, options in product(
        ("RGB", "RGBA"), ({"lossless": True}, {"quality": 80}, {"lossless": True, "exact": True})
    ):
        yield Case(
            f"WebP {mode} {options}", lambda mode=mode, options=options: pillow(mode, "WEBP", **options), by_pillow
        )
    for orientation in range(2, 9):
        yield Case(
            f"WebP orientation {orientation}",
            lambda orientation=orientation: pillow("RGB", "WEBP", lossless=True, exif=oriented(orientation)),
            lambda content, orientation=orientation: turned(by_pillow(content), orientation),
        )
    yield Case("WebP animated", lambda: animated("WEBP"), "animated WebP")
    yield Case("WebP cut", lambda: pillow("RGB", "WEBP")[:-20], "truncated or damaged")
    for mode in ("1", "L", "P"):
        yield Case(f"GIF {mode}", lambda mode=mode: pillow(mode, "GIF"), by_pillow)
        yield Case(f"GIF {mode} not interlaced", lambda mode=mode: pillow(mode, "GIF", interlace=0), by_pillow)
    yield Case("GIF animated", lambda: animated("GIF"), "several frames")
    yield Case("GIF transparent", lambda: transparent_gif(), "transparent")
    yield Case("GIF cut", lambda: pillow("P", "GIF")[:-100], "truncated or damaged")
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield Case(f"BMP {mode}", lambda mode=mode: pillow(mode, "BMP"), by_pillow)
    for channels in (1, 3, 4):
        yield Case(
            f"BMP by OpenCV {channels}", lambda channels=channels: by_opencv(".bmp", samples("u1", channels)), by_pillow
        )
    yield Case("BMP rows from the top", bmp_from_top, by_pillow)
    yield Case("BMP 4 bits", bmp_of_4_bits, by_pillow)
    yield Case("BMP cut", lambda: pillow("RGB", "BMP")[:-20], "truncated or damaged")
    for bits, compression in ((16, 0), (16, 3), (8, 1), (4, 2)):
        yield Case(
            f"BMP {bits} bits, compression {compression}",
            lambda bits=bits, compression=compression: bmp(bits, compression),
            "BMP of",
        )
    for mode, kind in (("1", "P4"), ("L", "P5"), ("RGB", "P6")):
        yield Case(f"PNM {kind}", lambda mode=mode: pillow(mode, "PPM"), by_pillow)
    for kind, largest in product((2, 3, 5, 6), (1, 15, 255, 1000, 65535)):
        # Pillow reads more than 255 levels as 32-bit integers; the definition of the format is the reader here.
        yield Case(
            f"PNM P{kind} largest {largest}", lambda kind=kind, largest=largest: pnm(kind, largest), by_definition
        )
    yield Case("PNM P1", lambda: pnm(1, 1), by_pillow)
    yield Case("PNM cut", lambda: pnm(6, 255)[:-1], "truncated or damaged")
    yield Case("PNM twice", lambda: pnm(6, 255) * 2, "several")
    for start, name in (
        (b"#?RADIANCE\n", "Radiance"),
        (b"v/1\x01", "OpenEXR"),
        (b"Pf\n16 16\n-1\n", "PFM"),
        (b"P7\nWIDTH 16", "PAM"),
        (b"\x59\xa6\x6a\x95", "Sun raster"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x1cftypheic", "HEIC"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\3\4", "ZIP"),
        (b"\x10\0\0\0\0\0\0\0" + b'{"__metadata__":{', "product"),
        (b"this is a letter", "none of these"),
    ):
        yield Case(f"refused: {name} {start[:4]!r}", lambda start=start: start + b"\0" * 100, name)


def transparent_gif() -> bytes:
    image = Image.fromarray(picture()[..., :3]).convert("P")
    buffer = io.BytesIO()
    image.save(buffer, "GIF", transparency=image.getpixel((0, 0)))
    return buffer.getvalue()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def bmp(bits: int, compression: int) -> bytes:
    row = (WIDTH * bits + 31) // 32 * 4
    return struct.pack(
        "<2sIIIIiiHHIIIIII", b"BM", 0, 0, 54, 40, WIDTH, HEIGHT, 1, bits, compression, 0, 0, 0, 0, 0
    ) + bytes(row * HEIGHT)


def bmp_from_top() -> bytes:
    content = bytearray(pillow("RGB", "BMP"))
    content[22:26] = struct.pack("<i", -HEIGHT)
    return bytes(content)


def bmp_of_4_bits() -> bytes:
    row, rng = (WIDTH * 4 + 31) // 32 * 4, np.random.default_rng(1)
    start = 54 + 4 * 16
    header = struct.pack("<2sIIIIiiHHIIIIII", b"BM", 0, 0, start, 40, WIDTH, HEIGHT, 1, 4, 0, 0, 0, 0, 16, 0)
    return header + b"".join(rng.bytes(3) + b"\0" for _ in range(16)) + rng.bytes(row * HEIGHT)


def pnm(kind: int, largest: int) -> bytes:
    values = pnm_values(kind, largest)
    head = f"P{kind} # a comment\n{WIDTH}\n# another\n {HEIGHT}" + ("\n" if kind == 1 else f" {largest}\n")
    if kind <= 3:
        return head.encode() + b" ".join(str(value).encode() for value in values.ravel()) + b"\n"
    return head.encode() + values.astype(np.uint8 if largest < 256 else ">u2").tobytes()


def pnm_values(kind: int, largest: int) -> np.ndarray:
    shape = (HEIGHT, WIDTH, 3 if kind in (3, 6) else 1)
    return np.random.default_rng(kind).integers(0, largest + 1, shape)


def by_definition(content: bytes) -> np.ndarray:
    kind, largest = content[1] - ord("0"), int(content.split(b"\n")[3].split()[1])
    levels = np.floor(pnm_values(kind, largest) * 255 / largest + 0.5).astype(np.uint8)
    return np.broadcast_to(levels, (HEIGHT, WIDTH, 3))


CASES = [
    *tiff_cases(),
    *other_writers_of_tiff(),
    *few_bits_of_tiff(),
    *refused_tiffs(),
    *png_cases(),
    *jpeg_cases(),
    *other_cases(),
]


def test_matrix_is_as_large_as_promised() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_reads_as_another_program_does_or_says_why_not(case: Case) -> None:
    content = case.content()
    if isinstance(case.expected, str):
        with pytest.raises(ImageError, match=case.expected):
            read_image(content)
        return
    expected = case.expected(content).astype(int)
    first = read_image(content)
    assert first.shape == expected.shape
    difference = np.abs(first.astype(int) - expected).max()
    assert difference <= case.tolerance
    np.testing.assert_array_equal(read_image(content), first)
