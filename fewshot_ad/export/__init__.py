"""Writes a product as files that run without this package, and checks that they agree with the product."""

from fewshot_ad.export.package import TARGETS, Target, check_export_folder, export

__all__ = ["TARGETS", "Target", "check_export_folder", "export"]
