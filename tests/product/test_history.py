"""Changes on record, undo to the byte, and histories that were altered."""

from __future__ import annotations

import copy
import dataclasses
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from fewshot_ad import ArtifactError, Inspector, SupportSetError
from fewshot_ad.artifact import history as artifact_history
from fewshot_ad.artifact import pack
from tests.artifact.conftest import changed
from tests.conftest import make_part
from tests.robustness.artifact_mutator import put_together, taken_apart


@pytest.fixture
def product(inspector: Inspector) -> Inspector:
    return copy.deepcopy(inspector)


def content(product: Inspector, tmp_path: Path) -> bytes:
    path = tmp_path / "content.fsad"
    product.save(path, force=True)
    return path.read_bytes()


CHANGES = {
    "add": lambda product: product.add([make_part(40), make_part(41)], force=True),
    "accept": lambda product: product.accept(make_part(50), force=True),
    "reject": lambda product: product.reject(make_part(60, defect=True), (80, 50, 30, 30)),
    "calibrate": lambda product: product.calibrate([make_part(70), make_part(71), make_part(72)]),
    "threshold": lambda product: setattr(product, "threshold", 2.5),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_undo_leads_back_to_the_very_bytes(kind: str, product: Inspector, tmp_path: Path) -> None:
    before = content(product, tmp_path)
    CHANGES[kind](product)
    assert content(product, tmp_path) != before
    assert [change.kind for change in product.history()] == [kind]
    assert product.undo().kind == kind
    assert content(product, tmp_path) == before
    assert product.history() == ()


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_changes_is_undone_after_a_trip_through_a_file(
    seed: int, product: Inspector, tmp_path: Path
) -> None:
    order = np.random.default_rng(seed).permutation(sorted(CHANGES)).tolist()
    states = [content(product, tmp_path)]
    for kind in order:
        CHANGES[kind](product)
        states.append(content(product, tmp_path))
    loaded = Inspector.load(tmp_path / "content.fsad", encoder=product.encoder)
    assert [change.kind for change in loaded.history()] == order
    for former in reversed(states[:-1]):
        loaded.undo()
        assert content(loaded, tmp_path) == former
    with pytest.raises(ArtifactError, match="there is nothing to undo"):
        loaded.undo()


def test_verdicts_are_those_before(product: Inspector) -> None:
    image = make_part(50)
    score = product.inspect(image).score
    product.accept(image)
    assert product.inspect(image).score < score
    product.undo()
    assert product.inspect(image).score == score


def test_thresholds_one_after_the_other_are_one_change(product: Inspector) -> None:
    former = product.threshold
    for value in (3.0, 4.0, 5.0):
        product.threshold = value
    assert [change.text for change in product.history()] == ["threshold set to 5 by hand"]
    product.undo()
    assert (product.threshold, product.threshold_set_by_hand) == (former, False)


def test_what_failed_leaves_no_trace(product: Inspector, tmp_path: Path) -> None:
    before = content(product, tmp_path)
    with pytest.raises(SupportSetError):
        product.accept(tmp_path / "none.png")
    with pytest.raises(SupportSetError):
        product.reject(make_part(60), (900, 0, 5, 5))
    assert content(product, tmp_path) == before


def test_only_the_last_steps_back_are_kept(product: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    CHANGES["add"](product)
    size = product.history()[0].undo.nbytes
    monkeypatch.setattr(artifact_history, "UNDO_BYTES", size)
    CHANGES["reject"](product)
    assert [change.can_be_undone for change in product.history()] == [False, True]
    again = copy.deepcopy(product)
    assert again.undo().kind == "reject"
    with pytest.raises(ArtifactError, match="step back was dropped"):
        again.undo()


def test_the_oldest_changes_are_forgotten(product: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_history, "MAX_CHANGES", 2)
    for seed in range(3):
        product.reject(make_part(60 + seed, defect=True))
    kept = copy.deepcopy(product).history()
    assert [change.text for change in kept] == ["rejected image[6]", "rejected image[7]"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("history.0.text", "added nothing"), ("history.1.time", "2020"), ("history.0.undo_sha256", "0" * 64)],
)
def test_an_altered_history_is_noticed(field: str, value: str, product: Inspector, tmp_path: Path) -> None:
    CHANGES["reject"](product)
    CHANGES["threshold"](product)
    path = tmp_path / "altered.fsad"
    path.write_bytes(changed(content(product, tmp_path), field, value))
    with pytest.raises(ArtifactError, match=r"history\[\d\]: expected a change that follows on the one before"):
        Inspector.load(path, encoder=product.encoder)


def test_a_change_that_was_taken_out_is_noticed(product: Inspector, tmp_path: Path) -> None:
    for seed in range(3):
        product.reject(make_part(60 + seed, defect=True))
    header, record, tensors = taken_apart(content(product, tmp_path))
    del record["history"][1]
    header["undo1"], tensors_left = header.pop("undo2"), tensors
    path = tmp_path / "altered.fsad"
    path.write_bytes(put_together(header, record, tensors_left))
    with pytest.raises(ArtifactError):
        Inspector.load(path, encoder=product.encoder)


def test_a_step_back_that_is_none_is_refused(product: Inspector) -> None:
    CHANGES["reject"](product)
    change = product._product.history[0]
    for undo in (b"", b"no step", change.undo.tobytes()[:-5], change.undo.tobytes()[:200]):
        object.__setattr__(change, "undo", np.frombuffer(undo, np.uint8))
        with pytest.raises(ArtifactError, match=r"expected a step back as it was written"):
            product.undo()
    assert len(product.history()) == 1


def test_a_step_back_to_another_product_is_refused(product: Inspector) -> None:
    CHANGES["reject"](product)
    product.threshold = 2.5
    first, last = product.history()
    object.__setattr__(last, "undo", first.undo)
    with pytest.raises(ArtifactError, match="history was altered"):
        product.undo()


def crafted(undo: np.ndarray, change: Callable[[dict[str, np.ndarray], dict[str, Any]], None]) -> np.ndarray:
    """A step back that says something else, and is whole."""
    step = safetensors.numpy.load(undo.tobytes())
    content = json.loads(zlib.decompress(step["record"].tobytes()))
    change(step, content)
    step["record"] = np.frombuffer(zlib.compress(json.dumps(content).encode()), np.uint8)
    return np.frombuffer(safetensors.numpy.save(step), np.uint8)


CRAFTED: dict[str, Callable[[dict[str, np.ndarray], dict[str, Any]], None]] = {
    "rows beyond the bank": lambda step, _: step.update({"bank0.rows": step["bank0.rows"] + 100_000}),
    "rows of bytes": lambda step, _: step.update({"bank0.rows": np.zeros(1_000_000, np.uint8)}),
    "no rows": lambda step, _: step.update({"bank0.rows": np.zeros(0, np.int32)}),
    "wide vectors": lambda step, _: step.update({"bank0.vectors": np.zeros((0, 50_000), np.float16)}),
    "an array twice": lambda _, content: content["arrays"].append("bank0.vectors"),
    "an array that is none": lambda _, content: content["arrays"].append("bank9.vectors"),
    "numbers for names": lambda _, content: content.update(arrays=[1, 2]),
    "another budget": lambda _, content: content["record"]["enrollment"]["settings"].update(budget=1),
    "no threshold": lambda _, content: content["record"].pop("threshold"),
    "another threshold": lambda _, content: content["record"].update(threshold=9.0),
    "a list": lambda _, content: content.update(record=[]),
}


@pytest.mark.parametrize("how", CRAFTED)
def test_a_crafted_step_back_is_one_error(how: str, product: Inspector) -> None:
    CHANGES["accept"](product)
    change = product._product.history[0]
    object.__setattr__(change, "undo", crafted(change.undo, CRAFTED[how]))
    with pytest.raises(ArtifactError):
        product.undo()
    assert len(product.history()) == 1


def test_a_step_back_of_a_version_that_had_fewer_fields_leads_back(product: Inspector, tmp_path: Path) -> None:
    CHANGES["accept"](product)
    change = product._product.history[0]
    states = []

    def former(_: object, content: dict[str, Any]) -> None:
        for field in ("known_defects", "history"):
            del content["record"][field]
        states.append(content["record"])

    undo = crafted(change.undo, former)
    object.__setattr__(change, "undo", undo)
    tensors = pack(product.encoder.spec, dataclasses.replace(product._product, history=()))[0]
    before = {
        name: artifact_history._former_array(name, safetensors.numpy.load(undo.tobytes()), tensors)
        for name in json.loads(zlib.decompress(safetensors.numpy.load(undo.tobytes())["record"].tobytes()))["arrays"]
    }
    object.__setattr__(change, "before", artifact_history.state_hash(before, states[0]))
    product.undo()
    assert product.known_defects == ()


def test_a_change_too_large_to_be_undone_says_so(product: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_history, "UNDO_BYTES", 100)
    CHANGES["add"](product)
    [change] = product.history()
    assert "cannot be undone: that would take" in change.text
    with pytest.raises(ArtifactError, match="step back was dropped"):
        product.undo()
