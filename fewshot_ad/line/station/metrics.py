"""What Prometheus reads from a station."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fewshot_ad.line.record import Record

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
Gauges = Callable[[], dict[str, tuple[str, float | dict[str, float]]]]


class StationMetrics:
    """Counters of a station, and gauges that are read when they are asked for.

    Args:
        gauges: Gives each gauge's name, what it means, and its value or values by label `name`.
    """

    def __init__(self, gauges: Gauges) -> None:
        self._registry = CollectorRegistry()
        self._inspections = Counter(
            "fewshot_ad_inspections_total", "Inspections.", ["product", "verdict"], registry=self._registry
        )
        self._seconds = Histogram(
            "fewshot_ad_inspection_seconds",
            "From the arrival of an image to its verdict.",
            registry=self._registry,
            buckets=SECONDS,
        )
        self._registry.register(_Gauges(gauges))

    def see(self, record: Record) -> None:
        """Count an inspection."""
        self._inspections.labels(record.product, record.verdict).inc()
        self._seconds.observe(record.milliseconds / 1e3)

    def text(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for name, (meaning, value) in self._gauges().items():
            if isinstance(value, dict):
                family = GaugeMetricFamily(name, meaning, labels=["name"])
                for label, one in value.items():
                    family.add_metric([label], one)
            else:
                family = GaugeMetricFamily(name, meaning, value=value)
            yield family
