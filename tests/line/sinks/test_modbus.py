"""A PLC reads verdicts over Modbus TCP, and asks for them: trigger, busy, valid, and back to ready."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fewshot_ad.errors import StationError
from fewshot_ad.line.record import Record
from fewshot_ad.line.settings import ModbusEntry
from fewshot_ad.line.sinks import SinkError
from tests.line.sinks.helpers import free_port, record_of, wait_until

pymodbus = pytest.importorskip("pymodbus", reason="NO MODBUS: pip install 'fewshot-ad[line]'")
modbus = pytest.importorskip("fewshot_ad.line.sinks.modbus")
Bit, Register = modbus.Bit, modbus.Register
DOCS = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "sources-and-sinks.md"


class Plc:
    """What a PLC does."""

    def __init__(self, port: int) -> None:
        from pymodbus.client import ModbusTcpClient

        self.client = ModbusTcpClient("127.0.0.1", port=port, timeout=5, retries=0)
        assert self.client.connect()

    def bits(self) -> set[str]:
        """The names of what is set; coils say the same as discrete inputs."""
        inputs = self.client.read_discrete_inputs(0, count=8).bits[:8]
        return {Bit(at).name for at, is_set in enumerate(inputs) if is_set}

    def words(self) -> dict[str, int]:
        words = self.client.read_input_registers(0, count=modbus.SIZE).registers
        found = {register.name: words[register] for register in Register if register < Register.TOTAL}
        counters = [register for register in Register if register >= Register.TOTAL]
        return found | {register.name: words[register] << 16 | words[register + 1] for register in counters}

    def trigger(self, is_set: bool) -> int:
        """Write the coil; 0, or the code of the exception."""
        answer = self.client.write_coil(Bit.TRIGGER, is_set)
        return int(answer.exception_code) if answer.isError() else 0


class Camera:
    """Gives the records it is told to, when it is told to."""

    def __init__(self) -> None:
        self.records: list[Record | Exception] = []
        self.go = threading.Event()
        self.calls = 0

    def __call__(self) -> Record:
        self.calls += 1
        assert self.go.wait(10)
        record = self.records.pop(0)
        if isinstance(record, Exception):
            raise record
        return record


Serve = Callable[[Callable[[], Record] | None], tuple["modbus.ModbusSink", Plc]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    served = []

    def start(trigger: Callable[[], Record] | None) -> tuple[modbus.ModbusSink, Plc]:
        port = free_port()
        server = modbus.ModbusSink(ModbusEntry.model_validate({"port": port}), trigger)
        server.open()
        plc = Plc(port)
        served.append((server, plc))
        return server, plc

    yield start
    for server, plc in served:
        plc.client.close()
        server.close()


@pytest.mark.parametrize(
    ("record", "bit", "code", "severity"),
    [
        (record_of("good", severity=0.4004), "GOOD", 1, 400),
        (record_of("review", severity=1.01), "REVIEW", 2, 1010),
        (record_of("anomalous", severity=700.0), "REJECT", 3, 65534),
        (record_of("not_inspectable", severity=None), "ERROR", 4, 65535),
        (record_of("unreadable"), "ERROR", 5, 65535),
        (StationError("no frame"), "ERROR", 6, 65535),
    ],
)
def test_the_handshake(serve: Serve, record: Record | Exception, bit: str, code: int, severity: int) -> None:
    camera = Camera()
    server, plc = serve(camera)
    for cycle in (1, 2):
        assert plc.bits() == {"READY"}
        camera.records.append(record)
        camera.go.clear()
        assert plc.trigger(True) == 0
        assert plc.bits() == {"TRIGGER", "BUSY"}
        # Another image of the line must not be taken for the one that was asked for.
        server.send(record_of("good"))
        assert plc.trigger(True) == 0
        assert plc.bits() == {"TRIGGER", "BUSY"}
        assert plc.words()["VERDICT"] == 0
        camera.go.set()
        wait_until(lambda: "BUSY" not in plc.bits())
        assert plc.bits() == {"TRIGGER", "VALID", bit}
        server.send(record_of("good"))
        words = plc.words()
        assert (words["SEQUENCE"], words["VERDICT"], words["SEVERITY"]) == (cycle, code, severity)
        assert plc.trigger(False) == 0
        assert plc.bits() == {"READY"}
        words = plc.words()
        assert (words["SEQUENCE"], words["VERDICT"], words["SEVERITY"]) == (cycle, 0, 65535)
    assert camera.calls == 2
    assert plc.words()["TOTAL"] == 4


def test_a_plc_that_gives_up_never_gets_the_verdict_for_its_next_part(serve: Serve) -> None:
    camera = Camera()
    camera.records = [record_of("good"), record_of("anomalous")]
    _, plc = serve(camera)
    plc.trigger(True)
    plc.trigger(False)
    assert plc.bits() == {"BUSY"}
    assert plc.trigger(True) == 6
    assert plc.bits() == {"BUSY"}
    camera.go.set()
    wait_until(lambda: plc.bits() == {"READY"})
    assert plc.words()["SEQUENCE"] == 0
    plc.trigger(True)
    wait_until(lambda: "VALID" in plc.bits())
    assert plc.bits() == {"TRIGGER", "VALID", "REJECT"}


def test_a_plc_that_comes_back_finds_what_it_asked_for(serve: Serve) -> None:
    camera = Camera()
    camera.records = [record_of("good")]
    camera.go.set()
    _, plc = serve(camera)
    plc.trigger(True)
    plc.client.close()
    assert plc.client.connect()
    wait_until(lambda: plc.bits() == {"TRIGGER", "VALID", "GOOD"})


def test_without_a_camera_each_record_is_shown_as_it_comes(serve: Serve) -> None:
    server, plc = serve(None)
    assert plc.bits() == {"READY"}
    assert plc.words()["SEQUENCE"] == 0
    for number, (verdict, bit) in enumerate([("good", "GOOD"), ("anomalous", "REJECT"), ("review", "REVIEW")], 1):
        server.send(record_of(verdict))
        assert plc.bits() == {"READY", "VALID", bit}
        assert plc.words()["SEQUENCE"] == number
    assert plc.trigger(True) == 2


def test_counters_are_of_32_bits_with_the_high_word_first(serve: Serve) -> None:
    server, plc = serve(None)
    for verdict in ("good", "good", "review", "anomalous", "not_inspectable", "unreadable"):
        server.send(record_of(verdict))
    server._counts[Register.GOOD] += 70_000
    assert plc.words() == {
        "SEQUENCE": 6,
        "VERDICT": 5,
        "SEVERITY": 65535,
        "VERSION": 1,
        "TOTAL": 6,
        "GOOD": 70_002,
        "REVIEW": 1,
        "ANOMALOUS": 1,
        "NOT_INSPECTABLE": 1,
        "UNREADABLE": 1,
    }
    assert plc.client.read_input_registers(Register.GOOD, count=2).registers == [1, 4466]


def test_the_sequence_begins_anew_without_a_zero(serve: Serve) -> None:
    server, plc = serve(None)
    server._sequence = 65535
    server.send(record_of())
    assert plc.words()["SEQUENCE"] == 1


def test_both_kinds_of_bits_and_registers_say_the_same(serve: Serve) -> None:
    server, plc = serve(None)
    server.send(record_of("anomalous"))
    for unit in (0, 1, 255):
        coils = plc.client.read_coils(0, count=8, device_id=unit).bits
        assert coils == plc.client.read_discrete_inputs(0, count=8, device_id=unit).bits
        words = plc.client.read_holding_registers(0, count=16, device_id=unit).registers
        assert words == plc.client.read_input_registers(0, count=16, device_id=unit).registers
    assert plc.client.read_coils(Bit.REJECT, count=1).bits[0]
    assert plc.client.read_holding_registers(Register.VERDICT, count=1).registers == [3]


def test_nothing_but_the_trigger_can_be_written(serve: Serve) -> None:
    camera = Camera()
    _, plc = serve(camera)
    for answer in (
        plc.client.write_coil(Bit.GOOD, True),
        plc.client.write_coils(0, [True, True, True]),
        plc.client.write_coils(Bit.VALID, [True]),
        plc.client.write_register(Register.VERDICT, 1),
        plc.client.write_registers(0, [1] * 16),
        plc.client.mask_write_register(address=1, and_mask=0, or_mask=1),
        plc.client.readwrite_registers(read_address=0, read_count=1, write_address=1, values=[1]),
        plc.client.read_input_registers(modbus.SIZE, count=1),
        plc.client.read_coils(2000, count=1),
    ):
        assert answer.exception_code == 2
    assert plc.bits() == {"READY"}
    camera.records = [record_of("good")]
    camera.go.set()
    assert not plc.client.write_coils(Bit.TRIGGER, [True]).isError()
    wait_until(lambda: "GOOD" in plc.bits())


def test_what_is_no_modbus_is_survived(serve: Serve) -> None:
    _, plc = serve(None)
    port = plc.client.comm_params.port
    for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 300, bytes(range(256))):
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(sent)
    assert plc.bits() == {"READY"}


def test_it_can_be_closed_and_opened_again() -> None:
    port = free_port()
    server = modbus.ModbusSink(ModbusEntry.model_validate({"port": port}), None)
    server.close()
    with pytest.raises(SinkError, match="Modbus server that runs"):
        server.send(record_of())
    for total in (1, 2):
        server.open()
        server.send(record_of())
        plc = Plc(port)
        assert plc.words()["TOTAL"] == total
        plc.client.close()
        server.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 1)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = modbus.ModbusSink(ModbusEntry.model_validate({"port": port}), None)
        with pytest.raises(SinkError, match=f"listen on 127.0.0.1:{port} for Modbus"):
            server.open()
        server.close()


def test_the_documentation_has_the_map_as_it_is() -> None:
    page = DOCS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+)(?:, \d+)? \| `(\w+)` \|", page, re.M)
    assert rows == [(str(int(one)), one.name) for kind in (Bit, Register) for one in kind]
