"""The database of a journal: opened, brought to the newest form, and its errors put in words."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import ArgumentError as UrlError
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from fewshot_ad.errors import StationError

# How long a writer waits for another one.
BUSY_S = 15.0
# How long a database server may take to answer.
CONNECT_S = 10
# Of PostgreSQL's advisory locks, the one that a migration holds; any number will do.
_MIGRATION = 8470_0001
# Alembic keeps what it works on in its modules: one at a time in a process.
_migrating = threading.Lock()


class JournalError(StationError):
    """The journal cannot be opened, read or written."""


class InUseError(JournalError):
    """Another station writes the journal."""


class DiskFullError(JournalError):
    """The journal cannot be written, since its disk is full."""


def open_database(place: str) -> sa.Engine:
    """A database, brought to the newest form.

    Args:
        place: Of a SQLite file, which is made if there is none; or the URL of a database.

    Raises:
        JournalError: It cannot be opened, is no journal, or was written by a later version.
    """
    url = url_of(place)
    if url.get_backend_name() == "sqlite" and url.database:
        folder = Path(url.database).absolute().parent
        if not folder.is_dir():
            raise JournalError(f"expected a folder at {folder} to keep the journal in, got none. Create it.")
    with journal_errors(shown(url)):
        options: dict[str, Any] = {}
        if url.get_backend_name() == "postgresql":
            # A server that is gone, or a lock that is never given back, must not stop the line without a word.
            wait = int(BUSY_S * 1000)
            connecting = {
                "connect_timeout": CONNECT_S,
                "options": f"-c lock_timeout={wait} -c statement_timeout={4 * wait}",
                "tcp_user_timeout": wait,
                "keepalives_idle": 10,
                "keepalives_interval": 3,
                "keepalives_count": 3,
            }
            options = {"pool_pre_ping": True, "connect_args": connecting}
        try:
            engine = sa.create_engine(url, **options)
        except (NoSuchModuleError, ImportError) as error:
            raise JournalError(
                f"{shown(url)}: expected a database whose driver is installed, got none ({error}). For PostgreSQL: "
                "pip install 'fewshot-ad[postgresql]', and postgresql+psycopg://user@host/name."
            ) from error
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _prepare_sqlite)
            # Transactions begin where this package says so, not where the driver thinks.
            sa.event.listen(engine, "begin", _begin_sqlite)
        _upgrade(engine, shown(url))
    return engine


def file_of(place: str) -> str | None:
    """The file of a journal, however it is named; None for a database server.

    Raises:
        JournalError: It is neither.
    """
    url = url_of(place)
    return url.database if url.get_backend_name() == "sqlite" else None


def shown(url: sa.URL) -> str:
    """A URL without its password."""
    return url.render_as_string(hide_password=True)


@contextmanager
def journal_errors(what: str = "the journal") -> Iterator[None]:
    """Put what a database says into words.

    Raises:
        JournalError: The database could not do it.
    """
    try:
        yield
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        said = " ".join(str(cause).split())
        kind = DiskFullError if "disk is full" in said or "No space left" in said else JournalError
        raise kind(f"{what}: {_words(said)}") from error


def url_of(place: str) -> sa.URL:
    """The URL of a journal, however it is named.

    Raises:
        JournalError: It is none.
    """
    if "://" not in place:
        return sa.URL.create("sqlite", database=place)
    try:
        return sa.make_url(place)
    except UrlError as error:
        raise JournalError(
            f"expected the file of a journal or the URL of a database, got {re.sub(r'//.*@', '//...@', place)!r}. A "
            "URL looks like postgresql+psycopg://user@host/name."
        ) from error


def _words(said: str) -> str:
    advice = (
        ("disk is full", "the disk is full. Free some space; the station goes on by itself."),
        ("disk I/O error", f"the disk has an error ({said}). Check it, and free some space."),
        ("readonly", "it may not be written. Change the permissions of the file and its folder."),
        ("unable to open", "it cannot be opened. Check its path and permissions."),
        ("locked", f"another program has kept it locked for {BUSY_S:.0f} s. End that, or try again."),
        ("not a database", "expected a journal, got another file. Name another one."),
        ("malformed", "expected a journal, got a damaged file. Restore a backup: fewshot-ad restore."),
    )
    return next((words for sign, words in advice if sign in said), f"{said}. Check that the database can be reached.")


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
    # Readers and the writer do not wait for each other; what is committed survives a power cut.
    _into_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _into_wal(cursor: sqlite3.Cursor) -> None:
    # SQLite's own waiting does not hold for this change, which needs the file alone.
    last = time.monotonic() + BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > last:
                raise
            time.sleep(0.02)


def configuration() -> Config:
    """What Alembic needs to know, see `migrations`."""
    config = Config()
    config.set_main_option("script_location", str(resources.files("fewshot_ad.line.journal") / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _begin_sqlite(connection: sa.Connection) -> None:
    # Whoever only reads must not wait for the writer, nor keep it waiting.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _upgrade(engine: sa.Engine, what: str) -> None:
    scripts = ScriptDirectory.from_config(configuration())
    head = scripts.get_current_head()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # In this order: another station may make the tables and their revision, together, between these two lines.
        tables = set(sa.inspect(connection).get_table_names())
        current = MigrationContext.configure(connection).get_current_revision()
    if current == head:
        return
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise JournalError(
            f"{what}: expected a journal of this version of fewshot-ad or an earlier one, got one of a later version "
            f"(form {current}). Update fewshot-ad."
        )
    if current is None and "records" in tables:
        raise JournalError(f"{what}: expected a journal, got tables of something else. Name another database.")
    with _migrating, engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION})")
        # Another station may have done it meanwhile.
        if MigrationContext.configure(connection).get_current_revision() != head:
            config = configuration()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
