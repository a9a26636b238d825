"""A browser for tests: the W3C WebDriver protocol, as chromedriver speaks it, over plain HTTP."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's reference in WebDriver's answers


class Browser:
    """Headless Chromium with one open page.

    Args:
        width: Of the window, in CSS pixels.
        height: Of the window, in CSS pixels.
        dark: Whether the page is told that the user prefers dark colors.
    """

    def __init__(self, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        driver = shutil.which("chromedriver", path=os.pathsep.join(_places()))
        if driver is None:
            pytest.skip("NO CHROMIUM: chromedriver is absent; `apt-get install chromium chromium-driver` brings it")
        self._driver = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
        self._session = ""
        try:
            self._server = f"http://127.0.0.1:{self._port()}"
            arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            options: dict[str, Any] = {"args": arguments}
            # A window cannot be as narrow as a phone; an emulated screen can.
            options["mobileEmulation"] = {
                "deviceMetrics": {"width": width, "height": height, "pixelRatio": 1, "mobile": False, "touch": False}
            }
            if dark:
                arguments.append("--blink-settings=preferredColorScheme=0")
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            try:
                answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            except AssertionError as error:
                if "cannot find" in str(error) or "no chrome binary" in str(error).lower():
                    pytest.skip(f"NO CHROMIUM: chromedriver finds no browser; `apt-get install chromium` ({error})")
                raise
            self._session = f"/session/{answer['sessionId']}"
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and its driver."""
        try:
            if self._session:
                self._call("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait(20)
            if self._driver.stdout:
                self._driver.stdout.close()

    def open(self, page: Path) -> None:
        self._call("POST", f"{self._session}/url", {"url": page.resolve().as_uri()})

    def click(self, selector: str) -> None:
        self._call("POST", f"{self._element(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self._call("POST", f"{self._element(selector)}/value", {"text": text})

    def choose(self, selector: str, value: str) -> None:
        """Set what a select or an input holds, and tell the page as a user's hand would."""
        where, what = json.dumps(selector), json.dumps(value)
        self.run(
            f"const field = document.querySelector({where}); field.value = {what};"
            "for (const event of ['input', 'change']) field.dispatchEvent(new Event(event));"
        )

    def run(self, script: str) -> Any:
        """What a function body with `return` gives."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def texts(self, selector: str) -> list[str]:
        """The visible text of all elements that match."""
        return self.run(f"return [...document.querySelectorAll({json.dumps(selector)})].map((e) => e.innerText.trim())")

    def complaints(self) -> list[str]:
        """What the page wrote to the console since it was last asked."""
        return [entry["message"] for entry in self._call("POST", f"{self._session}/se/log", {"type": "browser"})]

    def _element(self, selector: str) -> str:
        body = {"using": "css selector", "value": selector}
        return f"{self._session}/element/{self._call('POST', f'{self._session}/element', body)[ELEMENT]}"

    def _port(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if match := re.search(r"started successfully on port (\d+)", line):
                return int(match[1])
        raise AssertionError("chromedriver ended before it listened")

    def _call(self, verb: str, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._server + path, content, method=verb)  # noqa: S310 - a local address
        # Never over a proxy that the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None


def _places() -> list[str]:
    # Hosted test machines name the driver's folder so, and Debian's driver stands in the path.
    return [*filter(None, [os.environ.get("CHROMEWEBDRIVER")]), *os.environ.get("PATH", "").split(os.pathsep)]
