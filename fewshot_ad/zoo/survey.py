"""The methods of a survey, and the baseline of the zoo that each of them is."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.resources import files

import yaml


@dataclass(frozen=True)
class Surveyed:
    """A method of the survey.

    Attributes:
        name: As the survey calls it.
        year: Of its paper.
        group: Its place in the survey.
        baseline: Name in the zoo; empty where it is missing.
        note: What to know of that baseline.
        nearest: Of one that is missing, the baseline that comes nearest.
        missing: Of one that is missing, what it would take, or has, that no baseline of the zoo does.
    """

    name: str
    year: int
    group: str
    baseline: str = ""
    note: str = ""
    nearest: str = ""
    missing: str = ""


@functools.cache
def survey() -> tuple[Surveyed, ...]:
    """All methods of the survey, in its order.

    Source: Liu, Xie, Wang et al. 2024, Deep Industrial Image Anomaly Detection: A Survey, tables 2 to 6 and section 3.
    """
    document = yaml.safe_load(files("fewshot_ad.zoo").joinpath("survey.yaml").read_text("utf-8"))
    return tuple(Surveyed(group=group["name"], **entry) for group in document["groups"] for entry in group["methods"])
