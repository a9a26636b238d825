"""A backup: taken while the station works, complete, checked, and never over what is there."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewshot_ad.catalog import Catalog
from fewshot_ad.cli import app
from fewshot_ad.errors import StationError
from fewshot_ad.line.backup import back_up, restore
from fewshot_ad.line.journal import Journal, Selection
from tests.line.conftest import make_record


@pytest.fixture
def station(catalog_folder: Path, tmp_path: Path) -> Path:
    journal = Journal.open(tmp_path / "journal.db", "s", exclusive=True)
    journal.add(make_record(name="one"))
    (tmp_path / "pictures" / "ab").mkdir(parents=True)
    (tmp_path / "pictures" / "ab" / "x.jpg").write_bytes(b"picture")
    return tmp_path


def test_there_and_back(station: Path) -> None:
    made = CliRunner().invoke(
        app,
        [
            *("backup", f"{station}/products", f"{station}/journal.db", "-o", f"{station}/b.tar"),
            *("--pictures", f"{station}/pictures", "--json"),
        ],
    )
    assert made.exit_code == 0, made.output
    assert json.loads(made.output)["products"] == 1
    back = CliRunner().invoke(app, ["restore", f"{station}/b.tar", f"{station}/back"])
    assert back.exit_code == 0, back.output
    assert Catalog(station / "back" / "products").names == ("washer",)
    original = (station / "products" / "washer.fsad").read_bytes()
    assert (station / "back" / "products" / "washer.fsad").read_bytes() == original
    assert (station / "back" / "pictures" / "ab" / "x.jpg").read_bytes() == b"picture"
    journal = Journal.open(station / "back" / "journal.db")
    assert [record.name for record in journal.each(Selection())] == ["one"]


def test_nothing_is_replaced(station: Path) -> None:
    products, journal = station / "products", str(station / "journal.db")
    back_up(products, journal, station / "b.tar")
    with pytest.raises(StationError, match="name that is free"):
        back_up(products, journal, station / "b.tar")
    with pytest.raises(StationError, match="empty"):
        restore(station / "b.tar", products)
    assert [path.name for path in products.iterdir()] == ["washer.fsad"]


def test_a_damaged_backup_leaves_nothing_behind(station: Path) -> None:
    back_up(station / "products", str(station / "journal.db"), station / "b.tar")
    whole = (station / "b.tar").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for data in (bytes(flipped), whole[: len(whole) // 2], b"no tar" * 100, b""):
        (station / "bad.tar").write_bytes(data)
        with pytest.raises(StationError, match=r"backup"):
            restore(station / "bad.tar", station / "back")
        assert not (station / "back").exists()
    assert not [path for path in station.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "products/../../evil", "elsewhere/x", "products/a\\b"])
def test_a_backup_writes_nowhere_else(tmp_path: Path, name: str) -> None:
    manifest = {"schema": "fewshot-ad/backup/1", "time": "", "files": {name: {"sha256": "", "bytes": 1}}}
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        for member, data in ((name, b"x"), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    with pytest.raises(StationError, match="leads elsewhere"):
        restore(tmp_path / "b.tar", tmp_path / "a" / "back")
    assert not list(tmp_path.rglob("evil"))
