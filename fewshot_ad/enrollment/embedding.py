"""Support set -> patch embeddings of all its views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fewshot_ad.arrays import Float32Array, Progress, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.support import SupportImage, View
from fewshot_ad.errors import ImageError
from fewshot_ad.images import Geometry, inside_patches
from fewshot_ad.scoring import ScoringConfig
from fewshot_ad.search.memory_bank import Origin
from fewshot_ad.search.nearest import normalize

# Patches held at once. Beyond, each image gives a random share of its views' patches (and of its own only if
# those alone are too many), which bounds the time of the coreset, and the pool to 80 MB at 152 dimensions.
POOL_LIMIT = 131_072
# Patches of the images that are held out in turn. Of a larger support set an even choice is held out, which bounds
# the memory to 160 MB at 152 dimensions.
STAND_IN_LIMIT = 262_144
MIN_STAND_INS = 8
# Images travel with the product at the working scale, as PNG, for proofs that need no other image.
REFERENCE_BYTES = 1_500_000


@dataclass(frozen=True, eq=False)
class Pool:
    """Patch embeddings of all views of a support set, a level.

    Attributes:
        vectors: (n, d) float32, `normalize`d and rounded to what the artifact stores.
        origin: Where each comes from.
    """

    vectors: Float32Array
    origin: Origin


@dataclass(frozen=True, eq=False)
class StandIn:
    """A good picture that is held out to stand for the next one of the line.

    Attributes:
        levels: Its embeddings, (h, w, d) float32 a level.
        geometry: Of its image.
        image: Index of its image.
        view: Index of the view; 0 is the image itself.
    """

    levels: tuple[Float32Array, ...]
    geometry: Geometry
    image: int
    view: int


@dataclass(frozen=True)
class Embedded:
    """An embedded support set.

    Attributes:
        pools: One pool a level.
        stand_ins: What is held out in turn: the images, or an even choice of many; of a single one, its views.
        n: Number of images.
        references: The first images, as many as `REFERENCE_BYTES` hold.
    """

    pools: tuple[Pool, ...]
    stand_ins: tuple[StandIn, ...]
    n: int
    references: tuple[Reference, ...]


@dataclass(frozen=True, eq=False)
class Reference:
    """A support image as the encoder saw it.

    Attributes:
        png: (n,) uint8: the image at the working scale, as a PNG file.
        photo_hw: Height and width of the image itself in pixels.
    """

    png: Uint8Array
    photo_hw: tuple[int, int]

    @classmethod
    def make(cls, content: Uint8Array, photo_hw: tuple[int, int]) -> Reference:
        """From the scaled image (h, w, 3) uint8 RGB."""
        return cls(cv2.imencode(".png", cv2.cvtColor(content, cv2.COLOR_RGB2BGR))[1].ravel(), photo_hw)

    @property
    def content(self) -> Uint8Array:
        """The image at the working scale, (h, w, 3) uint8 RGB."""
        content = cv2.imdecode(self.png, cv2.IMREAD_COLOR_RGB)
        if content is None:
            raise ImageError("a support image inside the product cannot be decoded. Enroll again.")
        return content


def kept_references(references: Sequence[Reference]) -> tuple[Reference, ...]:
    """The first of them, as many as `REFERENCE_BYTES` hold."""
    kept: list[Reference] = []
    free = REFERENCE_BYTES
    for reference in references:
        free -= len(reference.png)
        if free < 0:
            break
        kept.append(reference)
    return tuple(kept)


@dataclass(frozen=True, eq=False)
class Picture:
    """A support image or a view of it, at the working scale.

    Attributes:
        content: (h, w, 3) uint8 RGB.
        shown: (h, w) uint8, 255 where it shows the image and not a mirrored border.
        back: (2, 3) affine matrix from its (x, y) to the scaled image's.
        whole: Whether it is the image, or a view that shows all of it.
    """

    content: Uint8Array
    shown: Uint8Array
    back: npt.NDArray[np.float64]
    whole: bool


def pictures_of(content: Uint8Array, views: Sequence[View]) -> Iterator[Picture]:
    """A scaled image (h, w, 3) uint8 itself, then its views."""
    everything = np.full(content.shape[:2], 255, np.uint8)
    yield Picture(content, everything, np.eye(2, 3), True)
    for view in views:
        yield Picture(*view.apply(content, everything), view.shows_all)


def embed_support(
    images: Sequence[SupportImage],
    views: Sequence[View],
    image_size: int,
    encoder: Encoder,
    scoring: ScoringConfig,
    seed: int,
    progress: Progress | None = None,
    alone: bool = True,
) -> Embedded:
    """Encode every view of every support image.

    Args:
        images: The support set.
        views: Views besides the images themselves.
        image_size: Working scale.
        encoder: The encoder.
        scoring: Gives the metric.
        seed: Of the thinning of very large sets.
        progress: Called as `progress("views", done, total)`.
        alone: Whether there are no further images; the views of a single one then stand in for them.
    """
    share = max(1, POOL_LIMIT // len(images))
    collected: list[list[Pool]] = [[] for _ in encoder.spec.dims]
    stand_ins: list[StandIn] = []
    references: list[Reference] = []
    held_out: set[int] = set()
    total = len(images) * (len(views) + 1)
    for i, image in enumerate(images):
        pixels = image.pixels
        geometry = Geometry.fit(pixels.shape[:2], image_size, encoder.spec.multiple)  # type: ignore[arg-type]
        content = geometry.scale(pixels)
        if len(references) == i:  # none was too large yet
            references = list(kept_references((*references, Reference.make(content, geometry.photo_hw))))
        own: list[list[Pool]] = [[] for _ in encoder.spec.dims]
        for v, picture in enumerate(pictures_of(content, views)):
            mask = geometry.content_mask(picture.shown)
            levels = encoder.encode(geometry.pad(picture.content))
            patches = sum(level.shape[0] * level.shape[1] for level in levels)
            if not held_out:
                count = min(len(images), max(MIN_STAND_INS, STAND_IN_LIMIT // patches))
                held_out = {round(at) for at in np.linspace(0, len(images) - 1, count)}
            # Of a single image, views that show all of it stand in for further images.
            if (v == 0 and i in held_out) or (alone and len(images) == 1 and picture.whole):
                stand_ins.append(StandIn(levels, geometry, i, v))
            for pools, level in zip(own, levels, strict=True):
                # The image's own edge patches count as the inspection will see them; a view's must be whole.
                keep = inside_patches(mask, level.shape[:2], partly=picture.whole).ravel()
                vectors = normalize(level.reshape(-1, level.shape[2])[keep], scoring.metric)
                xy = _patch_centers(level.shape[:2], geometry, picture.back)[keep]
                number = np.full(len(vectors), 0, np.int32)
                pools.append(Pool(vectors, Origin(number + i, number + v, xy)))
            if progress is not None:
                progress("views", i * (len(views) + 1) + v + 1, total)
        for pools, target in zip(own, collected, strict=True):
            joined = join_pools(pools)
            if len(joined.vectors) > share:
                # A stable sort by "is a view" after shuffling puts the image's own patches first.
                shuffled = np.random.default_rng([seed, i]).permutation(len(joined.vectors))
                kept = shuffled[np.argsort(joined.origin.view[shuffled] > 0, kind="stable")][:share]
                joined = Pool(joined.vectors[kept], joined.origin[kept])
            target.append(joined)
    return Embedded(tuple(join_pools(pools) for pools in collected), tuple(stand_ins), len(images), tuple(references))


def join_pools(pools: list[Pool]) -> Pool:
    """Concatenate."""
    return Pool(np.concatenate([p.vectors for p in pools]), Origin.join([p.origin for p in pools]))


def _patch_centers(
    grid_hw: tuple[int, ...], geometry: Geometry, back: npt.NDArray[np.float64]
) -> npt.NDArray[np.int32]:
    height, width = grid_hw[:2]
    stride_y, stride_x = geometry.input_hw[0] / height, geometry.input_hw[1] / width
    y, x = np.mgrid[0:height, 0:width]
    view_xy = np.stack(
        [(x.ravel() + 0.5) * stride_x - 0.5, (y.ravel() + 0.5) * stride_y - 0.5, np.ones(height * width)]
    )
    input_xy = (back @ view_xy).T
    photo_xy = (input_xy + 0.5) * geometry.scale_xy() - 0.5
    return np.rint(photo_xy).astype(np.int32)
