from __future__ import annotations

import base64
import importlib.util
import json
import re
import sys

import cv2
import numpy as np
import pytest

from fewshot_ad import FewshotADError, Inspector
from fewshot_ad.inspection.annotations import coco, masks_of, polygons_of
from fewshot_ad.inspection.result import Inspection
from tests.conftest import make_part


@pytest.fixture(scope="module")
def bad(inspector: Inspector, broken_part: np.ndarray) -> Inspection:
    return inspector.inspect(cv2.resize(broken_part, (320, 240)))


@pytest.fixture(scope="module")
def good(inspector: Inspector) -> Inspection:
    return inspector.inspect(make_part(40))


def test_outlines_enclose_what_the_region_counts(bad: Inspection) -> None:
    assert bad.regions
    masks = masks_of(bad)
    assert masks.shape == (len(bad.regions), 240, 320)
    for region, mask in zip(bad.regions, masks, strict=True):
        assert mask.sum() == pytest.approx(region.area, rel=0.2)
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        assert (x, y, width, height) == pytest.approx(region.box, abs=4)
        assert mask[region.peak[1], region.peak[0]]
        for polygon in polygons_of(bad, region):
            assert len(polygon) >= 3
            assert polygon.min() >= 0
            assert (polygon <= [320, 240]).all()


def test_coco_is_read_by_others(bad: Inspection, good: Inspection) -> None:
    dataset = json.loads(json.dumps(coco([good, bad], ["good.png", "bad.png"])))
    assert [(image["file_name"], image["verdict"]) for image in dataset["images"]] == [
        ("good.png", "good"),
        ("bad.png", "anomalous"),
    ]
    assert [a["image_id"] for a in dataset["annotations"]] == [2] * len(bad.regions)
    for annotation, region in zip(dataset["annotations"], bad.regions, strict=True):
        assert annotation["bbox"] == list(region.box)
        assert annotation["score"] == region.severity
        for flat in annotation["segmentation"]:
            points = np.array(flat, np.float32).reshape(-1, 2)
            assert len(points) >= 3
        area = sum(cv2.contourArea(np.array(flat, np.float32).reshape(-1, 2)) for flat in annotation["segmentation"])
        assert area == pytest.approx(annotation["area"], rel=0.25)
    assert bad.to_coco()["images"][0]["file_name"] == "image[0]"


def test_labelme_has_a_shape_per_outline(bad: Inspection, good: Inspection) -> None:
    file = json.loads(json.dumps(bad.to_labelme("../line/bad.png")))
    assert (file["imagePath"], file["imageWidth"], file["imageHeight"]) == ("../line/bad.png", 320, 240)
    assert file["flags"] == {"anomalous": True}
    assert {shape["group_id"] for shape in file["shapes"]} == set(range(1, len(bad.regions) + 1))
    assert all(shape["shape_type"] == "polygon" and len(shape["points"]) >= 3 for shape in file["shapes"])
    assert good.to_labelme()["shapes"] == []


def test_supervision_takes_them(bad: Inspection, good: Inspection) -> None:
    supervision = pytest.importorskip("supervision", reason="pip install 'fewshot-ad[supervision]'")
    found = bad.to_supervision()
    assert isinstance(found, supervision.Detections)
    assert len(found) == len(bad.regions)
    x, y, width, height = bad.regions[0].box
    assert found.xyxy[0].tolist() == [x, y, x + width, y + height]
    assert found.confidence[0] == pytest.approx(bad.regions[0].severity)
    assert found.mask.shape == (len(bad.regions), 240, 320)
    assert bad.to_supervision(masks=False).mask is None
    assert len(good.to_supervision()) == 0
    annotated = supervision.BoxAnnotator().annotate(bad.image.copy(), found)
    assert (annotated != bad.image).any()


def test_without_supervision_the_extra_is_named(bad: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(FewshotADError, match=r"fewshot-ad\[supervision\]"):
        bad.to_supervision()


def test_a_notebook_shows_the_verdict(bad: Inspection, good: Inspection) -> None:
    for inspection in (bad, good):
        picture = cv2.imdecode(np.frombuffer(inspection._repr_png_(), np.uint8), cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(picture, inspection.overlay(bar=True))
        page = inspection._repr_html_()
        data = re.search(r'src="data:image/png;base64,([^"]+)"', page)
        assert data is not None
        assert base64.b64decode(data[1]) == inspection._repr_png_()
        assert page.count("<tr>") == (len(inspection.regions) + 1 if inspection.regions else 0)
    assert bad.to_dict() == bad.as_dict()


def test_names_cannot_write_into_the_page(inspector: Inspector, broken_part: np.ndarray) -> None:
    import dataclasses

    odd = dataclasses.replace(inspector.inspect(broken_part), name="<script>alert(1)</script>")
    assert "<script>" not in odd._repr_html_()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_tensors_are_images_channels_first_or_last(inspector: Inspector, broken_part: np.ndarray) -> None:
    import torch

    expected = inspector.inspect(broken_part).score
    tensor = torch.from_numpy(broken_part)
    last, first = tensor, tensor.permute(2, 0, 1)
    for image in (last, first, (first / 255).requires_grad_()):
        assert inspector.inspect(image).score == pytest.approx(expected, rel=1e-5)
    for batch in (torch.stack([first, first]), torch.stack([last, last]), [first, last], iter([first, last])):
        scores = [result.score for result in inspector.inspect_batch(batch)]  # type: ignore[union-attr]
        assert scores == pytest.approx([expected] * 2, rel=1e-5)
