from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad.arrays import BoolArray
from fewshot_ad.datasets import DatasetCard, DatasetError, dataset, dataset_cards, open_dataset
from fewshot_ad.datasets.sample import read_mask
from fewshot_ad.datasets.splits import held_out
from fewshot_ad.images import read_image
from tests.datasets.layouts import FIRST, HW, LAYOUTS, SECOND, Expected, image, mask, text

NAMES = sorted(LAYOUTS)


@pytest.fixture(params=NAMES)
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, list[Expected]]:
    root = tmp_path / "copy"
    return request.param, root, LAYOUTS[request.param](root)


def test_every_dataset_has_a_card_and_a_layout_to_test_it_on() -> None:
    cards = dataset_cards()
    assert set(cards) == set(LAYOUTS)
    for name, card in cards.items():
        assert card.name == name
        assert all((card.title, card.license, card.source, card.citation, card.layout, card.marks))
        assert set(card.counts) <= set(card.categories)
        assert card.archive is None or card.archive.url.startswith("https://")


@pytest.mark.parametrize("name", [n for n, c in dataset_cards().items() if c.counts])
def test_published_counts_add_up(name: str) -> None:
    card = dataset_cards()[name]
    cells = [cell for counts in card.counts.values() for cell in counts]
    known = sum(cell for cell in cells if cell is not None)
    assert known == card.images or (None in cells and known < (card.images or 0))


@pytest.mark.parametrize(
    ("name", "totals"),
    [
        ("mvtec", (3629, 467, 1258, 0, 0)),
        ("mvtec_3d", (2656, 249, 948, 294, 0)),
        ("visa", (8659, 962, 1200, 0, 0)),
        ("mpdd", (888, 176, 282, 0, 0)),
        ("dagm", (8050 - 1046, 8050 - 1054, 1054, 0, 1046)),
        ("kolektor_sdd2", (2085, 894, 110, 0, 246)),
        ("deep_pcb", (1000, 500, 500, 0, 1000)),
        ("elpv", (1207, 301, 1116, 0, 0)),
        ("magnetic_tile", (762, 190, 392, 0, 0)),
        ("eyecandies", (10000, 250, 250, 1000, 0)),
        ("severstal", (4722, 1180, 6666, 0, 0)),
        ("neu_det", (0, 0, 1800, 0, 0)),
        ("rsdd", (0, 0, 67 + 128, 0, 0)),
    ],
)
def test_totals_are_those_the_papers_give(name: str, totals: tuple[int, ...]) -> None:
    counts = dataset_cards()[name].counts.values()
    assert tuple(sum(cell or 0 for cell in column) for column in zip(*counts, strict=True)) == totals


def test_samples_are_what_the_layout_says(copy: tuple[str, Path, list[Expected]]) -> None:
    name, root, expected = copy
    samples = [
        Expected(
            s.path.relative_to(root).as_posix(),
            s.category,
            s.split,
            s.label,
            s.defect_type,
            len(s.mask_paths),
            len(s.boxes) + len(s.box_shares),
            len(s.runs),
        )
        for s in open_dataset(name, root).samples()
    ]
    assert Counter(samples) == Counter(expected)
    assert all(path.is_file() for s in open_dataset(name, root).samples() for path in (s.path, *s.mask_paths))


def test_categories_and_filters(copy: tuple[str, Path, list[Expected]]) -> None:
    name, root, expected = copy
    opened = open_dataset(name, str(root))
    assert sorted(opened.categories) == sorted({e.category for e in expected})
    assert set(opened.categories) <= set(opened.card.categories or opened.categories)
    for category in opened.categories:
        for split in ("train", "validation", "test"):
            there = [e for e in expected if (e.category, e.split) == (category, split)]
            assert len(list(opened.samples(category, split))) == len(there)
    with pytest.raises(DatasetError, match=r"expected a category among .*got 'no such'"):
        opened.samples("no such")
    with pytest.raises(DatasetError, match="expected split train, validation or test, got 'val'"):
        opened.samples(split="val")  # type: ignore[arg-type]


def test_masks_are_the_union_of_what_is_marked(copy: tuple[str, Path, list[Expected]]) -> None:
    name, root, _ = copy
    for sample in open_dataset(name, root).samples():
        if not sample.has_mask:
            assert dataset_cards()[name].masks == "none"
            with pytest.raises(DatasetError, match="expected a mask of its defect"):
                sample.mask(HW)
            continue
        expected_mask = np.zeros(HW, bool)
        if sample.label == 1:
            expected_mask[FIRST] = True
        if len(sample.mask_paths) + len(sample.boxes) + len(sample.box_shares) + len(sample.runs) == 2:
            expected_mask[SECOND] = True
        mask_pixels = sample.mask(HW)
        assert mask_pixels.dtype == np.bool_
        np.testing.assert_array_equal(mask_pixels, expected_mask)
        if sample.mask_paths:
            with pytest.raises(DatasetError, match="expected the size of its image, 33 x 24 pixels, got 32 x 24"):
                sample.mask((24, 33))


def test_how_much_of_a_defect_is_enough(tmp_path: Path) -> None:
    LAYOUTS["mvtec_loco"](tmp_path)
    samples = {s.defect_type: s for s in open_dataset("mvtec_loco", tmp_path).samples(split="test")}
    # 48 pixels, of which twelve are enough; 50 of which half are.
    first, second = samples["logical_anomalies"].saturated_regions(HW)
    assert (first.enough, second.enough) == (12, 25)
    assert first.mask[FIRST].all()
    assert first.mask.sum() == 48
    assert second.mask[SECOND].all()
    assert second.mask.sum() == 50
    assert [one.enough for one in samples["structural_anomalies"].saturated_regions(HW)] == [48]
    assert samples["good"].saturated_regions(HW) == []
    with pytest.raises(DatasetError, match="expected the size of its image, 33 x 24 pixels"):
        samples["logical_anomalies"].saturated_regions((24, 33))


def test_a_mask_value_without_saturation(tmp_path: Path) -> None:
    LAYOUTS["mvtec_loco"](tmp_path)
    listed = tmp_path / "pushpins/defects_config.json"
    (bad,) = [s for s in open_dataset("mvtec_loco", tmp_path).samples() if s.defect_type == "structural_anomalies"]
    listed.write_text(listed.read_text().replace("255", "7"))
    with pytest.raises(DatasetError, match=r"expected one of the values \[1, 7, 234\].*got 255"):
        bad.saturated_regions(HW)


@pytest.mark.parametrize("text", ["", "{}x", '[{"pixel_value": 1}]', "[3]"])
def test_a_damaged_file_of_saturations(tmp_path: Path, text: str) -> None:
    LAYOUTS["mvtec_loco"](tmp_path)
    (tmp_path / "pushpins/defects_config.json").write_text(text)
    (bad,) = [s for s in open_dataset("mvtec_loco", tmp_path).samples() if s.defect_type == "structural_anomalies"]
    with pytest.raises(DatasetError, match=r"defects_config\.json.*: expected a JSON list of objects with pixel_value"):
        bad.saturated_regions(HW)


def test_no_file_of_saturations(tmp_path: Path) -> None:
    LAYOUTS["mvtec_loco"](tmp_path)
    (tmp_path / "pushpins/defects_config.json").unlink()
    sample = next(open_dataset("mvtec_loco", tmp_path).samples(split="test"))
    with pytest.raises(DatasetError, match="does not say how much of a defect is enough"):
        sample.saturated_regions(HW)


def test_listing_opens_no_image(copy: tuple[str, Path, list[Expected]]) -> None:
    name, root, expected = copy
    for sample in expected:
        (root / sample.path).write_bytes(b"")
    assert len(list(open_dataset(name, root).samples())) == len(expected)


def test_samples_come_one_by_one(tmp_path: Path) -> None:
    LAYOUTS["mvtec"](tmp_path)
    samples = open_dataset("mvtec", tmp_path).samples()
    assert isinstance(samples, Iterator)
    next(samples)
    image(tmp_path / "screw/test/good/late.png")
    assert "late.png" in {sample.path.name for sample in samples}


@pytest.mark.parametrize(("name", "good"), [("kolektor_sdd", "kos01/Part0"), ("kolektor_sdd2", "train/10000")])
def test_masks_that_tell_good_from_bad_are_decoded_once_and_again_when_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, good: str
) -> None:
    LAYOUTS[name](tmp_path)
    decoded: list[Path] = []

    def counted(path: Path) -> BoolArray:
        decoded.append(path)
        return read_mask(path)

    monkeypatch.setattr("fewshot_ad.datasets.kolektor_sdd.read_mask", counted)
    opened = open_dataset(name, tmp_path)
    before = list(opened.samples())
    first = len(decoded)
    assert first == len(before)
    assert list(opened.samples()) == before
    assert len(decoded) == first
    (changed,) = (path for path in decoded if path.relative_to(tmp_path).as_posix().startswith(good))
    mask(changed)
    os.utime(changed, ns=(1, 1))
    defective = {s.path.relative_to(tmp_path).with_suffix("").as_posix() for s in opened.samples() if s.label == 1}
    assert good in defective
    assert decoded[first:] == [changed]
    # Without its mask, an image does not count as good.
    changed.unlink()
    assert good in {s.path.relative_to(tmp_path).with_suffix("").as_posix() for s in opened.samples() if s.label == 1}


def test_another_layout_is_refused_and_named(copy: tuple[str, Path, list[Expected]]) -> None:
    name, root, _ = copy
    # Two ways to read one layout.
    same = ("real_iad", "real_iad_products")
    for other in NAMES:
        if other == name or (other in same and name in same):
            continue
        named = same[0] if name in same else name
        with pytest.raises(DatasetError, match=f"(open it|Open it) as '{named}'"):
            open_dataset(other, root)


def test_own_products_in_mvtec_layout_are_read(tmp_path: Path) -> None:
    expected = LAYOUTS["mvtec"](tmp_path)
    (tmp_path / "bottle").rename(tmp_path / "gasket")
    (tmp_path / "screw").rename(tmp_path / "bracket")
    (tmp_path / "notes").mkdir()
    (tmp_path / "gasket/ground_truth/crack/000_mask.png").rename(tmp_path / "gasket/ground_truth/crack/000.png")
    image(tmp_path / "gasket/train/good/._000.png")
    opened = open_dataset("mvtec", tmp_path)
    assert opened.categories == ("bracket", "gasket")
    samples = list(opened.samples())
    assert len(samples) == len(expected)
    assert all(s.mask_paths for s in samples if s.label == 1)


def test_wrong_roots_say_what_is_missing(tmp_path: Path) -> None:
    root = tmp_path / "here" / "mvtec"
    LAYOUTS["mvtec"](root)
    with pytest.raises(DatasetError, match="expected the folder of MVTec AD, but nothing is there"):
        open_dataset("mvtec", tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="but a file is there"):
        open_dataset("mvtec", root / "bottle/train/good/000.png")
    with pytest.raises(DatasetError, match=rf"nothing matches \*/train/good/.*starts from {root}: name that folder"):
        open_dataset("mvtec", root / "bottle")
    with pytest.raises(DatasetError, match=rf"it holds here.*starts from {root}: name that folder"):
        open_dataset("mvtec", tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError, match=r"nothing matches split_csv/1cls.csv.*it holds nothing.*datasets show visa"):
        open_dataset("visa", empty)
    with pytest.raises(DatasetError, match=r"expected a dataset among aitex.*got 'imagenet'"):
        open_dataset("imagenet", root)


def test_two_datasets_of_one_name_are_refused() -> None:
    card = dataset_cards()["visa"]
    with pytest.raises(ValueError, match="two datasets are called 'visa'"):
        dataset(card)(lambda root: iter(()))
    assert isinstance(card, DatasetCard)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,labels", "a.png,good"], "expected a first line with the columns path, label.*got path, labels"),
        ([], "got nothing"),
        (["path,label,extra", "a.png,good,1"], "got path, label, extra"),
        (["path,label", "a.png,fine"], "line 2: expected a label among good, ok, 0.*got 'fine'"),
        (["path,label,split", "a.png,good,val"], "line 2: expected split train, validation or test, got 'val'"),
        (["path,label", "a.png,good", "a.png"], "line 3: expected 2 cells, got another number"),
        (["path,label", "a.png,good,test"], "line 2: expected 2 cells"),
        (["path,label", "a.png,good", "a.png,bad"], "line 3: a.png is listed twice"),
        (["path,label", "../a.png,good"], r"line 2: expected a path relative to .*got '../a.png'"),
        (["path,label", "/etc/a.png,good"], "got '/etc/a.png'"),
        (["path,label", ",good"], "got ''"),
        (["path,label,mask", "a.png,good,m.png"], "expected no mask of a good image"),
        (["path,label,defect_type", "a.png,good,scratch"], "expected the defect type 'good'"),
        (["path,label,defect_type", "a.png,bad,good"], "got 'good' with the label 'bad'"),
        (["path,label", *(f"{i}.png,x" for i in range(9))], "And 6 more"),
    ],
)
def test_manifest_errors_name_the_line(tmp_path: Path, lines: list[str], message: str) -> None:
    text(tmp_path / "manifest.csv", "\n".join(lines))
    with pytest.raises(DatasetError, match=message):
        list(open_dataset("manifest", tmp_path).samples())


def test_manifest_takes_its_split_and_the_name_of_its_folder(tmp_path: Path) -> None:
    text(tmp_path / "nuts/manifest.csv", "\ufefflabel,path,split\nok,a.png,train\nng,b.png,validation\n0,c.png,test\n")
    samples = list(open_dataset("manifest", tmp_path / "nuts").samples())
    assert [(s.path.name, s.split, s.label, s.category) for s in samples] == [
        ("a.png", "train", 0, "nuts"),
        ("b.png", "validation", 1, "nuts"),
        ("c.png", "test", 0, "nuts"),
    ]
    assert not samples[1].has_mask


def test_a_manifest_may_leave_the_split_of_some_to_the_rule(tmp_path: Path) -> None:
    lines = ["path,label,split", "z.png,good,train", "d.png,bad,", *(f"{number}.png,good," for number in range(5))]
    text(tmp_path / "manifest.csv", "\n".join(lines))
    samples = list(open_dataset("manifest", tmp_path).samples())
    assert [s.split for s in samples] == ["train", "test", "train", "train", "train", "train", "test"]


@pytest.mark.parametrize("line", ["images/a.png 0.5 mono", "images/a.png 1.0", "images/a.png 1.0 thin", "a nan mono"])
def test_elpv_says_which_line_is_wrong(tmp_path: Path, line: str) -> None:
    LAYOUTS["elpv"](tmp_path)
    text(tmp_path / "labels.csv", f"images/cell0001.png 0 mono\n{line}\n")
    with pytest.raises(DatasetError, match=r"labels.csv, line 2: expected an image, a probability"):
        list(open_dataset("elpv", tmp_path).samples())


def test_visa_lists_that_lead_out_of_the_copy_are_refused(tmp_path: Path) -> None:
    LAYOUTS["visa"](tmp_path)
    text(tmp_path / "split_csv/1cls.csv", "object,split,label,image,mask\ncandle,train,normal,../../secret.jpg,\n")
    with pytest.raises(DatasetError, match=r"1cls.csv, line 2: expected a path relative to"):
        list(open_dataset("visa", tmp_path).samples())


def test_real_iad_reads_the_other_products_when_one_list_is_damaged(tmp_path: Path) -> None:
    expected = LAYOUTS["real_iad"](tmp_path)
    text(tmp_path / "realiad_jsons/realiad_jsons/audiojack.json", '{"train": [')
    samples = open_dataset("real_iad", tmp_path).samples()
    assert len([next(samples) for _ in expected]) == len(expected)
    with pytest.raises(DatasetError, match=r"audiojack\.json.*: expected JSON with lists"):
        next(samples)


def test_dagm_knows_a_defect_by_its_list_when_the_mask_is_gone(tmp_path: Path) -> None:
    LAYOUTS["dagm"](tmp_path)
    (tmp_path / "Class2/Test/Label/0002_label.PNG").unlink()
    (sample,) = (s for s in open_dataset("dagm", tmp_path).samples("Class2", "test") if s.label == 1)
    assert sample.path.name == "0002.PNG"
    assert not sample.has_mask


def test_a_mask_of_any_value_and_form_counts(tmp_path: Path) -> None:
    color = np.zeros((*HW, 4), np.uint8)
    color[..., 3] = 255
    color[3, 5] = (1, 0, 0, 255)
    cv2.imwrite(str(tmp_path / "rgba.png"), color)
    deep = np.zeros(HW, np.uint16)
    deep[3, 5] = 1
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    for name in ("rgba.png", "deep.png"):
        assert np.argwhere(read_mask(tmp_path / name)).tolist() == [[3, 5]]
    cv2.imwrite(str(tmp_path / "deep.tiff"), deep)
    assert np.argwhere(read_mask(tmp_path / "deep.tiff")).tolist() == [[3, 5]]
    mask(tmp_path / "lossy.jpg")
    assert abs(int(read_mask(tmp_path / "lossy.jpg").sum()) - 48) <= 6


def test_a_damaged_mask_is_refused(tmp_path: Path) -> None:
    mask(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    for name, damaged in (("cut.png", content[:-20]), ("empty.png", b""), ("text.png", b"no mask at all")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DatasetError, match=f"{name}: expected .*"):
            read_mask(tmp_path / name)
    with pytest.raises(DatasetError, match="does not exist"):
        read_mask(tmp_path / "gone.png")


def test_held_out_parts_are_the_last_by_name() -> None:
    assert held_out(["b", "a", "a", "c"]) == {"c"}
    assert held_out([f"{i:03d}" for i in range(50)]) == {f"{i:03d}" for i in range(40, 50)}
    assert held_out(["a"]) == held_out([]) == frozenset()


def test_real_images(shared_data: Path) -> None:
    opened = open_dataset("mvtec", shared_data)
    assert "bottle" in opened.categories
    counts = Counter((s.split, s.label) for s in opened.samples("bottle"))
    assert counts == {("train", 0): 209, ("test", 0): 20, ("test", 1): 63}
    assert {s.defect_type for s in opened.samples("bottle", "test")} == {
        "good",
        "broken_large",
        "broken_small",
        "contamination",
    }
    sample = next(s for s in opened.samples("bottle") if s.label == 1)
    defective = sample.mask(read_image(sample.path).shape[:2])
    assert 0.001 < defective.mean() < 0.5
