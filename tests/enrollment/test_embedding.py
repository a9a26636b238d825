from __future__ import annotations

import numpy as np
import pytest

from fewshot_ad.encoder import Encoder
from fewshot_ad.enrollment.embedding import POOL_LIMIT, Embedded, Pool, embed_image, embed_support, scale_image
from fewshot_ad.enrollment.presets import enrollment_settings
from fewshot_ad.enrollment.support import read_support
from fewshot_ad.enrollment.views import View
from fewshot_ad.images import Geometry


def embedded(parts: list[np.ndarray], views: str, encoder: Encoder, size: int = 128) -> Embedded:
    settings = enrollment_settings(views=views, image_size=size)
    return embed_support(read_support(parts).images, settings, size, encoder)


def test_a_view_is_embedded_as_the_picture_it_shows(parts: list[np.ndarray], encoder: Encoder) -> None:
    mirrored = embed_image(scale_image(parts[0], 128, encoder), encoder, View("hflip"))
    itself = embed_image(scale_image(np.ascontiguousarray(parts[0][:, ::-1]), 128, encoder), encoder)
    for a, b in zip(mirrored.levels, itself.levels, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    assert mirrored.whole
    assert mirrored.inside(0).all()
    np.testing.assert_array_equal(mirrored.centers(0)[0], [124, 4])


def test_every_patch_knows_where_it_comes_from(parts: list[np.ndarray], encoder: Encoder) -> None:
    pool = embedded(parts[:2], "hflip,rotate=30", encoder).pools[0]
    assert set(pool.origin.image) == {0, 1}
    assert set(pool.origin.view) == {0, 1, 2}
    own, mirrored = pool.origin.view == 0, pool.origin.view == 1
    assert len(pool.vectors) == len(pool.origin.xy)
    # 128 x 128 in patches of 8: the first patch's center is 3.5, the mirrored one's 127 - 3.5.
    np.testing.assert_array_equal(pool.origin.xy[own][0], [4, 4])
    np.testing.assert_array_equal(pool.origin.xy[mirrored][0], [124, 4])
    # A rotated view has corners that show nothing; their patches are left out.
    assert (pool.origin.view == 2).sum() < own.sum()
    assert pool.origin.xy.min() >= 0
    assert pool.origin.xy.max() <= 127


def test_two_hundred_images_stay_within_the_pool(encoder: Encoder, parts: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    many = [np.roll(parts[i % 5], rng.integers(-3, 4, 2), axis=(0, 1)) for i in range(200)]
    many = [np.clip(m.astype(int) + rng.integers(-3, 4, m.shape), 0, 255).astype(np.uint8) for m in many]
    support = embedded(many, "hflip,vflip", encoder, 256)
    assert len(support.pools[0].vectors) <= POOL_LIMIT
    assert set(support.pools[0].origin.image) == set(range(200))


def test_of_too_many_patches_those_of_the_image_come_before_those_of_its_views(
    parts: list[np.ndarray], encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = embedded(parts[:2], "hflip,rotate=30", encoder).pools[0]
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.POOL_LIMIT", 2 * 300)
    pool = embedded(parts[:2], "hflip,rotate=30", encoder).pools[0]
    for image in range(2):
        assert (pool.origin.image == image).sum() == 300
        assert ((pool.origin.image == image) & (pool.origin.view == 0)).sum() == 256
    # Each vector still stands beside where it comes from.
    vectors = {(image, view, xy): vector for image, view, xy, vector in _rows(everything)}
    for image, view, xy, vector in _rows(pool):
        np.testing.assert_array_equal(vectors[image, view, xy], vector)


def _rows(pool: Pool) -> list[tuple[int, int, tuple[int, ...], np.ndarray]]:
    origin = pool.origin
    places = [tuple(xy) for xy in origin.xy.tolist()]
    return list(zip(origin.image.tolist(), origin.view.tolist(), places, pool.vectors, strict=True))


def test_what_is_not_held_is_encoded_again(
    parts: list[np.ndarray], encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = embedded(parts[:3], "hflip", encoder).stand_ins
    monkeypatch.setattr("fewshot_ad.enrollment.embedding.STAND_IN_LIMIT", 256)
    again = embedded(parts[:3], "hflip", encoder).stand_ins
    for a, b in zip(held, again, strict=True):
        np.testing.assert_allclose(a.levels[0], b.levels[0], atol=1e-4)


def test_support_images_travel_with_the_product(parts: list[np.ndarray], encoder: Encoder) -> None:
    support = embedded(parts, "hflip", encoder)
    geometry = Geometry.fit((128, 128), 128, 16)
    assert len(support.references) == 5
    np.testing.assert_array_equal(support.references[1].content, geometry.scale(parts[1]))
    assert support.references[1].image_hw == (128, 128)
