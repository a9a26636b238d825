"""What an image looks like to a product, and what stays of a product to tell: which of many does an image show?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder import Encoder, EncoderSpec
from fewshot_ad.inspection.inspectability import Appearance
from fewshot_ad.registration import Framing
from fewshot_ad.registration.parts import PartLayout, Scene, cut_out
from fewshot_ad.scoring import EncoderInput, Model, measure_at, patch_weights, prepare, reason_against
from fewshot_ad.search.nearest import Metric, NearestSearch, normalize, to_distance

# Of each product, so many bank vectors are compared with so many patches of an image to find what it may show; the best
# few are then compared in full.
ANCHORS, QUERIES = 96, 192
# An image shows a product if half of its patches are closer to good ones than this many times what is usual, and more
# where good ones differ, up to the second. Of ten products, images of their own have 0.8 to 1.5 (one that varies, to
# 1.9), those of others 1.5 and more (toys and circuit boards, both on white, 1.05).
FAR, FARTHEST = 1.4, 1.6


class Candidate(NamedTuple):
    """A product that an image may show.

    Attributes:
        name: Of the product.
        distance: Median distance of the image's patches to its good ones, over that of a good image; its own have
            about 1.
        reason: Why it is not that product, or cannot be judged as such; empty if it can be.
    """

    name: str
    distance: float
    reason: str


@dataclass(frozen=True, eq=False)
class Resident:
    """A product in memory.

    Attributes:
        model: Its model, with compact banks.
        encoder: What its images are embedded with.
        product: Its name on record.
        artifact: SHA-256 of its file.
        stamp: Size and time of its file.
        nbytes: What it holds.
    """

    model: Model
    encoder: Encoder
    product: str
    artifact: str
    stamp: tuple[int, int]
    nbytes: int


@dataclass(frozen=True, eq=False)
class Sketch:
    """What stays of a product that was loaded once, for `Catalog.route`: 30 kB.

    Attributes:
        stamp: Size and time of its file.
        looks: What decides how it sees an image; products of equal ones share the image's patches.
        anchors: (n, d) float16, some of its bank vectors of the first level at the coarsest scale.
        usual: Median distance of good patches there.
    """

    stamp: tuple[int, int]
    looks: tuple[EncoderSpec, int, Framing, PartLayout | None, Metric]
    anchors: npt.NDArray[Any]
    usual: float


@dataclass(frozen=True, eq=False)
class Look:
    """An image as some products see it at their coarsest working scale.

    Attributes:
        view: The encoder's input.
        appearance: What it looks like as a whole.
        levels: (h, w, d) float32 embeddings per level.
        few: (n, d) float32, some of those of the first level.
        threads: Number of CPU threads of the search.
    """

    view: EncoderInput
    appearance: Appearance
    levels: tuple[Float32Array, ...]
    few: Float32Array
    threads: int | None

    @classmethod
    def at(cls, pixels: Uint8Array, resident: Resident) -> Look:
        """An image (H, W, 3) uint8 RGB as a product sees it."""
        coarsest = dataclasses.replace(resident.model, scales=resident.model.scales[:1])
        [view] = prepare(pixels, resident.encoder, coarsest).inputs
        levels = resident.encoder.encode(view.pixels)
        counted = patch_weights(view.geometry, levels[0].shape[:2], 1.0) > 0
        flat = normalize(levels[0][counted if counted.any() else ...], resident.model.scoring.metric)
        flat = flat.reshape(-1, levels[0].shape[2])
        few = flat[np.linspace(0, len(flat) - 1, min(QUERIES, len(flat))).round().astype(int)]
        return cls(view, Appearance.of(view.as_lit[view.geometry.window()]), levels, few, resident.encoder.threads)

    @classmethod
    def of_a_part(cls, scene: Scene, resident: Resident) -> Look | None:
        """Of several parts, the first that a product would cut out; None where there is none."""
        layout = resident.model.parts
        if layout is None:
            raise ValueError("expected a product of several parts")
        part = next((part.pixels for part in cut_out(scene, layout).parts if part.pixels is not None), None)
        return None if part is None else cls.at(part, resident)

    def anchor_distance(self, sketch: Sketch) -> float:
        """How far some patches of the image are from some of a product's, over what is usual among good ones."""
        squared = NearestSearch(sketch.anchors.astype(np.float32), self.threads, lasting=False)(self.few)
        return float(np.median(to_distance(squared, sketch.looks[-1]))) / sketch.usual

    def candidate(self, name: str, resident: Resident) -> Candidate:
        """The image held to a product in full."""
        model = resident.model
        measured = measure_at(model.scales[0], self.levels, self.view.geometry, model.scoring)
        reason = reason_against(self.view, measured, self.appearance, resident.encoder, model)
        distance = measured.median_distance / max(model.map_scale.median_good, 1e-12)
        if not reason and distance > (limit := _limit(model)):
            reason = f"its patches are {distance:.2f} times as far from good ones as usual ({limit:.2f} allowed)"
        return Candidate(name, distance, reason)


def _limit(model: Model) -> float:
    """How far an image that shows a product may be from it, see `FAR`."""
    if model.expectations is None:
        return FAR
    closeness = np.asarray(model.expectations.closeness)
    return float(min(FARTHEST, FAR * closeness.max() / max(float(np.median(closeness)), 1e-12)))
