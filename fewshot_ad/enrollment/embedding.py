"""Support set -> patch embeddings of all its views."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fewshot_ad.arrays import BoolArray, Float32Array, Float64Array, IndexArray, Int32Array, Progress, Uint8Array
from fewshot_ad.encoder import Encoder, EncoderSpec
from fewshot_ad.enrollment.presets import EnrollmentSettings
from fewshot_ad.enrollment.support import SupportImage
from fewshot_ad.enrollment.views import IDENTITY, View
from fewshot_ad.errors import ImageError
from fewshot_ad.images import Geometry, RegionOfInterest, inside_patches, patch_cares
from fewshot_ad.inspection.inspectability import Appearance
from fewshot_ad.inspection.signals import center_of_structure
from fewshot_ad.registration import AS_IT_IS, Framing, scaled_image
from fewshot_ad.search.memory_bank import Origin
from fewshot_ad.search.nearest import Metric, normalize

# Patches held at once. Beyond, each image gives a random share of its views' patches (and of its own only if those
# alone are too many), which bounds the time of the coreset, and the pool to 80 MB at 152 dimensions.
POOL_LIMIT = 131_072
# Patches of the images that are held out in turn. Of a larger support set an even choice is held out, and large images
# beyond are encoded again when it is their turn, which bounds the memory to 160 MB at 152 dimensions.
STAND_IN_LIMIT = 262_144
MIN_STAND_INS = 8
# Working scale in pixels at which the places of drawn defects are looked up, and what its sides are multiples of:
# those of no encoder, since a product's limits are drawn without one.
DRAWING_SCALE = (256, 32)
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


def held_out_alike(embedded: Sequence[Embedded]) -> list[Embedded]:
    """The same, with the stand-ins that all working scales have: a finer one has room for fewer."""
    common = set.intersection(*({(s.image, s.view) for s in one.stand_ins} for one in embedded))
    return [
        dataclasses.replace(one, stand_ins=tuple(s for s in one.stand_ins if (s.image, s.view) in common))
        for one in embedded
    ]


def embed_support(
    images: Sequence[SupportImage],
    settings: EnrollmentSettings,
    image_size: int,
    encoder: Encoder,
    progress: Progress | None = None,
    alone: bool = True,
) -> Embedded:
    """Encode every view of every support image at one working scale.

    Args:
        images: The support set.
        settings: Views, metric, and the seed of the thinning of very large sets.
        image_size: The working scale in pixels.
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
    held = 0
    views = (None, *settings.views)
    total = len(images) * len(views)
    for i, support_image in enumerate(images):
        image = scale_image(support_image.pixels, image_size, encoder, settings.framing)
        if len(references) == i:  # none was too large yet
            as_it_lies = (
                image
                if settings.registration is None and settings.lighting is None
                else scale_image(support_image.pixels, image_size, encoder)
            )
            references = list(kept_references((*references, Reference.make(as_it_lies))))
        appearances.append(Appearance.of(image.geometry.pad(image.as_lit)[image.geometry.window()]))
        samples = _samples(image, views, encoder.spec, share, [settings.seed, i])
        own: list[list[Pool]] = [[] for _ in samples]
        for v, view in enumerate(views):
            patches = embed_image(image, encoder, view)
            held_out = held_out or _even_choice(len(images), patches.count)
            # Of a single image, views that show all of it stand in for further images.
            if (v == 0 and i in held_out) or (alone and len(images) == 1 and patches.whole):
                held += patches.count
                again = functools.partial(_levels, support_image.pixels, image_size, encoder, view, settings)
                encode = again if held > STAND_IN_LIMIT else functools.partial(tuple, patches.levels)
                stand_ins.append(StandIn(encode, patches.own_geometry, i, v))
            for at, (pools, sample) in enumerate(zip(own, samples, strict=True)):
                pools.append(_pool(patches, at, sample.rows[v], settings.scoring.metric, i, v))
            if progress is not None:
                progress("views", i * len(views) + v + 1, total)
        for pools, sample, target in zip(own, samples, collected, strict=True):
            pool = join_pools(pools)
            target.append(Pool(pool.vectors[sample.order], pool.origin[sample.order]))
    joined = tuple(join_pools(pools) for pools in collected)
    return Embedded(joined, tuple(stand_ins), len(images), tuple(references), tuple(appearances))


@dataclass(frozen=True, eq=False)
class ScaledImage:
    """An image at the working scale.

    Attributes:
        content: (h, w, 3) uint8 RGB, registered if the product is.
        geometry: How it lies in the encoder's input.
        as_lit: (h, w, 3) uint8 RGB, the content in the light that it was photographed in.
    """

    content: Uint8Array
    geometry: Geometry
    as_lit: Uint8Array


def scale_image(
    image: Uint8Array,
    image_size: int,
    encoder: Encoder,
    framing: Framing = AS_IT_IS,
) -> ScaledImage:
    """An image (H, W, 3) uint8 RGB at the working scale; see `registration.scaled_image` for the arguments."""
    return ScaledImage(*scaled_image(image, image_size, encoder.spec.multiple, framing, encoder.threads))


def places_to_draw(image: Uint8Array, settings: EnrollmentSettings, threads: int | None = None) -> Uint8Array | None:
    """Where a defect may be drawn on an image (H, W, 3) uint8 RGB as it lies, (h, w) uint8; None for anywhere."""
    if settings.roi is None:
        return None
    _, geometry, _ = scaled_image(image, *DRAWING_SCALE, settings.framing, threads)
    places = geometry.cares_as_it_lies()
    return places if places is not None and places.any() else None


@dataclass(frozen=True, eq=False)
class PatchEmbeddings:
    """Patch embeddings of an image or of a view of it.

    Attributes:
        levels: (h, w, d) float32 per level.
        geometry: Of the image.
        mask: (H, W) uint8 of the encoder's input: 255 where it shows the image and not a mirrored border.
        cares: (h, w) uint8: how much each pixel of the view counts; None where all count in full.
        back: (2, 3) affine matrix from (x, y) of the view to the registered image's.
        whole: Whether it is the image, or a view that shows all of it.
    """

    levels: tuple[Float32Array, ...]
    geometry: Geometry
    mask: Uint8Array
    cares: Uint8Array | None
    back: Float64Array
    whole: bool

    @property
    def own_geometry(self) -> Geometry:
        """Of the view, where that shows all of the image: a region of interest is turned with it."""
        if self.cares is None or not self.whole:
            return self.geometry
        return dataclasses.replace(self.geometry, roi=RegionOfInterest.of(self.cares, self.geometry.image_hw))

    @property
    def count(self) -> int:
        """Number of patches of all levels."""
        return sum(level.shape[0] * level.shape[1] for level in self.levels)

    def inside(self, at: int) -> BoolArray:
        """Which patches of a level count, (h * w,) bool.

        The image's own edge patches count as the inspection will see them; a view's must be whole, and those of a
        registered image. Outside the region of interest none does.
        """
        return _inside(self.mask, self.cares, self.geometry, self.levels[at].shape[:2], self.whole).ravel()

    def centers(self, at: int) -> Int32Array:
        """Patch centers of a level, (h * w, 2) int32, (x, y) in pixels of the image."""
        height, width = self.levels[at].shape[:2]
        input_hw = self.geometry.input_hw
        stride_y, stride_x = input_hw[0] / height, input_hw[1] / width
        y, x = np.mgrid[0:height, 0:width]
        view_xy = np.stack(
            [(x.ravel() + 0.5) * stride_x - 0.5, (y.ravel() + 0.5) * stride_y - 0.5, np.ones(height * width)]
        )
        registered_xy = np.vstack([self.back @ view_xy, np.ones(height * width)])
        input_xy = (cv2.invertAffineTransform(self.geometry.forward) @ registered_xy).T
        image_xy = (input_xy + 0.5) * self.geometry.scale_xy() - 0.5
        return np.rint(image_xy).astype(np.int32)


def embed_image(image: ScaledImage, encoder: Encoder, view: View | None = None) -> PatchEmbeddings:
    """Encode an image, or a view of it: wherever enrollment looks at an image, it does so here."""
    content, mask, cares, back = _apply(view, image)
    levels = encoder.encode(image.geometry.pad(content))
    return PatchEmbeddings(levels, image.geometry, image.geometry.content_mask(mask), cares, back, _is_whole(view))


def _levels(
    image: Uint8Array, image_size: int, encoder: Encoder, view: View | None, settings: EnrollmentSettings
) -> tuple[Float32Array, ...]:
    scaled = scale_image(image, image_size, encoder, settings.framing)
    return embed_image(scaled, encoder, view).levels


def _apply(view: View | None, image: ScaledImage) -> tuple[Uint8Array, Uint8Array, Uint8Array | None, Float64Array]:
    """A view, the mask of what it shows, how much that counts, and the way back."""
    mask, cares = image.geometry.shown(), image.geometry.cares()
    if view is None:
        return image.content, mask, cares, IDENTITY
    content, shown, back = view.apply(image.content, mask)
    return content, shown, None if cares is None else view.apply(image.content, cares)[1], back


def _inside(
    mask: Uint8Array, cares: Uint8Array | None, geometry: Geometry, grid_hw: tuple[int, ...], whole: bool
) -> BoolArray:
    """Which patches of an image or a view are looked at, (h, w) bool; see `PatchEmbeddings` for the arguments."""
    shown = inside_patches(mask, grid_hw, _partly(geometry, whole))
    return shown if cares is None else shown & (patch_cares(cares, geometry.input_hw, grid_hw) > 0)


def _is_whole(view: View | None) -> bool:
    return view is None or view.shows_all


def _partly(geometry: Geometry, whole: bool) -> bool:
    """Whether patches count of which only some pixels show the image."""
    return whole and geometry.turned is None


@dataclass(frozen=True, eq=False)
class Pool:
    """Patch embeddings of all views of a support set, of one level.

    Attributes:
        vectors: (n, d) float32, `normalize`d and rounded to what the artifact stores.
        origin: Where each comes from.
    """

    vectors: Float32Array
    origin: Origin


def _pool(patches: PatchEmbeddings, at: int, rows: IndexArray, metric: Metric, image: int, view: int) -> Pool:
    keep, level = np.flatnonzero(patches.inside(at))[rows], patches.levels[at]
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


@dataclass(frozen=True, eq=False)
class _Sample:
    """Which patches of an image and its views are kept, of one level.

    Attributes:
        rows: Per view, indices (k,) int64 into its patches that count.
        order: (n,) int64: brings the patches of all views, one view after the other, into the order of the sample.
    """

    rows: tuple[IndexArray, ...]
    order: IndexArray


def _samples(
    image: ScaledImage, views: Sequence[View | None], spec: EncoderSpec, limit: int, seed: Sequence[int]
) -> list[_Sample]:
    """One sample per level, drawn before anything is encoded, so that no more than the sample is ever held."""
    height, width = image.geometry.input_hw
    grids = [(height // stride, width // stride) for stride in spec.level_strides]
    counts = np.zeros((len(views), len(grids)), np.int64)
    for v, view in enumerate(views):
        _, shown, cares, _ = _apply(view, image)
        mask = image.geometry.content_mask(shown)
        counts[v] = [np.count_nonzero(_inside(mask, cares, image.geometry, grid, _is_whole(view))) for grid in grids]
    return [_sample(counts[:, at], limit, seed) for at in range(len(grids))]


def _sample(counts: IndexArray, limit: int, seed: Sequence[int]) -> _Sample:
    """At most so many patches, the image's own before those of its views, otherwise at random.

    Args:
        counts: (v,) int64 patches per view, the image itself first.
        limit: How many, at most.
        seed: Of the choice.
    """
    ends = np.cumsum(counts)
    kept = np.arange(ends[-1])
    if len(kept) > limit:
        # A stable sort by "is a view" after shuffling puts the image's own patches first.
        shuffled = np.random.default_rng(seed).permutation(len(kept))
        kept = shuffled[np.argsort(shuffled >= ends[0], kind="stable")][:limit]
    places = [np.flatnonzero((kept >= end - count) & (kept < end)) for count, end in zip(counts, ends, strict=True)]
    rows = tuple(kept[place] - (end - count) for place, count, end in zip(places, counts, ends, strict=True))
    return _Sample(rows, np.argsort(np.concatenate(places)))


@dataclass(frozen=True, eq=False)
class StandIn:
    """A good image, or a view of one, that is held out to stand for the next image of the line.

    Attributes:
        encode: Gives its embeddings, those that are held or new ones.
        geometry: Of its image.
        image: Index of its image.
        view: Index of the view; 0 is the image itself.
    """

    encode: Callable[[], tuple[Float32Array, ...]]
    geometry: Geometry
    image: int
    view: int

    @property
    def levels(self) -> tuple[Float32Array, ...]:
        """Its embeddings, (h, w, d) float32 per level."""
        return self.encode()


def _even_choice(n_images: int, patches_per_image: int) -> set[int]:
    count = min(n_images, max(MIN_STAND_INS, STAND_IN_LIMIT // patches_per_image))
    return {round(at) for at in np.linspace(0, n_images - 1, count)}


@dataclass(frozen=True, eq=False)
class Reference:
    """A support image at the working scale, as it lies.

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


def places_of(
    references: Sequence[Reference], image_size: int, multiple: int, roi: RegionOfInterest | None = None
) -> list[tuple[float, float]]:
    """Where the structure of stored images has its center at a working scale, see `signals.center_of_structure`."""
    places = []
    for reference in references:
        geometry = Geometry.fit(reference.image_hw, image_size, multiple, roi)
        height, width = geometry.content_hw
        content = cv2.resize(reference.content, (width, height), interpolation=cv2.INTER_AREA)
        places.append(center_of_structure(geometry.pad(content)[geometry.window()]))
    return places


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
