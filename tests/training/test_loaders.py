import os

import numpy as np
import pytest
import torch

from fewshot_ad.errors import TrainingError
from fewshot_ad.training.distillation import distill
from fewshot_ad.training.distillation_recipe import DistillationRecipe
from fewshot_ad.training.loaders import in_processes, number_of_loaders, prefetch
from fewshot_ad.training.run import Workers

CPU = Workers(0, 1, torch.device("cpu"))
GPU = Workers(0, 1, torch.device("cuda"))


def square(number):
    return torch.tensor(number * number)


def test_processes_keep_the_order():
    assert [(step, int(item)) for step, item in prefetch(square, 2, 9, 2)] == [(n, n * n) for n in range(2, 9)]


def test_an_error_in_a_process_is_the_error_itself():
    def load(number):
        if number == 2:
            raise TrainingError(f"image {number} is gone.")
        return number

    done = []
    with pytest.raises(TrainingError, match=r"^image 2 is gone\.$"):
        done.extend(in_processes(load, range(4), 2))


def test_a_killed_process_is_told_with_what_to_do():
    with pytest.raises(TrainingError, match=r"Lower loaders.*shm-size"):
        list(in_processes(lambda number: os._exit(9), range(4), 1))


def test_processes_leave_the_random_numbers_of_the_caller_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    list(in_processes(square, range(3), 1))
    np.testing.assert_array_equal(torch.rand(2), expected)


def test_how_many_processes_there_are_by_default(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert number_of_loaders(None, CPU) == 0
    assert number_of_loaders(None, GPU) == 11
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert number_of_loaders(None, GPU) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(400)), raising=False)
    assert number_of_loaders(None, GPU) == 16
    assert number_of_loaders(5, CPU) == 5


def test_where_no_process_forks_there_are_none(monkeypatch):
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    assert number_of_loaders(None, GPU) == 0
    with pytest.raises(TrainingError, match="expected loaders=0 on this platform"):
        number_of_loaders(2, CPU)


def test_distillation_is_the_same_with_processes(tmp_path):
    recipe = DistillationRecipe(
        folders=("parts", "collages"),
        teachers=("tf_efficientnet_lite0",),
        teacher_weights=("bundled",),
        generated=1,
        size=64,
        short_side=64,
        batch=2,
        steps=2,
        warmup=0,
        precision="f32",
    )
    files = [distill(recipe, tmp_path / str(loaders), device="cpu", loaders=loaders).read_bytes() for loaders in (0, 2)]
    assert files[0] == files[1]
