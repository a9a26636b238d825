"""The shell is tested on the same small dataset and baseline as the benchmark behind it."""

from tests.benchmark.conftest import dataset, mean_baseline

__all__ = ["dataset", "mean_baseline"]
