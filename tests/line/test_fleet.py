"""Products for many stations: fetched whole or not at all, and a correction made here is not lost."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from fewshot_ad import Inspector
from fewshot_ad.catalog import Catalog
from fewshot_ad.cli import app
from fewshot_ad.errors import StationError
from fewshot_ad.line import fleet
from fewshot_ad.line.fleet import Puller, pull, push
from tests.line.sinks.helpers import free_port, wait_until


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an object store that speaks S3, on this computer; what a plant's own, such as MinIO, is like."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket, and what the environment says about it."""
    variables = {"ENDPOINT_URL": s3, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    # Not what an earlier test was connected to.
    s3fs.S3FileSystem.clear_instance_cache()
    name = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}/parts"


@pytest.fixture(params=["folder", "memory", "S3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "S3":
        return str(request.getfixturevalue("bucket"))
    return str(tmp_path / "store") if request.param == "folder" else f"memory://{tmp_path.name}/store"


@pytest.fixture
def here(catalog_folder: Path) -> Catalog:
    return Catalog(catalog_folder)


@pytest.fixture
def there(tmp_path: Path) -> Catalog:
    (tmp_path / "there").mkdir()
    return Catalog(tmp_path / "there")


def statuses(results) -> dict[str, str]:
    return {one.name: one.status for one in results}


def test_a_product_reaches_another_station(here: Catalog, there: Catalog, store: str) -> None:
    shutil.copy(here.path("washer"), here.path("ring ä"))
    assert statuses(push(here, store)) == {"ring ä": "pushed", "washer": "pushed"}
    assert statuses(push(here, store)) == {"ring ä": "there", "washer": "there"}
    assert statuses(pull(store, there, ["washer"])) == {"washer": "new"}
    assert statuses(pull(store, there)) == {"ring ä": "new", "washer": "there"}
    assert there.path("washer").read_bytes() == here.path("washer").read_bytes()


def test_a_change_goes_out_and_a_change_there_stays(
    here: Catalog, there: Catalog, store: str, inspector: Inspector
) -> None:
    list(push(here, store))
    list(pull(store, there))

    def change(catalog: Catalog, threshold: float) -> None:
        changed = Inspector.load(catalog.path("washer"), encoder=inspector.encoder)
        changed.threshold = threshold
        changed.save(catalog.path("washer"))

    change(here, 1.0)
    assert statuses(push(here, store)) == {"washer": "pushed"}
    assert statuses(pull(store, there)) == {"washer": "updated"}
    change(there, 2.0)
    mine = there.path("washer").read_bytes()
    change(here, 3.0)
    list(push(here, store))
    assert statuses(pull(store, there)) == {"washer": "changed here"}
    assert there.path("washer").read_bytes() == mine
    assert statuses(pull(store, there, force=True)) == {"washer": "updated"}
    assert there.path("washer").read_bytes() == here.path("washer").read_bytes()


def test_nobodys_correction_is_replaced_in_the_store(
    here: Catalog, there: Catalog, store: str, inspector: Inspector
) -> None:
    list(push(here, store))
    list(pull(store, there))
    corrected = Inspector.load(there.path("washer"), encoder=inspector.encoder)
    corrected.threshold = 1.0
    corrected.save(there.path("washer"))
    assert statuses(push(there, store)) == {"washer": "pushed"}
    # Here is the older one, which must not go over it, and takes the newer one.
    assert statuses(push(here, store)) == {"washer": "changed there"}
    assert statuses(pull(store, here)) == {"washer": "updated"}
    assert here.path("washer").read_bytes() == there.path("washer").read_bytes()
    assert statuses(push(here, store)) == {"washer": "there"}


def test_what_was_deleted_stays_away(here: Catalog, there: Catalog, store: str) -> None:
    list(push(here, store))
    list(pull(store, there))
    there.path("washer").unlink()
    assert statuses(pull(store, there)) == {"washer": "deleted here"}
    assert there.names == ()
    assert statuses(pull(store, there, force=True)) == {"washer": "new"}


def test_damage_and_evil_names_replace_nothing(here: Catalog, there: Catalog, tmp_path: Path) -> None:
    store = tmp_path / "store"
    list(push(here, str(store)))
    [file] = (store / "objects").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert statuses(pull(str(store), there)) == {"washer": "failed"}
    assert there.names == ()
    pointer = (store / "products" / "washer.json").read_text()
    for text in ("{}", "no json", json.dumps({**json.loads(pointer), "sha256": "../../x"})):
        (store / "products" / "washer.json").write_text(text)
        assert statuses(pull(str(store), there)) == {"washer": "failed"}
    (store / "products" / ".hidden.json").write_text(pointer)
    assert statuses(pull(str(store), there, ["../x", ".hidden"])) == {"../x": "failed", ".hidden": "failed"}
    assert not list(tmp_path.rglob("x.fsad"))
    (store / "products" / ".hidden.json").unlink()
    # What is whole, and no product.
    (store / "objects" / file.name).write_bytes(b"no product")
    digest = hashlib.sha256(b"no product").hexdigest()
    file.rename(store / "objects" / f"{digest}.fsad")
    (store / "products" / "washer.json").write_text(json.dumps({**json.loads(pointer), "sha256": digest}))
    assert statuses(pull(str(store), there)) == {"washer": "failed"}
    assert [path.name for path in there.folder.iterdir()] == []


def test_damage_is_mended_by_pushing_anew(here: Catalog, there: Catalog, tmp_path: Path) -> None:
    store = tmp_path / "store"
    list(push(here, str(store)))
    [file] = (store / "objects").iterdir()
    for damaged in (file, store / "products" / "washer.json"):
        damaged.write_bytes(damaged.read_bytes()[:-1])
        [pulled] = pull(str(store), there, force=True)
        assert pulled.status == "failed"
        assert "Push it anew with --force" in pulled.message
        assert statuses(push(here, str(store), force=True)) == {"washer": "pushed"}
        assert statuses(pull(str(store), there, force=True)) == {"washer": "new"}
        there.path("washer").unlink()


def test_a_share_that_is_not_mounted_is_not_made(here: Catalog, tmp_path: Path) -> None:
    with pytest.raises(StationError, match="Mount or create it"):
        list(push(here, str(tmp_path / "share" / "parts")))
    assert not (tmp_path / "share").exists()


def test_no_store_is_told(there: Catalog, tmp_path: Path) -> None:
    for store, said in ((str(tmp_path / "none"), "push some first"), ("nosuch://x", "package"), ("s3:/x", "slashes")):
        with pytest.raises(StationError, match=said):
            list(pull(store, there))


def test_the_folder_of_the_products_is_no_store(here: Catalog) -> None:
    for moved in (push(here, str(here.folder)), pull(f"file://{here.folder}/", here)):
        with pytest.raises(StationError, match="besides the folder of the products"):
            list(moved)
    assert not (here.folder / "objects").exists()


def test_a_store_that_is_written_in_capitals_is_one(here: Catalog, tmp_path: Path) -> None:
    assert statuses(push(here, f"FILE://{tmp_path}/store")) == {"washer": "pushed"}
    assert (tmp_path / "store" / "products" / "washer.json").is_file()


def test_a_store_that_cannot_be_written_is_told(here: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fleet, "write_atomically", full)
    [pushed] = push(here, str(tmp_path / "store"))
    assert pushed.status == "failed"
    assert re.search(r"cannot be written \(No space left on device\).*MB are needed\. ", pushed.message)


def test_damage_in_an_object_store_replaces_nothing(here: Catalog, there: Catalog, bucket: str) -> None:
    list(push(here, bucket))
    list(pull(bucket, there))
    files = s3fs.S3FileSystem()
    [path] = files.ls(f"{bucket}/objects")
    pointer = json.loads(files.cat_file(f"{bucket}/products/washer.json"))
    files.pipe_file(path, b"no product")
    there.path("washer").unlink()
    assert statuses(pull(bucket, there, force=True)) == {"washer": "failed"}
    files.pipe_file(f"{bucket}/products/washer.json", json.dumps({**pointer, "sha256": "0" * 64}).encode())
    assert statuses(pull(bucket, there, force=True)) == {"washer": "failed"}
    assert there.names == ()


def refused(*args: object) -> None:
    raise PermissionError("Forbidden")


def test_an_object_store_that_cannot_be_had_is_told(
    here: Catalog, there: Catalog, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is the bucket, and nothing in it.
    with pytest.raises(StationError, match="push some first"):
        list(pull(bucket, there))
    [pushed] = push(here, "s3://no-such-bucket-here/parts")
    assert pushed.status == "failed"
    assert "cannot be written" in pushed.message
    assert "name of the bucket" in pushed.message
    monkeypatch.setattr(s3fs.S3FileSystem, "open", refused)
    [pushed] = push(here, bucket)
    assert "Check the credentials" in pushed.message
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StationError, match="cannot be reached"):
        list(pull(bucket, there))


def test_a_station_fetches_by_itself(here: Catalog, there: Catalog, tmp_path: Path) -> None:
    puller = Puller(str(tmp_path / "store"), there, 0.05)
    puller.start()
    wait_until(lambda: puller.state.error != "")
    assert "push some first" in puller.state.error
    list(push(here, str(tmp_path / "store")))
    wait_until(lambda: puller.state.seen > 0)
    puller.stop()
    assert there.names == ("washer",)
    assert puller.state.error == ""


def test_in_the_shell(here: Catalog, there: Catalog, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    run = CliRunner().invoke
    assert run(app, ["fleet", "push", str(here.folder), store]).output == "washer: pushed\n1 pushed\n"
    answer = run(app, ["fleet", "pull", store, str(there.folder), "--json"])
    assert json.loads(answer.output)["status"] == "new"
    assert run(app, ["fleet", "pull", store, str(there.folder), "--product", "nut"]).exit_code == 2
    corrected = Inspector.load(there.path("washer"))
    corrected.threshold = 1.0
    corrected.save(there.path("washer"))
    assert run(app, ["fleet", "push", str(there.folder), store]).exit_code == 0
    # It was left alone at both ends: the one here has another change.
    other = Inspector.load(here.path("washer"))
    other.threshold = 2.0
    other.save(here.path("washer"))
    assert run(app, ["fleet", "push", str(here.folder), store]).exit_code == 3
    assert run(app, ["fleet", "pull", store, str(here.folder)]).exit_code == 3
