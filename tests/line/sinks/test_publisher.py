"""Every record gets to a sink once, in order, whatever the sink does; and what is not needed is not imported."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from fewshot_ad.line.journal import Journal
from fewshot_ad.line.record import Record
from fewshot_ad.line.settings import parse_settings
from fewshot_ad.line.sinks import Publisher, RefusedError, SinkError, sink
from tests.line.sinks.helpers import record_of, wait_until


class Fragile:
    """A sink that fails when it is told to."""

    def __init__(self, name: str = "fragile", replays: bool = True) -> None:
        self.name, self.replays = name, replays
        self.taken: list[str] = []
        self.failures: list[Exception] = []
        self.openings, self.closings = 0, 0
        self.gate = threading.Event()
        self.gate.set()

    def open(self) -> None:
        self.openings += 1

    def send(self, record: Record) -> None:
        self.gate.wait(10)
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(record.id)

    def close(self) -> None:
        self.closings += 1


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(sink, "LONGEST_PAUSE_S", 0.05)


def add(journal: Journal, count: int) -> list[str]:
    records = [record_of() for _ in range(count)]
    for record in records:
        journal.add(record)
    return [record.id for record in records]


def test_records_get_there_in_order_while_the_sink_fails(journal: Journal) -> None:
    fragile = Fragile()
    fragile.failures = [SinkError("down"), ValueError("a bug of a library"), SinkError("down")]
    publisher = Publisher(fragile, journal)
    publisher.start()
    ids = add(journal, 30)
    wait_until(lambda: fragile.taken == ids)
    wait_until(lambda: publisher.state == sink.SinkState("fragile", True, 0, ""))
    publisher.stop()
    assert fragile.openings == fragile.closings == 4


def test_what_is_wrong_and_what_waits_is_told(journal: Journal) -> None:
    fragile = Fragile()
    fragile.failures = [SinkError("the cable is out")] * 10_000
    publisher = Publisher(fragile, journal)
    publisher.start()
    add(journal, 3)
    wait_until(lambda: publisher.state == sink.SinkState("fragile", False, 3, "the cable is out"))
    fragile.failures.clear()
    wait_until(lambda: publisher.state.waiting == 0)
    publisher.stop()


def test_a_refused_record_is_passed_over_and_noted(journal: Journal) -> None:
    fragile = Fragile()
    fragile.failures = [RefusedError("too long")]
    publisher = Publisher(fragile, journal)
    ids = add(journal, 3)
    publisher.start()
    wait_until(lambda: fragile.taken == ids[1:])
    publisher.stop()
    noted = [event.text for event in journal.events(kinds=["refused"])]
    assert noted == [f"fragile: record {ids[0]} was refused: too long"]


def test_the_next_start_goes_on_where_the_last_one_ended(journal: Journal) -> None:
    first, second = Fragile(), Fragile()
    publisher = Publisher(first, journal)
    publisher.start()
    ids = add(journal, 5)
    publisher.stop()
    assert first.taken == ids
    ids = add(journal, 5)
    publisher = Publisher(second, journal)
    publisher.start()
    wait_until(lambda: second.taken == ids)
    publisher.stop()


def test_what_only_signals_hears_of_nothing_old(journal: Journal) -> None:
    add(journal, 5)
    lamp = Fragile("lamp", replays=False)
    publisher = Publisher(lamp, journal)
    publisher.start()
    ids = add(journal, 2)
    wait_until(lambda: lamp.taken == ids)
    publisher.stop()


def test_a_stop_sends_what_waits_and_does_not_wait_for_ever(journal: Journal) -> None:
    fragile = Fragile()
    fragile.gate.clear()
    publisher = Publisher(fragile, journal)
    publisher.start()
    ids = add(journal, 5)
    threading.Timer(0.2, fragile.gate.set).start()
    publisher.stop()
    assert fragile.taken == ids
    stuck = Fragile("stuck")
    stuck.gate.clear()
    publisher = Publisher(stuck, journal)
    publisher.start()
    began = time.monotonic()
    publisher.stop(wait_s=0.1)
    assert time.monotonic() - began < 2
    stuck.gate.set()


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("paho", "asyncua", "pymodbus"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import fewshot_ad.line.sinks as sinks
for name in ("MqttSink", "OpcuaSink", "ModbusSink"):
    try:
        getattr(sinks, name)
    except sinks.SinkError as error:
        print(error)
print(sinks.WebhookSink.__name__)
"""


def test_a_missing_library_is_named_with_what_brings_it() -> None:
    result = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True, timeout=60)
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert all("pip install 'fewshot-ad[line]'" in line for line in lines[:3])
    assert lines[3] == "WebhookSink"


def test_a_name_that_is_no_sink_is_an_error() -> None:
    from fewshot_ad.line import sinks

    with pytest.raises(AttributeError, match="no attribute 'FaxSink'"):
        _ = sinks.FaxSink


def test_the_settings_in_the_documentation_are_settings() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "sources-and-sinks.md"
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    settings = [parse_settings(yaml.safe_load(block)) for block in blocks]
    assert len(settings) == 6
    assert all(one.station == "press 3" for one in settings)
