"""What the tests of a station share: a real PostgreSQL where there is one, records, a running station."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.line.record import Record, new_id, utc_now


def free_port() -> int:
    """A port of this computer that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def make_record(**values: Any) -> Record:
    """A record of a good part, with some of its fields set."""
    defaults = {
        "id": new_id(),
        "station": "s",
        "time": utc_now(),
        "product": "washer",
        "source": "http",
        "name": "a.png",
        "verdict": "good",
        "score": 0.1 + 0.2,
        "threshold": 1 / 3,
        "severity": 0.9,
        "milliseconds": 12.5,
    }
    return Record.model_validate({**defaults, **values})


def png(image: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 RGB as PNG."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def _postgres_programs() -> Path | None:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    return next((path for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server of these tests' own; each asks for a database of its own in it."""
    pytest.importorskip("psycopg", reason="NO POSTGRESQL: psycopg is not installed")
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("NO POSTGRESQL: its server is not installed (apt-get install postgresql)")
    # Not pytest's own folder: the server refuses to run as root, and others may not enter that one.
    folder = Path(tempfile.mkdtemp(prefix="fewshot-ad-postgresql-"))
    user = "postgres" if os.getuid() == 0 else getpass.getuser()
    as_user: dict[str, Any] = {"user": user} if os.getuid() == 0 else {}
    if as_user:
        shutil.chown(folder, user)
    data = folder / "data"
    port = free_port()
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "fewshot", "--auth=trust", "-E", "UTF8", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=folder,
        **as_user,
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    control = [programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
    subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)
    try:
        yield f"postgresql+psycopg://fewshot@127.0.0.1:{port}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, cwd=folder, **as_user)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def new_database(postgresql: str) -> str:
    """URL of an empty database on it."""
    import sqlalchemy as sa

    name = f"d{new_id()}"
    engine = sa.create_engine(f"{postgresql}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return f"{postgresql}/{name}"


@pytest.fixture(scope="session")
def washer_file(inspector: Inspector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a product."""
    path = tmp_path_factory.mktemp("washer") / "washer.fsad"
    inspector.save(path)
    return path


@pytest.fixture
def catalog_folder(washer_file: Path, tmp_path: Path) -> Path:
    """A catalog with that product."""
    folder = tmp_path / "products"
    folder.mkdir()
    shutil.copy(washer_file, folder)
    return folder
