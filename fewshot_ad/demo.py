"""Enroll and inspect real images end to end, with nothing downloaded."""

from __future__ import annotations

import contextlib
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewshot_ad.arguments import choice, whole_number
from fewshot_ad.arrays import Progress, Uint8Array
from fewshot_ad.check.sheet import grid
from fewshot_ad.encoder import load_encoder
from fewshot_ad.enrollment.defects import blot, missing_piece, scratch
from fewshot_ad.errors import FewshotADError, ImageError, SupportSetError
from fewshot_ad.images import list_images, read_image
from fewshot_ad.inspection.result import Inspection
from fewshot_ad.inspection.verdict import verdict_column
from fewshot_ad.inspector import Inspector
from fewshot_ad.storage import check_name, check_output, write_atomically, write_failure

TEXTURES = ("brick", "grass", "gravel")
# Side in pixels of the crops, and of an image on the contact sheet.
CROP = 128
TILE = 192
COLUMNS = 4
MAX_IMAGES_PER_KIND = 6
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The signature and the chunk IHDR, which stands first.
_HEADER_BYTES = len(_SIGNATURE) + 25
MARK = "demo"
ProgressContext = Callable[[bool], AbstractContextManager["Progress | None"]]


@dataclass(frozen=True)
class DemoImage:
    """An image to inspect.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        truth: `good`, or the kind of defect.
        name: Name of the overlay's file, without suffix.
    """

    pixels: Uint8Array
    truth: str
    name: str


@dataclass(frozen=True)
class DemoProduct:
    """A product of the demo: its name, support images (H, W, 3) uint8 RGB and images to inspect."""

    name: str
    support: list[Uint8Array]
    tests: list[DemoImage]


def texture_product(name: str, shots: int, seed: int) -> DemoProduct:
    """A textured "product": crops of an image that ships with scikit-image (CC0, 512 x 512), with drawn defects.

    The crops do not overlap, so no pixel is both enrolled and inspected.

    Args:
        name: `brick`, `grass` or `gravel`.
        shots: Number of support crops, at most 10.
        seed: Of the order of the crops and of the defects.

    Raises:
        ArgumentError: There is no such product, or the seed is negative.
        FewshotADError: scikit-image is not installed.
        SupportSetError: There are not as many crops.
    """
    choice(name, "name", TEXTURES)
    whole_number(seed, "seed", 0)
    try:
        from skimage import data
    except ImportError as error:
        raise FewshotADError("the demo's images ship with scikit-image: pip install 'fewshot-ad[demo]'.") from error
    image = read_image(getattr(data, name)())
    crops = [
        np.ascontiguousarray(image[y : y + CROP, x : x + CROP])
        for y in range(0, image.shape[0] - CROP + 1, CROP)
        for x in range(0, image.shape[1] - CROP + 1, CROP)
    ]
    if not 1 <= shots <= len(crops) - 6:
        raise SupportSetError(f"expected 1 to {len(crops) - 6} shots for the shipped images, got {shots}.")
    rng = np.random.default_rng([seed, TEXTURES.index(name)])
    order = rng.permutation(len(crops))
    support = [crops[i] for i in order[:shots]]
    test_crops = [crops[i] for i in order[shots:]]
    tests = [DemoImage(crop, "good", f"{name}_good_{i}") for i, crop in enumerate(test_crops[:4])]
    for i, crop in enumerate(test_crops[-2:]):
        tests += [
            DemoImage(scratch(crop, rng, length=0.5, width=0.015, contrast=0.9), "scratch", f"{name}_scratch_{i}"),
            DemoImage(blot(crop, rng, radius=0.15, contrast=0.9), "stain", f"{name}_stain_{i}"),
            DemoImage(missing_piece(crop, rng, radius=0.15), "missing", f"{name}_missing_{i}"),
        ]
    return DemoProduct(name, support, tests)


def folder_product(folder: Path, shots: int, seed: int) -> DemoProduct:
    """A product in the layout of MVTec AD: `train/good`, `test/good` and `test/<defect>`.

    Args:
        folder: Folder of the product.
        shots: Number of support images, drawn from `train/good`.
        seed: Of the draw.

    Raises:
        ArgumentError: The seed is negative.
        SupportSetError: The folder does not have that layout, or no image was asked for.
        ImageError: A support image cannot be read.
    """
    whole_number(shots, "shots", 1, error=SupportSetError)
    whole_number(seed, "seed", 0)
    train, test = folder / "train" / "good", folder / "test"
    if not os.path.isdir(folder):
        raise SupportSetError(f"expected the MVTec layout in {folder}, but there is no such folder. Check the path.")
    if not os.path.isdir(train) or not os.path.isdir(test):
        raise SupportSetError(
            f"expected the MVTec layout, with {train} and {test}, got a folder without them. Name the product's folder."
        )
    paths = list_images(train)
    indices = np.random.default_rng(seed).permutation(len(paths))[:shots]
    support = [read_image(paths[i]) for i in sorted(indices)]
    tests = []
    try:
        kinds = sorted(p for p in test.iterdir() if p.is_dir() and any(p.iterdir()))
    except OSError as error:
        raise SupportSetError(f"{test}: cannot be listed ({error.strerror}). Check the permissions.") from error
    for kind in kinds:
        for path in list_images(kind)[:MAX_IMAGES_PER_KIND]:
            with contextlib.suppress(ImageError):
                tests.append(DemoImage(read_image(path), kind.name, f"{kind.name}_{path.stem}"))
    if not tests:
        raise SupportSetError(f"expected folders of images in {test}, such as good/ and scratch/; found none.")
    return DemoProduct(folder.resolve().name, support, tests)


def run_demo(
    output: Path,
    data: Path | None,
    shots: int,
    seed: int,
    progress_context: ProgressContext,
    *,
    force: bool = False,
) -> tuple[list[str], dict[str, Any]]:
    """Enroll the products of the demo, inspect their test images, and write overlays and a contact sheet.

    Args:
        output: Folder for overlays, contact sheet and artifacts.
        data: Folder of a product in the layout of MVTec AD; None = the images that ship with scikit-image.
        shots: Size of each support set.
        seed: Of all random draws.
        progress_context: Context manager that shows progress and returns a progress callback.
        force: Whether to replace what an earlier demo has not left there: products that have grown, and other PNGs.

    Returns:
        The report as lines of text, and the same as plain JSON types.

    Raises:
        FewshotADError: A product cannot be loaded, the folder cannot be written, or something in it must stay.
    """
    check_name(output)
    if data is not None:
        if any(output.resolve().is_relative_to((data / part).resolve()) for part in ("train", "test")):
            raise FewshotADError(f"{output}: expected a folder outside {data}, which is read. Choose another --output.")
        products = [folder_product(data, shots, seed)]
        lines = [f"Images from {data}, at most {MAX_IMAGES_PER_KIND} of each kind."]
    else:
        products = [texture_product(name, shots, seed) for name in TEXTURES]
        lines = [
            "Real images from scikit-image (brick, grass, gravel; CC0), cut into crops.",
            "The defects (scratch, stain, missing piece) are drawn by this demo.",
        ]
    # Before the work, not after it.
    for name in ["contact_sheet", *(test.name for product in products for test in product.tests)]:
        check_png(output / f"{name}.png", MARK, force=force)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FewshotADError(write_failure(output, error)) from error
    report: list[dict[str, Any]] = []
    encoder = load_encoder()
    tiles: list[Uint8Array] = []
    right = total = 0
    for product in products:
        start = time.perf_counter()
        with progress_context(False) as progress:
            inspector = Inspector.from_support(
                product.support, product=product.name, encoder=encoder, seed=seed, progress=progress
            )
        seconds = time.perf_counter() - start
        inspector.save(output / f"{product.name}.fsad", force=force)
        lines += ["", f"{product.name}: enrolled from {len(product.support)} images in {seconds:.1f} s"]
        lines += [f"  {reason}" for reason in inspector.enrollment.reasons]
        lines.append(f"  {inspector.calibration.explain()}")
        lines += [f"  {line}" for line in _limits(inspector)]
        for test in product.tests:
            result = inspector.inspect(test.pixels)
            correct = result.is_anomalous == (test.truth != "good")
            right += correct
            total += 1
            path = output / f"{test.name}.png"
            write_png(path, result.overlay(bar=True), MARK, force=force)
            tiles.append(_tile(product.name, test, result))
            report.append({"product": product.name, "truth": test.truth, "overlay": str(path), **result.as_dict()})
            lines.append(
                f"  {verdict_column(result.severity, result.is_anomalous)}  "
                f"{result.timings_ms['total']:5.1f} ms  truth: {test.truth:<14} {path.name}"
                f"{'' if correct else '   <- wrong'}"
            )
    write_png(output / "contact_sheet.png", grid(tiles, COLUMNS), MARK, force=force)
    lines += [
        "",
        f"{right} of {total} verdicts right. Overlays and .fsad files are in {output.resolve()},",
        f"all images side by side in {(output / 'contact_sheet.png').resolve()}",
    ]
    return lines, {"right": right, "total": total, "output": str(output), "inspections": report}


def _limits(inspector: Inspector) -> list[str]:
    """What the product finds, and a warning where it hardly sees small defects."""
    found = inspector.sensitivity
    if found is None:
        return []
    image_hw = inspector.references[0].image_hw if inspector.references else None
    warning = found.warning(image_hw)
    return [found.explain(image_hw), *([] if warning is None else [f"warning: {warning}"])]


def write_png(path: Path, rgb: Uint8Array, mark: str | None = None, *, force: bool = False) -> None:
    """Write an image as PNG; its folder is made if it does not exist, and an older PNG is replaced.

    Args:
        path: The file.
        rgb: (H, W, 3) uint8 RGB.
        mark: See `png`; only an older PNG of the same mark is replaced then.
        force: Whether any PNG is replaced all the same.

    Raises:
        FewshotADError: The file cannot be written, or something is there that must stay.
    """
    check_png(path, mark, force=force)
    try:
        write_atomically(path, png(rgb, mark), durable=False)
    except OSError as error:
        raise FewshotADError(write_failure(path, error)) from error


def png(rgb: Uint8Array, mark: str | None = None) -> bytes:
    """An image as the content of a PNG file.

    Args:
        rgb: (H, W, 3) uint8 RGB.
        mark: A word that says what has drawn it, such as `overlay`, so that it is not taken for an image of a part and
            may be replaced by the next of its kind; it is written as a text chunk right behind the header.
    """
    content: bytes = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()
    return content if mark is None else content[:_HEADER_BYTES] + _mark_chunk(mark) + content[_HEADER_BYTES:]


def check_png(
    path: Path,
    mark: str | None = None,
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    force: bool = False,
) -> None:
    """Make sure that a PNG can be written without a loss; nothing is changed on disk.

    Args:
        path: The file.
        mark: As for `write_png`.
        inputs: Files that are read, none of which may be replaced.
        force: As for `write_png`.

    Raises:
        FewshotADError: Something is there that must stay.
    """

    def obstacle(path: Path) -> str | None:
        if not bears_mark(path, None):
            return "expected an older PNG to replace, or no file, got something else. Choose another folder."
        if mark is None or force or bears_mark(path, mark):
            return None
        return (
            f"expected an older {mark} picture of fewshot-ad to replace, or no file, got another PNG. Choose another "
            "folder, or give --force to replace it."
        )

    check_output(path, inputs=inputs, obstacle=obstacle)


def bears_mark(path: Path, mark: str | None) -> bool:
    """Whether a file is a PNG that `png` has written with this mark; with any or none, if that is None."""
    expected = b"" if mark is None else _mark_chunk(mark)
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES + len(expected))
    except OSError:
        return False
    return head.startswith(_SIGNATURE) and head[_HEADER_BYTES:] == expected


def _mark_chunk(mark: str) -> bytes:
    body = b"tEXt" + b"fewshot-ad\0" + mark.encode("latin-1")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _tile(product_name: str, test: DemoImage, result: Inspection) -> Uint8Array:
    pair = [cv2.resize(p, (TILE, TILE), interpolation=cv2.INTER_AREA) for p in (test.pixels, result.overlay())]
    strip = np.full((28, 2 * TILE, 3), (170, 40, 40) if result.is_anomalous else (40, 120, 60), np.uint8)
    text = f"{product_name}: {result.verdict.upper()} {result.severity_text}  (truth: {test.truth})"
    cv2.putText(strip, text, (6, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([np.hstack(pair), strip])
