"""VLM-AD: anomalib's questions, put to a stand-in for a service on this computer."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import cv2
import numpy as np
import pytest

from fewshot_ad import zoo
from fewshot_ad.errors import ZooError
from tests.conftest import make_part

NAME = "anomalib_vlm_ad"


class Service(HTTPServer):
    """Answers YES where the image of the last message has a red blot; keeps the requests."""

    status = 200
    requests: list[dict[str, Any]]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def answer(self, request: dict[str, Any]) -> str:
        red = picture(request["messages"][-1]["content"][1]).astype(int)
        return " YES: a red blot." if (red[..., 0] - red[..., 1] > 60).any() else "NO, it is as it should be."


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append({"path": self.path, **request})
        content = {"choices": [{"message": {"role": "assistant", "content": self.server.answer(request)}}]}
        self.send_response(self.server.status)
        self.send_header("Location", "http://192.0.2.1/v1/chat/completions")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: Any) -> None:
        pass


def picture(part: dict[str, Any]) -> np.ndarray:
    content = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service(("127.0.0.1", 0), Handler)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def needs_anomalib() -> None:
    pytest.importorskip("anomalib")


def blotted(seed: int) -> np.ndarray:
    return cv2.circle(make_part(seed, 64), (40, 32), 6, (200, 20, 20), -1)


def test_answers_become_decisions_and_images_of_good_parts_are_shown(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A proxy would take the images elsewhere.
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    good = [make_part(0, 64), make_part(1, 80)]
    method = zoo.create(NAME, endpoint=service.endpoint, model="some-model", seed=5)
    method.fit(good)
    assert service.requests == []
    images = [make_part(2, 64), blotted(3)]
    predictions = method.predict(images)
    assert predictions.scores.tolist() == [0, 1]
    assert predictions.rejected is not None
    assert predictions.rejected.tolist() == [False, True]
    assert predictions.maps is None
    request = service.requests[1]
    assert (request["path"], request["model"]) == ("/v1/chat/completions", "some-model")
    assert (request["temperature"], request["seed"]) == (0, 5)
    examples, question = (entry["content"] for entry in request["messages"])
    assert "examples of normal" in examples[0]["text"]
    assert "'YES'" in question[0]["text"]
    for part, image in zip([*examples[1:], question[1]], [*good, images[1]], strict=True):
        np.testing.assert_array_equal(picture(part), image)


@pytest.mark.parametrize(("k_shot", "shown"), [(0, 0), (1, 1), (9, 2)])
def test_as_many_images_are_shown_as_asked_for(service: Service, k_shot: int, shown: int) -> None:
    method = zoo.create(NAME, endpoint=service.endpoint, k_shot=k_shot)
    method.fit([make_part(0, 64), make_part(1, 64)])
    method.predict([make_part(2, 64)])
    messages = service.requests[0]["messages"]
    assert len(messages) == (2 if shown else 1)
    assert sum(len(entry["content"]) - 1 for entry in messages[:-1]) == shown


@pytest.mark.parametrize(
    "endpoint",
    [
        *("http://example.com/v1", "http://192.168.0.7:11434/v1", "https://api.openai.com/v1", "localhost:11434"),
        *("http://localhost.example.com/v1", "http://localhost@example.com/v1", "http://localhost:99999/v1", ""),
        "http://[::ffff:8.8.8.8]/v1",
    ],
)
def test_other_computers_are_refused(endpoint: str) -> None:
    with pytest.raises(ZooError, match=rf"{NAME}.*this computer"):
        zoo.create(NAME, endpoint=endpoint)


def test_without_a_service_the_error_says_how_to_get_one() -> None:
    with pytest.raises(ZooError, match=r"expected endpoint=.*ollama pull llava"):
        zoo.create(NAME)


@pytest.mark.parametrize("status", [302, 404, 500])
def test_refusals_and_redirections_are_no_answers(service: Service, status: int) -> None:
    service.status = status
    method = zoo.create(NAME, endpoint=service.endpoint)
    method.fit([])
    with pytest.raises(ZooError, match=f"{NAME}.*status {status}"):
        method.predict([make_part(0, 64)])
    assert len(service.requests) == 1


def test_a_service_that_is_down_or_answers_nonsense_is_one_error(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "answer", lambda _: None)
    method = zoo.create(NAME, endpoint=service.endpoint)
    method.fit([])
    with pytest.raises(ZooError, match="chat completions"):
        method.predict([make_part(0, 64)])
    down = zoo.create(NAME, endpoint="http://127.0.0.1:9/v1")
    down.fit([])
    with pytest.raises(ZooError, match="expected a service that answers"):
        down.predict([make_part(0, 64)])


def test_an_answer_that_takes_no_side_counts_as_good(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "answer", lambda _: "I cannot tell.")
    method = zoo.create(NAME, endpoint=service.endpoint)
    method.fit([])
    assert method.predict([blotted(0)]).scores.tolist() == [0]


@pytest.mark.parametrize("wrong", [{"k_shot": -1}, {"timeout_s": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match=f"{NAME}.*expected"):
        zoo.create(NAME, endpoint="http://localhost:11434/v1", **wrong)
