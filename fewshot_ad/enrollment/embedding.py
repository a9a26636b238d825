"""Support set -> patch embeddings of all its views."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Float32Array, Float64Array, Int32Array, Progress, Uint8Array
from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.support import IDENTITY, SupportImage, View
from fewshot_ad.errors import ImageError
from fewshot_ad.images import Geometry, inside_patches
from fewshot_ad.inspectability import Appearance
from fewshot_ad.search.memory_bank import Origin
from fewshot_ad.search.nearest import Metric, normalize

# Patches held at once. Beyond, each image gives a random share of its views' patches (and of its own only if those
# alone are too many), which bounds the time of the coreset, and the pool to 80 MB at 152 dimensions.
POOL_LIMIT = 131_072
# Patches of the images that are held out in turn. Of a larger support set an even choice is held out, which bounds the
# memory to 160 MB at 152 dimensions.
STAND_IN_LIMIT = 262_144
MIN_STAND_INS = 8
# Images travel with the product at the working scale, as PNG, for proofs that need no other image.
REFERENCE_BYTES = 1_500_000


@dataclass(frozen=True)
class Embedded:
    """An embedded support set.

    Attributes:
        pools: One pool per level.
        stand_ins: What is held out in turn: the images, or an even choice of many; of a single one, its views.
        n: Number of images.
        references: The first images, as many as `REFERENCE_BYTES` hold.
        appearances: What each image looks like as a whole.
    """

    pools: tuple[Pool, ...]
    stand_ins: tuple[StandIn, ...]
    n: int
    references: tuple[Reference, ...]
    appearances: tuple[Appearance, ...]

    def without(self, images: Collection[int]) -> Embedded:
        """The same without the images at these positions; the others keep their order and move up."""
        if not images:
            return self
        kept = [i for i in range(self.n) if i not in images]
        place = np.full(self.n, -1, np.int32)
        place[kept] = np.arange(len(kept), dtype=np.int32)
        return Embedded(
            tuple(_moved(pool, place) for pool in self.pools),
            tuple(dataclasses.replace(s, image=int(place[s.image])) for s in self.stand_ins if place[s.image] >= 0),
            len(kept),
            tuple(reference for i, reference in enumerate(self.references) if i not in images),
            tuple(self.appearances[i] for i in kept),
        )


def embed_support(
    images: Sequence[SupportImage],
    settings: EnrollmentSettings,
    encoder: Encoder,
    progress: Progress | None = None,
    alone: bool = True,
) -> Embedded:
    """Encode every view of every support image.

    Args:
        images: The support set.
        settings: Views, working scale, metric, and the seed of the thinning of very large sets.
        encoder: The encoder.
        progress: Called as `progress("views", done, total)`.
        alone: Whether there are no further images; the views of a single one then stand in for them.
    """
    share = max(1, POOL_LIMIT // len(images))
    collected: list[list[Pool]] = [[] for _ in encoder.spec.dims]
    stand_ins: list[StandIn] = []
    references: list[Reference] = []
    appearances: list[Appearance] = []
    held_out: set[int] = set()
    total = len(images) * (len(settings.views) + 1)
    for i, support_image in enumerate(images):
        image = scale_image(support_image.pixels, settings.image_size, encoder.spec.multiple)
        if len(references) == i:  # none was too large yet
            references = list(kept_references((*references, Reference.make(image))))
        appearances.append(Appearance.of(image.geometry.pad(image.content)))
        own: list[list[Pool]] = [[] for _ in encoder.spec.dims]
        for v, view in enumerate((None, *settings.views)):
            patches = embed_image(image, encoder, view)
            held_out = held_out or _even_choice(len(images), patches.count)
            # Of a single image, views that show all of it stand in for further images.
            if (v == 0 and i in held_out) or (alone and len(images) == 1 and patches.whole):
                stand_ins.append(StandIn(patches.levels, image.geometry, i, v))
            for at, pools in enumerate(own):
                pools.append(_pool(patches, at, settings.scoring.metric, i, v))
            if progress is not None:
                progress("views", i * (len(settings.views) + 1) + v + 1, total)
        for pools, target in zip(own, collected, strict=True):
            target.append(_thinned(join_pools(pools), share, [settings.seed, i]))
    joined = tuple(join_pools(pools) for pools in collected)
    return Embedded(joined, tuple(stand_ins), len(images), tuple(references), tuple(appearances))


@dataclass(frozen=True, eq=False)
class ScaledImage:
    """An image at the working scale.

    Attributes:
        content: (h, w, 3) uint8 RGB.
        geometry: How it lies in the encoder's input.
    """

    content: Uint8Array
    geometry: Geometry


def scale_image(image: Uint8Array, image_size: int, multiple: int) -> ScaledImage:
    """An image (H, W, 3) uint8 RGB at the working scale; see `Geometry.fit` for the arguments."""
    geometry = Geometry.fit(image.shape[:2], image_size, multiple)  # type: ignore[arg-type]
    return ScaledImage(geometry.scale(image), geometry)


@dataclass(frozen=True, eq=False)
class PatchEmbeddings:
    """Patch embeddings of an image or of a view of it.

    Attributes:
        levels: (h, w, d) float32 per level.
        geometry: Of the image.
        mask: (H, W) uint8 of the encoder's input: 255 where it shows the image and not a mirrored border.
        back: (2, 3) affine matrix from (x, y) of the view to the scaled image's.
        whole: Whether it is the image, or a view that shows all of it.
    """

    levels: tuple[Float32Array, ...]
    geometry: Geometry
    mask: Uint8Array
    back: Float64Array
    whole: bool

    @property
    def count(self) -> int:
        """Number of patches of all levels."""
        return sum(level.shape[0] * level.shape[1] for level in self.levels)

    def inside(self, at: int) -> BoolArray:
        """Which patches of a level count, (h * w,) bool.

        The image's own edge patches count as the inspection will see them; a view's must be whole.
        """
        return inside_patches(self.mask, self.levels[at].shape[:2], partly=self.whole).ravel()

    def centers(self, at: int) -> Int32Array:
        """Patch centers of a level, (h * w, 2) int32, (x, y) in pixels of the image."""
        height, width = self.levels[at].shape[:2]
        input_hw = self.geometry.input_hw
        stride_y, stride_x = input_hw[0] / height, input_hw[1] / width
        y, x = np.mgrid[0:height, 0:width]
        view_xy = np.stack(
            [(x.ravel() + 0.5) * stride_x - 0.5, (y.ravel() + 0.5) * stride_y - 0.5, np.ones(height * width)]
        )
        input_xy = (self.back @ view_xy).T
        image_xy = (input_xy + 0.5) * self.geometry.scale_xy() - 0.5
        return np.rint(image_xy).astype(np.int32)


def embed_image(image: ScaledImage, encoder: Encoder, view: View | None = None) -> PatchEmbeddings:
    """Encode an image, or a view of it: wherever enrollment looks at an image, it does so here."""
    content, mask, back, whole = image.content, np.full(image.content.shape[:2], 255, np.uint8), IDENTITY, True
    if view is not None:
        content, mask, back = view.apply(content, mask)
        whole = view.shows_all
    levels = encoder.encode(image.geometry.pad(content))
    return PatchEmbeddings(levels, image.geometry, image.geometry.content_mask(mask), back, whole)


@dataclass(frozen=True, eq=False)
class Pool:
    """Patch embeddings of all views of a support set, of one level.

    Attributes:
        vectors: (n, d) float32, `normalize`d and rounded to what the artifact stores.
        origin: Where each comes from.
    """

    vectors: Float32Array
    origin: Origin


def _pool(patches: PatchEmbeddings, at: int, metric: Metric, image: int, view: int) -> Pool:
    keep, level = patches.inside(at), patches.levels[at]
    vectors = normalize(level.reshape(-1, level.shape[2])[keep], metric)
    zeros = np.zeros(len(vectors), np.int32)
    return Pool(vectors, Origin(zeros + np.int32(image), zeros + np.int32(view), patches.centers(at)[keep]))


def _moved(pool: Pool, place: Int32Array) -> Pool:
    """The patches of the images that have a place, under its number; -1 is none."""
    image = place[pool.origin.image]
    kept = image >= 0
    return Pool(pool.vectors[kept], Origin(image[kept], pool.origin.view[kept], pool.origin.xy[kept]))


def join_pools(pools: Sequence[Pool]) -> Pool:
    """Concatenate."""
    return Pool(np.concatenate([p.vectors for p in pools]), Origin.join([p.origin for p in pools]))


def _thinned(pool: Pool, count: int, seed: Sequence[int]) -> Pool:
    """At most so many patches of a pool, the image's own before those of its views, otherwise at random."""
    if len(pool.vectors) <= count:
        return pool
    # A stable sort by "is a view" after shuffling puts the image's own patches first.
    shuffled = np.random.default_rng(seed).permutation(len(pool.vectors))
    kept = shuffled[np.argsort(pool.origin.view[shuffled] > 0, kind="stable")][:count]
    return Pool(pool.vectors[kept], pool.origin[kept])


@dataclass(frozen=True, eq=False)
class StandIn:
    """A good image, or a view of one, that is held out to stand for the next image of the line.

    Attributes:
        levels: Its embeddings, (h, w, d) float32 per level.
        geometry: Of its image.
        image: Index of its image.
        view: Index of the view; 0 is the image itself.
    """

    levels: tuple[Float32Array, ...]
    geometry: Geometry
    image: int
    view: int


def _even_choice(n_images: int, patches_per_image: int) -> set[int]:
    count = min(n_images, max(MIN_STAND_INS, STAND_IN_LIMIT // patches_per_image))
    return {round(at) for at in np.linspace(0, n_images - 1, count)}


@dataclass(frozen=True, eq=False)
class Reference:
    """A support image as the encoder saw it.

    Attributes:
        png: (n,) uint8: the image at the working scale, as a PNG file.
        image_hw: Height and width of the image itself in pixels.
    """

    png: Uint8Array
    image_hw: tuple[int, int]

    @classmethod
    def make(cls, image: ScaledImage) -> Reference:
        """From the scaled image."""
        encoded = cv2.imencode(".png", cv2.cvtColor(image.content, cv2.COLOR_RGB2BGR))[1]
        return cls(encoded.ravel(), image.geometry.image_hw)

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
