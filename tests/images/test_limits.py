"""Small files that claim much are refused before memory is taken, and quickly enough to notice."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_ad.errors import ImageError
from fewshot_ad.images import read_image
from tests.images.test_matrix import chunk, tiff

# The child may take this much more than it has after its imports.
ROOM = 300_000_000
IN_A_CHILD = """
import resource, sys
from fewshot_ad.errors import ImageError
from fewshot_ad.images import read_image
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for path in sys.argv[2:]:
    try:
        read_image(path)
        print("read")
    except ImageError as error:
        print(error)
"""


def png_header(width: int, height: int, depth: int, data: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def flipped_png() -> bytes:
    content = bytearray(png_header(100, 100, 8, zlib.compress(bytes(30_100))))
    content[17] ^= 1  # the width grows by 65536
    return bytes(content)


def jpeg_of_many_scans() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    at = content.rindex(b"\xff\xda")
    return content[:at] + content[at:-2] * 20_000 + content[-2:]


def tiff_of_signed_width() -> bytes:
    content = bytearray(tiff(np.zeros((64, 64), np.uint8), photometric="minisblack"))
    at = content.index(struct.pack("<H", 256))
    content[at : at + 12] = struct.pack("<HHIi", 256, 9, 1, 70_000)
    at = content.index(struct.pack("<H", 257))
    content[at : at + 12] = struct.pack("<HHIi", 257, 9, 1, 2_800)
    return bytes(content)


def tiff_of_repeated_strips() -> bytes:
    packed = zlib.compress(bytes(10_000_000))
    count = 1000
    head = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    offsets_at = 8 + len(packed) + 2 + 9 * 12 + 4
    tags = [
        (256, 4, 1, 10_000), (257, 4, 1, 19_000), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1),
        (273, 4, count, offsets_at), (277, 3, 1, 1), (278, 4, 1, 19), (279, 4, count, offsets_at + 4 * count),
    ]  # fmt: skip
    directory = struct.pack("<H", 9) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0\0\0\0"
    return head + packed + directory + struct.pack("<I", 8) * count + struct.pack("<I", len(packed)) * count


BOMBS = {
    "flipped.png": (flipped_png, "checksum"),
    "deep.png": (lambda: png_header(14142, 14142, 16, zlib.compress(bytes(1000))), "takes 3200 MB"),
    "wide.png": (lambda: png_header(65_000, 65_000, 8, b""), "at most 200 megapixels"),
    "signed.tif": (tiff_of_signed_width, "truncated or damaged"),
    "repeated.tif": (tiff_of_repeated_strips, "longer than the file"),
    "radiance.hdr": (lambda: b"#?RADIANCE\n\n-Y 14000 +X 14000\n", "Radiance"),
    "ones.pgm": (lambda: b"P5 " + b"1" * 1_000_000, "truncated or damaged"),
    "comments.pgm": (lambda: b"P5 " + b"#\n" * 500_000, "truncated or damaged"),
    "large.ppm": (lambda: b"P6 14000 14000 255\n", "truncated or damaged"),
    "scans.jpg": (jpeg_of_many_scans, "100 scans"),
    "fill.jpg": (lambda: b"\xff\xd8" + b"\xff" * 1_000_000, "truncated or damaged"),
    "markers.jpg": (lambda: b"\xff\xd8" + b"\xff\x01" * 500_000, "segments"),
    "large.bmp": (
        lambda: struct.pack("<2sIIIIiiHHI", b"BM", 0, 0, 54, 40, 14_000, 14_000, 1, 24, 0) + bytes(50),
        "damaged",
    ),
    "large.gif": (lambda: b"GIF89a" + struct.pack("<HHBBB", 14_000, 14_000, 0, 0, 0) + b";", "expected"),
    "large.webp": (
        lambda: b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4 + b"\xff\x3f\0" * 2,
        "268 megapixels",
    ),
}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no limit of memory that could be set")
def test_bombs_are_refused_in_little_memory(tmp_path: Path) -> None:
    for name, (content, _) in BOMBS.items():
        (tmp_path / name).write_bytes(content())
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(12_000_000_000)
    paths = [str(tmp_path / name) for name in (*BOMBS, "sparse.png")]
    run = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD, str(ROOM), *paths], capture_output=True, text=True, check=True
    )
    for line, (name, (_, reason)) in zip(run.stdout.splitlines(), BOMBS.items(), strict=False):
        assert name in line
        assert reason in line
    assert "sparse.png: expected a file of at most 600 MB, got 12000 MB" in run.stdout


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no limit of memory that could be set")
def test_too_little_memory_is_an_image_error(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6000, 6000, 3), np.uint8)).save(tmp_path / "large.png", compress_level=1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD, "50000000", str(tmp_path / "large.png")],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert "large.png" in run.stdout


@pytest.mark.parametrize("shape", [(16, 5000), (5000, 16, 3), (16, 2_000_000)])
def test_long_strips_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="at most 256:1"):
        read_image(np.broadcast_to(np.uint8(0), shape))
