from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from fewshot_ad.errors import ImageError
from fewshot_ad.images import read_image
from fewshot_ad.images.sources import expand_sources


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), (0, 0), 2)


def test_rgb_array_is_returned_as_it_is(image: np.ndarray) -> None:
    assert read_image(image) is image


def test_bgr_is_swapped_and_gray_is_repeated(image: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(image, color="bgr"), image[..., ::-1])
    gray = read_image(image[..., 0])
    np.testing.assert_array_equal(gray, np.repeat(image[..., :1], 3, axis=2))


def test_png_rgba_and_palette_match_pil(tmp_path: Path, image: np.ndarray) -> None:
    rgba = np.dstack([image, np.full(image.shape[:2], 200, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), image)
    palette = Image.fromarray(image).convert("P")
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(read_image(palette), np.asarray(palette.convert("RGB")))


def test_sixteen_bit_gray_is_scaled_over_the_full_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    cv2.imwrite(str(tmp_path / "ramp.png"), ramp)
    read = read_image(tmp_path / "ramp.png")
    expected = np.rint(ramp / 257).astype(np.uint8)
    np.testing.assert_array_equal(read[..., 0], expected)
    np.testing.assert_array_equal(read_image(ramp), read)
    np.testing.assert_array_equal(read_image(Image.open(tmp_path / "ramp.png")), read)


def test_sixteen_bit_color_keeps_channel_order(tmp_path: Path, image: np.ndarray) -> None:
    deep = image.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), deep[..., ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), image)


def test_cmyk_jpeg_looks_as_pil_shows_it(tmp_path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    expected = np.asarray(Image.open(tmp_path / "cmyk.jpg").convert("RGB")).astype(int)
    assert np.abs(read_image(tmp_path / "cmyk.jpg").astype(int) - expected).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, image: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    from PIL import ImageOps

    stored = Image.open(tmp_path / "turned.jpg")
    expected = np.asarray(ImageOps.exif_transpose(stored)).astype(int)
    read = read_image(tmp_path / "turned.jpg")
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).mean() < 3
    np.testing.assert_array_equal(read_image(stored), expected)


def test_floats_are_0_to_1(image: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(image / 255.0), image)


def png_header_only(path: Path, width: int, height: int) -> None:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    body = b"IDAT" + zlib.compress(b"\0" * 1000)
    path.write_bytes(data + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))


def make_bad(kind: str, tmp_path: Path, image: np.ndarray) -> Path:
    path = tmp_path / "bad.png"
    if kind == "text":
        path.write_text("this is a letter, not an image\n" * 10)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated jpeg":
        path = tmp_path / "bad.jpg"
        Image.fromarray(image).save(path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "truncated png":
        Image.fromarray(image).save(path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "one pixel":
        Image.fromarray(image[:1, :1]).save(path)
    elif kind == "huge header":
        png_header_only(path, 20_000, 20_000)
    elif kind == "animated gif":
        path = tmp_path / "bad.gif"
        frames = [Image.fromarray(image).convert("P"), Image.fromarray(image[::-1].copy()).convert("P")]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    elif kind == "missing":
        path = tmp_path / "nowhere.png"
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "content is none of these"),
        ("empty", "0 bytes"),
        ("truncated jpeg", "truncated or damaged"),
        ("truncated png", "truncated or damaged"),
        ("one pixel", "at least 16 x 16 pixels, got 1 x 1"),
        ("huge header", "20000 x 20000 = 400 megapixels"),
        ("animated gif", "animated GIF of several frames"),
        ("missing", "does not exist"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, image: np.ndarray, kind: str, message: str) -> None:
    path = make_bad(kind, tmp_path, image)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_still_gif_is_read(tmp_path: Path, image: np.ndarray) -> None:
    still = Image.fromarray(image).convert("P")
    still.save(tmp_path / "still.gif")
    expected = np.asarray(Image.open(tmp_path / "still.gif").convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "still.gif"), expected)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((32, 32, 3), np.nan), "NaN or infinity"),
        (np.full((32, 32, 3), 200.0), "floats in 0..1, got 200..200"),
        (np.zeros((32, 32, 3), np.int32), "got int32"),
        (np.zeros((32, 32, 3), np.complex64), "got complex64"),
        (np.zeros((3, 32, 32), np.uint8), "channels first"),
        (np.zeros((32, 32, 2), np.uint8), r"expected shape \(H, W\)"),
        (np.zeros((0, 0, 3), np.uint8), "got 0 x 0"),
        (np.zeros(5, np.uint8), "expected shape"),
    ],
)
def test_bad_arrays_say_what_is_wrong(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(array)


def test_other_types_are_refused() -> None:
    with pytest.raises(ImageError, match="got dict"):
        read_image({"not": "an image"})  # type: ignore[arg-type]


@pytest.fixture
def content(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_encoded_images_are_read_from_memory(tmp_path: Path, image: np.ndarray, content: bytes) -> None:
    for source in (content, bytearray(content), memoryview(content), io.BytesIO(content)):
        np.testing.assert_array_equal(read_image(source), image)
    (tmp_path / "image.png").write_bytes(content)
    with (tmp_path / "image.png").open("rb") as file:
        np.testing.assert_array_equal(read_image(file), image)
        assert file.tell() == 0


def test_arrays_of_other_libraries_are_read(image: np.ndarray) -> None:
    class Tensor:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return image

    class Elsewhere:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise TypeError("cannot convert a tensor on another device")

    np.testing.assert_array_equal(read_image(Tensor()), image)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="another device"):
        read_image(Elsewhere())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (io.StringIO("text"), 'mode "rb"'),
        (b"", "0 bytes"),
        (np.array(["a.png", "b.png"]), "array of 2 objects or names"),
        (np.array([np.zeros((32, 32)), None], dtype=object), "array of 2 objects or names"),
        (np.array(1.5), r"expected shape .* got \(\)"),
        (np.zeros((32, 32), "datetime64[s]"), "got datetime64"),
        (np.zeros((16, 5000), np.uint8), "at most 256:1, got 5000 x 16"),
        ("a\0b.png", "no file can have this one"),
    ],
    ids=["text", "empty", "two names", "two objects", "number", "times", "strip", "null byte"],
)
def test_other_bad_sources_say_what_is_wrong(source: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(source)  # type: ignore[arg-type]


def test_a_closed_file_is_an_image_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image.png").write_bytes(content)
    file = (tmp_path / "image.png").open("rb")
    file.close()
    with pytest.raises(ImageError, match="closed file"):
        read_image(file)
    opened = Image.open(tmp_path / "image.png")
    opened.close()
    with pytest.raises(ImageError, match="the PIL image: expected a PIL image that can be decoded, got ValueError"):
        read_image(opened)


def test_damaged_exif_of_a_pil_image_is_ignored(image: np.ndarray) -> None:
    class Damaged:
        size = (60, 40)
        mode = "RGB"

        def getexif(self) -> dict[int, int]:
            raise SyntaxError("not a TIFF file")

        def load(self) -> None:
            pass

        def convert(self, mode: str) -> np.ndarray:
            return image

        def crop(self, box: tuple[int, int, int, int]) -> Damaged:
            return self

    np.testing.assert_array_equal(read_image(Damaged()), image)


def test_a_pil_animation_is_refused_and_its_frame_is_read(image: np.ndarray) -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(image), Image.fromarray(image[::-1].copy())]
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
    opened = Image.open(buffer)
    with pytest.raises(ImageError, match=r"2 pages or frames\. Give image\.copy\(\)"):
        read_image(opened)
    opened.seek(1)
    np.testing.assert_array_equal(read_image(opened.copy()), image[::-1])


def test_a_page_of_a_tiff_is_chosen(image: np.ndarray) -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(image), Image.fromarray(image[::-1].copy())]
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(buffer.getvalue(), page=0), image)
    np.testing.assert_array_equal(read_image(buffer.getvalue(), page=1), image[::-1])
    with pytest.raises(ImageError, match="page=2, but the TIFF has fewer"):
        read_image(buffer.getvalue(), page=2)
    with pytest.raises(ImageError, match="page as a whole number of at least 0, got -1"):
        read_image(buffer.getvalue(), page=-1)


def test_thumbnails_of_a_tiff_are_no_pages(image: np.ndarray) -> None:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(image, photometric="rgb", subifds=1, metadata=None)
        writer.write(image[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        writer.write(image[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read_image(buffer.getvalue()), image)


def test_pages_without_a_directory_are_noticed(image: np.ndarray) -> None:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    stack = np.stack([image[..., 0]] * 3)
    tifffile.imwrite(buffer, stack, imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(ImageError, match="several pages"):
        read_image(buffer.getvalue())
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(stack, photometric="minisblack", contiguous=True, truncate=True)
    with pytest.raises(ImageError, match="several pages"):
        read_image(buffer.getvalue())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_special_files(tmp_path: Path, image: np.ndarray, content: bytes) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    np.testing.assert_array_equal(read_image(pipe), image)
    writer.join()
    with pytest.raises(ImageError, match="a device or a socket"):
        read_image("/dev/zero")
    with pytest.raises(ImageError, match="got a folder"):
        read_image(tmp_path)


def test_sixteen_bits_are_converted_in_blocks(image: np.ndarray) -> None:
    deep = np.tile(image.astype(np.uint16) * 257, (50, 20, 1))
    assert deep.shape[0] * deep.shape[1] > 2 << 20
    np.testing.assert_array_equal(read_image(deep, color="bgr"), np.tile(image, (50, 20, 1))[..., ::-1])


def test_pixels_of_files_can_be_written_to(image: np.ndarray) -> None:
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind)
        assert read_image(buffer.getvalue()).flags.writeable, kind


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PNG", "WEBP"])
def test_a_pil_image_reads_as_its_file(image: np.ndarray, orientation: int, kind: str) -> None:
    opened = Image.fromarray(image)
    exif = opened.getexif()
    exif[0x112] = orientation
    buffer = io.BytesIO()
    opened.save(buffer, kind, exif=exif)
    expected = read_image(buffer.getvalue())
    assert expected.shape[:2] == ((60, 40) if orientation > 4 else (40, 60))
    loaded = Image.open(buffer)
    loaded.load()
    for given in (Image.open(buffer), loaded):
        for _ in range(2):
            actual = read_image(given)
            assert actual.shape == expected.shape
            assert np.abs(actual.astype(int) - expected).max() <= (0 if kind in ("TIFF", "PNG") else 3)


def test_a_pil_image_with_a_preview_reads_as_its_file(image: np.ndarray) -> None:
    whole, preview = Image.fromarray(image), Image.fromarray(image[::2, ::2].copy())
    for behind, is_read in ((preview, True), (whole, False)):
        buffer = io.BytesIO()
        whole.save(buffer, "MPO", save_all=True, append_images=[behind])
        for source in (buffer.getvalue(), Image.open(buffer)):
            if is_read:
                assert read_image(source).shape == image.shape
            else:
                with pytest.raises(ImageError, match="several of 60 x 40"):
                    read_image(source)


def test_8_bits_in_a_pil_image_of_32_do_not_become_black() -> None:
    levels = np.arange(1200, dtype=np.int32).reshape(30, 40) % 256
    with pytest.raises(ImageError, match=r"none above 255.*convert\('L'\)"):
        read_image(Image.fromarray(levels))
    assert read_image(Image.fromarray(levels * 257)).max() == 255


def test_a_file_object_is_read_from_its_position_on(content: bytes, image: np.ndarray) -> None:
    stream = io.BytesIO(b"header" + content)
    stream.seek(6)
    for _ in range(2):
        np.testing.assert_array_equal(read_image(stream), image)
    stream.seek(0, io.SEEK_END)
    with pytest.raises(ImageError, match=r"its end \(byte \d+\)\. Rewind it: f\.seek\(0\)"):
        read_image(stream)
    with pytest.raises(ImageError, match="empty file"):
        read_image(io.BytesIO())


class Source:
    """A file object whose `read` is given."""

    def __init__(self, chunks: list[Any]) -> None:
        self.chunks = chunks

    def read(self, size: int) -> Any:
        return self.chunks.pop(0)


async def arriving() -> bytes:
    return b""


def test_file_objects_of_all_kinds(content: bytes, image: np.ndarray) -> None:
    half = len(content) // 2
    chunks = [bytearray(content[:half]), memoryview(content)[half:], b""]
    np.testing.assert_array_equal(read_image(Source(chunks)), image)  # type: ignore[arg-type]
    for chunk, expected in (
        ("text", 'mode "rb"'),
        (None, "none have arrived yet"),
        (arriving(), r"await f\.read\(\)"),
        (3, "got int"),
    ):
        with pytest.raises(ImageError, match=expected):
            read_image(Source([chunk]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((1, 40, 60, 3), r"use array\[0\]\."),
        ((5, 40, 60, 3), r"use array\[0\] of the first"),
        ((1, 3, 40, 60), r"array\[0\]\.transpose\(1, 2, 0\)"),
        ((3, 40, 60), r"array\.transpose\(1, 2, 0\)"),
        ((4, 40, 60), r"array\.transpose\(1, 2, 0\)"),
        ((1, 40, 60), r"use array\[0\]"),
        ((40, 60, 2), r"use array\[\.\.\., 0\]"),
        ((40, 60, 7), "Give one image"),
        ((2400,), r"array\.reshape\(height, width, 3\)"),
        ((), "Give one image"),
    ],
)
def test_an_array_of_a_wrong_shape_is_told_its_fix(shape: tuple[int, ...], advice: str) -> None:
    with pytest.raises(ImageError, match=advice):
        read_image(np.zeros(shape, np.uint8))


def test_only_files_have_pages(image: np.ndarray) -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(image), Image.fromarray(image[::-1].copy())]
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(buffer.getvalue(), page=np.int64(1)), image[::-1])  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"fewshot_ad\.read_image\(path, page=0\)"):
        read_image(buffer.getvalue())
    for source in (image, frames[0]):
        with pytest.raises(ImageError, match="expected no page"):
            read_image(source, page=0)


def test_a_path_that_is_none_is_told_its_fix(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="expanduser"):
        read_image("~/missing.png")
    with pytest.raises(ImageError, match="download the file first"):
        read_image("https://example.org/image.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="a link to a file that does not exist"):
        read_image(tmp_path / "link.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFO")
def test_a_fifo_without_a_writer_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, image: np.ndarray
) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    monkeypatch.setattr("fewshot_ad.images.reading.PIPE_WAIT_S", 0.1)
    with pytest.raises(ImageError, match="nothing more came within"):
        read_image(tmp_path / "fifo.png")
    monkeypatch.undo()
    writer = threading.Thread(target=(tmp_path / "fifo.png").write_bytes, args=(content,))
    writer.start()
    np.testing.assert_array_equal(read_image(tmp_path / "fifo.png"), image)
    writer.join()


def test_a_view_of_an_array_is_the_array(image: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(memoryview(image)), image)


def test_masked_values_are_refused(image: np.ndarray) -> None:
    masked = np.ma.masked_array(image, image > 100)
    for source in (masked, [masked], np.ma.stack([masked, masked])):
        [first, *_] = expand_sources(source)
        with pytest.raises(ImageError, match="expected an array without masked values"):
            read_image(first)
    np.testing.assert_array_equal(read_image(np.ma.masked_array(image)), image)
