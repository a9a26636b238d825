"""A product: all that is known of one part, and how it comes about and grows."""

from fewshot_ad.product.adding import add_images
from fewshot_ad.product.enrolling import enroll, library_versions, product_name
from fewshot_ad.product.product import MAX_NAME, Enrollment, Product, size_of_images

__all__ = [
    "MAX_NAME",
    "Enrollment",
    "Product",
    "add_images",
    "enroll",
    "library_versions",
    "product_name",
    "size_of_images",
]
