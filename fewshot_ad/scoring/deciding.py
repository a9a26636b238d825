"""Image -> score -> decision: the only place where a decision is made."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.images import Geometry, Lighting, RegionOfInterest
from fewshot_ad.inspection.inspectability import Appearance, Expectations
from fewshot_ad.inspection.regions import MapScale, Region, find_regions
from fewshot_ad.inspection.result import Inspection
from fewshot_ad.inspection.signals import Signals, center_of_structure
from fewshot_ad.registration import Framing, Registration, scaled_image
from fewshot_ad.registration.parts import PartLayout
from fewshot_ad.scoring.config import ScoringConfig
from fewshot_ad.scoring.measuring import (
    Measurement,
    Scale,
    joint_map,
    joint_score,
    measure_at,
    patch_weights,
    top_mean_score,
)


@dataclass(frozen=True, eq=False)
class Model:
    """What a product's decisions are made with: banks, scoring, thresholds.

    Attributes:
        scales: What images are compared with, from the coarsest working scale to the finest.
        scoring: How distances become a score and a map.
        threshold: Image scores above it are anomalous.
        map_scale: Fixed scale of the maps.
        expectations: What good images look like as a whole, at the coarsest scale; None where that is not known, and
            nothing is checked.
        registration: How images are brought into one pose; None leaves them as they lie.
        roi: Where images are looked at, once they are in that pose; None for all of them.
        lighting: How the light of images is taken out; None leaves it as it is.
        review_threshold: Scores above it, and not above the threshold, are for someone to look at; None for none.
        parts: What each of several parts on an image looks like; None for images that are looked at as a whole.
    """

    scales: tuple[Scale, ...]
    scoring: ScoringConfig
    threshold: float
    map_scale: MapScale
    expectations: Expectations | None = None
    registration: Registration | None = None
    roi: RegionOfInterest | None = None
    lighting: Lighting | None = None
    review_threshold: float | None = None
    parts: PartLayout | None = None

    @property
    def framing(self) -> Framing:
        """How an image is brought before the encoder."""
        return Framing(self.registration, self.roi, self.lighting)

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """The working scales in pixels."""
        return tuple(scale.image_size for scale in self.scales)

    def geometries(self, image_hw: tuple[int, int], multiple: int) -> tuple[Geometry, ...]:
        """How images of one size lie in the encoder's input at each working scale, if they are not registered."""
        return tuple(Geometry.fit(image_hw, size, multiple, self.roi) for size in self.image_sizes)


def inspect_image(
    image: Uint8Array,
    encoder: Encoder,
    model: Model,
    product_name: str,
    name: str = "",
    decode_ms: float = 0.0,
    prepared: Prepared | None = None,
) -> Inspection:
    """Image (H, W, 3) uint8 RGB -> verdict. Every caller's decision is made here.

    Args:
        image: (H, W, 3) uint8 RGB.
        encoder: The encoder the banks were filled with.
        model: The enrolled product.
        product_name: Its name, for the record.
        name: Of the image, for the record.
        decode_ms: Milliseconds already spent on reading it.
        prepared: The encoder's input, if it was made ahead.
    """
    prepared = prepared or prepare(image, encoder, model)
    encode_s = search_s = 0.0
    measured = []
    for scale, view in zip(model.scales, prepared.inputs, strict=True):
        start = time.perf_counter()
        measurement, encoded = _measured(view, encoder, scale, model.scoring)
        measured.append(measurement)
        encode_s += encoded - start
        search_s += time.perf_counter() - encoded
    start = time.perf_counter()
    looked_at = prepared.inputs[0].as_lit[prepared.inputs[0].geometry.window()]
    appearance = Appearance.of(looked_at)
    reason = reason_against(prepared.inputs[0], measured[0], appearance, encoder, model)
    search_s += time.perf_counter() - start
    score = joint_score(measured)
    start = time.perf_counter()
    draw_map = functools.partial(joint_map, measured, model.image_sizes, model.scoring.sigma)
    is_anomalous = score > model.threshold or bool(reason)
    regions: tuple[Region, ...] = ()
    if is_anomalous and not reason:
        heat = draw_map()
        regions = find_regions(heat, model.map_scale, prepared.inputs[-1].geometry.image_hw)
        draw_map = functools.partial(_drawn, heat)
    map_s = time.perf_counter() - start
    seconds = {"encode": encode_s, "search": search_s, "map": map_s}
    before_ms = {"decode": decode_ms, "resize": prepared.milliseconds}
    return Inspection(
        product=product_name,
        encoder=encoder.spec.name,
        score=score,
        threshold=model.threshold,
        is_anomalous=is_anomalous,
        severity=score / model.threshold,
        regions=regions,
        map_scale=model.map_scale,
        timings_ms={
            **before_ms,
            **{stage: 1e3 * value for stage, value in seconds.items()},
            "total": sum(before_ms.values()) + 1e3 * sum(seconds.values()),
        },
        image=image,
        draw_map=draw_map,
        name=name,
        reason=reason,
        unseen=max(view.geometry.unseen() for view in prepared.inputs),
        cares=prepared.inputs[-1].geometry.cares_as_it_lies(),
        review_threshold=model.review_threshold,
        signals=_signals(measured[0], appearance, looked_at),
    )


def reason_against(
    view: EncoderInput, measured: Measurement, appearance: Appearance, encoder: Encoder, model: Model
) -> str:
    """Why an image cannot be judged; empty if it can.

    Args:
        view: The image at the coarsest working scale.
        measured: What its patches say there.
        appearance: What it looks like as a whole.
        encoder: The encoder the banks were filled with.
        model: The enrolled product.
    """
    # Parts are cut out in the proportions that they were enrolled in, up to a pixel.
    if model.roi is not None and model.parts is None and not model.roi.fits(view.geometry.image_hw):
        (height, width), (own_height, own_width) = view.geometry.image_hw, model.roi.image_hw
        return (
            f"the region of interest was drawn on {own_width} x {own_height} pixels, and this image of {width} x "
            f"{height} has other proportions"
        )
    region = view.geometry.roi
    counted = None if region is None else patch_weights(view.geometry, measured.score_maps[0].shape, 1.0) > 0
    if counted is not None and not counted.any():
        return "nothing of the region of interest is in view, or it is smaller than a patch"
    if model.expectations is None:
        return ""
    # A small region says as little of the whole as a small image does.
    area = view.pixels.shape[0] * view.pixels.shape[1]
    if counted is not None:
        area = round(area * float(counted.mean()))

    def swapped() -> float:
        turned = np.ascontiguousarray(view.as_lit[..., ::-1])
        if model.lighting is not None:
            turned = model.lighting.apply(turned, view.geometry.window())
        other = EncoderInput(turned, view.geometry, turned)
        return _measured(other, encoder, model.scales[0], model.scoring)[0].closeness

    return model.expectations.reason_against(appearance, area, measured.closeness, swapped)


def _measured(view: EncoderInput, encoder: Encoder, scale: Scale, scoring: ScoringConfig) -> tuple[Measurement, float]:
    """What an image says at a working scale, and the `time.perf_counter` at which it was encoded."""
    if scale.one_pass is None:
        levels = encoder.encode(view.pixels)
        encoded = time.perf_counter()
        return measure_at(scale, levels, view.geometry, scoring), encoded
    distances = scale.one_pass(view.pixels)
    encoded = time.perf_counter()
    score_maps = tuple(
        score_map / np.float32(divisor) for score_map, divisor in zip(distances, scale.level_scale, strict=True)
    )
    measured = Measurement(top_mean_score(score_maps, view.geometry, scoring), score_maps, view.geometry)
    return measured.divided(scale.divisor), encoded


def _signals(measured: Measurement, appearance: Appearance, looked_at: Uint8Array) -> Signals | None:
    """What an image says of light and camera; None where nothing of it is looked at."""
    distance = measured.median_distance
    return Signals(distance, appearance, center_of_structure(looked_at)) if np.isfinite(distance) else None


class EncoderInput(NamedTuple):
    """An image at one working scale.

    Attributes:
        pixels: (h, w, 3) uint8 RGB, the encoder's input.
        geometry: How the image lies in it.
        as_lit: The same in the light that it was photographed in; `pixels` where none is taken out.
    """

    pixels: Uint8Array
    geometry: Geometry
    as_lit: Uint8Array


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image made ready for the encoder.

    Attributes:
        inputs: One per working scale.
        milliseconds: What that took.
    """

    inputs: tuple[EncoderInput, ...]
    milliseconds: float


def prepare(image: Uint8Array, encoder: Encoder, model: Model, only: Uint8Array | None = None) -> Prepared:
    """Image (H, W, 3) uint8 RGB -> the encoder's input.

    Args:
        image: (H, W, 3) uint8 RGB.
        encoder: The encoder the banks were filled with.
        model: The enrolled product.
        only: (H, W) uint8: how much each pixel of this image counts, 0 to 255; None for what the product says.
    """
    start = time.perf_counter()
    inputs = []
    for scale in model.scales:
        content, geometry, as_lit = scaled_image(
            image, scale.image_size, encoder.spec.multiple, model.framing, encoder.threads
        )
        if only is not None:
            geometry = geometry.narrowed(only)
        pixels = geometry.pad(content)
        inputs.append(EncoderInput(pixels, geometry, pixels if as_lit is content else geometry.pad(as_lit)))
    return Prepared(tuple(inputs), (time.perf_counter() - start) * 1e3)


def _drawn(heat: Float32Array) -> Float32Array:
    return heat
