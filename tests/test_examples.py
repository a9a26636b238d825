from __future__ import annotations

import importlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.encoder import Encoder
from tests.conftest import make_part

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, *args: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *(str(a) for a in args)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


def write(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def test_every_example_is_short_and_tested() -> None:
    scripts = sorted(p.name for p in EXAMPLES.glob("*.py"))
    assert scripts == [
        "camera_loop.py",
        "compare_methods.py",
        "enroll_and_inspect.py",
        "fastapi_app.py",
        "plc_loop.py",
        "two_cameras.py",
        "watch_folder.py",
    ]
    assert all(len((EXAMPLES / s).read_text().splitlines()) <= 80 for s in scripts)


def test_enroll_and_inspect(part_folder: Path, tmp_path: Path, broken_part: np.ndarray) -> None:
    line = tmp_path / "line"
    line.mkdir()
    write(line / "bad.png", broken_part)
    (line / "torn.png").write_text("x")
    out = run("enroll_and_inspect.py", part_folder, line, "--output", tmp_path / "overlays")
    assert "bad.png: ANOMALOUS" in out
    assert "not readable" in out
    assert (tmp_path / "overlays" / "bad_overlay.png").exists()
    assert (tmp_path / "overlays" / "washer.fsad").exists()


def test_watch_folder_sorts(
    tmp_path: Path, inspector: Inspector, parts: list[np.ndarray], broken_part: np.ndarray
) -> None:
    inspector.save(tmp_path / "p.fsad")
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    write(incoming / "a.png", parts[0])
    write(incoming / "b.png", broken_part)
    (incoming / "c.png").write_text("x")
    run("watch_folder.py", tmp_path / "p.fsad", incoming, "--output", tmp_path / "sorted", "--idle", 2)
    found = {p.parent.name: p.name for p in (tmp_path / "sorted").rglob("*.png")}
    assert found == {"good": "a.png", "reject": "b.png", "unreadable": "c.png"}
    assert not list(incoming.iterdir())


def write_video(path: Path, *images: np.ndarray) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 128))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write a video")
    for image in images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def test_camera_loop_on_a_video(
    tmp_path: Path, inspector: Inspector, parts: list[np.ndarray], broken_part: np.ndarray
) -> None:
    inspector.save(tmp_path / "p.fsad")
    video = write_video(tmp_path / "line.avi", parts[0], broken_part, parts[1])
    out = run("camera_loop.py", tmp_path / "p.fsad", video, "--output", tmp_path / "rejects").splitlines()
    assert len(out) == 3
    assert "ANOMALOUS" in out[1]
    assert (tmp_path / "rejects" / "frame_000001.png").exists()
    shutil.rmtree(tmp_path / "rejects")


def test_compare_methods(part_folder: Path, parts: list[np.ndarray], broken_part: np.ndarray, tmp_path: Path) -> None:
    for name, picture in (("fine", parts[0]), ("broken", broken_part)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "0.png", picture)
    out = run("compare_methods.py", part_folder, tmp_path / "fine", tmp_path / "broken", "fewshot_ad", "spade")
    assert [line.split()[0] for line in out.splitlines()] == ["fewshot_ad", "spade"]
    assert all("image AUROC 1.000" in line for line in out.splitlines())


def test_two_cameras_with_a_product_each(
    tmp_path: Path, inspector: Inspector, encoder: Encoder, parts: list[np.ndarray], broken_part: np.ndarray
) -> None:
    inspector.save(tmp_path / "washer.fsad")
    disk = Inspector.from_support(parts[:4], product="disk", encoder=encoder, views="hflip", image_size=128)
    disk.save(tmp_path / "disk.fsad")
    left = write_video(tmp_path / "left.avi", parts[0], broken_part, parts[1])
    right = write_video(tmp_path / "right.avi", broken_part)
    lines = run("two_cameras.py", tmp_path / "washer.fsad", left, tmp_path / "disk.fsad", right).splitlines()
    assert sum("washer" in line for line in lines) == 3
    assert [line.split(": ")[1].split(",")[0] for line in lines if "disk" in line] == ["disk anomalous"]
    assert lines[-2:] == [f"{left}: {{'anomalous': 1, 'good': 2}}", f"{right}: {{'anomalous': 1}}"]


class Plc:
    """The other side of examples/plc_loop.py."""

    def __init__(self, signals: Path, process: subprocess.Popen[str]) -> None:
        self._signals, self._process = signals, process

    def ask(self) -> str:
        """Which output answers a trigger."""
        self._until(lambda: self._set("ready"))
        assert not {"good", "reject", "busy"} & set(self._names())
        (self._signals / "trigger").touch()
        self._until(lambda: self._set("good") or self._set("reject"))
        [answer] = [name for name in self._names() if name != "trigger"]
        # It stays until the PLC has seen it.
        time.sleep(0.05)
        assert self._set(answer)
        (self._signals / "trigger").unlink()
        return answer

    def _names(self) -> list[str]:
        return [path.name for path in self._signals.iterdir()]

    def _set(self, name: str) -> bool:
        return (self._signals / name).exists()

    def _until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert self._process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.002)


@pytest.mark.skipif(sys.platform == "win32", reason="a process is not told to end by SIGTERM there")
def test_plc_loop_rejects_whatever_goes_wrong(
    tmp_path: Path, inspector: Inspector, parts: list[np.ndarray], broken_part: np.ndarray
) -> None:
    inspector.save(tmp_path / "p.fsad")
    camera, signals = tmp_path / "camera", tmp_path / "signals"
    camera.mkdir()
    signals.mkdir()
    for name, image in (("1", parts[0]), ("2", broken_part), ("4", np.zeros_like(broken_part)), ("5", parts[1])):
        write(camera / f"{name}.png", image)
    (camera / "3.png").write_text("torn")
    command = [sys.executable, str(EXAMPLES / "plc_loop.py"), str(tmp_path / "p.fsad"), str(camera), str(signals)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            plc = Plc(signals, process)
            # Good, anomalous, unreadable, not inspectable, good again, and none: the camera is gone.
            answers = [plc.ask() for _ in range(6)]
            assert answers == ["good", "reject", "reject", "reject", "good", "reject"]
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert list(signals.iterdir()) == []
    verdicts = [line.split(":")[0] for line in out.splitlines()]
    assert verdicts == ["good", "anomalous", "reject", "not_inspectable", "good", "reject", "2 good, 4 rejected"]


def test_fastapi_app(
    tmp_path: Path,
    inspector: Inspector,
    parts: list[np.ndarray],
    broken_part: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("fastapi", "uvicorn", "httpx"):
        pytest.importorskip(module, reason="NO WEB APPLICATION: pip install 'fewshot-ad[line]' httpx")
    from starlette.testclient import TestClient

    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = importlib.import_module("fastapi_app")
    inspector.save(tmp_path / "p.fsad")
    bodies = [cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes() for image in parts[:1]]
    bodies.append(cv2.imencode(".png", cv2.cvtColor(broken_part, cv2.COLOR_RGB2BGR))[1].tobytes())
    with TestClient(example.create_app(tmp_path / "p.fsad")) as client:
        good, bad = (client.post("/inspect", content=body).json() for body in bodies)
        assert (good["product"], good["verdict"], bad["verdict"]) == ("washer", "good", "anomalous")
        assert good["severity"] < 1 < bad["severity"]
        assert len(bad["boxes"][0]) == 4
        torn = client.post("/inspect", content=b"torn")
        assert torn.status_code == 422
        assert "expected" in torn.json()["detail"]
        monkeypatch.setattr(example, "MAX_BYTES", 100)
        assert client.post("/inspect", content=bodies[0]).status_code == 413


def test_notebook_is_short_and_has_no_outputs() -> None:
    nbformat = pytest.importorskip("nbformat", reason="NO NOTEBOOK: pip install nbclient ipykernel")
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(len(cell.source.splitlines()) for cell in code) <= 80
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.parametrize("own_parts", [False, True])
def test_notebook_runs(own_parts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(module, reason="NO NOTEBOOK: pip install nbclient ipykernel")
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient

    if "python3" not in KernelSpecManager().find_kernel_specs():
        pytest.skip("NO NOTEBOOK: there is no kernel python3: python -m ipykernel install --sys-prefix")
    monkeypatch.delenv("FEWSHOT_AD_PARTS", raising=False)
    if own_parts:
        for number in range(23):
            folder = tmp_path / ("good" if number < 20 else "bad")
            folder.mkdir(exist_ok=True)
            write(folder / f"{number}.png", make_part(number, defect=number >= 20))
        monkeypatch.setenv("FEWSHOT_AD_PARTS", str(tmp_path))
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") for output in outputs)
    assert ("(20, 3)" if own_parts else "(30, 4)") in [output.get("data", {}).get("text/plain") for output in outputs]
    # An overlay is an HTML figure with the image in it.
    assert sum("data:image" in output.get("data", {}).get("text/html", "") for output in outputs) == 4
    assert "anomalous" in said
    assert "False reject rate" in said
    assert "the light has become darker" in said
    # Nothing is written beside it.
    assert {path.name for path in tmp_path.iterdir()} <= {"good", "bad"}
