import json

import cv2
from typer.testing import CliRunner

from fewshot_ad.cli import app
from tests.cli.schemas import check

run = CliRunner().invoke
FAST = [
    "--set=size=64",
    "--set=batch=4",
    "--set=generated=1",
    "--set=precision=f32",
]


def last(result):
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_encoders_lists_what_ships_with_its_figures():
    result = run(app, ["encoders", "--json"])
    assert result.exit_code == 0
    rows = {row["name"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert sum(row["default"] for row in rows.values()) == 1
    assert all(row["license"] and row["megabytes"] < 25 and row["training_data"] for row in rows.values())
    listing = run(app, ["encoders"], env={"COLUMNS": "200"})
    assert listing.exit_code == 0
    assert all(name in listing.stdout for name in rows)


def test_parts_writes_products_in_mvtec_layout(tmp_path):
    result = run(app, ["parts", "-o", str(tmp_path), "--category", "gear", "--count", "2", "--size", "64", "--json"])
    assert last(result)["images"] == 2
    assert cv2.imread(str(tmp_path / "gear_0" / "train" / "good" / "001.png")).shape == (64, 64, 3)


def test_train_makes_an_encoder_that_enrolls(tmp_path):
    run(app, ["parts", "-o", str(tmp_path / "data"), "--category", "gear", "--count", "6", "--size", "64"])
    good = str(tmp_path / "data" / "gear_0" / "train" / "good")
    arguments = ["train", str(tmp_path / "data"), "-o", str(tmp_path / "mine"), "--recipe", "parts", *FAST]
    result = run(app, [*arguments, "--set=epochs=1", "--license", "Apache-2.0", "--parity", good, "--json"])
    assert result.exit_code == 0, result.output
    [line] = result.stdout.splitlines()
    card = check(line, "train")["encoder"]
    result = run(
        app, ["enroll", good, "-o", str(tmp_path / "gear.fsad"), "--encoder", card, "--views", "none", "--json"]
    )
    assert result.exit_code == 0, result.output
    inspected = run(app, ["inspect", str(tmp_path / "gear.fsad"), good, "--encoder", card, "--json"])
    assert inspected.exit_code in (0, 1), inspected.output


def test_distill_makes_an_encoder(tmp_path):
    arguments = ["distill", "parts", "-o", str(tmp_path / "small"), "--student", "resnet10t", *FAST]
    result = run(app, [*arguments, "--set=steps=2", "--set=short_side=64", "--json"])
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "small" / "small.json").read_text())
    assert card["backbone"] == "resnet10t"
    [line] = result.stdout.splitlines()
    assert check(line, "train")["stages"] == [2, 3]


def test_train_pose_makes_the_network_behind_register(tmp_path):
    small = ["--set=steps=2", "--set=batch=2", "--set=generated=1", "--set=generated_images=2"]
    arguments = ["train-pose", "-o", str(tmp_path / "pose"), *small, "--license", "Apache-2.0", "--json"]
    result = run(app, arguments)
    assert result.exit_code == 0, result.output
    [line] = result.stdout.splitlines()
    printed = check(line, "train-pose")
    card = json.loads((tmp_path / "pose" / "pose.json").read_text())
    assert printed["network"] == str(tmp_path / "pose" / "pose.json")
    assert printed["sha256"] == card["sha256"]
    again = run(app, arguments)
    assert again.exit_code == 2
    assert "--force" in again.stdout


def test_senseless_arguments_say_what_would_make_sense(tmp_path):
    unknown = run(app, ["train", "-o", str(tmp_path), "--set", "epoch=3"])
    assert unknown.exit_code == 2
    assert "epochs" in unknown.output
    recipe = run(app, ["train", "-o", str(tmp_path), "--recipe", "magic"])
    assert recipe.exit_code == 2
    assert "published" in recipe.output
    kind = run(app, ["train", "-o", str(tmp_path), "--set", "epochs=many"])
    assert kind.exit_code == 2
    assert "recipe" in kind.output
