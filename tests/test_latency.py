from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.errors import ImageError
from fewshot_ad.latency import MIN_INSPECTIONS, bench, own_images, percentiles
from fewshot_ad.product import Product


def test_bench_reports_percentiles_by_stage(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewshot_ad.latency.WINDOW_SECONDS", 0.2)
    minutes: list[dict[str, float]] = []
    report = bench(inspector, own_images(inspector), 0.5, minutes.append)
    assert report["inspections"] >= MIN_INSPECTIONS
    assert 0 < report["p50"] <= report["p95"] <= report["p99"] <= report["max"]
    assert report["windows"] == minutes
    assert len(minutes) >= 2
    assert set(report["stages"]) == {"resize", "encode", "search", "map", "total"}
    assert report["per_second"] > 0


def test_percentiles() -> None:
    assert percentiles(list(np.arange(101))) == {"p50": 50, "p95": 95, "p99": 99, "max": 100}


def test_a_product_without_images_says_so(inspector: Inspector) -> None:
    bare = Inspector(inspector.encoder, Product(inspector.model, inspector.calibration, inspector.enrollment, ()))
    with pytest.raises(ImageError, match="--images"):
        own_images(bare)
