"""The fit loop: which steps it takes, when schedules advance, what it reports."""

from __future__ import annotations

import itertools

import torch

from fewshot_ad.zoo.components.training import shuffled_batches, train_epochs, train_steps


def test_one_step_per_batch_and_one_report_and_schedule_step_per_epoch() -> None:
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    calls: list[tuple[str, int, int]] = []
    train_epochs(
        lambda slope: slope * weight.sum(),
        lambda: (2.0, 3.0),
        2,
        [optimizer],
        schedules=[schedule],
        progress=lambda *call: calls.append(call),
    )
    # Rate 1 in the first epoch and 1/2 in the second: -(2 + 3) - (2 + 3) / 2.
    assert weight.item() == -7.5
    assert calls == [("training", 1, 2), ("training", 2, 2)]


def test_steps_move_all_optimizers_and_count_steps() -> None:
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizers = [torch.optim.SGD([weight], lr=rate) for weight, rate in zip(weights, (1.0, 0.5), strict=True)]
    slopes = iter([1.0, 2.0, 4.0])
    calls: list[tuple[str, int, int]] = []
    train_steps(
        lambda: next(slopes) * (weights[0] + weights[1]).sum(),
        3,
        optimizers,
        progress=lambda *call: calls.append(call),
        stage="distilling",
    )
    assert [weight.item() for weight in weights] == [-7.0, -3.5]
    assert calls == [("distilling", step, 3) for step in (1, 2, 3)]


def test_shuffled_batches_cover_all_items_in_every_pass_in_a_new_order() -> None:
    batches = shuffled_batches(10, 4, torch.Generator().manual_seed(0))
    first, second = (list(itertools.islice(batches, 3)) for _ in range(2))
    assert [len(batch) for batch in first] == [4, 4, 2]
    orders = [torch.cat(batches).tolist() for batches in (first, second)]
    assert [sorted(order) for order in orders] == [list(range(10))] * 2
    assert orders[0] != orders[1]
