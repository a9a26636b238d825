"""What a journal costs, alone and as one of many: time and bytes of a record, copying to PostgreSQL, queries.

python benchmarks/fleet.py                      # a PostgreSQL server of its own, where its programs are installed
python benchmarks/fleet.py --records 1000000

From that it works out on paper what 1,000 lines would need that inspect one image a second each, in three shifts.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from fewshot_ad.line.journal import Journal, Lost, Selection
from fewshot_ad.line.journal.database import open_database
from fewshot_ad.line.journal.tables import records
from fewshot_ad.line.record import Record, new_id, utc_now
from fewshot_ad.line.sinks.replica import replicate

LINES, IMAGES_PER_S = 1000, 1.0
DAY = 24 * 3600
REGION = {"box": [412, 310, 44, 39], "area": 1203, "peak": 2.84, "severity": 1.91}


def record_of(at: datetime.datetime, number: int) -> Record:
    rejected = number % 20 == 0
    inspection: dict[str, Any] = {
        "schema": "fewshot-ad/inspect/1",
        "name": f"{number}.png",
        "product": "bracket",
        "encoder": "lite0_parts",
        "verdict": "anomalous" if rejected else "good",
        "reason": "",
        "is_anomalous": rejected,
        "score": 1.2345678901,
        "threshold": 1.3456789012,
        "severity": 0.9172839465,
        "size": [1600, 1200],
        "regions": [REGION] if rejected else [],
        "near_misses": [],
        "timings_ms": {"decode": 8.123, "prepare": 2.345, "encode": 18.234, "search": 3.456, "total": 32.158},
    }
    return Record(
        id=new_id(),
        station="line 1",
        time=at,
        product="bracket",
        artifact="a" * 64,
        source="folder:incoming",
        name=f"{number}.png",
        verdict="anomalous" if rejected else "good",
        score=1.2345678901,
        threshold=1.3456789012,
        severity=0.9172839465,
        milliseconds=33.2,
        inspection=inspection,
    )


@contextmanager
def postgresql() -> Iterator[str | None]:
    """URL of a server of its own; None where there are no programs for it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if not found:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="fewshot-ad-postgresql-"))
    as_user: dict[str, Any] = {}
    if os.getuid() == 0:
        as_user = {"user": "postgres"}
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    control = [found[0] / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log"]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder, **as_user}
    subprocess.run([found[0] / "initdb", "-D", folder / "data", "-U", "fewshot", "--auth=trust"], **quiet)
    subprocess.run([*control, "-o", options, "start"], **quiet)
    try:
        yield f"postgresql+psycopg://fewshot@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "fast", "stop"], **{**quiet, "check": False})
        shutil.rmtree(folder, ignore_errors=True)


def add_one_by_one(journal: Journal, count: int) -> np.ndarray:
    """Milliseconds of each record, as a station writes it: a note that it began, then the record, flushed to disk."""
    times = []
    for number in range(count):
        record = record_of(utc_now(), number)
        began = time.perf_counter()
        journal.begin(Lost(record.id, record.time, record.product, record.source, record.name))
        journal.add(record)
        times.append(1e3 * (time.perf_counter() - began))
    return np.array(times)


def fill(journal: Journal, count: int) -> None:
    """Many records at once, a second apart."""
    import json

    first = utc_now() - datetime.timedelta(seconds=count)
    for start in range(0, count, 10_000):
        rows = []
        for number in range(start, min(count, start + 10_000)):
            record = record_of(first + datetime.timedelta(seconds=number), number)
            values = record.model_dump(exclude={"schema_", "inspection"})
            rows.append({**values, "inspection": json.dumps(record.inspection)})
        with journal.engine.begin() as connection:
            connection.execute(sa.insert(records), rows)


def queries(journal: Journal) -> None:
    since = utc_now() - datetime.timedelta(hours=8)
    timed = {
        "history, the latest 50": lambda: journal.select(Selection(), 50),
        "history, the latest 50 rejects": lambda: journal.select(Selection(verdicts=("anomalous",)), 50),
        "counts of the last 8 hours": lambda: journal.counts(Selection(since=since)),
        "counts of all": lambda: journal.counts(Selection()),
    }
    for name, query in timed.items():
        began = time.perf_counter()
        query()
        print(f"  {name}: {1e3 * (time.perf_counter() - began):.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fewshot-ad-fleet-") as scratch, postgresql() as url:
        file = Path(scratch, "journal.db")
        journal = Journal.open(file, "line 1")
        journal.start("begin")
        times = add_one_by_one(journal, 2000)
        print(f"SQLite, one by one, flushed: median {np.median(times):.2f} ms, 99% {np.quantile(times, 0.99):.2f} ms")
        fill(journal, args.records)
        journal.close()
        journal = Journal.open(file, "line 1")
        per_record = file.stat().st_size / (args.records + len(times))
        print(f"SQLite: {per_record:.0f} bytes per record")
        queries(journal)
        if url is None:
            print("left out, since there is no PostgreSQL here: copying to it")
            return
        target = open_database(url)
        began = time.perf_counter()
        copied = replicate(journal, target)
        rows_per_s = copied / (time.perf_counter() - began)
        with target.connect() as connection:
            size = connection.exec_driver_sql("SELECT pg_total_relation_size('records')").scalar_one()
        print(f"PostgreSQL: {rows_per_s:,.0f} rows per second from one station, {size / copied:.0f} bytes per record")
        shared = Journal(target, "reader")
        queries(shared)
        per_day = LINES * IMAGES_PER_S * DAY
        print(f"on paper, {LINES} lines at {IMAGES_PER_S:g} image/s: {per_day / 1e6:.1f} million records a day,")
        print(
            f"  {per_day * size / copied / 1e9:.0f} GB a day in PostgreSQL, {DAY * per_record / 1e6:.0f} MB at a line,"
        )
        print(f"  {LINES * IMAGES_PER_S / rows_per_s:.2f} of what one connection copies here")
        target.dispose()


if __name__ == "__main__":
    main()
