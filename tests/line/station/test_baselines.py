"""A station that judges with a fitted baseline beside its products."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from fewshot_ad.errors import StationError, ZooError
from fewshot_ad.line.settings import parse_settings
from fewshot_ad.line.station import check_settings
from fewshot_ad.zoo.fitted import Baseline
from tests.conftest import make_part
from tests.line.conftest import png
from tests.line.station.conftest import MakeClient, running_of

GOOD, BAD = make_part(31, 96), make_part(30, 96, defect=True)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted baseline."""
    folder = tmp_path_factory.mktemp("fitted") / "padim"
    Baseline.fit("padim", [make_part(seed, 96) for seed in range(5)], product="nut", image_size=96).save(folder)
    return folder


@pytest.fixture
def client(make_client: MakeClient, fitted: Path) -> TestClient:
    """A client of a station with that baseline and a product."""
    return make_client(load_baseline=Baseline.load, baselines=[str(fitted)])


def sent(client: TestClient, image: np.ndarray, address: str = "/api/products/nut/inspect") -> dict[str, Any]:
    """The answer to an image."""
    answer = client.post(address, content=png(image), headers={"content-type": "image/png"})
    assert answer.status_code == 200, answer.text
    record: dict[str, Any] = answer.json()
    return record


def test_it_judges_and_its_verdicts_are_in_the_journal(client: TestClient, fitted: Path) -> None:
    bad, good = sent(client, BAD), sent(client, GOOD)
    assert (bad["verdict"], good["verdict"]) == ("anomalous", "good")
    expected = Baseline.load(fitted)
    assert bad["score"] == pytest.approx(expected.inspect(BAD).score, rel=1e-5)
    assert (bad["artifact"], bad["product"], bad["inspection"]["encoder"]) == (expected.artifact, "nut", "padim")
    records = client.get("/api/inspections").json()["records"]
    assert [record["id"] for record in records] == [good["id"], bad["id"]]
    overlay = client.get(f"/api/inspections/{bad['id']}/overlay")
    drawn = cv2.imdecode(np.frombuffer(overlay.content, np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    assert drawn.shape == BAD.shape
    assert client.get(f"/api/inspections/{bad['id']}/nearest").status_code == 404
    # A verdict may be confirmed: that changes nothing of a product.
    assert client.post(f"/api/inspections/{bad['id']}/confirm", json={}).status_code == 200


def test_it_stands_in_the_list_with_what_is_known_of_it(client: TestClient) -> None:
    assert [(one["name"], one["baseline"]) for one in client.get("/api/products").json()] == [
        ("nut", "padim"),
        ("washer", None),
    ]
    said = client.get("/api/products/nut").json()
    assert said["facts"]["Baseline"] == "padim"
    assert said["scores"]["threshold"] > 0
    assert client.get("/api/health").json()["products"] == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", ""),
        ("POST", "/undo"),
        ("POST", "/accept"),
        ("GET", "/drift"),
        ("GET", "/limits.png"),
    ],
)
def test_what_only_products_have_is_refused_with_the_reason(client: TestClient, method: str, path: str) -> None:
    content = png(GOOD) if path == "/accept" else b""
    answer = client.request(method, f"/api/products/nut{path}", content=content, headers={"content-type": "image/png"})
    assert answer.status_code == 409, answer.text
    assert "a fitted baseline judges" in answer.json()["error"]


def test_its_name_is_taken(client: TestClient) -> None:
    files = [("images", (f"{seed}.png", png(make_part(seed)), "image/png")) for seed in range(3)]
    answer = client.post("/api/products/nut", files=files, data={"replace": "true"})
    assert answer.status_code == 409
    assert "a fitted baseline judges" in answer.json()["error"]


def test_it_is_checked_as_a_product_is(client: TestClient) -> None:
    sides = [("good", ("good.png", png(GOOD), "image/png")), ("bad", ("bad.png", png(BAD), "image/png"))]
    job = client.post("/api/products/nut/check", files=sides).json()
    for _ in range(600):
        job = client.get(f"/api/jobs/{job['id']}").json()
        if job["state"] in ("done", "failed"):
            break
        time.sleep(0.05)
    assert job["state"] == "done", job
    assert [image["outcome"] for image in job["result"]["images"]] == ["right", "right"]


def test_an_image_that_names_no_product_is_looked_for_among_products(client: TestClient) -> None:
    strange = np.full((96, 96, 3), (200, 30, 30), np.uint8)
    record = sent(client, strange, "/api/inspect")
    assert (record["product"], record["verdict"]) == ("", "not_inspectable")
    assert "What a baseline judges has to be named: nut" in record["reason"]


def test_a_product_that_comes_under_its_name_is_told(client: TestClient, catalog_folder: Path) -> None:
    shutil.copy(catalog_folder / "washer.fsad", catalog_folder / "nut.fsad")
    assert [one["name"] for one in client.get("/api/products").json()] == ["nut", "washer"]
    health = client.get("/api/health").json()
    assert health["status"] == "trouble"
    assert any("nut: a fitted baseline judges it" in problem for problem in health["problems"])


def test_drift_is_watched_of_products_alone(client: TestClient) -> None:
    sent(client, GOOD)
    assert running_of(client).station.watch._monitors.keys() == set()


def test_what_cannot_be_served_is_said_before_it_starts(
    make_client: MakeClient, fitted: Path, catalog_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(StationError, match="load_baseline"):
        make_client(baselines=[str(fitted)])
    with pytest.raises(StationError, match="fewshot-ad fit --product NAME"):
        make_client(load_baseline=Baseline.load, baselines=[str(fitted), str(fitted)])
    with pytest.raises(ZooError, match="fewshot-ad fit"):
        make_client(load_baseline=Baseline.load, baselines=[str(tmp_path / "none")])
    settings = parse_settings({"catalog": str(catalog_folder), "baselines": [str(tmp_path / "none")]}, tmp_path)
    assert any("baseline.json" in problem for problem in check_settings(settings, Baseline.load))
    (tmp_path / "in").mkdir()
    content = {"catalog": str(catalog_folder), "baselines": [str(fitted)], "listen": {"port": 0}}
    for product, problems in (("nut", []), ("bolt", ["product: expected one of the 2 products, got bolt"])):
        settings = parse_settings({**content, "folders": [{"path": "in", "product": product}]}, tmp_path)
        assert [problem.partition(".")[0] for problem in check_settings(settings, Baseline.load)] == problems
