"""Many products on one box: a folder of `.fsad` files by name, and how it is filled."""

from fewshot_ad.catalog.catalog import Catalog, Judged, Route
from fewshot_ad.catalog.enrolling import Enrolled, enroll_each
from fewshot_ad.catalog.looking import Candidate

__all__ = ["Candidate", "Catalog", "Enrolled", "Judged", "Route", "enroll_each"]
