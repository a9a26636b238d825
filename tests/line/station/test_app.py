"""The station over HTTP: verdicts, history, pictures, corrections, teaching, and what goes wrong."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from starlette.testclient import TestClient

from fewshot_ad import Inspector
from fewshot_ad.line.record import new_id
from tests.conftest import make_part
from tests.line.conftest import png
from tests.line.station.conftest import MakeClient, running_of

SCHEMAS = Path(__file__).resolve().parents[3] / "docs" / "reference" / "schemas"


def good(seed: int = 50) -> bytes:
    return png(make_part(seed))


def bad(seed: int = 100) -> bytes:
    return png(make_part(seed, defect=True))


def inspect(client: TestClient, image: bytes, expect: int = 200, **more: Any) -> dict[str, Any]:
    answer = client.post("/api/products/washer/inspect", content=image, headers={"content-type": "image/png"}, **more)
    assert answer.status_code == expect, answer.text
    return answer.json()


def done(client: TestClient, answer: Any) -> dict[str, Any]:
    """What came of a piece of work."""
    assert answer.status_code == 202, answer.text
    for _ in range(1200):
        job = client.get(f"/api/jobs/{answer.json()['id']}").json()
        if job["state"] not in ("waiting", "running"):
            return job
        time.sleep(0.05)
    raise AssertionError(job)


def test_the_verdict_is_the_products_and_of_the_published_schema(
    client: TestClient, inspector: Inspector, broken_part: np.ndarray
) -> None:
    for image in (make_part(50), broken_part):
        record = inspect(client, png(image), params={"name": "a b.png"})
        expected = inspector.inspect(image)
        assert record["verdict"] == expected.verdict
        assert record["score"] == pytest.approx(expected.score, rel=2e-3)
        assert record["name"] == record["inspection"]["name"] == "a b.png"
        assert record["artifact"] == running_of(client).teaching.shelf.describe("washer")["sha256"]
        jsonschema.validate(record, json.loads((SCHEMAS / "inspection-record.json").read_text()))
        jsonschema.validate(record["inspection"], json.loads((SCHEMAS / "inspect.json").read_text()))
        assert client.get(f"/api/inspections/{record['id']}").json() == record


def test_an_image_may_come_as_a_form_or_as_it_is(client: TestClient) -> None:
    whole = inspect(client, good())
    form = client.post("/api/products/washer/inspect", files={"image": ("x/../y.png", good(), "image/png")}).json()
    assert form["score"] == whole["score"]
    assert form["name"] == "x/../y.png"
    routed = client.post("/api/inspect", content=good(), headers={"content-type": "application/octet-stream"}).json()
    assert routed["product"] == "washer"
    for files, status in (({"other": ("a", b"x")}, 422), ({"image": ("a.png", b""), "more": ("b", b"x")}, 400)):
        answer = client.post("/api/inspect", files=files)
        assert answer.status_code == status, answer.text
    assert client.post("/api/inspect", content=b"{}", headers={"content-type": "application/json"}).status_code == 415


def test_what_is_no_image_is_refused_and_recorded(client: TestClient) -> None:
    for data in (b"", b"junk", good()[:-200], b"\xff\xd8\xff"):
        answer = inspect(client, data, 422)
        assert answer["record"]["verdict"] == "unreadable"
        assert answer["error"] == answer["record"]["reason"]
    assert client.get("/api/counts").json()["unreadable"] == 4
    # Its image was kept, and correcting it makes no sense.
    record = answer["record"]["id"]
    assert client.get(f"/api/inspections/{record}/image").content == b"\xff\xd8\xff"
    assert client.get(f"/api/inspections/{record}/overlay.png").status_code == 404
    assert client.post(f"/api/inspections/{record}/accept").status_code == 409


def test_a_key_gives_one_verdict(client: TestClient) -> None:
    headers = {"Idempotency-Key": "frame 17", "content-type": "image/png"}
    answers: list[Any] = []

    def send() -> None:
        answers.append(client.post("/api/inspect", content=bad(), headers=headers).json())

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer["id"] for answer in answers}) == 1
    assert sum(client.get("/api/counts").json().values()) == 1


def test_many_at_once_all_get_the_same_verdict_as_one_by_one(client: TestClient, inspector: Inspector) -> None:
    images = [make_part(200 + seed, defect=seed % 2 == 0) for seed in range(8)]
    scores: dict[int, float] = {}

    def send(at: int) -> None:
        scores[at] = inspect(client, png(images[at]))["score"]

    threads = [threading.Thread(target=send, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [inspector.inspect(image).score for image in images]
    assert [scores[at] for at in range(8)] == pytest.approx(expected, rel=2e-3)


def test_who_comes_too_many_is_told_to_come_again(make_client: MakeClient) -> None:
    client = make_client(limits={"queue": 1})
    with running_of(client).station.slot():
        answer = client.post("/api/inspect", content=good(), headers={"content-type": "image/png"})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    inspect(client, good())
    assert sum(client.get("/api/counts").json().values()) == 1


def test_history_is_filtered_and_paged(client: TestClient) -> None:
    ids = [inspect(client, image)["id"] for image in (good(), bad(), good(51), bad(101))]
    page = client.get("/api/inspections", params={"limit": 3}).json()
    assert [one["id"] for one in page["records"]] == ids[:0:-1]
    rest = client.get("/api/inspections", params={"limit": 3, "before": page["next"]}).json()
    assert [one["id"] for one in rest["records"]] == ids[:1]
    assert rest["next"] is None
    found = client.get("/api/inspections", params={"verdict": ["anomalous"], "product": "washer"}).json()["records"]
    assert [one["id"] for one in found] == [ids[3], ids[1]]
    assert client.get("/api/inspections", params={"product": "nut"}).json()["records"] == []
    assert client.get("/api/inspections", params={"since": "2999-01-01"}).json()["records"] == []
    assert client.get("/api/inspections", params={"verdict": "so-so"}).status_code == 422


def test_pictures_follow_the_policy(make_client: MakeClient) -> None:
    client = make_client(pictures={"keep": "rejects"})
    passed, failed = inspect(client, good()), inspect(client, bad())
    assert passed["image"] is None
    assert failed["image"].endswith(".png")
    folder = running_of(client).station.pictures.folder
    assert (folder / failed["image"]).read_bytes() == bad()
    # The latest are in memory whatever the policy.
    assert client.get(f"/api/inspections/{passed['id']}/image").content == good()
    for what in ("overlay", "overlay.png", "nearest"):
        answer = client.get(f"/api/inspections/{failed['id']}/{what}")
        assert answer.status_code == 200, answer.text
        shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert shown is not None
    assert client.get(f"/api/inspections/{new_id()}/overlay").status_code == 404


def test_a_correction_changes_the_next_verdict_and_is_taken_back(client: TestClient) -> None:
    # Like a good one, and rejected.
    unusual = make_part(7)
    cv2.circle(unusual, (20, 20), 3, (150, 140, 120), -1, cv2.LINE_AA)
    record = inspect(client, png(unusual))
    before = running_of(client).teaching.shelf.describe("washer")["sha256"]
    answer = client.post(f"/api/inspections/{record['id']}/accept", json={"force": True})
    assert answer.status_code == 200, answer.text
    assert answer.json()["artifact"] != before
    assert any("severity" in note for note in answer.json()["notes"])
    after = inspect(client, png(unusual))
    assert after["score"] < record["score"]
    assert after["artifact"] == answer.json()["artifact"]
    history = client.get("/api/inspections").json()["records"]
    assert [one["correction"] for one in history] == [None, "accept"]
    undone = client.post("/api/products/washer/undo")
    assert undone.status_code == 200, undone.text
    assert undone.json()["artifact"] == before
    assert undone.json()["record"] == record["id"]
    assert [one["correction"] for one in client.get("/api/inspections").json()["records"]] == [None, None]
    assert inspect(client, png(unusual))["score"] == record["score"]
    assert client.post("/api/products/washer/undo").status_code == 409


def test_a_defect_is_kept_as_evidence(client: TestClient) -> None:
    record = inspect(client, bad())
    confirmed = client.post(f"/api/inspections/{record['id']}/confirm")
    assert confirmed.json()["action"] == "confirm"
    answer = client.post(f"/api/inspections/{record['id']}/reject", json={"region": [80, 50, 30, 30]})
    assert answer.status_code == 200, answer.text
    [defect] = client.get("/api/products/washer").json()["known_defects"]
    assert defect["region"] == [80, 50, 30, 30]
    refused = client.post("/api/products/washer/accept", content=bad(), headers={"content-type": "image/png"})
    assert refused.status_code == 422
    assert "rejected" in refused.json()["error"]
    assert client.post(f"/api/inspections/{record['id']}/reject", json={"region": [1]}).status_code == 422
    assert client.post(f"/api/inspections/{record['id']}/praise").status_code == 422


def test_a_product_is_taught_used_deleted_and_brought_back(client: TestClient, parts: list[np.ndarray]) -> None:
    files = [("images", (f"{number}.png", png(part), "image/png")) for number, part in enumerate(parts)]
    form = {"options": json.dumps({"preset": "fast"})}
    job = done(client, client.post("/api/products/ring 2", files=files, data=form))
    assert job["state"] == "done", job
    assert job["result"]["product"] == "ring 2"
    assert {one["name"] for one in client.get("/api/products").json()} == {"ring 2", "washer"}
    answer = client.post("/api/products/ring 2/inspect", content=bad(), headers={"content-type": "image/png"})
    assert answer.json()["verdict"] == "anomalous"
    assert client.post("/api/products/ring 2", files=files).status_code == 409
    job = done(client, client.post("/api/products/ring 2", files=files, data={**form, "replace": "true"}))
    assert job["state"] == "done"
    deleted = client.delete("/api/products/ring 2").json()
    assert client.get("/api/products/ring 2").status_code == 404
    assert len(client.get("/api/deleted").json()) == 2
    assert client.post(f"/api/deleted/{deleted['id']}/restore").json() == {"product": "ring 2"}
    assert client.get("/api/products/ring 2").status_code == 200
    # Its older version is still there, and its name is taken.
    [older] = client.get("/api/deleted").json()
    assert client.post(f"/api/deleted/{older['id']}/restore").status_code == 409
    kinds = [event["text"] for event in client.get("/api/events").json()]
    assert any("was taught" in text for text in kinds)


def test_what_cannot_be_taught_says_why(client: TestClient, parts: list[np.ndarray]) -> None:
    files = [("images", ("a.png", png(part), "image/png")) for part in parts]
    assert client.post("/api/products/x", files=files[:1]).status_code == 422
    assert client.post("/api/products/x", files=files, data={"options": "[1]"}).status_code == 422
    assert client.post("/api/products/x", files=files, data={"options": '{"weights": "x"}'}).status_code == 422
    for name in ("..", ".x", "a%2Fb", "a\\b", "con", "x" * 300, " x", "x.", "a:b", "%00"):
        assert client.post(f"/api/products/{name}", files=files).status_code in (404, 405, 422), name
    job = done(client, client.post("/api/products/x", files=[("images", ("a.png", b"x", "image/png"))] * 2))
    assert job["state"] == "failed"
    assert "a.png" in job["error"]
    assert "fewshot-ad-" not in job["error"]
    assert client.post("/api/products/x", files=files, data={"options": '{"preset": "quick"}'}).status_code == 422
    job = done(client, client.post("/api/products/x", files=files, data={"options": '{"lighting": "dark"}'}))
    assert job["state"] == "failed"
    assert client.get("/api/products").json()[0]["name"] == "washer"
    assert not list(Path(running_of(client).station.catalog.folder).glob("x*"))


def test_checks_and_calibrations(client: TestClient) -> None:
    fine = [("good", (f"{seed}.png", good(seed), "image/png")) for seed in range(60, 66)]
    broken = [("bad", (f"b{seed}.png", bad(seed), "image/png")) for seed in range(160, 163)]
    checked = done(client, client.post("/api/products/washer/check", files=[*fine, *broken]))
    assert checked["state"] == "done", checked
    assert len(checked["result"]["images"]) == 9
    assert checked["result"]["missed"] == []
    before = client.get("/api/products/washer").json()["sha256"]
    calibrated = done(
        client,
        client.post("/api/products/washer/calibrate", files=[*fine, *broken], data={"max_false_reject": "0.1"}),
    )
    assert calibrated["state"] == "done", calibrated
    assert calibrated["result"]["sha256"] != before
    assert client.post("/api/products/washer/undo").json()["artifact"] == before
    assert client.post("/api/products/nut/check", files=fine).status_code == 404


def test_drift_health_live_and_metrics(client: TestClient) -> None:
    for seed in range(3):
        inspect(client, good(seed))
    inspect(client, b"x", 422)
    assert client.get("/api/products/washer/drift").json()["images"] == 3
    assert client.get("/api/products/nut/drift").status_code == 404
    health = client.get("/api/health").json()
    assert health["status"] == "ok"
    assert health["inspections"] == 4
    assert set(health["latency_ms"]) == {"p50", "p95", "p99"}
    assert client.get("/healthz").json() == {"status": "ok"}
    live = client.get("/api/live").json()
    assert live["counts"] == {"good": 3, "unreadable": 1}
    assert live["record"]["verdict"] == "unreadable"
    text = client.get("/metrics").text
    assert re.search(r'fewshot_ad_inspections_total\{product="washer",verdict="good"\} 3\.0', text)
    limits = client.get("/api/products/washer/limits.png")
    assert limits.headers["content-type"] == "image/png"


def test_exports(client: TestClient) -> None:
    inspect(client, good(), params={"name": "=1+1"})
    inspect(client, bad())
    answer = client.get("/api/export", params={"format": "csv", "verdict": "good"})
    assert answer.text.count("\n") == 2
    assert "'=1+1" in answer.text
    assert "attachment" in answer.headers["content-disposition"]
    assert "<table>" in client.get("/api/export", params={"format": "html"}).text
    assert client.get("/api/export", params={"format": "xlsx"}).status_code == 422


def test_a_verdict_that_cannot_be_recorded_is_told_with_it(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from fewshot_ad.line.journal import JournalError

    journal = running_of(client).station.journal

    def full(*_: object) -> int:
        raise JournalError("the journal: the disk is full. Free some space.")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "add", full)
        answer = inspect(client, bad(), 507)
        assert answer["record"]["verdict"] == "anomalous"
        assert "disk is full" in answer["error"]
        assert client.get("/healthz").status_code == 503
        assert "disk is full" in client.get("/api/health").json()["problems"][0]
        assert client.get("/api/live").json()["trouble"]
    pictures = running_of(client).station.pictures
    assert pictures.nbytes == 0
    assert not [path for path in pictures.folder.rglob("*") if path.is_file()]
    inspect(client, bad())
    assert client.get("/healthz").status_code == 200


def test_on_a_full_disk_the_part_is_judged_and_health_says_so(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewshot_ad.line.journal import DiskFullError

    station = running_of(client).station
    inspect(client, bad())
    assert station.pictures.nbytes > 0

    def full(*_: object) -> None:
        raise DiskFullError("the journal: the disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(station.journal, "begin", full)
        patched.setattr(station.journal, "add", full)
        assert inspect(client, bad(101), 507)["record"]["verdict"] == "anomalous"
        assert client.get("/healthz").status_code == 503
    # Old pictures have made room by then.
    assert station.pictures.nbytes == 0
    inspect(client, good())
    assert client.get("/healthz").status_code == 200


def test_an_answer_to_an_older_request_says_that_it_is_one(client: TestClient) -> None:
    headers = {"Idempotency-Key": "1"}
    first = client.post("/api/inspect", files={"image": ("a.png", good())}, headers=headers)
    again = client.post("/api/inspect", files={"image": ("b.png", bad())}, headers=headers)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()


def test_a_product_is_replaced_without_being_away(client: TestClient, parts: list[np.ndarray]) -> None:
    files = [("images", (f"{number}.png", png(part), "image/png")) for number, part in enumerate(parts)]
    statuses, over = set(), threading.Event()

    def watch() -> None:
        while not over.is_set():
            statuses.add(client.get("/api/products/washer").status_code)

    watcher = threading.Thread(target=watch)
    watcher.start()
    form = {"options": '{"preset": "fast"}', "replace": "true"}
    assert done(client, client.post("/api/products/washer", files=files, data=form))["state"] == "done"
    over.set()
    watcher.join()
    assert statuses == {200}
    folder = Path(running_of(client).station.catalog.folder)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["washer.fsad"]
    assert len(list((folder / ".deleted").iterdir())) == 1


def test_what_the_station_stands_on_is_watched(client: TestClient, catalog_folder: Path, tmp_path: Path) -> None:
    running = running_of(client)

    def problems() -> str:
        return " ".join(client.get("/api/health").json()["problems"])

    (catalog_folder / "torn.fsad").write_bytes(b"garbage")
    routed = client.post("/api/inspect", content=good(), headers={"content-type": "image/png"}).json()
    # It might show the product that cannot be read: another one must not pass it.
    assert (routed["verdict"], routed["product"]) == ("not_inspectable", "")
    assert "torn" in routed["reason"]
    assert "torn.fsad" in problems()
    (catalog_folder / "torn.fsad").unlink()
    assert problems() == ""
    running.station.pictures.folder.rename(tmp_path / "away")
    (tmp_path / "pictures").write_text("in the way")
    inspect(client, bad())
    assert "no picture is kept" in problems()
    (tmp_path / "pictures").unlink()
    inspect(client, bad())
    assert problems() == ""
    catalog_folder.rename(tmp_path / "moved")
    assert client.get("/healthz").status_code == 503
    assert "folder of products" in problems()
    (tmp_path / "moved").rename(catalog_folder)
    (tmp_path / "journal.db").rename(tmp_path / "gone.db")
    assert "removed or replaced" in inspect(client, bad(), 507)["error"]
    assert client.get("/healthz").status_code == 503
    (tmp_path / "gone.db").rename(tmp_path / "journal.db")
    inspect(client, bad())
    assert client.get("/healthz").status_code == 200


def test_answers_do_not_contradict_each_other(client: TestClient) -> None:
    record = inspect(client, bad())["id"]
    assert client.post(f"/api/inspections/{record}/confirm").status_code == 200
    assert client.post(f"/api/inspections/{record}/confirm").status_code == 409
    assert client.post(f"/api/inspections/{record}/reject").status_code == 200
    answer = client.post(f"/api/inspections/{record}/confirm")
    assert answer.status_code == 409
    assert "reject" in answer.json()["error"]
    # That the product refuses, unless it is forced to.
    assert client.post(f"/api/inspections/{record}/accept").status_code == 422
    headers = {"Idempotency-Key": "k", "content-type": "image/png"}
    client.post("/api/products/washer/inspect", content=good(), headers=headers)
    assert client.post("/api/products/nut/inspect", content=good(), headers=headers).status_code == 404
    (Path(running_of(client).station.catalog.folder) / "nut.fsad").write_bytes(b"any")
    assert client.post("/api/products/nut/inspect", content=good(), headers=headers).status_code == 409


def test_the_page_and_what_it_may_load(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert client.get("/page/../settings.py").status_code == 404
    assert client.get("/docs").status_code == 404
    assert client.get("/api/openapi.json").json()["info"]["title"].startswith("fewshot_ad station")


def test_a_damaged_product_stops_nothing_else(client: TestClient, catalog_folder: Path) -> None:
    (catalog_folder / "torn.fsad").write_bytes((catalog_folder / "washer.fsad").read_bytes()[:1000])
    answer = client.post("/api/products/torn/inspect", content=good(), headers={"content-type": "image/png"})
    assert answer.status_code == 500
    assert "torn.fsad" in answer.json()["error"]
    inspect(client, good())
    assert client.get("/api/counts").json()["good"] == 1
    assert running_of(client).station.journal.start("again") == []
