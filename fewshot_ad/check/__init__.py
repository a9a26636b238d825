"""A product held to images whose truth is known: what it gets wrong, and how far that can be trusted."""

from fewshot_ad.check.judging import Subject, check_images
from fewshot_ad.check.limits import draw_limits
from fewshot_ad.check.recalibration import Recalibration, recalibration
from fewshot_ad.check.report import Check, CheckedDefect, CheckedImage, UncountedImage
from fewshot_ad.check.suggestion import Suggestion

__all__ = [
    "Check",
    "CheckedDefect",
    "CheckedImage",
    "Recalibration",
    "Subject",
    "Suggestion",
    "UncountedImage",
    "check_images",
    "draw_limits",
    "recalibration",
]
