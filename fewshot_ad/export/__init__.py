"""Writes a product as files that run without this package, and checks that they agree with the product."""

from fewshot_ad.export.package import TARGETS, Target, export

__all__ = ["TARGETS", "Target", "export"]
