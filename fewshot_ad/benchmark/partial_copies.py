"""Local copies that lack something: told once, before any job starts, and not by each job that comes upon it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fewshot_ad.benchmark.plan import DatasetPlan, Job
from fewshot_ad.datasets import check

NAMED = 3


def partial_copies(jobs: Sequence[Job]) -> Iterator[str]:
    """A sentence for each dataset whose copy lacks images or masks, or has other numbers of images than published.

    Args:
        jobs: Whose datasets and categories are looked at; files are not opened.

    Raises:
        DatasetError: A folder does not have its dataset's layout.
    """
    datasets: dict[tuple[str, str], tuple[DatasetPlan, set[str]]] = {}
    for job in jobs:
        for dataset in (job.dataset, job.source):
            if dataset is not None:
                _, categories = datasets.setdefault((dataset.layout, str(dataset.root)), (dataset, set()))
                categories.update(job.categories if dataset is job.dataset else dataset.categories)
    for dataset, categories in datasets.values():
        report = check(dataset.layout, dataset.root, decode=False)
        # A folder of products of one's own lacks the published ones; a plan says which it means.
        lacking = [name for name in report.missing if not name.startswith("category ")]
        lacking += [text for text in report.unpaired if text.endswith("does not exist")]
        other = [text for text in report.differences if text.partition(",")[0] in categories]
        said = [
            f"{len(found)} {what} ({'; '.join(found[:NAMED])}{'; ...' if len(found) > NAMED else ''})"
            for found, what in ((lacking, "files are missing"), (other, "numbers of images are not the published ones"))
            if found
        ]
        if said:
            yield (
                f"{dataset.name}: a partial copy in {dataset.root}: {', '.join(said)}. Its figures do not compare with "
                f"published ones. `fewshot-ad datasets check {dataset.layout} {dataset.root}` lists everything."
            )
