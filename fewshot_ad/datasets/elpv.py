"""ELPV: electroluminescence images of solar cells, each with the probability of a defect as judged by experts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewshot_ad.datasets.card import Archive, Counts, DatasetCard, dataset
from fewshot_ad.datasets.files import inside, read_text
from fewshot_ad.datasets.sample import GOOD, Sample
from fewshot_ad.datasets.splits import held_out
from fewshot_ad.errors import DatasetError

# The defect type by the probability of a defect: 0, 1/3, 2/3, 1.
KINDS = (GOOD, "possibly_defective", "likely_defective", "defective")


@dataset(
    DatasetCard(
        name="elpv",
        title="ELPV",
        categories=("mono", "poly"),
        license="CC-BY-NC-SA-4.0",
        source="https://github.com/zae-bayern/elpv-dataset",
        citation="Deitsch, Christlein, Berger, Buerhop-Lutz, Maier, Gallwitz & Riess 2019, Automatic classification of "
        "defective photovoltaic module cells in electroluminescence images, Solar Energy 185",
        # Source: labels.csv in the publisher's repository, with 588 and 920 good cells.
        counts={"mono": Counts(471, 117, 486), "poly": Counts(736, 184, 630)},
        images=2624,
        masks="none",
        layout="""\
labels.csv (lines: images/cell0001.png 1.0 mono)
images/cell0001.png
(probability 0 is good; 1/3, 2/3 and 1 are the defect types possibly_defective, likely_defective, defective)
(no split is published: the last fifth of the good cells of each category and all others are for the test)""",
        marks=("labels.csv", "images/*.png"),
        archive=Archive("https://github.com/zae-bayern/elpv-dataset/archive/HEAD.zip"),
    )
)
def elpv(root: Path) -> Iterator[Sample]:
    """Samples of ELPV; a cell counts as defective as soon as the experts doubted it, with the degree as defect type."""
    table = root / "labels.csv"
    rows = []
    for number, line in enumerate(read_text(table).splitlines(), start=1):
        if line.strip():
            rows.append(_row(root, line, f"{table}, line {number}"))
    good = [(path, category) for path, kind, category in rows if kind == GOOD]
    for_test = {
        category: held_out(path.name for path, other in good if other == category) for category in {c for _, c in good}
    }
    for path, kind, category in rows:
        if kind != GOOD:
            yield Sample(path, category, "test", 1, kind)
        else:
            yield Sample(path, category, "test" if path.name in for_test[category] else "train", 0, GOOD)


def _row(root: Path, line: str, where: str) -> tuple[Path, str, str]:
    try:
        name, probability, category = line.replace(",", " ").split()
        thirds = float(probability) * 3
        kind = KINDS[round(thirds)] if thirds > -0.05 and abs(thirds - round(thirds)) < 0.05 else ""
    except (ValueError, IndexError, OverflowError):
        kind = ""
    if not kind or category not in ("mono", "poly"):
        raise DatasetError(
            f"{where}: expected an image, a probability of 0, 1/3, 2/3 or 1, and mono or poly, got {line!r}. Copy "
            "the file again."
        )
    return inside(root, name, where), kind, category
