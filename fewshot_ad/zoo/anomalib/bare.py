"""anomalib's modules without the parts around a model."""

from __future__ import annotations

from typing import Any


def bare(image_size: int | None = None) -> dict[str, Any]:
    """Arguments of anomalib's modules that leave out the parts around a model.

    Args:
        image_size: Side in pixels, for a model that asks its pre-processor for it; that pre-processor then changes
            nothing.
    """
    parts: dict[str, Any] = {"pre_processor": False, "post_processor": False, "evaluator": False, "visualizer": False}
    if image_size is not None:
        from anomalib.pre_processing import PreProcessor
        from torchvision.transforms.v2 import Resize

        parts["pre_processor"] = PreProcessor(Resize((image_size, image_size)))
    return parts
