from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from typer.testing import CliRunner

from fewshot_ad.cli.datasets import commands
from fewshot_ad.datasets import dataset_cards
from tests.cli.schemas import check
from tests.datasets.layouts import LAYOUTS
from tests.datasets.test_downloading import publish, server

__all__ = ["publish", "server"]

runner = CliRunner()


def run(*args: object) -> tuple[int, str, str]:
    result = runner.invoke(commands, [str(a) for a in args], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_list_has_every_dataset() -> None:
    code, out, _ = run()
    assert code == 0
    assert all(name in out for name in dataset_cards())
    for width in ("200", "100"):
        lines = runner.invoke(commands, [], env={"COLUMNS": width}).stdout.splitlines()
        assert max(map(len, lines)) <= int(width)
        row, below = next((row, below) for row, below in pairwise(lines) if row.split()[:1] == ["mvtec"])
        assert row.split() == ["mvtec", "15", "5,354", "5.3", "pixel", "CC-BY-NC-SA-4.0"]
        assert below.split() == ["MVTec", "AD", "{category}/train/good/000.png"]
        assert any(line.split() == ["VisA", "split_csv/1cls.csv"] for line in lines)
    code, out, _ = run("--json")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0
    assert set(rows) == set(dataset_cards())
    assert rows["mvtec"]["counts"]["bottle"]["train_good"] == 209
    assert rows["kolektor_sdd"]["counts"]["commutator"]["train_good"] is None
    assert rows["deep_pcb"]["counts"]["group20085"]["train_defective"] == 291


def test_show_prints_the_layout_and_what_is_not_known() -> None:
    code, out, _ = run("show", "kolektor_sdd")
    assert code == 0
    assert "kos01/Part0_label.bmp" in out
    assert "train good ?" in out
    assert "CC-BY-NC-SA-4.0" in out
    for name in dataset_cards():
        assert run("show", name)[0] == 0
        assert json.loads(run("show", name, "--json")[1])["name"] == name
    code, _, err = run("show", "imagenet")
    assert code == 2
    assert "expected a dataset among" in err


def test_check_tells_by_its_exit_code(tmp_path: Path) -> None:
    LAYOUTS["folder"](tmp_path / "nuts")
    code, out, _ = run("check", "folder", tmp_path / "nuts")
    assert code == 0
    assert "nuts: test defective 3, test good 1, train good 5" in out
    assert "folder: 9 images, complete" in out
    (tmp_path / "nuts/good/0.png").write_bytes(b"")
    code, out, _ = run("check", "folder", tmp_path / "nuts")
    assert code == 1
    assert "cannot be read (1):" in out
    assert "NOT complete" in out
    assert run("check", "folder", tmp_path / "nuts", "--no-decode")[0] == 0
    code, out, _ = run("check", "folder", tmp_path / "nuts", "--category", "nuts", "--json")
    assert code == 1
    assert json.loads(out)["unreadable"]
    assert run("check", "folder", tmp_path / "nuts", "--category", "bolts")[0] == 2
    code, out, _ = run("check", "folder", tmp_path, "--json")
    assert code == 2
    assert "name that folder" in json.loads(out)["error"]


def test_long_lists_are_cut(tmp_path: Path) -> None:
    LAYOUTS["folder"](tmp_path / "nuts")
    for i in range(30):
        (tmp_path / f"nuts/good/empty{i}.png").write_bytes(b"")
    assert "and 10 more; --json lists all" in run("check", "folder", tmp_path / "nuts")[1]


def test_get_shows_the_license_first_and_takes_no_step_without_it(tmp_path: Path) -> None:
    code, out, err = run("get", "visa", tmp_path / "visa")
    assert code == 2
    assert "license: CC-BY-4.0" in out
    assert "add --accept-license" in err
    assert not list(tmp_path.iterdir())
    code, _, err = run("get", "mvtec", tmp_path / "mvtec", "--accept-license")
    assert code == 2
    assert dataset_cards()["mvtec"].source in err
    assert not list(tmp_path.iterdir())


def test_get_says_where_the_dataset_is(publish: Callable[..., Path], tmp_path: Path) -> None:
    publish("a.zip", "mpdd-main/")
    code, out, err = run("get", "mpdd", tmp_path / "mpdd", "--accept-license", "--json")
    assert (code, err) == (0, "")
    [line] = out.splitlines()
    fields = check(line, "datasets-get")
    assert fields["dataset"] == "mpdd"
    assert run("check", "mpdd", fields["root"])[0] in (0, 1)


def test_it_is_part_of_the_program() -> None:
    from fewshot_ad.cli import app

    result = runner.invoke(app, ["datasets", "--json"])
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == len(dataset_cards())
