from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fewshot_ad import Inspector
from fewshot_ad.artifact import differences, verify
from fewshot_ad.encoder import Encoder
from tests.cli.commands import run
from tests.conftest import make_part


@pytest.fixture
def path(tmp_path: Path, parts: list[np.ndarray], encoder: Encoder) -> Path:
    own = Inspector.from_support(parts, product="p", encoder=encoder, views="none", image_size=64)
    own.save(tmp_path / "p.fsad")
    return tmp_path / "p.fsad"


def test_a_product_and_its_later_state(path: Path, tmp_path: Path) -> None:
    own = Inspector.load(path)
    first = own.info()
    assert differences(first, first) == []
    own.add([make_part(30, 128)], force=True)
    own.reject(make_part(31, 128, defect=True))
    own.threshold *= 2
    found = differences(first, own.info())
    fields = {one.field for one in found}
    assert {"support", "known_defects", "threshold", "threshold_set_by_hand", "history"} <= fields
    assert [one.second.split(" ", 1)[1] for one in found if one.field == "history"] == [
        "add: added image[5]",
        "reject: rejected image[6]",
        f"threshold: threshold set to {own.threshold:.6g} by hand",
    ]
    (added,) = (one for one in found if one.field == "support")
    assert (added.first, added.second) == (None, "image[5]")
    # And the other way round.
    back = differences(own.info(), first)
    assert {(one.field, str(one.second), str(one.first)) for one in back} == {
        (one.field, str(one.first), str(one.second)) for one in found
    }


def test_other_settings_are_named(path: Path, parts: list[np.ndarray], encoder: Encoder) -> None:
    other = Inspector.from_support(
        parts, product="q", encoder=encoder, views="hflip", image_size=64, roi=(10, 10, 100, 100)
    )
    found = {one.field: one for one in differences(Inspector.load(path).info(), other.info())}
    assert (found["product"].first, found["product"].second) == ("p", "q")
    assert (found["views"].first, found["views"].second) == ([], ["hflip"])
    assert found["roi"].first is None
    assert "support" not in found


def test_the_shell_says_it(path: Path, tmp_path: Path) -> None:
    own = Inspector.load(path)
    own.threshold *= 2
    own.save(tmp_path / "q.fsad")
    code, out, _ = run("diff", path, tmp_path / "q.fsad")
    assert code == 1
    assert "threshold: " in out
    assert run("diff", path, path)[:2] == (0, f"{path} and {path} are the same but for the time of their enrollment\n")


def test_a_whole_file_is_whole(path: Path) -> None:
    own = Inspector.load(path)
    own.add([make_part(30, 128)], force=True)
    own.threshold *= 2
    own.save(path)
    found = verify(path)
    assert [one.problem for one in found] == ["", "", ""]
    assert "2 change(s) on record form one chain, 2 of them lead back" in found[-1].what
    assert run("info", "--verify", path)[0] == 0


def test_what_is_wrong_is_named(path: Path, tmp_path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)
    (one,) = verify(path)
    assert "hash" in one.problem or "damaged" in one.problem or "altered" in one.problem
    code, out, _ = run("info", "--verify", path, "--json")
    assert code == 2
    assert json.loads(out)["whole"] is False
    assert "there is no such file" in verify(tmp_path / "gone.fsad")[0].problem
