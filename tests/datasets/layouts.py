"""A tiny copy of every published layout, with what its reader must say of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.datasets.drawing import FIRST, HW, SECOND, Expected, drawn, image, mask, text
from tests.datasets.own_boxes import coco, yolo
from tests.datasets.surfaces import aitex, neu_det, rsdd, severstal

__all__ = ["FIRST", "HW", "LAYOUTS", "SECOND", "Expected", "image", "mask", "text"]


def mvtec(root: Path, categories: tuple[str, ...] = ("bottle", "screw")) -> list[Expected]:
    expected = []
    for category in categories:
        for i in range(3):
            expected.append(Expected(f"{category}/train/good/{i:03d}.png", category, "train", 0, "good"))
        expected.append(Expected(f"{category}/test/good/000.png", category, "test", 0, "good"))
        for kind in ("crack", "dirt"):
            expected.append(Expected(f"{category}/test/{kind}/000.png", category, "test", 1, kind, 1))
            mask(root / category / "ground_truth" / kind / "000_mask.png")
    return drawn(root, expected)


def mpdd(root: Path) -> list[Expected]:
    return mvtec(root, ("connector", "tubes"))


def miad(root: Path) -> list[Expected]:
    return mvtec(root, ("metal_welding", "witness_mark"))


def eyecandies(root: Path) -> list[Expected]:
    expected = []
    for folder, split, stem, label in (
        ("train", "train", "000", 0),
        ("train", "train", "001", 0),
        ("val", "validation", "00", 0),
        ("test_public", "test", "00", 0),
        ("test_public", "test", "01", 1),
    ):
        sample = f"Lollipop/{folder}/data/{stem}"
        kind = ("good", "anomaly")[label]
        expected.append(Expected(f"{sample}_image_5.png", "Lollipop", split, label, kind, label))
        mask(root / f"{sample}_mask.png", where=FIRST if label else None)
        for other in ("image_0", "depth", "normals"):
            image(root / f"{sample}_{other}.png")
    image(root / "Lollipop/test_private/data/000_image_5.png")
    return drawn(root, expected)


def mvtec_3d(root: Path) -> list[Expected]:
    expected = [Expected("bagel/train/good/rgb/001.png", "bagel", "train", 0, "good")]
    for split, kind in (("train", "good"), ("validation", "good"), ("test", "good"), ("test", "hole")):
        label = int(kind != "good")
        expected.append(Expected(f"bagel/{split}/{kind}/rgb/000.png", "bagel", split, label, kind, label))
        text(root / f"bagel/{split}/{kind}/xyz/000.tiff", "point cloud")
        if split == "test":
            mask(root / f"bagel/test/{kind}/gt/000.png", where=FIRST if label else None)
    return drawn(root, expected)


def mvtec_loco(root: Path) -> list[Expected]:
    expected = [
        Expected("pushpins/train/good/000.png", "pushpins", "train", 0, "good"),
        Expected("pushpins/train/good/001.png", "pushpins", "train", 0, "good"),
        Expected("pushpins/validation/good/000.png", "pushpins", "validation", 0, "good"),
        Expected("pushpins/test/good/000.png", "pushpins", "test", 0, "good"),
        Expected("pushpins/test/logical_anomalies/000.png", "pushpins", "test", 1, "logical_anomalies", 2),
        Expected("pushpins/test/structural_anomalies/000.png", "pushpins", "test", 1, "structural_anomalies", 1),
    ]
    truth = root / "pushpins/ground_truth"
    mask(truth / "logical_anomalies/000/000.png", 234)
    mask(truth / "logical_anomalies/000/001.png", 1, SECOND)
    mask(truth / "structural_anomalies/000/000.png", 255)
    enough = ((234, 12, False), (1, 0.5, True), (255, 1.0, True))
    text(
        root / "pushpins/defects_config.json",
        json.dumps(
            [
                {
                    "defect_name": f"kind {value}",
                    "pixel_value": value,
                    "saturation_threshold": threshold,
                    "relative_saturation": relative,
                }
                for value, threshold, relative in enough
            ]
        ),
    )
    return drawn(root, expected)


def mvtec_ad_2(root: Path) -> list[Expected]:
    expected = [
        Expected("vial/train/good/000_regular.png", "vial", "train", 0, "good"),
        Expected("vial/train/good/001_regular.png", "vial", "train", 0, "good"),
        Expected("vial/validation/good/000_regular.png", "vial", "validation", 0, "good"),
        Expected("vial/test_public/good/000_shift_1.png", "vial", "test", 0, "good"),
        Expected("vial/test_public/bad/000_overexposed.png", "vial", "test", 1, "bad", 1),
    ]
    mask(root / "vial/test_public/ground_truth/bad/000_overexposed_mask.png")
    image(root / "vial/test_private/000_regular.png")
    return drawn(root, expected)


def visa(root: Path) -> list[Expected]:
    rows, expected = ["object,split,label,image,mask"], []
    for category in ("candle", "pcb1"):
        for split, number in (("train", 0), ("train", 1), ("test", 2)):
            name = f"{category}/Data/Images/Normal/{number:04d}.JPG"
            rows.append(f"{category},{split},normal,{name},")
            expected.append(Expected(name, category, split, 0, "good"))
        name, truth = f"{category}/Data/Images/Anomaly/000.JPG", f"{category}/Data/Masks/Anomaly/000.png"
        rows.append(f"{category},test,anomaly,{name},{truth}")
        expected.append(Expected(name, category, "test", 1, "anomaly", 1))
        mask(root / truth, 3)
    text(root / "split_csv/1cls.csv", "\n".join(rows))
    return drawn(root, expected)


def btad(root: Path) -> list[Expected]:
    expected = []
    for category, suffix, mask_suffix in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        expected.append(Expected(f"{category}/train/ok/0000.{suffix}", category, "train", 0, "good"))
        expected.append(Expected(f"{category}/test/ok/0000.{suffix}", category, "test", 0, "good"))
        expected.append(Expected(f"{category}/test/ko/0000.{suffix}", category, "test", 1, "ko", 1))
        mask(root / category / f"ground_truth/ko/0000.{mask_suffix}")
    return drawn(root, expected)


def kolektor_sdd(root: Path) -> list[Expected]:
    expected = []
    for part in range(1, 6):
        folder = f"kos{part:02d}"
        split = "test" if part == 5 else "train"
        expected.append(Expected(f"{folder}/Part0.jpg", "commutator", split, 0, "good"))
        expected.append(Expected(f"{folder}/Part1.jpg", "commutator", "test", 1, "defect", 1))
        mask(root / folder / "Part0_label.bmp", where=None)
        mask(root / folder / "Part1_label.bmp")
    return drawn(root, expected)


def kolektor_sdd2(root: Path) -> list[Expected]:
    expected = []
    for split, first in (("train", 10000), ("test", 20000)):
        for label in (0, 1):
            number, kind = first + label, ("good", "defect")[label]
            expected.append(Expected(f"{split}/{number}.png", "surface", split, label, kind, label))
            mask(root / split / f"{number}_GT.png", where=FIRST if label else None)
    # The published archive holds such a copy.
    image(root / "train/10001 (copy).png")
    mask(root / "train/10001_GT (copy).png")
    return drawn(root, expected)


def magnetic_tile(root: Path) -> list[Expected]:
    expected = []
    # In the order of the numbers, not of the names: 20604 is the last.
    for exposure, number in enumerate((90, 889, 937, 1855, 20604)):
        name, split = f"MT_Free/Imgs/exp{exposure}_num_{number}", "test" if number == 20604 else "train"
        expected.append(Expected(f"{name}.jpg", "magnetic_tile", split, 0, "good"))
        mask(root / f"{name}.png", where=None)
    for kind in ("Blowhole", "Crack"):
        name = f"MT_{kind}/Imgs/exp1_num_100"
        expected.append(Expected(f"{name}.jpg", "magnetic_tile", "test", 1, kind.lower(), 1))
        mask(root / f"{name}.png")
    return drawn(root, expected)


def dagm(root: Path) -> list[Expected]:
    expected = []
    for category in ("Class2", "Class10"):
        for folder, split in (("Train", "train"), ("Test", "test")):
            expected.append(Expected(f"{category}/{folder}/0001.PNG", category, split, 0, "good"))
            expected.append(Expected(f"{category}/{folder}/0002.PNG", category, split, 1, "defect", 1))
            label = root / category / folder / "Label"
            mask(label / "0002_label.PNG")
            text(label / "Labels.txt", "1\n1\t0\t0001.PNG\t0\t0\n2\t1\t0002.PNG\t0\t0002_label.PNG\n")
    return drawn(root, expected)


def real_iad(root: Path) -> list[Expected]:
    expected: list[Expected] = []
    lists: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
    for view in ("C1", "C5"):
        category = f"toy_{view}"
        for split, sample, kind in (("train", 1, "OK"), ("test", 2, "OK"), ("test", 3, "HS")):
            folder = f"OK/S{sample:04d}" if kind == "OK" else f"NG/HS/S{sample:04d}"
            stem = f"{folder}/toy_{sample:04d}_{'OK' if kind == 'OK' else 'NG_HS'}_{view}_20231023"
            truth = f"{stem}.png" if kind != "OK" else None
            lists[split].append(
                {"category": "toy", "anomaly_class": kind, "image_path": f"{stem}.jpg", "mask_path": truth}
            )
            label = int(kind != "OK")
            name = f"realiad_1024/toy/{stem}.jpg"
            expected.append(Expected(name, category, split, label, "HS" if label else "good", label))
            if truth:
                mask(root / "realiad_1024/toy" / truth)
    meta = {"prefix": "toy/", "normal_class": "OK"}
    text(root / "realiad_jsons/realiad_jsons/toy.json", json.dumps({"meta": meta, **lists}))
    # Of a product that was not copied, only the list is there.
    text(root / "realiad_jsons/realiad_jsons/usb.json", json.dumps({"meta": meta, **lists}))
    return drawn(root, expected)


def real_iad_products(root: Path) -> list[Expected]:
    return [one._replace(category="toy") for one in real_iad(root)]


def deep_pcb(root: Path) -> list[Expected]:
    expected = []
    rows = {"one": "6 4 14 10 1\n", "two": "6 4 14 10 2\n20 15 30 20 6\n"}
    for file, split, group, annotation in (
        ("trainval.txt", "train", "00041", rows["one"]),
        ("test.txt", "test", "12000", rows["two"]),
    ):
        stem = f"group{group}/{group}/{group}000"
        text(root / "PCBData" / file, f"{stem}.jpg group{group}/{group}_not/{group}000.txt\n")
        text(root / f"PCBData/group{group}/{group}_not/{group}000.txt", annotation)
        boxes = annotation.count("\n")
        kind = "open" if boxes == 1 else "combined"
        expected.append(Expected(f"PCBData/{stem}_temp.jpg", f"group{group}", split, 0, "good"))
        expected.append(Expected(f"PCBData/{stem}_test.jpg", f"group{group}", split, 1, kind, boxes=boxes))
    return drawn(root, expected)


def elpv(root: Path) -> list[Expected]:
    expected, lines = [], []
    kinds = {"0.0": "good", "0.3333333333333333": "possibly_defective", "0.6666666666666666": "likely_defective"}
    number = 0
    for category in ("mono", "poly"):
        for i, probability in enumerate(["0.0"] * 5 + ["0.3333333333333333", "0.6666666666666666", "1.0"]):
            number += 1
            name, kind = f"images/cell{number:04d}.png", kinds.get(probability, "defective")
            lines.append(f"{name}  {probability}   {category}")
            expected.append(
                Expected(name, category, "train" if i < 4 else "test", int(kind != "good"), kind),
            )
    text(root / "labels.csv", "\n".join(lines) + "\n")
    return drawn(root, expected)


def folder(root: Path) -> list[Expected]:
    own = root.name
    expected = [Expected(f"good/{i}.png", own, "train", 0, "good") for i in range(5)]
    # Folders in these, as of days or cameras; their names may repeat.
    expected.append(Expected("good/monday/left/4.png", own, "test", 0, "good"))
    expected.append(Expected("bad/a.png", own, "test", 1, "bad", 1))
    expected.append(Expected("bad/scratch/b.png", own, "test", 1, "scratch", 1))
    expected.append(Expected("bad/scratch/monday/b.png", own, "test", 1, "scratch", 1))
    mask(root / "masks/a_mask.png")
    mask(root / "masks/scratch/b.png")
    mask(root / "masks/scratch/monday/b.png")
    return drawn(root, expected)


def manifest(root: Path) -> list[Expected]:
    expected = [Expected(f"day1/{i}.png", "nut", "test" if i == 4 else "train", 0, "good") for i in range(5)]
    expected.append(Expected("day2/a.png", "nut", "test", 1, "scratch", 2))
    expected.append(Expected("day2/b.png", "bolt", "test", 1, "bad", 1))
    rows = ["path, label, category, defect_type, mask"]
    rows += [f"{e.path}, good, nut, , " for e in expected[:5]]
    rows += ["day2/a.png, BAD, nut, scratch, m/a0.png; m/a1.png", "day2/b.png, 1, bolt, , m/b.png"]
    text(root / "manifest.csv", "\n".join(rows))
    mask(root / "m/a0.png")
    mask(root / "m/a1.png", where=SECOND)
    mask(root / "m/b.png")
    return drawn(root, expected)


LAYOUTS: dict[str, Callable[[Path], list[Expected]]] = {
    builder.__name__: builder
    for builder in (
        aitex,
        btad,
        dagm,
        deep_pcb,
        elpv,
        eyecandies,
        folder,
        kolektor_sdd,
        kolektor_sdd2,
        magnetic_tile,
        manifest,
        miad,
        mpdd,
        mvtec_3d,
        mvtec,
        mvtec_ad_2,
        mvtec_loco,
        neu_det,
        coco,
        yolo,
        real_iad,
        real_iad_products,
        rsdd,
        severstal,
        visa,
    )
}
