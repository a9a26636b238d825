import json

import cv2
import pytest
from typer.testing import CliRunner

from fewshot_ad.cli import app
from fewshot_ad.zoo import cards, options
from tests.conftest import make_part

run = CliRunner().invoke


def test_zoo_lists_every_baseline():
    result = run(app, ["zoo"])
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    for name, card in cards().items():
        assert all(cell in lines[name] for cell in (card.title, str(card.year), card.family, card.license))


def test_zoo_lists_whole_cards_as_json():
    rows = [json.loads(line) for line in run(app, ["zoo", "--json"]).stdout.splitlines()]
    assert [row["name"] for row in rows] == list(cards())
    assert all(row["paper"] and row["weights"] and isinstance(row["maps"], bool) for row in rows)
    tasks = {row["name"]: row["task"] for row in rows}
    names = ("patchcore", "anomalib_dfkde", "yolov8")
    assert [tasks[name] for name in names] == ["localization", "classification", "detection"]


def test_zoo_shows_one_with_its_hyper_parameters():
    result = run(app, ["zoo", "tdg"])
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    card = cards()["tdg"]
    assert all(" ".join(str(part).split()) in text for part in (card.title, card.paper, card.weights, "Apache-2.0"))
    assert "transformations 54" in text
    assert "learning_rate 0.0005" in text
    assert "seed" not in text
    assert "device=cpu, cuda or cuda:N" in text


def test_zoo_shows_one_as_json_with_the_defaults():
    answer = json.loads(run(app, ["zoo", "tdg", "--json"]).stdout)
    assert answer["name"] == "tdg"
    assert answer["options"] == options("tdg")


def test_every_card_and_its_defaults_fit_into_json():
    for name in cards():
        answer = json.loads(run(app, ["zoo", name, "--json"]).stdout)
        assert set(answer["options"]) == set(options(name))


@pytest.mark.parametrize("as_json", [False, True])
def test_an_unknown_name_is_an_error_that_tells_where_the_known_ones_are(as_json):
    result = run(app, ["zoo", "nonesuch", *(["--json"] if as_json else [])])
    assert result.exit_code == 2
    message = json.loads(result.stdout)["error"] if as_json else result.stderr
    assert "nonesuch" in message
    assert "`fewshot-ad zoo` describes them" in message


def test_fit_takes_the_good_images_of_a_dataset(dataset, tmp_path):
    chosen = ["--layout", "mvtec", "--category", "washer"]
    result = run(
        app, ["fit", "spade", str(dataset), "-o", str(tmp_path / "m"), *chosen, "--set", "image_size=64", "--json"]
    )
    assert result.exit_code == 0, result.output
    support = json.loads(result.stdout)["support"]
    assert sorted(support) == sorted(path.name for path in (dataset / "washer/train/good").iterdir())


def test_a_fitted_baseline_is_reported_as_a_product_is(part_folder, tmp_path, broken_part):
    cv2.imwrite(str(tmp_path / "bad.png"), broken_part[..., ::-1])
    model, page = tmp_path / "spade", tmp_path / "today.html"
    assert run(app, ["fit", "spade", str(part_folder), "-o", str(model), "--set", "image_size=64"]).exit_code == 0
    result = run(app, ["report", str(model), str(part_folder), str(tmp_path / "bad.png"), "-o", str(page), "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["product"], said["anomalous"] >= 1, said["unreadable"]) == ("spade", True, 0)
    text = page.read_text(encoding="utf-8")
    for words in ("bad.png", "Differs from the published method in", "good images that it was not fitted on"):
        assert words in text
    for option in (["--encoder", "lite0"], ["--allow-download"]):
        refused = run(app, ["report", str(model), str(part_folder), "-o", str(page), *option])
        assert refused.exit_code == 2
        assert f"{option[0]}: expected a product with it" in refused.output
    refused = run(app, ["report", str(model), str(part_folder), "-o", str(model / "baseline.json")])
    assert refused.exit_code == 2
    # What takes products alone says what takes it.
    refused = run(app, ["inspect", str(model), str(part_folder)])
    assert refused.exit_code == 2
    takers = "`fewshot-ad predict`, `report`, `check`, `calibrate` and `serve` take it"
    assert takers in " ".join(refused.output.split())


def test_a_fitted_baseline_is_checked_and_calibrated(part_folder, tmp_path, broken_part):
    model, bad, more = tmp_path / "spade", tmp_path / "bad", tmp_path / "more"
    for folder in (bad, more):
        folder.mkdir()
    cv2.imwrite(str(bad / "bad.png"), broken_part[..., ::-1])
    cv2.imwrite(str(bad / "worse.png"), make_part(50, defect=True)[..., ::-1])
    for seed in range(40, 46):
        cv2.imwrite(str(more / f"{seed}.png"), make_part(seed)[..., ::-1])
    assert run(app, ["fit", "spade", str(part_folder), "-o", str(model), "--set", "image_size=64"]).exit_code == 0
    sides = ["--good", str(more), "--good", str(part_folder), "--bad", str(bad)]
    table, sheet = tmp_path / "check.csv", tmp_path / "sheet.png"
    checked = run(app, ["check", str(model), *sides, "--csv", str(table), "--sheet", str(sheet), "--json"])
    assert checked.exit_code == 0, checked.output
    said = json.loads(checked.stdout)
    assert len(said["images"]) == 8
    assert {one["name"] for one in said["left_out"]} == {path.name for path in part_folder.iterdir()}
    assert "in the support set" in said["left_out"][0]["reason"]
    assert table.is_file()
    assert sheet.is_file()

    before = json.loads((model / "baseline.json").read_text())["scores"]["threshold"]
    # Swapped, nothing changes.
    swapped = run(app, ["calibrate", str(model), "--good", str(bad), "--bad", str(more)])
    assert swapped.exit_code == 2
    assert "Are the two swapped?" in " ".join(swapped.output.split())
    assert json.loads((model / "baseline.json").read_text())["scores"]["threshold"] == before
    calibrated = run(app, ["calibrate", str(model), "--good", str(more), "--bad", str(bad)])
    assert calibrated.exit_code == 0, calibrated.output
    words = " ".join(calibrated.output.split())
    assert "calibrated on 6 good images" in words
    assert "the threshold is provisional: it rests on 6 good image(s)" in words
    stored = json.loads((model / "baseline.json").read_text())
    assert stored["scores"]["threshold"] != before
    assert stored["scores"]["held_out"] == 6
    assert [note for note in stored["notes"] if note.startswith("the threshold")] == stored["notes"][-1:]
    assert run(app, ["calibrate", str(model), "--good", str(more), "--max-review", "0.1"]).exit_code == 2
    # It says that it was calibrated on what it is held to; and a slip in a name changes nothing.
    again = run(app, ["check", str(model), "--good", str(more), "--bad", str(bad)])
    assert "6 of these 8 images score exactly as images that the threshold was calibrated on" in again.output
    assert "which was not chosen on them" not in again.output
    slip = run(app, ["calibrate", str(model), "--good", str(more), "--good", str(tmp_path / "nowhere")])
    assert slip.exit_code == 2
    assert "nowhere" in slip.output
    assert json.loads((model / "baseline.json").read_text()) == stored
    by_hand = run(app, ["check", str(model), "--good", str(more), "--threshold", "1e9", "--json"])
    assert json.loads(by_hand.stdout)["false_rejects"]["count"] == 0


def test_what_trains_is_drawn_unless_told_otherwise(part_folder, tmp_path):
    short = ["--set", "image_size=64", "--set", "steps=2", "--set", "width=8"]

    def fit(method, *options):
        result = run(app, ["fit", method, str(part_folder), "-o", str(tmp_path / "m"), "--force", *options])
        assert result.exit_code == 0, result.output
        return sorted(path.name for path in tmp_path.glob("curves/*"))

    assert fit("mkd", *short, "--monitor", "none") == []
    inside = run(app, ["fit", "mkd", str(part_folder), "-o", str(tmp_path / "curves"), *short])
    assert inside.exit_code == 2
    assert "expected a folder outside of" in inside.output
    assert not (tmp_path / "curves").exists()
    # What takes no gradient steps has no curves.
    assert fit("spade", "--set", "image_size=64") == []
    assert fit("mkd", *short) == ["m-mkd"]
    assert any(path.name.startswith("events.out") for path in (tmp_path / "curves" / "m-mkd").iterdir())


def test_verdicts_by_random_weights_say_that_they_mean_nothing(tmp_path, part_folder):
    model = tmp_path / "model"
    settings = ["--set", "image_size=64", "--set", "weights=random"]
    fitted = run(app, ["fit", "spade", str(part_folder), "-o", str(model), *settings])
    assert fitted.exit_code == 0, fitted.output
    assert "random weights: its verdicts mean nothing" in fitted.output
    asked = run(app, ["predict", str(model), str(part_folder)])
    assert "note: random weights: its verdicts mean nothing" in asked.stderr
