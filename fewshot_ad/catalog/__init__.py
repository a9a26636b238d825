"""Many products on one box: a folder of `.fsad` files by name, and how it is filled."""

from fewshot_ad.catalog.catalog import Candidate, Catalog, Route
from fewshot_ad.catalog.enrolling import Enrolled, enroll_each

__all__ = ["Candidate", "Catalog", "Enrolled", "Route", "enroll_each"]
