"""Free memory, by the system and by the limit of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot_ad.errors import ZooError
from fewshot_ad.zoo import create
from fewshot_ad.zoo.components import memory
from tests.conftest import make_part
from tests.zoo.tiny import TINY


@pytest.mark.parametrize(
    ("limit", "expected"), [("5000000000", 4_300_000_000), ("max", 8_192_000_000), (None, 8_192_000_000)]
)
def test_the_tighter_of_both_counts(
    limit: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    (tmp_path / "current").write_text("1000000000\n")
    # Files that were read are forgotten when memory is needed.
    (tmp_path / "stat").write_text("anon 600000000\ninactive_file 300000000\n")
    if limit is not None:
        (tmp_path / "max").write_text(limit + "\n")
    for name, file in {"MEMINFO": "meminfo", "LIMIT": "max", "USED": "current", "USES": "stat"}.items():
        monkeypatch.setattr(memory, name, tmp_path / file)
    assert memory.available_bytes() == expected


def test_where_nothing_is_known_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEMINFO", "LIMIT", "USED", "USES"):
        monkeypatch.setattr(memory, name, tmp_path / "none")
    assert memory.available_bytes() is None
    memory.require_memory("any", 1e18, "")


KEEPS_FEATURES = ("fastrecon", "padim", "patchcore", "pni", "regad", "simplenet", "softpatch", "spade")


@pytest.mark.parametrize("name", KEEPS_FEATURES)
def test_features_that_would_not_fit_are_refused_after_the_first_image(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    monkeypatch.setattr(memory, "available_bytes", lambda: 100_000)
    with pytest.raises(ZooError, match=rf"{name}: expected about .* for the features of 4 images.*Give fewer images"):
        create(name, **TINY[name]).fit(
            [make_part(seed, 64) for seed in range(4)], progress=lambda _, done, total: encoded.append(done)
        )
    assert len(encoded) <= 1


def test_room_is_asked_for_twice_what_the_features_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 1999)
    memory.require_room("any", 100, 10)
    with pytest.raises(ZooError, match=r"of 11 images with 3 views each.*fewer views"):
        memory.require_room("any", 100, 11, 3)


@pytest.mark.parametrize("name", ["mkd", "rd_plus_plus", "simplenet"])
def test_a_training_that_memory_runs_out_in_ends_in_its_first_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([10**12, 10**12])
    trained: list[str] = []

    def available() -> int:
        # Enough for features; then, in the first step, less with every layer.
        return next(left, 200_000_000) if "training" in trained else 10**12

    real = memory.register_module_forward_hook

    def registered(hook):  # type: ignore[no-untyped-def]
        trained.append("training")
        return real(hook)

    monkeypatch.setattr(memory, "available_bytes", available)
    monkeypatch.setattr(memory, "register_module_forward_hook", registered)
    steps: list[int] = []
    with pytest.raises(ZooError, match=r"expected memory for a training step, got 0\.2 GB left.*smaller batch"):
        create(name, **TINY[name]).fit(
            [make_part(seed, 64) for seed in range(4)], progress=lambda stage, done, _: steps.append(done)
        )
    # What trains next is not watched by what is left of it.
    monkeypatch.undo()
    create(name, **TINY[name]).fit([make_part(seed, 64) for seed in range(4)])
