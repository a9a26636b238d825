"""A fit of anomalib's that would gather more features than there is memory."""

from __future__ import annotations

import pytest
import torch

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components import memory
from tests.conftest import make_part

pytest.importorskip("anomalib")


@pytest.mark.parametrize("name", ["anomalib_patchcore", "anomalib_padim", "anomalib_dfm"])
def test_it_is_refused_after_the_first_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [make_part(seed, 64) for seed in range(5)]
    monkeypatch.setattr(memory, "LEAST_FREE", 0)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(ZooError, match=rf"{name}: expected about .* for the features of 5 images, got 1e-06 GB"):
        create(name, image_size=64, batch_size=2).fit(images)


def test_what_trains_on_batches_alone_gathers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LEAST_FREE", 0)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    create("anomalib_stfpm", image_size=64, epochs=1).fit([make_part(seed, 64) for seed in range(2)])


def test_a_first_batch_that_memory_runs_out_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 200_000_000)
    method = create("anomalib_stfpm", image_size=64, epochs=1)
    with pytest.raises(ZooError, match=r"anomalib_stfpm: expected memory for a training step, got 0\.2 GB left"):
        method.fit([make_part(seed, 64) for seed in range(2)])
    # Nobody looks any longer.
    create("padim", image_size=64).fit([make_part(seed, 64) for seed in range(3)])
    torch.nn.Linear(1, 1)(torch.zeros(1))
