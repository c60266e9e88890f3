"""Warps and crops against loops over pixels, and what each range of theirs allows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon import augment
from jaxcon.augment import geometry
from jaxcon.augment.geometry import crop_box
from tests.augment.images import KEY, PHOTOS


def slow_warp(image, matrix, shift):
    """Bilinear sampling, pixel by pixel."""
    height, width, _ = image.shape
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    out = np.zeros_like(image)
    for p in np.ndindex(height, width):
        source = centre + matrix @ (np.array(p) - centre) + shift
        for q in np.ndindex(height, width):
            out[p] += np.prod(np.maximum(0, 1 - np.abs(source - q))) * image[q]
    return out


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 7, 3)])
def test_affine_warp_equals_a_loop_over_pixels(shape):
    rng = np.random.default_rng(2)
    image = rng.uniform(size=shape)
    for _ in range(10):
        matrix, shift = np.eye(2) + 0.5 * rng.normal(size=(2, 2)), rng.normal(size=2)
        warped = jax.jit(augment.affine_warp)(image, matrix, shift)
        np.testing.assert_allclose(warped, slow_warp(image, matrix, shift), atol=1e-5)


def test_affine_warp_far_outside_reads_nothing():
    far = augment.affine_warp(jnp.ones((4, 4, 1)), jnp.eye(2), jnp.array([1e9, -1e9]))
    np.testing.assert_array_equal(far, np.zeros((4, 4, 1)))


def test_each_limit_of_random_affine_moves_what_it_names():
    """The mass of a drawn bar: where it lies and how it leans."""
    size = 33
    y, x = np.mgrid[:size, :size] - size // 2
    bar = (np.exp(-(x**2) / 8 - y**2 / 50))[..., None]

    def moments(**limits):
        keys = jax.random.split(KEY, 200)
        out = jax.jit(jax.vmap(partial(augment.random_affine, **limits), in_axes=(0, None)))
        image = np.asarray(out(keys, bar))[..., 0]
        mass = image.sum((1, 2))

        def moment(a):
            return (image * a).sum((1, 2)) / mass

        place = np.stack([moment(y), moment(x)])
        cross = moment(y * x) - place[0] * place[1]
        return place, cross, moment(y * y) - place[0] ** 2

    still_place, still_cross, still_spread = moments()
    np.testing.assert_allclose(still_place, 0, atol=1e-4)
    np.testing.assert_allclose(still_cross, 0, atol=1e-3)

    place, cross, _ = moments(translation=0.1)
    assert 0.09 * size < np.abs(place).max() < 0.1 * size + 0.01
    np.testing.assert_allclose(cross, 0, atol=0.05)

    place, _, spread = moments(scale=0.2)
    np.testing.assert_allclose(place, 0, atol=1e-3)
    # The warp pulls: a step in the output is 0.8 to 1.2 steps in the input.
    expected = still_spread[0] / np.array([1.2, 0.8]) ** 2
    np.testing.assert_allclose([spread.min(), spread.max()], expected, rtol=0.1)

    for limits in ({"rotation": 0.3}, {"shear": 0.3}):
        place, cross, _ = moments(**limits)
        np.testing.assert_allclose(place, 0, atol=1e-3)
        assert cross.min() < -3
        assert cross.max() > 3


def test_a_whole_crop_is_the_image_itself():
    crop = augment.random_resized_crop(KEY, PHOTOS[0] / 255, area=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_allclose(crop, PHOTOS[0] / 255, atol=1e-5)


def test_crops_show_the_promised_share_of_a_ramp():
    """On a ramp the span of the crop's values is the crop's side."""
    size = 32
    ramp = jnp.stack(jnp.meshgrid(*2 * [jnp.arange(size) / size], indexing="ij"), axis=-1)
    keys = jax.random.split(KEY, 300)
    crop = jax.jit(jax.vmap(partial(augment.random_resized_crop, area=(0.1, 0.6)), (0, None)))
    crops = np.asarray(crop(keys, ramp))
    height = np.ptp(crops[..., 0], axis=(1, 2)) * size / (size - 1)
    width = np.ptp(crops[..., 1], axis=(1, 2)) * size / (size - 1)
    assert 0.08 < (height * width).min() < 0.13
    assert 0.5 < (height * width).max() < 0.62
    assert (width / height).max() < 4 / 3 * 1.1
    assert (width / height).min() > 3 / 4 / 1.1
    assert crops[..., 0].min() < 0.02
    assert crops[..., 0].max() > 0.94


THIRDS = (3 / 4, 4 / 3)


@pytest.mark.parametrize(
    ("shape", "area", "possible"),
    [
        ((64, 64), (0.9, 1.0), True),
        ((64, 64), (0.9, 0.95), True),
        ((64, 64), (0.08, 1.0), True),
        ((48, 64), (0.08, 1.0), True),
        ((32, 128), (0.08, 1.0), True),
        ((128, 32), (0.3, 0.9), True),  # a third is the most that an aspect of 4 / 3 leaves
        ((32, 128), (0.9, 1.0), False),
    ],
)
def test_every_crop_is_within_its_ranges_and_within_the_image(shape, area, possible):
    boxes = jax.jit(jax.vmap(lambda key: crop_box(key, shape, area, THIRDS)))
    corner, size = (np.asarray(v, np.float64) for v in boxes(jax.random.split(KEY, 2000)))
    assert (corner >= 0).all()
    assert (corner + size <= np.array(shape) * (1 + 1e-6)).all()
    ratio = size[:, 1] / size[:, 0]
    assert THIRDS[0] * (1 - 1e-5) <= ratio.min() <= ratio.max() <= THIRDS[1] * (1 + 1e-5)
    share = size.prod(axis=1) / np.prod(shape)
    if possible:
        assert area[0] * (1 - 1e-5) <= share.min() <= share.max() <= area[1] * (1 + 1e-5)
    else:  # the largest crop of an admitted aspect, in the middle
        np.testing.assert_allclose(share, 32 * 32 * THIRDS[1] / (32 * 128), rtol=1e-5)
        np.testing.assert_allclose(corner + size / 2, [[16, 64]] * 2000, rtol=1e-5)


def test_crops_are_distributed_as_those_drawn_again_until_they_fit():
    """torchvision's, with as many tries as it takes: deciles of area and of aspect."""
    shape, area = (40, 60), (0.2, 1.0)
    boxes = jax.jit(jax.vmap(lambda key: crop_box(key, shape, area, THIRDS)))
    _, size = (np.asarray(v) for v in boxes(jax.random.split(KEY, 20_000)))
    rng = np.random.default_rng(0)
    share, log_ratio = rng.uniform(*area, 200_000), rng.uniform(*np.log(THIRDS), 200_000)
    height, width = (np.sqrt(share * 2400 * np.exp(sign * log_ratio)) for sign in (-1, 1))
    fits = (height <= 40) & (width <= 60)
    deciles = np.linspace(0.1, 0.9, 9)
    for got, expected in (
        (size.prod(axis=1) / 2400, share[fits]),
        (np.log(size[:, 1] / size[:, 0]), log_ratio[fits]),
    ):
        spread = expected.std()
        gaps = np.quantile(got, deciles) - np.quantile(expected, deciles)
        assert np.abs(gaps).max() < 0.05 * spread


def test_a_shift_with_edges_repeats_the_nearest_pixel():
    image = np.random.default_rng(3).uniform(size=(4, 5, 2)).astype(np.float32)
    for rows, columns in ((2, -1), (-3, 2)):
        shift = jnp.array([rows, columns], jnp.float32)
        moved = augment.affine_warp(image, jnp.eye(2), shift, outside="edge")
        source = np.ix_(np.clip(np.arange(4) + rows, 0, 3), np.clip(np.arange(5) + columns, 0, 4))
        np.testing.assert_allclose(moved, image[source], atol=1e-6)


def test_another_word_for_what_is_outside_is_refused():
    with pytest.raises(ValueError, match="expected 'black' or 'edge', got 'nearest'"):
        augment.random_affine(KEY, jnp.ones((4, 4, 1)), outside="nearest")


@pytest.mark.parametrize("outside", ["black", "edge"])
def test_a_tpu_shifts_and_zooms_by_products_what_others_read(outside):
    """Also far beyond the image, where there is nothing or the rim."""
    image = np.float32(np.random.default_rng(0).random((9, 7, 3)))
    for zoom, shift in (
        ((1.0, 1.0), (0.3, -0.6)),
        ((0.6, 1.7), (2.5, 0.0)),
        ((1.0, 1.0), (-9.5, 8)),
    ):
        given = image, jnp.diag(jnp.array(zoom)), jnp.array(shift)
        read = augment.affine_warp(*given, outside=outside)
        along = geometry._warp_along_axes(*given, outside=outside)
        np.testing.assert_allclose(along, read, atol=1e-5)


@pytest.mark.parametrize(("settings", "products"), [({"scale": 0.2}, 2), ({"shear": 0.1}, 0)])
def test_only_what_moves_along_the_axes_is_products_and_on_tpus_alone(settings, products):
    def warp(key, image):
        return augment.random_affine(key, image, translation=0.1, **settings)

    image = jnp.zeros((3, 9, 7, 3))
    traced = jax.jit(jax.vmap(warp)).trace(jax.random.split(KEY, 3), image)
    for platform, expected in (("tpu", products), ("cpu", 0)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.dot_general") == expected
