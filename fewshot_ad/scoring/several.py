"""Several parts on one image -> a verdict each, and one for all."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import cv2

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.inspection.parts import PartCount, joined_map
from fewshot_ad.inspection.result import InspectedPart, Inspection
from fewshot_ad.registration.parts import CutImage, PartLayout, cut_out
from fewshot_ad.scoring.deciding import Model, Prepared, inspect_image, prepare

# Most regions of an image that are told; each part has its own.
MAX_REGIONS = 20


@dataclass(frozen=True, eq=False)
class PreparedParts:
    """The parts of an image, cut out and made ready for the encoder.

    Attributes:
        cut: What lies on the image, or on a region of it.
        whole: Whether that is all of the image.
        parts: One per part of `cut`; None for one that cannot be judged.
        milliseconds: What that took.
    """

    cut: CutImage
    whole: bool
    parts: tuple[Prepared | None, ...]
    milliseconds: float


def prepare_frame(
    image: Uint8Array, encoder: Encoder, model: Model, only: Uint8Array | None = None
) -> Prepared | PreparedParts:
    """`prepare` for an image as it comes from the camera, with several parts or one.

    Args:
        image: (H, W, 3) uint8 RGB.
        encoder: The encoder the banks were filled with.
        model: The enrolled product.
        only: (H, W) uint8: how much each pixel of this image counts, 0 to 255; None for what the product says. Parts
            that lie outside are left out.
    """
    if model.parts is None:
        return prepare(image, encoder, model, only)
    start = time.perf_counter()
    cut = cut_out(image, model.parts)
    if only is not None:
        cut = cut.within(only)
    ready: list[Prepared | None] = []
    for part in cut.parts:
        if part.pixels is None or part.forward is None:
            ready.append(None)
            continue
        own = None if only is None else cv2.warpAffine(only, part.forward, part.pixels.shape[1::-1])
        ready.append(prepare(part.pixels, encoder, model, own))
    return PreparedParts(cut, only is None, tuple(ready), (time.perf_counter() - start) * 1e3)


def inspect_frame(
    image: Uint8Array,
    encoder: Encoder,
    model: Model,
    product_name: str,
    name: str = "",
    decode_ms: float = 0.0,
    prepared: Prepared | PreparedParts | None = None,
) -> Inspection:
    """`inspect_image` for an image as it comes from the camera, with several parts or one.

    Of several parts each is judged by itself, and the image is as bad as the worst of them. It is anomalous, too, if it
    shows another number of parts than expected, or something else; and cannot be judged where one of them cannot.

    Args:
        image: (H, W, 3) uint8 RGB.
        encoder: The encoder the banks were filled with.
        model: The enrolled product.
        product_name: Its name, for the record.
        name: Of the image, for the record.
        decode_ms: Milliseconds already spent on reading it.
        prepared: What `prepare_frame` gave, if it was called ahead.
    """
    if model.parts is None:
        own = prepared if isinstance(prepared, Prepared) else None
        return inspect_image(image, encoder, model, product_name, name, decode_ms, own)
    ready = prepared if isinstance(prepared, PreparedParts) else prepare_frame(image, encoder, model)
    if not isinstance(ready, PreparedParts):
        raise TypeError(f"expected prepared parts, got {type(ready).__name__}")
    parts = tuple(
        _inspected(number, ready, encoder, model, product_name, image.shape[:2])
        for number, _ in enumerate(ready.cut.parts, start=1)
    )
    return _joined(image, encoder, model, model.parts, product_name, name, decode_ms, ready, parts)


def _inspected(
    number: int, ready: PreparedParts, encoder: Encoder, model: Model, product_name: str, image_hw: tuple[int, ...]
) -> InspectedPart:
    part, prepared = ready.cut.parts[number - 1], ready.parts[number - 1]
    if part.pixels is None or part.forward is None:
        return InspectedPart.unseen(number, part.box, part.reason)
    inspection = inspect_image(part.pixels, encoder, model, product_name, f"part {number}", prepared=prepared)
    return InspectedPart.of(number, part.box, part.forward, inspection, image_hw)


def _joined(
    image: Uint8Array,
    encoder: Encoder,
    model: Model,
    layout: PartLayout,
    product_name: str,
    name: str,
    decode_ms: float,
    ready: PreparedParts,
    parts: tuple[InspectedPart, ...],
) -> Inspection:
    """The verdict on an image from those on its parts."""
    reason = ready.cut.reason
    count = None
    if not reason:
        # How many there should be is said of the whole image.
        expected = layout.expected if ready.whole else None
        count = PartCount(
            len(parts),
            expected,
            ready.cut.others,
            sum(part.least for part in ready.cut.parts),
            sum(part.most for part in ready.cut.parts),
        )
    wrong = any(part.verdict == "anomalous" for part in parts) or (count is not None and bool(count.finding))
    if not reason and not wrong:
        blind = next((part for part in parts if part.verdict == "not_inspectable"), None)
        reason = "no part is found" if not parts else "" if blind is None else f"part {blind.number}: {blind.reason}"
    score = max((part.score for part in parts), default=0.0)
    regions = sorted((region for part in parts for region in part.regions), key=lambda region: -region.severity)
    stages = ("encode", "search", "map")
    seen = [part.inspection.timings_ms for part in parts if part.inspection is not None]
    took = {stage: sum(timings[stage] for timings in seen) for stage in stages}
    before = {"decode": decode_ms, "resize": ready.milliseconds}
    return Inspection(
        product=product_name,
        encoder=encoder.spec.name,
        score=score,
        threshold=model.threshold,
        is_anomalous=wrong or bool(reason),
        severity=score / model.threshold,
        regions=tuple(regions[:MAX_REGIONS]),
        map_scale=model.map_scale,
        timings_ms={**before, **took, "total": sum(before.values()) + sum(took.values())},
        image=image,
        draw_map=functools.partial(_map_of, parts, image.shape[:2], model.map_scale.median_good),
        name=name,
        reason=reason,
        review_threshold=model.review_threshold,
        parts=parts,
        count=count,
    )


def _map_of(parts: tuple[InspectedPart, ...], image_hw: tuple[int, ...], outside: float) -> Float32Array:
    placed = [part.placed_map for part in parts]
    return joined_map([one for one in placed if one is not None], image_hw, outside)
