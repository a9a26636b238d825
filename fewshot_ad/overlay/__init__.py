"""Draws the verdict on an image: colors and lines on the photograph, and the bar below it."""

from fewshot_ad.overlay.bar import Caption, framed
from fewshot_ad.overlay.heat import blend_heat
from fewshot_ad.overlay.marks import Marks, draw_marks

__all__ = ["Caption", "Marks", "blend_heat", "draw_marks", "framed"]
