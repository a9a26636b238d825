"""What verdicts are published to. Each library is imported only when its sink is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fewshot_ad.line.sinks.sink import Publisher, RefusedError, Sink, SinkError, SinkState

if TYPE_CHECKING:
    from fewshot_ad.line.sinks.modbus import ModbusSink
    from fewshot_ad.line.sinks.mqtt import MqttSink
    from fewshot_ad.line.sinks.opcua import OpcuaSink
    from fewshot_ad.line.sinks.webhook import WebhookSink

_HOMES = {"ModbusSink": "modbus", "MqttSink": "mqtt", "OpcuaSink": "opcua", "WebhookSink": "webhook"}

__all__ = [
    "ModbusSink",
    "MqttSink",
    "OpcuaSink",
    "Publisher",
    "RefusedError",
    "Sink",
    "SinkError",
    "SinkState",
    "WebhookSink",
]


def __getattr__(name: str) -> Any:
    """Import a sink on first use.

    Raises:
        SinkError: Its library is missing.
    """
    if name in _HOMES:
        return getattr(importlib.import_module(f"fewshot_ad.line.sinks.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fewshot_ad.line.sinks' has no attribute {name!r}")
