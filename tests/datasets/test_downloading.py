from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fewshot_ad.datasets import Archive, DatasetError, check, dataset_cards, download, open_dataset
from fewshot_ad.datasets import card as registry
from fewshot_ad.datasets.downloading import extract
from tests.datasets.layouts import LAYOUTS


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def publish(server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Serve a tiny MPDD in an archive whose folders start with a prefix."""
    url, served = server

    def build(file: str, prefix: str = "", sha256: str | None = None, layout: str = "mpdd") -> Path:
        content = tmp_path / "content"
        LAYOUTS[layout](content)
        archive = served / file
        paths = [path for path in sorted(content.rglob("*")) if path.is_file()]
        if file.endswith(".zip"):
            with zipfile.ZipFile(archive, "w") as sink:
                for path in paths:
                    sink.write(path, prefix + path.relative_to(content).as_posix())
        else:
            with tarfile.open(archive, "w:xz" if file.endswith("xz") else "w") as sink:
                for path in paths:
                    sink.add(path, prefix + path.relative_to(content).as_posix())
        digest = hashlib.sha256(archive.read_bytes()).hexdigest() if sha256 is None else sha256
        card, reader = registry.registered("mpdd")
        card = dataclasses.replace(card, archive=Archive(f"{url}/{file}", digest))
        monkeypatch.setitem(registry._REGISTRY, "mpdd", (card, reader))
        return archive

    return build


@pytest.mark.parametrize(
    ("file", "prefix", "below"),
    [
        ("a.tar", "", ""),
        ("a.tar.xz", "MPDD/", ""),
        ("a.zip", "mpdd-main/", ""),
        ("a.zip", "repo/src/data/", "src/data"),
    ],
)
def test_a_dataset_arrives_ready_to_open(
    publish: Callable[..., Path], tmp_path: Path, file: str, prefix: str, below: str
) -> None:
    publish(file, prefix)
    calls: list[tuple[str, int, int]] = []
    root = tmp_path / "data" / "mpdd"
    folder = download("mpdd", root, True, lambda *call: calls.append(call))
    assert folder == root / below
    assert open_dataset("mpdd", folder).categories == ("connector", "tubes")
    assert check("mpdd", folder, category="tubes").unreadable == []
    assert {stage for stage, _, _ in calls} == {"download", "unpack"}
    assert all(done <= total for _, done, total in calls)
    assert [path.name for path in root.parent.iterdir()] == ["mpdd"]


def test_nothing_comes_without_the_license(publish: Callable[..., Path], tmp_path: Path) -> None:
    publish("a.zip")
    with pytest.raises(DatasetError, match=r"its license to be accepted. It is: CC-BY-NC-SA-4.0, see https://"):
        download("mpdd", tmp_path / "mpdd")
    assert not (tmp_path / "mpdd").exists()


@pytest.mark.parametrize("name", [n for n, c in dataset_cards().items() if c.archive is None])
def test_behind_a_form_the_publisher_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="Get it from") as caught:
        download(name, tmp_path / "x", accept_license=True)
    assert dataset_cards()[name].source in str(caught.value)


@pytest.mark.parametrize("case", ["digest", "not there", "in use", "no archive", "another layout"])
def test_what_goes_wrong_leaves_nothing(publish: Callable[..., Path], tmp_path: Path, case: str) -> None:
    root = tmp_path / "data" / "mpdd"
    archive = publish(
        "a.zip",
        sha256={"digest": "0" * 64, "no archive": ""}.get(case),
        layout="visa" if case == "another layout" else "mpdd",
    )
    if case == "not there":
        archive.unlink()
    if case == "no archive":
        archive.write_bytes(b"<html>please fill in the form</html>" * 99)
    if case == "in use":
        root.mkdir(parents=True)
        (root / "mine.txt").write_text("precious")
    message = {
        "digest": "expected SHA-256 0000",
        "not there": "404",
        "in use": "expected a new or empty folder",
        "no archive": "expected a tar or zip file",
        "another layout": "got an archive of another layout",
    }[case]
    with pytest.raises(DatasetError, match=message):
        download("mpdd", root, accept_license=True)
    left = [path.name for path in root.parent.iterdir()] if root.parent.exists() else []
    assert left == (["mpdd"] if case == "in use" else [])
    assert case != "in use" or (root / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:/evil.txt"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_paths_that_lead_out_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    file = tmp_path / f"a.{kind}"
    if kind == "tar":
        with tarfile.open(file, "w") as tar:
            for member in ("fine.txt", name):
                info = tarfile.TarInfo(member)
                info.size = 4
                tar.addfile(info, io.BytesIO(b"evil"))
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("fine.txt", "fine")
            archive.writestr(name, "evil")
    with pytest.raises(DatasetError, match="a path that leads out of the folder"):
        extract(file, tmp_path / "a" / "b")
    assert not list((tmp_path / "a").rglob("*.txt"))
    assert not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc"
        tar.addfile(info)
    with pytest.raises(DatasetError, match="got a link or device: 'link'"):
        extract(tmp_path / "a.tar", tmp_path / "out")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc")
    with pytest.raises(DatasetError, match="got a link or device"):
        extract(tmp_path / "a.zip", tmp_path / "out")


def test_an_archive_larger_than_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.bin", b"\0" * 1_000_000)
    usage = type("Usage", (), {"free": 999_999})()
    monkeypatch.setattr("fewshot_ad.datasets.downloading.shutil.disk_usage", lambda path: usage)
    with pytest.raises(DatasetError, match="of free space"):
        extract(tmp_path / "a.zip", tmp_path / "out")


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz") as tar:
        info = tarfile.TarInfo("noise.bin")
        content = hashlib.sha256(b"x").digest() * 4000
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    file = tmp_path / "a.tar.xz"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DatasetError, match="damaged"):
        extract(file, tmp_path / "out")
