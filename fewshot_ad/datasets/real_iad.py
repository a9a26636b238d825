"""Real-IAD: thirty products, each recorded by five cameras; a category is a product and camera, or a product."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fewshot_ad.datasets.card import DatasetCard, dataset
from fewshot_ad.datasets.files import entries, inside, read_text
from fewshot_ad.datasets.sample import GOOD, Sample, Split
from fewshot_ad.documents.json_text import parse_json
from fewshot_ad.errors import DatasetError

PRODUCTS = (
    "audiojack",
    "bottle_cap",
    "button_battery",
    "end_cap",
    "eraser",
    "fire_hood",
    "mint",
    "mounts",
    "pcb",
    "phone_battery",
    "plastic_nut",
    "plastic_plug",
    "porcelain_doll",
    "regulator",
    "rolled_strip_base",
    "sim_card_set",
    "switch",
    "tape",
    "terminalblock",
    "toothbrush",
    "toy",
    "toy_brick",
    "transistor1",
    "u_block",
    "usb",
    "usb_adaptor",
    "vcpill",
    "wooden_beads",
    "woodstick",
    "zipper",
)
VIEWS = ("C1", "C2", "C3", "C4", "C5")
# Largest first: images are read in the highest resolution that the copy holds.
_RESOLUTIONS = ("realiad_raw", "realiad_1024", "realiad_512", "realiad_256")
_SPLITS: tuple[Split, ...] = ("train", "test")


_CARD = DatasetCard(
    name="real_iad",
    title="Real-IAD",
    categories=tuple(f"{product}_{view}" for product in PRODUCTS for view in VIEWS),
    license="CC-BY-NC-SA-4.0",
    source="https://realiad4ad.github.io/Real-IAD/",
    citation="Wang, Zhu, Gao, Gan, Zhang, Gu, Qian, Chen & Ma 2024, Real-IAD: A Real-World Multi-View Dataset for "
    "Benchmarking Versatile Industrial Anomaly Detection, CVPR",
    images=151050,
    masks="pixel",
    layout="""\
realiad_jsons/realiad_jsons/{product}.json (lists `train` and `test` of image_path, mask_path, anomaly_class)
realiad_1024/{product}/OK/S0001/{product}_0001_OK_C1_{time}.jpg
realiad_1024/{product}/NG/{defect type}/S0001/{product}_0001_NG_{defect type}_C1_{time}.jpg
realiad_1024/{product}/NG/{defect type}/S0001/{product}_0001_NG_{defect type}_C1_{time}.png (mask)
(or realiad_512, realiad_256, realiad_raw; categories are {product}_C1 to {product}_C5, one per camera)""",
    marks=("realiad_jsons/realiad_jsons/*.json", "realiad_*/*/OK"),
    mask_of=(r"(realiad_(?:raw|1024|512|256)/.+/NG/.+)\.png", r"\1"),
)


@dataset(_CARD)
def real_iad(root: Path) -> Iterator[Sample]:
    """Samples of Real-IAD by its split of all views, in the highest resolution that the copy holds.

    One category per product and camera. An unreadable split file is reported as an error only after the samples of all
    other files.
    """
    problems = []
    for table in entries(root / "realiad_jsons" / "realiad_jsons"):
        if table.suffix != ".json":
            continue
        try:
            yield from _product(root, table)
        except DatasetError as error:
            problems.append(str(error))
    if problems:
        raise DatasetError(" ".join(problems))


@dataset(
    dataclasses.replace(
        _CARD, name="real_iad_products", title="Real-IAD, all cameras of a product together", categories=PRODUCTS
    )
)
def real_iad_products(root: Path) -> Iterator[Sample]:
    """The same images; one category per product, whose five cameras are judged by one model."""
    for sample in real_iad(root):
        yield dataclasses.replace(sample, category=sample.category[: -len("_C1")])


_LISTS = "JSON with lists `train` and `test` of image_path, mask_path and anomaly_class"


def _product(root: Path, table: Path) -> Iterator[Sample]:
    try:
        content = parse_json(read_text(table), str(table), DatasetError, _LISTS)
        good = content.get("meta", {}).get("normal_class", "OK")
        lists = [(split, entry) for split in _SPLITS for entry in content[split]]
        rows = [
            (split, entry["image_path"], entry.get("mask_path") or "", entry["anomaly_class"]) for split, entry in lists
        ]
    except DatasetError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{table}: expected {_LISTS}, got something else ({type(error).__name__}: {error}). Copy the file again."
        ) from error
    folders = (root / resolution / table.stem for resolution in _RESOLUTIONS)
    folder = next((folder for folder in folders if folder.is_dir()), None)
    # A product whose images were not copied has no samples.
    if folder is None:
        return
    for split, image, mask, kind in rows:
        yield _sample(folder, table, split, image, mask, GOOD if kind == good else str(kind))


def _sample(folder: Path, table: Path, split: Split, image: Any, mask: Any, kind: str) -> Sample:
    view = re.search(r"_(C[1-5])_", Path(str(image)).name)
    if view is None:
        raise DatasetError(f"{table}: expected the camera (_C1_ to _C5_) in an image's name, got {image!r}.")
    path = inside(folder, str(image), str(table))
    masks = (inside(folder, str(mask), str(table)),) if mask and kind != GOOD else ()
    return Sample(path, f"{table.stem}_{view[1]}", split, int(kind != GOOD), kind, masks)
