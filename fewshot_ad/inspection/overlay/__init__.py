"""Draws the verdict on an image: colors and lines on the photograph, and the bar below it."""

from fewshot_ad.inspection.overlay.bar import Caption, framed
from fewshot_ad.inspection.overlay.heat import blend_heat
from fewshot_ad.inspection.overlay.marks import Marks, PartMark, draw_marks, draw_parts, draw_region_of_interest

__all__ = [
    "Caption",
    "Marks",
    "PartMark",
    "blend_heat",
    "draw_marks",
    "draw_parts",
    "draw_region_of_interest",
    "framed",
]
