"""A damaged file is refused, or reads the same whatever the memory held before."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_ad.errors import ImageError
from fewshot_ad.images import read_image
from tests.images.test_matrix import CASES, Case, picture, samples, tiff

READ = [case for case in CASES if not isinstance(case.expected, str)]
# One of each kind: every tenth, and all of the small formats.
SAMPLE = [case for index, case in enumerate(READ) if index % 10 == 0 or not case.name.startswith("TIFF")]
IN_A_CHILD = """
import hashlib, sys, pathlib
from fewshot_ad.errors import ImageError
from fewshot_ad.images import read_image
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        print(path.name, hashlib.sha256(read_image(path).tobytes()).hexdigest())
    except ImageError:
        print(path.name, "refused")
"""


def damages(content: bytes, seed: int) -> list[bytes]:
    """Cut, with a hole, with flipped bits, with bytes missing."""
    rng = np.random.default_rng(seed)
    cut = content[: rng.integers(len(content) // 2, len(content) - 4)]
    start = int(rng.integers(20, len(content) - 40))
    hole = content[:start] + bytes(min(400, len(content) - start)) + content[start + 400 :]
    flipped = bytearray(content)
    for place in rng.integers(8, len(content), 4):
        flipped[place] ^= 1 << int(rng.integers(8))
    missing = content[:start] + content[start + 7 :]
    return [cut, hole, bytes(flipped), missing]


@pytest.mark.skipif(sys.platform != "linux", reason="MALLOC_PERTURB_ is glibc's")
def test_pixels_do_not_depend_on_what_memory_held(tmp_path: Path) -> None:
    for index, case in enumerate(SAMPLE):
        content = case.content()
        for kind, damaged in enumerate([content, *damages(content, index)]):
            (tmp_path / f"{index:03d}_{kind}").write_bytes(damaged)
    outputs = []
    for fill in ("85", "170"):
        environment = {**os.environ, "MALLOC_PERTURB_": fill}
        run = subprocess.run(
            [sys.executable, "-c", IN_A_CHILD, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1]
    lines = outputs[0].splitlines()
    assert len(lines) == 5 * len(SAMPLE)
    assert not any("refused" in line for line in lines if line.split()[0].endswith("_0"))


@pytest.mark.parametrize("case", SAMPLE, ids=[case.name for case in SAMPLE])
def test_damage_raises_nothing_but_image_errors(case: Case) -> None:
    content = case.content()
    for seed in range(5):
        for damaged in damages(content, seed):
            try:
                pixels = read_image(damaged)
            except ImageError:
                continue
            np.testing.assert_array_equal(read_image(damaged), pixels)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd", "lzma", "jpeg"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 8}, {"tile": (16, 16)}, {"planarconfig": "separate"}])
def test_a_tiff_cut_anywhere_is_refused(compression: str | None, layout: dict[str, object]) -> None:
    pixels = samples("u1", 3)
    if "planarconfig" in layout:
        pixels = np.moveaxis(pixels, -1, 0)
    content = tiff(pixels, photometric="rgb", compression=compression, **layout)
    # tifffile writes the directory first, so that it stays whole.
    for kept in range(len(content) - 1, len(content) // 2, -len(content) // 40 + 1):
        with pytest.raises(ImageError, match="truncated or damaged"):
            read_image(content[:kept])


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "zstd", "lzma"])
def test_a_tiff_whose_strips_are_short_is_refused(compression: str) -> None:
    # The strips of fewer rows, under a directory that claims more.
    for height, width in ((37, 53), (36, 53), (37, 52)):
        pixels = samples("u1", 1)[:height, :width]
        short = bytearray(tiff(pixels, photometric="minisblack", compression=compression))
        at = short.index((257).to_bytes(2, "little"))
        short[at + 8 : at + 10] = (height + 1).to_bytes(2, "little")
        at = short.index((278).to_bytes(2, "little"))
        short[at + 8 : at + 10] = (height + 1).to_bytes(2, "little")
        with pytest.raises(ImageError, match="truncated or damaged"):
            read_image(bytes(short))


def jpeg_of_photograph(progressive: bool) -> bytes:
    rows, columns = np.mgrid[:400, :600]
    noise = np.random.default_rng(0).integers(0, 40, (400, 600, 3))
    waves = (np.sin(rows / 17)[..., None] * 60 + np.cos(columns / 23)[..., None] * 50 + 120 + noise).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(waves).save(buffer, "JPEG", quality=90, progressive=progressive)
    return buffer.getvalue()


@pytest.mark.parametrize(("progressive", "fill"), list(product((False, True), (0, 255))))
def test_a_jpeg_with_a_lost_disk_block_is_refused(progressive: bool, fill: int) -> None:
    content = jpeg_of_photograph(progressive)
    for start in range(700, len(content) - 4200, 1000):
        with pytest.raises(ImageError, match="truncated or damaged"):
            read_image(content[:start] + bytes([fill]) * 4096 + content[start + 4096 :])


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_jpeg_is_no_hole(mode: str, options: dict[str, bool], level: int) -> None:
    flat = Image.new("L", (3000, 2000), level).convert(mode)
    flat.putpixel((5, 5), 77 if mode == "L" else (77, 77, 77))
    buffer = io.BytesIO()
    flat.save(buffer, "JPEG", **options)
    assert int(np.median(read_image(buffer.getvalue()))) == level


def test_a_png_whose_checksums_were_repaired_is_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture()[..., :3]).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    at = content.index(b"IDAT")
    length = int.from_bytes(content[at - 4 : at], "big")
    content[at + 4 + length // 2 : at + 4 + length // 2 + 200] = bytes(200)
    content[at + 4 + length : at + 8 + length] = zlib.crc32(content[at : at + 4 + length]).to_bytes(4, "big")
    with pytest.raises(ImageError, match="truncated or damaged"):
        read_image(bytes(content))


def with_hole(content: bytes, start: int, length: int) -> bytes:
    return content[:start] + bytes(length) + content[start + length :]


def photograph() -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg_of_photograph(False))).convert("RGB"))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_a_lost_sector_is_refused(progressive: bool) -> None:
    content = jpeg_of_photograph(progressive)
    for start in range(700, len(content) - 600, 3000):
        with pytest.raises(ImageError, match="truncated or damaged"):
            read_image(with_hole(content, start, 512))


def test_a_packbits_tiff_with_a_hole_is_refused() -> None:
    content = tiff(photograph(), photometric="rgb", compression="packbits", rowsperstrip=16)
    for start in range(3000, len(content) - 600, 9001):
        with pytest.raises(ImageError, match=r"a strip or tile has \d+ of"):
            read_image(with_hole(content, start, 512))


@pytest.mark.parametrize(
    ("options", "length"), [({"quality": 80}, 512), ({"quality": 95}, 1024), ({"lossless": True}, 512)], ids=str
)
def test_a_webp_with_a_hole_is_refused(options: dict[str, int], length: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photograph()).save(buffer, "WEBP", **options)
    content = buffer.getvalue()
    for start in range(400, len(content) - 1100, 7000):
        with pytest.raises(ImageError, match="truncated or damaged"):
            read_image(with_hole(content, start, length))
    for kept in (len(content) // 3, len(content) // 2, len(content) * 9 // 10):
        with pytest.raises(ImageError, match="truncated or damaged"):
            read_image(content[:kept] + bytes(len(content) - kept))


def test_zeros_beside_the_pixels_of_a_webp_are_no_hole() -> None:
    buffer = io.BytesIO()
    Image.fromarray(photograph()).save(buffer, "WEBP", icc_profile=b"profile" + bytes(3000), xmp=bytes(2000))
    assert read_image(buffer.getvalue()).shape == (400, 600, 3)


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("method", [0, 4])
@pytest.mark.parametrize("noisy", [False, True])
def test_a_flat_webp_is_no_hole(lossless: bool, method: int, noisy: bool) -> None:
    flat = np.full((900, 900, 3), (200, 30, 90), np.uint8)
    if noisy:
        flat[:400] = np.random.default_rng(0).integers(0, 256, (400, 900, 3))
    buffer = io.BytesIO()
    Image.fromarray(flat).save(buffer, "WEBP", lossless=lossless, method=method, quality=30)
    assert read_image(buffer.getvalue()).shape == flat.shape


def test_a_color_that_the_palette_lacks_is_refused() -> None:
    indices = (np.arange(1024) % 8).astype(np.uint8).reshape(32, 32)
    indexed = Image.fromarray(indices).convert("P")
    indexed.putpalette(range(200, 224))
    for kind in ("PNG", "BMP"):
        buffer = io.BytesIO()
        indexed.save(buffer, kind, bits=8)
        content = buffer.getvalue()
        assert read_image(content).min() == 200
        # Two colors fewer.
        if kind == "PNG":
            at = content.index(b"PLTE")
            body = content[at : at + 4 + 18]
            chunk = (18).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
            content = content[: at - 4] + chunk + content[content.index(b"IDAT") - 4 :]
        else:
            content = content[:46] + (6).to_bytes(4, "little") + content[50:]
        with pytest.raises(ImageError, match="names a color that its palette lacks"):
            read_image(content)


@pytest.mark.parametrize("first", ["PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM"])
@pytest.mark.parametrize("second", ["PNG", "BMP", "WEBP", "GIF", "PPM", "TIFF"])
def test_an_image_behind_another_is_refused(first: str, second: str) -> None:
    contents = []
    for kind in (first, second):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (90, 80, 70)).save(buffer, kind)
        contents.append(buffer.getvalue())
    for between in (b"", bytes(3)):
        with pytest.raises(ImageError, match=r"expected one image, got several|follow its values"):
            read_image(between.join(contents))


def test_a_larger_jpeg_behind_another_is_refused() -> None:
    contents = []
    for side in (32, 64):
        buffer = io.BytesIO()
        Image.new("RGB", (side, side)).save(buffer, "JPEG")
        contents.append(buffer.getvalue())
    with pytest.raises(ImageError, match="several of 32 x 32 and 64 x 64 pixels"):
        read_image(b"".join(contents))
    assert read_image(b"".join(reversed(contents))).shape == (64, 64, 3)
