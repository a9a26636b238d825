"""A Modbus TCP server for a PLC: the last verdict as bits and registers, and a coil that triggers an inspection."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from enum import IntEnum

from fewshot_ad.line.record import Record, RecordVerdict
from fewshot_ad.line.settings import ModbusEntry
from fewshot_ad.line.sinks.loop import LoopThread
from fewshot_ad.line.sinks.sink import SinkError

try:
    from pymodbus.constants import ExcCodes
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice
except ImportError as error:
    raise SinkError("a Modbus server needs the package pymodbus 3.16: pip install 'fewshot-ad[line]'.") from error

logger = logging.getLogger(__name__)

MAP_VERSION = 1
NO_SEVERITY = 0xFFFF
CODES: dict[RecordVerdict, int] = {"good": 1, "review": 2, "anomalous": 3, "not_inspectable": 4, "unreadable": 5}
# Of a trigger after which there is no record.
FAILED = 6
_READ_BITS, _WRITE_BITS = (1, 2), (5, 15)


class Bit(IntEnum):
    """Addresses of coils and discrete inputs, which are the same; only the coil TRIGGER can be written."""

    TRIGGER = 0
    READY = 1
    BUSY = 2
    VALID = 3
    GOOD = 4
    REJECT = 5
    REVIEW = 6
    ERROR = 7


class Register(IntEnum):
    """Addresses of holding and input registers, which are the same; a counter is two, the high word first."""

    SEQUENCE = 0
    VERDICT = 1
    SEVERITY = 2
    VERSION = 3
    TOTAL = 4
    GOOD = 6
    REVIEW = 8
    ANOMALOUS = 10
    NOT_INSPECTABLE = 12
    UNREADABLE = 14


SIZE = 16
_COUNTERS: dict[RecordVerdict, Register] = {
    "good": Register.GOOD,
    "review": Register.REVIEW,
    "anomalous": Register.ANOMALOUS,
    "not_inspectable": Register.NOT_INSPECTABLE,
    "unreadable": Register.UNREADABLE,
}


class ModbusSink:
    """A Modbus TCP server.

    With a trigger, its bits and registers show only what the PLC has asked for, so that no other image can slip in
    between: it writes 1 to TRIGGER while READY is set; BUSY is set; then VALID with the verdict; it writes 0, all bits
    of the verdict go out, and READY is set again. A trigger that comes while BUSY is set is refused (exception 6).
    Without one, each record is shown as it comes. Counters count all records since the station was started.

    A part may pass only where VALID and GOOD are set.

    Args:
        entry: Where it listens.
        trigger: Inspects what is in front of the camera; None where the PLC cannot ask for it.
    """

    name = "modbus"
    replays = False

    def __init__(self, entry: ModbusEntry, trigger: Callable[[], Record] | None) -> None:
        self._entry, self._trigger = entry, trigger
        self._loop: LoopThread | None = None
        self._server: ModbusTcpServer | None = None
        self._state = threading.Lock()
        self._asked, self._busy = False, False
        self._sequence, self._code, self._severity = 0, 0, NO_SEVERITY
        self._counts: Counter[Register] = Counter()

    def open(self) -> None:
        """Listen.

        Raises:
            SinkError: The port is taken or needs rights, or the address is not this computer's.
        """
        self._loop = LoopThread("fewshot-ad-modbus-server")
        try:
            self._server = self._loop.run(self._start())
        except (OSError, RuntimeError) as error:
            raise SinkError(
                f"expected to listen on {self._entry.host}:{self._entry.port} for Modbus, cannot: {error} End what "
                "uses the port, or name another host or port; those below 1024 need rights."
            ) from error

    def send(self, record: Record) -> None:
        """Count a record, and show it where the PLC does not ask for its own.

        Args:
            record: It.

        Raises:
            SinkError: The server does not run.
        """
        if self._server is None:
            raise SinkError("expected a Modbus server that runs, got none. Open it first.")
        with self._state:
            self._counts.update((Register.TOTAL, _COUNTERS[record.verdict]))
            if self._trigger is None:
                self._show(record)

    def close(self) -> None:
        """End the server."""
        loop, self._loop = self._loop, None
        server, self._server = self._server, None
        if loop is not None:
            loop.close(None if server is None else server.shutdown())

    async def _start(self) -> ModbusTcpServer:
        bits = [SimData(0, count=SIZE, values=False, datatype=DataType.BITS)]
        registers = [SimData(0, values=[0] * SIZE, datatype=DataType.REGISTERS)]
        # Whatever unit number a PLC asks for.
        device = SimDevice(0, (bits, list(bits), registers, list(registers)), action=self._answer)
        server = ModbusTcpServer(device, address=(self._entry.host, self._entry.port))
        await server.serve_forever(background=True)
        return server

    async def _answer(
        self, function: int, _: int, address: int, __: int, stored: list[int], written: list[int] | list[bool] | None
    ) -> ExcCodes | None:
        """Called for each request, before it is answered from what is stored.

        Args:
            function: Code of the request.
            address: Of the first bit or register.
            stored: All bits, 16 in a number, or all registers; what is changed here is answered.
            written: What the request writes; None if it reads.
        """
        with self._state:
            if written is not None:
                refusal = self._write(function, address, written)
                if refusal is not None:
                    return refusal
            if function in (*_READ_BITS, *_WRITE_BITS):
                stored[0] = sum(1 << bit for bit, is_set in self._bits().items() if is_set)
            else:
                stored[:SIZE] = self._registers()
        return None

    def _write(self, function: int, address: int, written: list[int] | list[bool]) -> ExcCodes | None:
        """Take a write; called with the lock."""
        if function not in _WRITE_BITS or address != Bit.TRIGGER or len(written) != 1 or self._trigger is None:
            return ExcCodes.ILLEGAL_ADDRESS
        if not written[0]:
            self._asked = False
            self._code, self._severity = 0, NO_SEVERITY
        elif self._busy and not self._asked:
            # The PLC has given up the last one, which is not over yet; its verdict must not be taken for the next.
            return ExcCodes.DEVICE_BUSY
        elif not self._asked:
            self._asked, self._busy = True, True
            threading.Thread(
                target=self._inspect, args=(self._trigger,), name="fewshot-ad-modbus-trigger", daemon=True
            ).start()
        return None

    def _inspect(self, trigger: Callable[[], Record]) -> None:
        record: Record | None = None
        try:
            record = trigger()
        except Exception as error:  # whatever it is, the PLC must be told that there is no verdict
            logger.warning("%s: the PLC's trigger got no verdict: %s", self.name, error)
        with self._state:
            self._busy = False
            if self._asked:
                self._show(record)

    def _show(self, record: Record | None) -> None:
        """Set what is read to a record, or to none that could be had; called with the lock."""
        self._sequence = self._sequence % 0xFFFF + 1
        self._code = FAILED if record is None else CODES[record.verdict]
        severity = None if record is None else record.severity
        self._severity = NO_SEVERITY if severity is None else round(min(NO_SEVERITY - 1, severity * 1000))

    def _bits(self) -> dict[Bit, bool]:
        """What the bits are now; called with the lock."""
        return {
            Bit.TRIGGER: self._asked,
            Bit.READY: not self._asked and not self._busy,
            Bit.BUSY: self._busy,
            Bit.VALID: self._code > 0,
            Bit.GOOD: self._code == CODES["good"],
            Bit.REJECT: self._code == CODES["anomalous"],
            Bit.REVIEW: self._code == CODES["review"],
            Bit.ERROR: self._code in (CODES["not_inspectable"], CODES["unreadable"], FAILED),
        }

    def _registers(self) -> list[int]:
        """What the registers are now; called with the lock."""
        counters = [
            word
            for register in (Register.TOTAL, *_COUNTERS.values())
            for word in divmod(self._counts[register] & 0xFFFFFFFF, 0x10000)
        ]
        return [self._sequence, self._code, self._severity, MAP_VERSION, *counters]
