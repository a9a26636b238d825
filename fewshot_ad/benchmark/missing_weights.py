"""Files of weights that a run does not find: told once, before any job starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fewshot_ad.benchmark.job import create_method
from fewshot_ad.benchmark.plan import Job
from fewshot_ad.errors import WeightsError, ZooError
from fewshot_ad.zoo.method import FROM_TIMM


def missing_weights(jobs: Sequence[Job]) -> Iterator[str]:
    """A sentence for each method whose weights are not there now.

    They may yet come, from an earlier job of the same run say, or lie on the machines that Ray runs the jobs on.

    Args:
        jobs: Whose methods are looked at.
    """
    for job in {job.method.name: job for job in reversed(jobs)}.values():
        if job.method.options.get("weights") == FROM_TIMM:
            # Creating it would fetch them.
            continue
        try:
            create_method(job)
        except WeightsError as error:
            yield f"{job.method.name}: its jobs will fail unless this changes: {error}"
        except ZooError:
            # Not of a file: a library or a device that is missing here, which its own jobs say.
            continue
