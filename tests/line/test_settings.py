"""What a station is told: every mistake with its field and line, and nothing that is unsafe by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot_ad.errors import StationError
from fewshot_ad.line.settings import camera_name, override, parse_settings, read_secret, read_settings


def test_paths_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "station.yaml").write_text(
        "station: 3\ncatalog: parts\njournal: log/j.db\nfolders:\n  - path: in\nlisten: {token_file: token}\n"
    )
    settings = read_settings(tmp_path / "station.yaml")
    assert settings.station == "3"
    assert settings.catalog == str(tmp_path / "parts")
    assert settings.journal == str(tmp_path / "log" / "j.db")
    assert settings.folders[0].done == str(tmp_path / "in" / "done")
    assert settings.listen.token_file == str(tmp_path / "token")
    assert settings.pictures.keep == "rejects"


def test_a_url_is_no_path(tmp_path: Path) -> None:
    settings = parse_settings({"journal": "postgresql+psycopg://u@h/n", "replica": {"url": "sqlite:///x.db"}}, tmp_path)
    assert settings.journal == "postgresql+psycopg://u@h/n"
    assert settings.replica is not None
    assert settings.replica.url == "sqlite:///x.db"


def test_every_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "station.yaml").write_text(
        "station: s\nlisten:\n  prt: 80\npictures:\n  keep: some\nwebhooks:\n  - url: ftp://x\nlimits:\n  queue: 0\n"
    )
    with pytest.raises(StationError) as caught:
        read_settings(tmp_path / "station.yaml")
    said = str(caught.value)
    assert "4 mistakes" in said
    for words in ("did you mean 'port'", "line 3", "all, rejects, none", "line 5", "http://", "from 1", "line 9"):
        assert words in said, words


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"listen": {"host": "0.0.0.0"}}, "token_file"),  # noqa: S104
        ({"listen": {"host": "line3.plant"}}, "token_file"),
        ({"webhooks": [{"url": "http://a/x"}, {"url": "http://a/y"}]}, "different names"),
        ({"cameras": [{"device": 0}, {"device": 0}]}, "different names"),
        ({"cameras": [{"device": 0}], "modbus": {"camera": "1"}}, "modbus.camera"),
        ({"replica": {}}, "neither"),
        ({"replica": {"url": "a", "url_file": "b"}}, "both"),
        ({"listen": {"port": "80"}}, "whole number"),
        ({"limits": {"upload_s": float("nan")}}, "number"),
    ],
)
def test_what_makes_no_sense_is_refused(content: dict, said: str) -> None:
    with pytest.raises(StationError, match=said):
        parse_settings(content)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_computer_needs_no_token(host: str) -> None:
    assert parse_settings({"listen": {"host": host}}).listen.is_local


def test_options_go_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "station.yaml").write_text("listen: {port: 1, names: [line3]}\npictures: {keep: all}\n")
    settings = override(
        read_settings(tmp_path / "station.yaml"), {"listen.port": 2, "pictures.keep": None, "catalog": Path("/c")}
    )
    assert (settings.listen.port, settings.listen.names, settings.pictures.keep) == (2, ["line3"], "all")
    assert settings.catalog == "/c"
    assert settings.journal == str(tmp_path / "journal.db")


def test_a_camera_has_a_name_that_may_be_shown() -> None:
    devices = [0, "/dev/video2", "rtsp://user:secret@cam7/stream?password=secret", "genicam:SN42", "line.avi"]
    settings = parse_settings({"cameras": [{"device": device} for device in devices]})
    names = [camera_name(camera) for camera in settings.cameras]
    assert names == ["0", "video2", "cam7-stream", "genicam:SN42", "line.avi"]
    with pytest.raises(StationError, match="cameras"):
        parse_settings({"cameras": [{"device": 0, "name": "a/b"}]})


def test_secrets_are_the_first_line_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("  word \nmore\n")
    assert read_secret(str(tmp_path / "token"), "a token") == "word"
    assert read_secret(None, "a token") is None
    (tmp_path / "empty").write_text("\n")
    for name in ("empty", "none"):
        with pytest.raises(StationError, match="first line"):
            read_secret(str(tmp_path / name), "a token")
