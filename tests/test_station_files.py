"""What a station is installed with, examples/station: valid, hardened, no secrets; the container builds and runs."""

from __future__ import annotations

import configparser
import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import typing
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pydantic
import pytest
import typer
import yaml

from fewshot_ad import Inspector
from fewshot_ad.cli import app
from fewshot_ad.line.settings import StationSettings, read_settings

ROOT = Path(__file__).resolve().parents[1]
STATION = ROOT / "examples" / "station"
SETTINGS, UNIT, CONTAINERFILE = (STATION / name for name in ("station.yaml", "fewshot-ad.service", "Containerfile"))
PAGE = ROOT / "docs" / "how-to" / "install-on-a-box.md"
STATE = "/var/lib/fewshot-ad"
TOKEN = "only for this test"  # noqa: S105


def completed(*command: object, **options: typing.Any) -> subprocess.CompletedProcess[str]:
    options = {"timeout": 600, "check": False, "capture_output": True, "text": True} | options
    return subprocess.run([str(word) for word in command], **options)


def check_serve(words: list[str]) -> None:
    """Let `fewshot-ad` parse its arguments, without running it."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("fewshot-ad", list(words))


# --- station.yaml ---


def uncommented() -> str:
    """The settings with all that are not in use put to use."""
    return re.sub(r"^(\s*)#(?=\S)", r"\1", SETTINGS.read_text(encoding="utf-8"), flags=re.M)


def test_settings_are_valid_as_they_are_and_with_all_in_use(tmp_path: Path) -> None:
    settings = read_settings(SETTINGS)
    defaults = StationSettings.model_validate({})
    assert settings.listen.is_local
    assert (settings.limits, settings.memory_mb) == (defaults.limits, defaults.memory_mb)
    (tmp_path / "station.yaml").write_text(uncommented())
    used = read_settings(tmp_path / "station.yaml")
    assert used.folders
    assert used.cameras
    assert all((used.mqtt, used.opcua, used.modbus, used.webhooks, used.replica))


def models_in(annotation: object) -> Iterator[type[pydantic.BaseModel]]:
    """The groups of settings that a field holds, whether in a list or optional."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from models_in(part)


def missing(model: type[pydantic.BaseModel], found: dict[str, object], place: str = "") -> Iterator[str]:
    """The settings of a group that a file does not have."""
    for name, field in model.model_fields.items():
        if name not in found:
            yield place + name
            continue
        value = found[name]
        together: dict[str, object] = {}
        for one in value if isinstance(value, list) else [value]:
            together |= one if isinstance(one, dict) else {}
        for inner in models_in(field.annotation):
            yield from missing(inner, together, f"{place}{name}.")


def test_settings_name_all_that_there_are() -> None:
    # A database has one address: `replica.url` is told in words there.
    assert list(missing(StationSettings, yaml.safe_load(uncommented()))) == ["replica.url"]
    assert "or `url` here" in SETTINGS.read_text(encoding="utf-8")


# --- The systemd unit ---


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters="=", comment_prefixes="#", interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


def test_unit_is_hardened_and_restarts() -> None:
    service = unit()["Service"]
    assert service["User"] == "fewshot-ad"
    for name in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "ProtectKernelModules"):
        assert service[name] == "yes", name
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["Restart"] == "on-failure"
    assert service["MemoryMax"] == "3G"
    # OpenVINO writes the code that it runs.
    assert "MemoryDenyWriteExecute" not in service


def test_unit_and_settings_and_container_have_the_same_places() -> None:
    service, settings = unit()["Service"], read_settings(SETTINGS)
    program, *words = service["ExecStart"].split()
    assert program.endswith("/bin/fewshot-ad")
    check_serve(words)
    made = {f"/var/lib/{name}" for name in service["StateDirectory"].split()}
    needed = {settings.catalog, str(Path(settings.journal).parent), settings.pictures.folder}
    assert made == {STATE, *needed}
    assert STATE in service["ReadWritePaths"].split()
    assert set(json.loads(dict(instructions())["VOLUME"])) == needed
    assert f"EXPOSE {settings.listen.port}" in CONTAINERFILE.read_text(encoding="utf-8")


def test_unit_waits_for_a_graceful_stop() -> None:
    serving = pytest.importorskip(
        "fewshot_ad.line.station.serving", reason="NO STATION: pip install 'fewshot-ad[line]'"
    )
    # Requests; a folder, a camera and a store of 5 s each; work twice 10 s; five sinks that are waited for twice.
    longest = serving.GRACE_S + 3 * 5 + 2 * 10 + 5 * 2 * serving.DRAIN_S
    seconds = int(unit()["Service"]["TimeoutStopSec"])
    assert longest <= seconds < 2 * longest
    for page in (PAGE.read_text(encoding="utf-8"),):
        assert f"--stop-timeout {seconds}" in page


@pytest.fixture(scope="session")
def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("NO SYSTEMD: systemd-analyze is not installed, the unit was only read")
    return found


def verified(systemd_analyze: str, folder: Path, text: str) -> str:
    """What systemd has to say of a unit; its program exists."""
    path = folder / "fewshot-ad.service"
    path.write_text(re.sub(r"^(ExecStart=)\S+", rf"\1{sys.executable}", text, flags=re.M))
    result = completed(systemd_analyze, "verify", path)
    return "\n".join(line for line in (result.stdout + result.stderr).splitlines() if path.name in line)


def test_systemd_knows_every_option(systemd_analyze: str, tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert verified(systemd_analyze, tmp_path, text) == ""
    # Those that the comments tell to use, too.
    used = re.sub(r"^#(?=\S)", "", text, flags=re.M)
    assert "CAP_NET_BIND_SERVICE" in used
    assert verified(systemd_analyze, tmp_path, used) == ""
    assert "ProtectEverything" in verified(systemd_analyze, tmp_path, text.replace("ProtectHome", "ProtectEverything"))


def test_systemd_finds_it_little_exposed(systemd_analyze: str) -> None:
    version = re.search(r"systemd (\d+)", completed(systemd_analyze, "--version").stdout)
    if version is None or int(version[1]) < 250:
        pytest.skip("NO EXPOSURE: systemd-analyze security looks into files from version 250 on")
    result = completed(systemd_analyze, "security", "--offline=true", "--threshold=25", UNIT)
    assert result.returncode == 0, result.stdout[-2000:]


# --- The Containerfile ---


def instructions() -> list[tuple[str, str]]:
    """Name and rest of each instruction, in order."""
    lines = [line for line in CONTAINERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def health_command() -> list[str]:
    """What HEALTHCHECK runs."""
    return json.loads(dict(instructions())["HEALTHCHECK"].partition("CMD ")[2])


def test_container_is_not_root_has_a_health_check_and_pins_its_base() -> None:
    found = instructions()
    bases = [rest.split()[0] for name, rest in found if name == "FROM"]
    assert set(bases) == {"python:3.12-slim"}
    assert len(bases) == 2
    [user] = [rest for name, rest in found if name == "USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    last_stage = found[max(at for at, (name, _) in enumerate(found) if name == "FROM") :]
    # Nothing is written by root once the image runs, and the health check needs no program that a slim image lacks.
    assert [name for name, _ in last_stage].index("USER") > [name for name, _ in last_stage].index("RUN")
    assert health_command()[0] == "python"
    text = CONTAINERFILE.read_text(encoding="utf-8")
    assert ":latest" not in text
    assert "--no-index" in text
    assert "'fewshot-ad[line]'" in text
    assert not re.search(r"\b(ADD|curl|wget|apt-get)\b", text)


def test_container_has_no_secrets() -> None:
    found = instructions()
    names = [rest for name, rest in found if name in ("ENV", "ARG")]
    assert not [rest for rest in names if re.search(r"token|passw|secret|key", rest, re.I)]
    copied = [rest.split()[-2] for name, rest in found if name == "COPY"]
    assert copied == ["wheelhouse", "/opt/fewshot-ad", "station.yaml"]
    for path in STATION.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"-----BEGIN|://[^/\s:@]+:[^/\s@]+@|^\s*[^#\s]*(password|token|secret):", text, re.M), path


def test_container_serves_with_a_token() -> None:
    words = json.loads(dict(instructions())["CMD"])
    check_serve(words)
    assert words[words.index("--host") + 1] == "0.0.0.0"  # noqa: S104
    assert words[words.index("--token-file") + 1].startswith("/run/secrets/")


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
def test_health_check_tells_a_station_in_trouble(status: int | None, code: int) -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response((status or 0) if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        if status is None:
            server.server_close()
        program = health_command()[2].replace("8470", str(server.server_address[1]))
        # Whatever proxy is set: the station is on this computer.
        environment = os.environ | {"http_proxy": "http://127.0.0.1:9"}
        assert completed(sys.executable, "-c", program, env=environment).returncode == code
    finally:
        server.shutdown()
        server.server_close()


# --- The page about it ---


def bash_blocks() -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_commands_of_the_page_parse() -> None:
    bash = shutil.which("bash") or pytest.skip("NO SHELL: bash is not installed")
    blocks = bash_blocks()
    assert len(blocks) > 10
    ours = 0
    for block in blocks:
        result = completed(bash, "-n", input=block)
        assert result.returncode == 0, result.stderr
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            words = shlex.split(line)
            at = next((at for at, word in enumerate(words) if word.endswith("/bin/fewshot-ad")), None)
            if at is not None and words[at + 1 :] != ["doctor"]:
                check_serve(words[at + 1 :])
                ours += 1
            for word in words:
                assert not word.startswith("examples/") or (ROOT / word).exists(), word
    assert ours >= 3


# --- The container itself ---


@pytest.fixture(scope="session")
def engine() -> list[str]:
    """What builds and runs containers here, with the base image at hand."""
    given = os.environ.get("FEWSHOT_AD_CONTAINER_ENGINE")
    engines = [shlex.split(given)] if given else [[name] for name in ("podman", "docker") if shutil.which(name)]
    if not engines:
        pytest.skip("NO CONTAINER: neither podman nor docker is installed; the Containerfile was only read")
    base = dict(instructions())["FROM"].split()[0]
    reasons = []
    for words in engines:
        # A base that is absent is not fetched: tests need no network.
        commands = (["image", "inspect"], [base]), (["run", "--rm", "--network", "none"], [base, "python", "--version"])
        for command, what in commands:
            result = completed(*words, *command, *what)
            if result.returncode != 0:
                reasons.append(f"{words[0]} {command[0]} {base}: {result.stderr.strip()[-200:]}")
                break
        else:
            return words
    pytest.skip(f"NO CONTAINER: {'; '.join(reasons)}; the Containerfile was only read")


@pytest.fixture(scope="session")
def image(engine: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, built from a wheelhouse without a network."""
    wheelhouse = os.environ.get("FEWSHOT_AD_WHEELHOUSE")
    if wheelhouse is None:
        pytest.skip(
            "NO CONTAINER: set FEWSHOT_AD_WHEELHOUSE to wheels for Python 3.12 (docs/how-to/install-on-a-box.md)"
        )
    context, tag = tmp_path_factory.mktemp("image"), "fewshot-ad-station-test:1"
    shutil.copytree(wheelhouse, context / "wheelhouse")
    shutil.copy(CONTAINERFILE, context)
    shutil.copy(SETTINGS, context)
    options = ["--format", "docker", "--layers=false"] if "podman" in Path(engine[0]).name else []
    options += ["--network", "none", "-f", str(context / "Containerfile"), "-t", tag]
    result = completed(*engine, "build", *options, context, timeout=1800)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    yield tag
    completed(*engine, "rmi", "-f", tag)


ASK = """
import json, sys, urllib.error, urllib.request
token, *images = sys.argv[1:]
request = urllib.request.Request("http://127.0.0.1:8470/api/health", headers={"Authorization": "Bearer wrong"})
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error:
    print(error.code)
for image in images:
    headers = {"Authorization": "Bearer " + token, "Content-Type": "image/png"}
    request = urllib.request.Request("http://127.0.0.1:8470/api/inspect", open(image, "rb").read(), headers)
    print(json.load(urllib.request.urlopen(request))["verdict"])
"""


def test_container_builds_and_inspects(
    engine: list[str],
    image: str,
    tmp_path: Path,
    inspector: Inspector,
    parts: list[np.ndarray],
    broken_part: np.ndarray,
) -> None:
    for folder in ("products", "line"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder).chmod(0o777)
    inspector.save(tmp_path / "products" / "washer.fsad")
    (tmp_path / "products" / "washer.fsad").chmod(0o666)
    for name, picture in (("good", parts[0]), ("bad", broken_part)):
        cv2.imwrite(str(tmp_path / "line" / f"{name}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    (tmp_path / "token").write_text(TOKEN)
    volumes = [
        *("-v", f"{tmp_path}/token:/run/secrets/fewshot-ad-token:ro"),
        *("-v", f"{tmp_path}/products:{STATE}/products", "-v", f"{tmp_path}/line:/line:ro"),
    ]
    locked = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges"]  # noqa: S108
    started = completed(*engine, "run", "-d", "--network", "none", *locked, *volumes, image)
    assert started.returncode == 0, started.stderr
    name = started.stdout.split()[-1]
    try:
        end = time.monotonic() + 120
        while completed(*engine, "exec", name, *health_command()).returncode != 0:
            assert time.monotonic() < end, completed(*engine, "logs", name)
            time.sleep(0.5)
        assert completed(*engine, "exec", name, "id", "-u").stdout.strip() == "10001"
        assert completed(*engine, "exec", name, "touch", "/opt/fewshot-ad/x").returncode != 0
        asked = completed(*engine, "exec", name, "python", "-c", ASK, TOKEN, "/line/good.png", "/line/bad.png")
        assert asked.stdout.split() == ["401", "good", "anomalous"], asked.stderr
        assert completed(*engine, "stop", "-t", "120", name).returncode == 0
        assert completed(*engine, "inspect", "-f", "{{.State.ExitCode}}", name).stdout.strip() == "0"
        logs = completed(*engine, "logs", name)
        assert "has stopped" in logs.stdout + logs.stderr
    finally:
        completed(*engine, "rm", "-f", "-v", name)
