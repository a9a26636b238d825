"""A station over one product, and its application without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from fewshot_ad.line.settings import parse_settings
from fewshot_ad.line.station import Station
from fewshot_ad.line.station.app import create_app
from fewshot_ad.line.station.jobs import Jobs
from fewshot_ad.line.station.metrics import StationMetrics
from fewshot_ad.line.station.routes.common import Running
from fewshot_ad.line.station.teaching import Teaching

MakeClient = Callable[..., TestClient]


@pytest.fixture
def make_client(catalog_folder: Path, tmp_path: Path) -> Iterator[MakeClient]:
    """Makes an application with some settings, and a client that speaks to it."""
    opened: list[tuple[TestClient, Running]] = []

    def make(
        token: str | None = None, load_baseline: Callable[[Path], Any] | None = None, **content: Any
    ) -> TestClient:
        settings = parse_settings({"catalog": str(catalog_folder), **content}, tmp_path)
        station, jobs = Station(settings, load_baseline), Jobs()
        metrics = StationMetrics(lambda: {"fewshot_ad_up": ("Up.", 1.0)})
        station.on_record(metrics.see)
        running = Running(station, jobs, Teaching(station, jobs), metrics, token)
        client = TestClient(create_app(running), base_url="http://127.0.0.1:8470", raise_server_exceptions=False)
        client.__enter__()
        opened.append((client, running))
        return client

    yield make
    for client, running in opened:
        client.__exit__(None, None, None)
        running.jobs.stop()
        running.station.close()


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    """A client of a station with the usual settings."""
    return make_client()


def running_of(client: TestClient) -> Running:
    """The station behind a client."""
    running: Running = client.app.state.running  # type: ignore[attr-defined]
    return running
