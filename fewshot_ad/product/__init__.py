"""A product: all that is known of one part, and how it comes about and grows."""

from fewshot_ad.product.adding import add_images
from fewshot_ad.product.carrying import at_scales_of, carry_defects, check_carried
from fewshot_ad.product.correcting import Drawn, checked_region, drawn_defects
from fewshot_ad.product.enrolling import enroll, library_versions, product_name
from fewshot_ad.product.history import Change, ChangeKind, KnownDefect
from fewshot_ad.product.looking import ForegroundChoice, Where, narrow_region
from fewshot_ad.product.product import MAX_NAME, Enrollment, Product, size_of_images
from fewshot_ad.product.relighting import LIGHTING_CHOICES, LightingChoice
from fewshot_ad.product.several import PartsChoice, accept, one_by_one, parts_of, reject, taken_names

__all__ = [
    "LIGHTING_CHOICES",
    "MAX_NAME",
    "Change",
    "ChangeKind",
    "Drawn",
    "Enrollment",
    "ForegroundChoice",
    "KnownDefect",
    "LightingChoice",
    "PartsChoice",
    "Product",
    "Where",
    "accept",
    "add_images",
    "at_scales_of",
    "carry_defects",
    "check_carried",
    "checked_region",
    "drawn_defects",
    "enroll",
    "library_versions",
    "narrow_region",
    "one_by_one",
    "parts_of",
    "product_name",
    "reject",
    "size_of_images",
    "taken_names",
]
