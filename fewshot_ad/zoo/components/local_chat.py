"""A vision-language model that a service on this computer runs: questions with images in, answers out.

Ollama, llama.cpp, vLLM and LM Studio all answer the requests that are made here, which are those of OpenAI's chat
completions. No other computer is ever asked: images of parts are the user's own.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fewshot_ad.errors import ZooError

# Of an answer, in bytes; what is longer is no answer to a question of yes or no.
LARGEST_ANSWER = 1 << 20


@dataclass(frozen=True)
class LocalChat:
    """A service on this computer.

    Attributes:
        endpoint: Address of its interface, such as `http://localhost:11434/v1`.
        model: Name of the model, as the service knows it.
        seed: Seed of the answers, for services that have one.
        timeout_s: Seconds within which it must answer.

    Raises:
        ZooError: The address is not one of this computer.
    """

    endpoint: str
    model: str
    seed: int = 0
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.endpoint)
            known = parts.scheme == "http" and _is_loopback(parts.hostname or "") and parts.port != 0
        except ValueError:
            known = False
        if not known or parts.username is not None or parts.query or parts.fragment:
            raise ZooError(
                "expected endpoint to be the address of a service on this computer, such as "
                f"http://localhost:11434/v1, got {self.endpoint!r}. Images are sent nowhere else."
            )
        if self.timeout_s <= 0:
            raise ZooError(f"expected timeout_s above 0, got {self.timeout_s}.")

    def ask(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The answer to some messages, see `message`.

        Raises:
            ZooError: There is no answer.
        """
        request = {"model": self.model, "messages": list(messages), "temperature": 0, "seed": self.seed}
        parts = urlsplit(self.endpoint)
        # Not urllib: it would go through a proxy, and follow the service to other computers.
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=self.timeout_s)
        try:
            path, headers = f"{parts.path.rstrip('/')}/chat/completions", {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(request | {"stream": False}), headers)
            response = connection.getresponse()
            content = response.read(LARGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise ZooError(
                f"{self.endpoint}: expected a service that answers, got {type(error).__name__}: {error}. Start it, or "
                "give the endpoint where it runs."
            ) from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            text = content[:200].decode("utf-8", "replace")
            raise ZooError(
                f"{self.endpoint}: expected an answer of the model {self.model!r}, got status {response.status}: "
                f"{text!r}. Give the name of a model that the service has and that looks at images."
            )
        try:
            answer = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            answer = None
        if not isinstance(answer, str):
            raise ZooError(
                f"{self.endpoint}: expected an answer in the form of OpenAI's chat completions, got "
                f"{content[:200]!r}. Give the endpoint of that interface, which often ends in /v1."
            )
        return answer.strip()


def message(text: str, images: Sequence[bytes]) -> dict[str, Any]:
    """A message of the user, with images that are the contents of PNG files."""
    urls = [f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}" for image in images]
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": "user", "content": [{"type": "text", "text": text}, *shown]}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
