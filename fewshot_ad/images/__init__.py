"""Reads any supported image as RGB uint8, and maps between an image and the encoder's input."""

from fewshot_ad.images.channels import ColorOrder, row_blocks
from fewshot_ad.images.geometry import SMOOTHING, Geometry, enlarging, inside_patches, patch_cares
from fewshot_ad.images.lighting import LIGHTING_KINDS, Lighting, LightingKind
from fewshot_ad.images.limits import MAX_PIXELS, MIN_SIDE, at_most_pixels, check_size
from fewshot_ad.images.listing import SUFFIXES, is_overlay, list_images
from fewshot_ad.images.reading import read_image
from fewshot_ad.images.region_of_interest import RegionOfInterest, RegionSpec, drawn_weights, loaded_region
from fewshot_ad.images.signatures import format_of
from fewshot_ad.images.sources import ImageSource, PILImage, expand_sources, image_name
from fewshot_ad.images.values import read_values

__all__ = [
    "LIGHTING_KINDS",
    "MAX_PIXELS",
    "MIN_SIDE",
    "SMOOTHING",
    "SUFFIXES",
    "ColorOrder",
    "Geometry",
    "ImageSource",
    "Lighting",
    "LightingKind",
    "PILImage",
    "RegionOfInterest",
    "RegionSpec",
    "at_most_pixels",
    "check_size",
    "drawn_weights",
    "enlarging",
    "expand_sources",
    "format_of",
    "image_name",
    "inside_patches",
    "is_overlay",
    "list_images",
    "loaded_region",
    "patch_cares",
    "read_image",
    "read_values",
    "row_blocks",
]
