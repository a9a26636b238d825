from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fewshot_ad.benchmark import tables
from fewshot_ad.benchmark.averages import Cell, aggregate, best, common, failures, figure, latest
from fewshot_ad.benchmark.record import Record
from fewshot_ad.errors import BenchmarkError
from fewshot_ad.zoo import differences
from tests.benchmark.sample_records import PUBLISHED, plausible, record


def auroc(method: str, values: dict[tuple[str, int], float | None], **changes: object) -> list[Record]:
    """Records with image AUROCs by (category, draw); None is a failed job."""
    return [
        record(method, category, draw, status="failed", reason="out of memory", **changes)
        if value is None
        else record(method, category, draw, figures={"image_auroc": value}, **changes)
        for (category, draw), value in values.items()
    ]


WHOLE = auroc("whole", {("bolt", 0): 0.9, ("nut", 0): 0.7, ("bolt", 1): 1.0, ("nut", 1): 0.8})
PARTIAL = auroc("partial", {("bolt", 0): 0.6, ("nut", 0): None, ("bolt", 1): 0.8, ("nut", 1): 0.9})


def test_categories_are_averaged_before_draws() -> None:
    (row,) = aggregate(WHOLE)
    # Draw 0: (0.9 + 0.7) / 2 = 0.8; draw 1: 0.9; their mean 0.85 and sample deviation 0.1 / sqrt(2).
    cell = row.cells["image_auroc"]
    assert cell.mean == pytest.approx(0.85)
    assert cell.sd == pytest.approx(0.1 / 2**0.5)
    assert (cell.draws, cell.pairs, cell.of, row.done, row.of) == (2, 4, 4, 4, 4)
    assert row.marks("image_auroc") == ""


def test_an_incomplete_row_tells_so_and_is_never_the_best() -> None:
    partial = auroc("partial", {("bolt", 0): 0.99, ("nut", 0): None, ("bolt", 1): 0.98, ("nut", 1): 0.99})
    third = auroc("third", dict.fromkeys([("bolt", 0), ("nut", 0), ("bolt", 1), ("nut", 1)], 0.5))
    first, _, last = rows = aggregate([*WHOLE, *partial, *third])
    assert (first.method, first.done, first.of) == ("partial", 3, 4)
    # Draw 0 has one category left, draw 1 both.
    assert first.cells["image_auroc"].mean == pytest.approx((0.99 + 0.985) / 2)
    assert first.marks("image_auroc") == "†"
    assert last.method == "whole"
    assert best(rows, figure("image_auroc")) == {"whole"}


def test_a_job_that_failed_for_everybody_is_missed_by_everybody() -> None:
    a = auroc("a", {("bolt", 0): 0.9, ("nut", 0): None})
    b = auroc("b", {("bolt", 0): 0.8, ("nut", 0): None})
    assert [(row.cells["image_auroc"].pairs, row.cells["image_auroc"].of) for row in aggregate(a + b)] == [(1, 2)] * 2


def test_a_figure_that_no_method_has_on_a_category_is_not_missed_there() -> None:
    both = {"image_auroc": 0.9, "pixel_auroc": 0.8}
    records = [
        record("maps", "bolt", figures=both),
        record("maps", "unmasked", figures={"image_auroc": 0.7}),
        record("no maps", "bolt", figures={"image_auroc": 0.6}),
        record("no maps", "unmasked", figures={"image_auroc": 0.5}),
    ]
    maps, no_maps = aggregate(records)
    assert maps.cells["pixel_auroc"] == Cell(0.8, None, 1, 1, 1)
    assert maps.marks("pixel_auroc") == ""
    assert "pixel_auroc" not in no_maps.cells


def test_shared_jobs_alone_are_compared_on_request() -> None:
    idle = auroc("idle", {("bolt", 0): None})
    pairs = common([*WHOLE, *PARTIAL, *idle])
    assert {(r.category, r.draw) for r in pairs} == {("bolt", 0), ("bolt", 1), ("nut", 1)}
    means = {row.method: row.cells["image_auroc"].mean for row in aggregate(pairs)}
    assert means == pytest.approx({"whole": (0.9 + 0.9) / 2, "partial": (0.6 + 0.85) / 2})


def test_settings_shots_and_datasets_stay_apart() -> None:
    records = [
        *auroc("a", {("bolt", 0): 0.1}, shots="full", setting="full-shot"),
        *auroc("a", {("bolt", 0): 0.2}, shots=8),
        *auroc("a", {("bolt", 0): 0.3}, shots=2),
        *auroc("a", {("bolt", 0): 0.4}, shots=2, dataset="Boards AD"),
    ]
    assert [row.cells["image_auroc"].mean for row in aggregate(records)] == [0.4, 0.3, 0.2, 0.1]


def test_of_repeated_jobs_the_last_counts() -> None:
    again = auroc("partial", {("nut", 0): 0.5})
    records = [*PARTIAL, *again]
    assert len(latest(records)) == 4
    assert failures(PARTIAL) == [PARTIAL[1]]
    assert failures(records) == []
    assert aggregate(records)[0].cells["image_auroc"].mean == pytest.approx((0.55 + 0.85) / 2)


def test_another_number_of_test_images_is_marked() -> None:
    counts = {"a": 40, "b": 40, "supervised": 20}
    records = [
        record(name, figures={"image_auroc": 0.9}, counts={"test_good": 10, "test_defective": count})
        for name, count in counts.items()
    ]
    assert {row.method: row.marks("image_auroc") for row in aggregate(records)} == {
        "a": "",
        "b": "",
        "supervised": "‡",
    }


def test_less_is_better_where_it_is_and_ties_share() -> None:
    records = [record(name, figures={"escape_rate": value}) for name, value in (("a", 0.1), ("b", 0.1001), ("c", 0.2))]
    assert best(aggregate(records), figure("escape_rate")) == {"a", "b"}
    assert best(aggregate(records[:1]), figure("escape_rate")) == set()


def test_numbers_have_as_many_digits_as_they_deserve() -> None:
    assert figure("image_auroc").text(0.97549, 0.0123) == "97.5 ± 1.2"
    assert figure("ms").text(3.14159) == "3.14"
    assert figure("ms").text(31.4159, 4.444) == "31.4 ± 4.4"
    assert figure("fit_s").text(1234.5) == "1234"


def test_csv_holds_the_values_as_they_are() -> None:
    hostile = auroc('quo"te,\nline', {("bolt", 0): 0.5})
    lines = list(csv.DictReader(io.StringIO(tables.csv([*WHOLE, *auroc("none", {("bolt", 0): None}), *hostile]))))
    whole = next(line for line in lines if line["method"] == "whole")
    assert (float(whole["mean"]), float(whole["sd"])) == pytest.approx((0.85, 0.0707107))
    assert (whole["jobs"], whole["jobs_of"]) == ("4", "4")
    none = next(line for line in lines if line["method"] == "none")
    assert (none["figure"], none["mean"], none["method_jobs_done"], none["method_jobs"]) == ("", "", "0", "4")
    assert lines[-1]["method"] == "whole"
    assert any(line["method"] == r'quo"te,\nline' for line in lines)


def test_markdown_shows_best_counts_marks_and_failures() -> None:
    text = tables.markdown([*WHOLE, *PARTIAL, *auroc("pipe|<b>", dict.fromkeys([("bolt", 0), ("bolt", 1)], 0.5))])
    assert "| whole | 4/4 | 85.0 ± 7.1 |" in text
    assert "| partial | 3/4 | 72.5 ± 17.7† |" in text
    assert "| pipe\\|\\<b\\> | 2/4 |" in text
    assert "### Parts AD, few-shot, K = 4" in text
    assert "| partial, Parts AD/nut, few-shot, K = 4, draw 0 | out of memory |" in text
    complete = tables.markdown([*WHOLE, *auroc("b", dict.fromkeys([("bolt", 0), ("nut", 0)], 0.5))])
    # One complete method alone beats nobody.
    assert "**" not in complete
    text = tables.markdown([*auroc("a", {("bolt", 0): 0.7}), *auroc("b", {("bolt", 0): 0.9})])
    assert text.index("| b | 1/1 | **90.0** |") < text.index("| a | 1/1 | 70.0 |")


def test_latex_is_escaped() -> None:
    text = tables.latex([*auroc("a_b & 50% \\x{1}", {("bolt", 0): 0.9}), *auroc("c", {("bolt", 0): None})])
    assert r"a\_b \& 50\% \textbackslash{}x\{1\} & 1/1 & 90.0 & no: weights, method \\" in text
    assert r"c & 0/1 & -- & no: weights, method \\" in text
    assert "% failed: c, Parts AD/bolt, few-shot, K = 4, draw 0: out of memory" in text
    assert r"\toprule" in text


def test_latex_of_much_compiles(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("NO LATEX: pdflatex is absent, so only its text is checked")
    body = tables.latex([*plausible(), *auroc("~^<>|\\{}$&#_%", {("bolt", 0): 0.5})])
    # The rules are those of a package that small installations lack.
    rules = r"\let\toprule\hline\let\midrule\hline\let\bottomrule\hline"
    text = f"\\documentclass{{article}}{rules}\\begin{{document}}\n{body}\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-500:]


def test_csv_by_category_and_intervals() -> None:
    interval = {"image_auroc": (0.8, 0.95)}
    records = [record("a", category, figures={"image_auroc": 0.9}, intervals=interval) for category in ("bolt", "nut")]

    def read(**options: bool) -> list[tuple[str, str, str]]:
        lines = csv.DictReader(io.StringIO(tables.csv(records, **options)))
        return [(line["category"], line["low"], line["high"]) for line in lines]

    # That of one test set says nothing of an average over two.
    assert read() == [("", "", "")]
    assert read(by_category=True) == [("", "", ""), ("bolt", "0.8", "0.95"), ("nut", "0.8", "0.95")]


def test_markdown_has_published_figures_below_ours() -> None:
    ours = auroc("ours", {("bolt", 0): 0.9})
    text = tables.markdown(ours, published=PUBLISHED)
    assert f"| PatchCore (published: Roth et al. 2022, table 9) | {tables.NONE} | 95.1 |" in text
    assert text.index("| ours |") < text.index("| PatchCore")
    # Neither those of other settings, nor those that have none of the columns.
    assert "Recalled" not in text
    assert "One for all" not in text
    assert "PatchCore" not in tables.markdown(ours, ["pixel_auroc"], PUBLISHED)
    text = tables.markdown(auroc("ours", {("bolt", 0): 0.9}, shots="full", setting="unified"), published=PUBLISHED)
    assert "One for all" in text
    assert "Recalled" not in text


def test_every_row_says_whether_it_ran_as_published() -> None:
    departed = ("epochs 40 (published: 100)", "backbone resnet18 (published: vgg16)", "no center crop")
    records = [
        *(replace(r, differs=departed) for r in auroc("cut", {("bolt", 0): 0.9})),
        *(replace(r, differs=()) for r in auroc("whole", {("bolt", 0): 0.8})),
        # From before it was written down, of a baseline that is gone.
        *(replace(r, differs=None, baseline="gone") for r in auroc("old", {("bolt", 0): 0.7})),
        # The same, of one that the zoo knows.
        *(replace(r, differs=None, baseline="tdg", options={"steps": 5}) for r in auroc("ours", {("bolt", 0): 0.6})),
    ]
    text = tables.markdown(records)
    assert re.search(r"\| cut \|.*\| no: epochs, backbone, method \|", text)
    assert re.search(r"\| whole \|.*\| yes \|", text)
    assert re.search(r"\| old \|.*\| unknown \|", text)
    assert re.search(r"\| ours \|.*\| no: steps, method \|", text)
    assert "| ours | steps 5 (published: 5000); " in text
    assert f"| cut | {'; '.join(departed)} |" in text
    assert "no: epochs, backbone, method" in tables.latex(records)
    lines = {line["method"]: line for line in csv.DictReader(io.StringIO(tables.csv(records)))}
    assert lines["cut"]["differs_from_published"] == "; ".join(departed)
    assert lines["whole"]["differs_from_published"] == ""
    assert lines["old"]["differs_from_published"] == "unknown"


def test_that_few_methods_decide_is_said_where_it_matters() -> None:
    records = [record("a", figures={"image_auroc": 0.9, "f1": 0.8, "pixel_iou_max": 0.4})]
    assert "threshold of their own" not in tables.markdown(records)
    text = tables.markdown(records, ["f1", "pixel_iou_max"])
    assert "| Method | Jobs | F1 (%) | Pixel IoU-max (%) | As published |" in text
    assert "threshold of their own" in text


@pytest.mark.parametrize("write", [tables.csv, tables.markdown, tables.latex])
def test_no_records_are_refused(write: object) -> None:
    with pytest.raises(BenchmarkError, match="at least one record"):
        write([])  # type: ignore[operator]


def test_figures_of_random_weights_do_not_look_like_a_result() -> None:
    differs = differences("padim", {"weights": "random"})
    records = [
        *(replace(r, differs=differs) for r in auroc("random", {("bolt", 0): 0.95})),
        *(replace(r, differs=()) for r in auroc("best", {("bolt", 0): 0.9})),
        *(replace(r, differs=()) for r in auroc("other", {("bolt", 0): 0.8})),
    ]
    text = tables.markdown(records)
    rows = [line for line in text.splitlines() if line.startswith("| ") and "/1 |" in line]
    # Below those that mean something, marked, and not the best.
    assert [line.split(" | ")[0] for line in rows] == ["| best", "| other", "| random"]
    assert "| **90.0** |" in rows[0]
    assert "| 95.0§ | no: RANDOM WEIGHTS, method |" in rows[2]
    assert "§ on random weights" in text
    assert r"95.0\textsuperscript{\S} & no: RANDOM WEIGHTS" in tables.latex(records)
