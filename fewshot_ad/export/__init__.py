"""A product as files that run without this package, with proof that they say the same."""

from fewshot_ad.export.package import TARGETS, Target, export

__all__ = ["TARGETS", "Target", "export"]
