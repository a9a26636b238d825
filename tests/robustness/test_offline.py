"""Nothing touches the network, the home folder or another process unless it is asked to."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from fewshot_ad import offline
from tests.robustness.children import output

AUDIT = """
import os, sys
seen = []
def watch(event, arguments):
    if event.startswith({events!r}):
        command = arguments[1] if event == "subprocess.Popen" else ()
        # Python's own search for a library, which torch's import starts.
        if not (command and str(command[0]).endswith("ldconfig")):
            seen.append(f"{{event}} {{arguments!r:.150}}")
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise OSError("the network is refused by the test")
sys.addaudithook(watch)
"""
AFTER = """
print(seen)
print(sorted(os.path.join(folder, name) for folder, _, names in os.walk(os.environ["HOME"]) for name in names))
"""


def _seen(code: str, home: Path, *arguments: object) -> tuple[str, str]:
    """What Python code did, and the files it left in its home folder."""
    audit = AUDIT.format(events=offline.NETWORK_EVENTS + offline.PROCESS_EVENTS)
    home.mkdir()
    lines = output(audit + code + AFTER, *arguments, HOME=str(home), XDG_CACHE_HOME="", MPLCONFIGDIR=str(home.parent))
    return lines[-2], lines[-1]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return offline.examine_offline()


def test_enroll_inspect_and_export_keep_to_themselves(report: dict[str, Any]) -> None:
    assert report["ok"], offline.conclusion(report)
    assert {"enroll", "inspect (openvino)"} <= set(report["work"])
    for extra, work in (("onnxruntime", "inspect (onnxruntime)"), ("onnx", "export")):
        assert (work in report["work"]) == (importlib.util.find_spec(extra) is not None)


def test_native_code_was_watched_too(report: dict[str, Any]) -> None:
    if "strace" not in report["watched_by"]:
        pytest.skip("NATIVE CODE NOT WATCHED: strace is not installed, or not allowed to trace")


def test_doctor_keeps_to_itself(tmp_path: Path) -> None:
    seen, files = _seen("from fewshot_ad.doctor import examine\nassert examine()['ok']\n", tmp_path / "home")
    assert (seen, files) == ("[]", "[]")


def test_the_environment_and_the_modules_of_the_host_stay(tmp_path: Path) -> None:
    lines = output("""
before = dict(os.environ)
Inspector.from_support([part(0), part(1)], views="none", image_size=64)
from fewshot_ad.host.runtimes import import_openvino
assert dict(os.environ) == before
import openvino_telemetry
print(openvino_telemetry.Telemetry.__name__, import_openvino().convert_model.__name__)
""")
    assert lines == ["Telemetry convert_model"]


EXTRAS = {
    "timm": "import timm, huggingface_hub\nfrom fewshot_ad import load_encoder\nload_encoder(engine='torch')\n",
    "ultralytics": "from fewshot_ad import zoo\nfrom fewshot_ad.zoo import yolo\n"
    "with yolo._quiet_import():\n    import ultralytics.models, ultralytics.utils.events\n"
    "assert not ultralytics.utils.events.events.enabled\n",
    "anomalib": "from fewshot_ad import zoo\nimport fewshot_ad.zoo.anomalib.runtime.training\n"
    "zoo.create('anomalib_padim', backbone='lite0').fit([part(s) for s in range(2)])\n",
}


@pytest.mark.parametrize("extra", EXTRAS)
def test_extras_keep_off_the_network(extra: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(extra) is None:
        pytest.skip(f"{extra} is not installed")
    seen, _ = _seen(EXTRAS[extra], tmp_path / "home")
    assert "socket." not in seen


def test_what_strace_tells_is_understood() -> None:
    calls = [
        '7 execve("/usr/bin/python", ["python"], 0x1 /* 2 vars */) = 0',
        '7 connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT',
        "7 clone(child_stack=0x1, flags=CLONE_VM|CLONE_THREAD|CLONE_SYSVSEM) = 8",
        '8 connect(6, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.1")}, 16) = 0',
        "7 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD) = 9",
        '9 execve("/bin/true", ["true"], 0x1) = 0',
    ]
    assert offline.network_calls(calls) == [calls[3]]
    assert offline.process_calls(calls) == calls[4:]


def test_what_was_seen_is_said_plainly() -> None:
    report: dict[str, Any] = {"network": [], "files": [], "processes": []}
    clean = "no network attempt, no file written in the home folder, no child process"
    assert offline.conclusion(report) == clean
    report["files"] = ["intel/openvino_ga_cid"]
    assert offline.conclusion(report) == "file written in the home folder: intel/openvino_ga_cid"


def test_the_command_says_it(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from fewshot_ad.cli import app

    monkeypatch.setattr(offline, "examine_offline", lambda: report)
    done = CliRunner().invoke(app, ["doctor", "--offline"])
    assert done.exit_code == 0
    assert "no network attempt" in done.stdout
    bad = {**report, "ok": False, "network": ["socket.connect"]}
    monkeypatch.setattr(offline, "examine_offline", lambda: bad)
    done = CliRunner().invoke(app, ["doctor", "--offline", "--json"])
    assert done.exit_code == 2
    assert json.loads(done.stdout)["network"] == ["socket.connect"]
