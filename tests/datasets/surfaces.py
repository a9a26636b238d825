"""Tiny copies of datasets of fabric, steel and rails, with what their readers must say of them."""

from __future__ import annotations

from pathlib import Path

from tests.datasets.drawing import FIRST, SECOND, Expected, drawn, image, mask, run_lengths, text


def aitex(root: Path) -> list[Expected]:
    expected = []
    for fabric, roll in (("00", "2311694-2040n7u"), ("04", "2311517-195063u")):
        for i in range(1, 6):
            name = f"NODefect_images/{roll}/{i:04d}_000_{fabric}.png"
            expected.append(Expected(name, fabric, "test" if i == 5 else "train", 0, "good"))
    expected.append(Expected("Defect_images/0001_002_00.png", "00", "test", 1, "broken_end", 1))
    expected.append(Expected("Defect_images/0044_019_04.png", "04", "test", 1, "fuzzyball", 2))
    mask(root / "Mask_images/0001_002_00_mask.png")
    mask(root / "Mask_images/0044_019_04_mask1.png")
    mask(root / "Mask_images/0044_019_04_mask2.png", where=SECOND)
    # The published archive holds this one, without mask and of a fabric without good images.
    image(root / "Defect_images/0100_025_08.png")
    return drawn(root, expected)


def severstal(root: Path) -> list[Expected]:
    expected = [Expected(f"train_images/{i}.jpg", "steel", "test" if i == 4 else "train", 0, "good") for i in range(5)]
    expected.append(Expected("train_images/a.jpg", "steel", "test", 1, "class_3", runs=1))
    expected.append(Expected("train_images/b.jpg", "steel", "test", 1, "combined", runs=2))
    rows = ["ImageId,ClassId,EncodedPixels", f"a.jpg,3,{run_lengths(FIRST)}"]
    rows += [f"b.jpg,1,{run_lengths(FIRST)}", f"b.jpg,4,{run_lengths(SECOND)}"]
    text(root / "train.csv", "\n".join(rows))
    image(root / "test_images/c.jpg")
    return drawn(root, expected)


def neu_det(root: Path) -> list[Expected]:
    expected = [
        Expected(f"good/{i}.png", "hot_rolled_steel", "test" if i == 4 else "train", 0, "good") for i in range(5)
    ]
    for stem, places in (("crazing_1", (FIRST,)), ("rolled-in_scale_12", (FIRST, SECOND))):
        kind = stem.rpartition("_")[0]
        name = f"IMAGES/{stem}.jpg"
        expected.append(Expected(name, "hot_rolled_steel", "test", 1, kind, boxes=len(places)))
        boxes = "".join(
            f"<object><name>{kind}</name><bndbox><xmin>{x.start}</xmin><ymin>{y.start}</ymin><xmax>{x.stop}</xmax>"
            f"<ymax>{y.stop}</ymax></bndbox></object>"
            for y, x in places
        )
        text(root / f"ANNOTATIONS/{stem}.xml", f"<annotation><filename>{stem}</filename>{boxes}</annotation>")
    return drawn(root, expected)


def rsdd(root: Path) -> list[Expected]:
    expected = []
    for category in ("Type-I", "Type-II"):
        folder = f"{category} RSDDs dataset"
        for i in range(5):
            expected.append(Expected(f"{folder}/good/{i}.png", category, "test" if i == 4 else "train", 0, "good"))
        expected.append(Expected(f"{folder}/Rail surface images/rail_1.jpg", category, "test", 1, "defect", 1))
        mask(root / folder / "GroundTruth/rail_1.jpg")
    return drawn(root, expected)
