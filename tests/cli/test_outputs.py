"""No output of a command replaces an input, a special file or something of another kind."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fewshot_ad import Inspector
from fewshot_ad.cli import app
from tests.conftest import make_part

resource = pytest.importorskip("resource", reason="FIFOs and limits of processes are those of POSIX")
runner = CliRunner()
FAST = ("--views", "none", "--image-size", 64)


def run(*args: object) -> tuple[int, str, str]:
    result = runner.invoke(app, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def tree(folder: Path) -> dict[str, str]:
    """Hashes of all files, and kinds of what is no file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else stat.filemode(path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
    }


def refused(folder: Path, message: str, *args: object) -> str:
    """Run a command that must end with 2 and this message, and change nothing."""
    before = tree(folder)
    code, out, err = run(*args)
    assert (code, message in err) == (2, True), (code, out, err)
    assert tree(folder) == before
    return err


@pytest.fixture
def product(part_folder: Path, inspector: Inspector, tmp_path: Path) -> Path:
    inspector.save(tmp_path / "p.fsad")
    return tmp_path / "p.fsad"


def test_a_product_never_takes_the_place_of_anything_else(part_folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.fsad")
    (tmp_path / "folder.fsad").mkdir()
    (tmp_path / "notes.fsad").write_text("not a product at all, though named like one")
    (tmp_path / "image.fsad").symlink_to(part_folder / "0.png")
    for force in ((), ("--force",)):
        refused(tmp_path, "ends in .fsad", "enroll", part_folder, "-o", part_folder / "0.png", *force)
        refused(tmp_path, "Name it x.fsad", "enroll", part_folder, "-o", "x.png", *force)
        refused(tmp_path, "a FIFO", "enroll", part_folder, "-o", tmp_path / "fifo.fsad", *force)
        refused(tmp_path, "a folder", "enroll", part_folder, "-o", tmp_path / "folder.fsad", *force)
        refused(tmp_path, "something else", "enroll", part_folder, "-o", tmp_path / "notes.fsad", *force)
        refused(tmp_path, "something else", "enroll", part_folder, "-o", tmp_path / "image.fsad", *force)
    refused(tmp_path, "a pipe", "add", tmp_path / "fifo.fsad", part_folder)


def test_a_product_in_the_way_is_named_with_what_would_be_lost(
    product: Path, part_folder: Path, tmp_path: Path
) -> None:
    for seed, name in ((70, "one, two.png"), (71, "three.png")):
        cv2.imwrite(str(tmp_path / name), make_part(seed))
        assert run("add", product, tmp_path / name, "--force")[0] == 0
    created = Inspector.load(product).enrollment.created
    expected = f"the product 'washer', enrolled {created} from 5 image(s) and grown by 2 image(s) since, is there"
    refused(tmp_path, expected, "enroll", part_folder, "-o", product, *FAST)
    damaged = product.read_bytes()[:-10]
    product.write_bytes(damaged)
    assert "--force" in refused(tmp_path, "cannot be read", "enroll", part_folder, "-o", product, *FAST)
    product.chmod(0o600)
    code, _, err = run("enroll", part_folder, "-o", product, *FAST, "--force")
    assert code == 0, err
    assert len(Inspector.load(product).enrollment.support) == 5
    assert stat.S_IMODE(product.stat().st_mode) == 0o600
    product.write_bytes(b"")
    assert run("enroll", part_folder, "-o", product, *FAST)[0] == 0


def test_a_table_replaces_an_older_table_alone(product: Path, part_folder: Path, tmp_path: Path) -> None:
    image = part_folder / "0.png"
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "link.csv").symlink_to(product)
    (tmp_path / "other.fsad").write_bytes(product.read_bytes())
    (tmp_path / "mine.csv").write_text("part;weight\n7;12.5\n")
    for force in ((), ("--force",)):
        for path, reason in (
            (product, "this command reads"),
            (tmp_path / "link.csv", "this command reads"),
            (image, "this command reads"),
            (tmp_path / "other.fsad", "something else"),
            (part_folder / "1.png", "something else"),
            (tmp_path / "fifo.csv", "a FIFO"),
            (tmp_path, "a folder"),
            ("-", "--json"),
        ):
            refused(tmp_path, reason, "inspect", product, image, "--csv", path, *force)
    refused(tmp_path, "--force", "inspect", product, image, "--csv", tmp_path / "mine.csv")
    assert run("inspect", product, image, "--csv", tmp_path / "mine.csv", "--force")[0] == 0
    assert run("inspect", product, image, part_folder / "1.png", "--csv", tmp_path / "mine.csv")[0] == 0
    assert len((tmp_path / "mine.csv").read_text().splitlines()) == 3


def test_an_overlay_replaces_an_older_overlay_alone(product: Path, part_folder: Path, tmp_path: Path) -> None:
    image, heat = part_folder / "0.png", tmp_path / "heat"
    for _ in range(2):
        assert run("inspect", product, image, "--heatmaps", part_folder)[0] == 0
    overlay = part_folder / "0_overlay.png"
    assert overlay.read_bytes()[37:59] == b"tEXtfewshot-ad\0overlay"
    refused(tmp_path, "this command reads", "inspect", product, image, overlay, "--heatmaps", part_folder)
    assert run("inspect", product, overlay, "--heatmaps", part_folder)[0] == 1
    (heat / "0_overlay.png").mkdir(parents=True)
    (heat / "1_overlay.png").write_text("of someone else")
    cv2.imwrite(str(heat / "2_overlay.png"), make_part(1))
    (heat / "3_overlay.png").symlink_to(part_folder / "3.png")
    os.link(part_folder / "4.png", heat / "4_overlay.png")
    for number, reason in enumerate(("a folder", "older PNG", "another PNG", "command reads", "command reads")):
        command = ("inspect", product, part_folder / f"{number}.png", "--heatmaps", heat)
        assert f"{number}_overlay.png" in refused(tmp_path, reason, *command)
        if number != 2:
            refused(tmp_path, reason, *command, "--force")
    assert run("inspect", product, part_folder / "2.png", "--heatmaps", heat, "--force")[0] == 0
    assert run("inspect", product, part_folder / "2.png", "--heatmaps", heat)[0] == 0


def test_overlays_among_the_images_are_no_images(product: Path, part_folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        code, out, _ = run("inspect", product, part_folder, "--heatmaps", part_folder)
        assert (code, out.splitlines()[-1]) == (
            0,
            f"5 good, 0 anomalous, 0 not readable; overlays in {part_folder}",
        )
    assert run("enroll", part_folder, "-o", tmp_path / "q.fsad", *FAST)[0] == 0
    assert len(Inspector.load(tmp_path / "q.fsad").enrollment.support) == 5


def test_maps_are_float_pictures_of_the_images_size(product: Path, part_folder: Path, tmp_path: Path) -> None:
    image = part_folder / "0.png"
    for _ in range(2):
        code, out, _ = run("inspect", product, image, "--maps", part_folder, "--json")
        assert code == 0
    path = Path(json.loads(out)["map"])
    assert path == part_folder / "0_map.tiff"
    written = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    expected = Inspector.load(product).inspect(image).anomaly_map
    assert written.dtype == np.float32
    np.testing.assert_allclose(written, expected, rtol=1e-5)
    # It is no image of a part.
    code, out, _ = run("inspect", product, part_folder)
    assert "5 good, 0 anomalous, 0 not readable" in out


def test_a_map_replaces_an_older_map_alone(product: Path, part_folder: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "0_map.tiff").write_text("of someone else")
    cv2.imwrite(str(maps / "1_map.tiff"), make_part(1))
    for number in (0, 1):
        refused(tmp_path, "older map", "inspect", product, part_folder / f"{number}.png", "--maps", maps)
    refused(tmp_path, "older map", "inspect", product, part_folder / "0.png", "--maps", maps, "--force")
    assert run("inspect", product, part_folder / "1.png", "--maps", maps, "--force")[0] == 0
    refused(tmp_path, "--csv", "inspect", product, part_folder / "2.png", "--maps", maps, "--csv", maps / "2_map.tiff")
    (part_folder / "1.png").write_bytes(b"damaged")
    assert run("inspect", product, part_folder / "1.png", "--maps", maps)[0] == 2
    assert not (maps / "1_map.tiff").exists()


def test_a_table_and_an_overlay_have_names_of_their_own(product: Path, part_folder: Path, tmp_path: Path) -> None:
    heat = tmp_path / "heat"
    heat.mkdir()
    command = ("inspect", product, part_folder / "0.png", "--heatmaps", heat, "--csv", heat / "0_overlay.png")
    refused(tmp_path, "--csv", *command)
    refused(tmp_path, "--csv", *command, "--force")


def test_a_name_too_long_for_an_overlay_is_cut_and_told_apart(product: Path, part_folder: Path, tmp_path: Path) -> None:
    line, heat = tmp_path / "line", tmp_path / "heat"
    line.mkdir()
    for name in ("n" * 250, "n" * 249 + "m", "ä" * 125, "short"):
        (line / f"{name}.png").write_bytes((part_folder / "0.png").read_bytes())
    code, out, err = run("inspect", product, line, "--heatmaps", heat)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].endswith(f"; overlays in {heat}")
    names = [path.name for path in heat.iterdir()]
    assert len(names) == 4
    assert all(name.endswith("_overlay.png") and len(name.encode()) <= 255 for name in names)


def test_no_overlay_is_left_of_an_image_that_cannot_be_read_now(
    product: Path, part_folder: Path, tmp_path: Path
) -> None:
    heat = tmp_path / "heat"
    assert run("inspect", product, part_folder, "--heatmaps", heat)[0] == 0
    (part_folder / "1.png").write_bytes(b"damaged")
    assert run("inspect", product, part_folder, "--heatmaps", heat)[0] == 2
    assert sorted(path.name for path in heat.iterdir()) == [f"{n}_overlay.png" for n in (0, 2, 3, 4)]
    cv2.imwrite(str(heat / "1_overlay.png"), make_part(1))
    assert run("inspect", product, part_folder, "--heatmaps", heat, "--force")[0] == 2
    assert (heat / "1_overlay.png").exists()


def test_two_inspections_do_not_write_into_one_table(product: Path, part_folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    assert run("inspect", product, part_folder, "--csv", table)[0] == 0
    writer = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys\nfrom fewshot_ad.storage import lock\n"
            "with lock(sys.argv[1]):\n    print(flush=True)\n    sys.stdin.read()\n",
            str(table),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        refused(tmp_path, "another inspection is writing", "inspect", product, part_folder, "--csv", table)
    assert run("inspect", product, part_folder, "--csv", table)[0] == 0


def test_what_is_missing_has_a_row_too(product: Path, part_folder: Path, tmp_path: Path) -> None:
    table, gone = tmp_path / "t.csv", part_folder / "gone.png"
    assert run("inspect", product, part_folder / "0.png", gone, "--csv", table)[0] == 2
    rows = {row["file"]: row for row in csv.DictReader(table.open())}
    assert {file: row["verdict"] for file, row in rows.items()} == {
        str(part_folder / "0.png"): "GOOD",
        str(gone): "ERROR",
    }
    assert "nothing matches" in rows[str(gone)]["error"]


def test_what_may_not_be_looked_at_is_not_said_to_be_missing(
    product: Path, part_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, stat_of = tmp_path / "secret", os.stat

    def guarded(path: object, *args: object, **options: object) -> os.stat_result:
        if "secret" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat_of(path, *args, **options)

    monkeypatch.setattr(os, "stat", guarded)
    code, out, err = run("inspect", product, part_folder / "0.png", secret / "1.png")
    assert (code, out.splitlines()[-1]) == (2, "1 good, 0 anomalous, 1 not readable")
    assert "Permission denied" in err
    for command in ("inspect", "add"):
        code, _, err = run(command, secret / "p.fsad", part_folder)
        assert (code, err) == (
            2,
            f"error: {secret}/p.fsad: cannot be read (Permission denied). Check the path and permissions.\n",
        )


def test_a_full_disk_costs_the_table_and_no_verdict(product: Path, part_folder: Path, tmp_path: Path) -> None:
    """A limit of the file size stands for the full disk; each output is given up once and the verdicts go on."""
    command = ["inspect", product, part_folder, "--csv", tmp_path / "t.csv", "--heatmaps", tmp_path / "heat"]
    done = subprocess.run(
        [sys.executable, "-m", "fewshot_ad", *map(str, command)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    verdicts = [line for line in done.stdout.splitlines() if line.startswith(("good ", "ANOMALOUS "))]
    assert len(verdicts) == 5
    errors = done.stderr.splitlines()
    assert len(errors) == 2, done.stderr
    assert all("File too large" in line and "ulimit" in line for line in errors)
    assert len((tmp_path / "t.csv").read_bytes()) <= 200
    assert list((tmp_path / "heat").iterdir()) == []
    assert "overlays" not in done.stdout


def test_an_export_takes_the_place_of_an_export_alone(
    product: Path, part_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    refused(tmp_path, "--force", "export", product, mine)
    refused(tmp_path, "this command reads", "export", product, tmp_path, "--force")
    refused(tmp_path, "this command reads", "export", product, part_folder, "--images", part_folder, "--force")
    refused(tmp_path, "a file", "export", product, tmp_path / "file", "--force")
    refused(tmp_path, "at least 16 x 16", "export", product, tmp_path / "new" / "out", "--size", "1x1")
    monkeypatch.chdir(mine)
    refused(tmp_path, "working directory", "export", product, ".", "--force")
    monkeypatch.chdir(tmp_path)
    assert run("export", product, mine, "--force")[0] == 0
    assert run("export", product, mine, "--target", "onnx")[0] == 0
    names = {path.name for path in mine.iterdir()}
    assert {"notes.txt", "encoder.onnx", "manifest.json"} <= names
    assert "product.onnx" not in names
    assert set(json.loads((mine / "manifest.json").read_text())["files"]) == names - {"notes.txt", "manifest.json"}


def test_no_addition_of_two_processes_is_lost(product: Path, tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / f"of{n}").mkdir()
        for round_ in range(5):
            cv2.imwrite(str(tmp_path / f"of{n}" / f"{round_}.png"), make_part(200 + 10 * n + round_))
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom fewshot_ad.cli import app\n"
        "for n in range(5):\n"
        "    result = CliRunner().invoke(app, ['add', sys.argv[1], f'{sys.argv[2]}/{n}.png', '--force'])\n"
        "    assert result.exit_code == 0, result.output\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(product), str(tmp_path / f"of{n}")]) for n in range(2)
    ]
    assert [process.wait(100) for process in processes] == [0, 0]
    assert len(Inspector.load(product).enrollment.support) == 15
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_generated_parts_replace_nothing_else(tmp_path: Path) -> None:
    command = ("parts", "-o", tmp_path, "--category", "gear", "--count", 1, "--size", 64)
    image = tmp_path / "gear_0" / "train" / "good" / "000.png"
    for _ in range(2):
        assert run(*command)[0] == 0
    cv2.imwrite(str(image), np.zeros((64, 64, 3), np.uint8))
    refused(tmp_path, "--force", *command)
    assert run(*command, "--force")[0] == 0
    assert cv2.imread(str(image)).any()


def test_a_benchmark_report_replaces_no_record(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    record = tmp_path / "r.jsonl"
    record.write_text('{"key": "x", "method": "y"}\n')
    (tmp_path / "other.jsonl").write_bytes(record.read_bytes())
    (tmp_path / "notes.md").write_text("### Notes\n\nmine")
    for option in ("--html", "--csv", "--markdown", "--latex"):
        refused(tmp_path, "this command reads", "benchmark", "report", record, option, record, "--force")
        refused(tmp_path, "something else", "benchmark", "report", record, option, tmp_path / "other.jsonl", "--force")
        advice = "something else" if option == "--html" else "--force"
        refused(tmp_path, advice, "benchmark", "report", record, option, tmp_path / "notes.md")
    twice = ("--csv", tmp_path / "new", "--latex", tmp_path / "new")
    refused(tmp_path, "got one twice", "benchmark", "report", record, *twice)


def test_an_older_report_is_replaced(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from fewshot_ad.benchmark.record import append
    from tests.benchmark.sample_records import plausible

    for record in plausible():
        append(tmp_path / "r.jsonl", record)
    for option, name in (("--html", "r.html"), ("--csv", "r.csv"), ("--markdown", "r.md"), ("--latex", "r.tex")):
        for _ in range(2):
            code, _, err = run("benchmark", "report", tmp_path / "r.jsonl", option, tmp_path / name)
            assert code == 0, err
    (tmp_path / "mine.html").write_text("<!DOCTYPE html>\n<html>of the user</html>")
    refused(tmp_path, "older page", "benchmark", "report", tmp_path / "r.jsonl", "--html", tmp_path / "mine.html")


def test_a_trained_encoder_replaces_nothing_unasked(tmp_path: Path) -> None:
    pytest.importorskip("kornia")
    out = tmp_path / "mine"
    out.mkdir()
    (out / "mine.safetensors").write_bytes(b"weights to start from")
    (out / "recipe.yaml").write_text("seed: 3\n")
    start = ("train", "parts", "-o", out, "--recipe", out / "recipe.yaml", f"--set=init={out / 'mine.safetensors'}")
    refused(tmp_path, "this command reads", *start, "--restart")
    refused(tmp_path, "this command reads", *start, "--name", "other", "--restart")
    (out / "mine.safetensors").rename(out / "other.onnx")
    (out / "recipe.yaml").rename(out / "log.jsonl")
    refused(tmp_path, "--force", "train", "parts", "-o", out, "--recipe", "parts", "--name", "other")
    refused(tmp_path, "without recipe.yaml", "train", "parts", "-o", out, "--recipe", "parts", "--restart")
