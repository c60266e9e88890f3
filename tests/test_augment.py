"""Views: what each operation does to pixels, and that they depend on key and row alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcon import augment
from jaxcon.augment.geometry import crop_box

KEY = jax.random.key(7)
DIGITS = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)
PHOTOS = np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)


compiled = jax.jit(augment.two_views, static_argnames="transform")


def views(images, transform, key=KEY, index=None):
    index = jnp.arange(len(images)) if index is None else index
    return [np.asarray(v) for v in compiled(key, images, transform=transform, index=index)]


@pytest.mark.parametrize(
    ("images", "transform"),
    [
        (DIGITS, augment.digits_transform),
        (PHOTOS, augment.simclr_transform),
        pytest.param(PHOTOS[..., :1], augment.simclr_transform, marks=pytest.mark.exhaustive),
    ],
    ids=["digits", "photos", "gray photos"],
)
def test_views_are_floats_in_range_that_differ_from_each_other(images, transform):
    v1, v2 = views(images, transform)
    for view in (v1, v2):
        assert view.dtype == np.float32
        assert view.shape == images.shape
        assert view.min() >= 0
        assert view.max() <= 1
    assert np.abs(v1 - v2).mean(axis=(1, 2, 3)).min() > 0.01


def test_a_row_depends_on_its_index_and_not_on_its_company():
    v1, v2 = views(DIGITS, augment.digits_transform)
    rows = np.random.default_rng(3).permutation(16)  # one shape, one compilation
    w1, w2 = views(DIGITS[rows], augment.digits_transform, index=jnp.asarray(rows))
    np.testing.assert_array_equal(w1, v1[rows])
    np.testing.assert_array_equal(w2, v2[rows])


def test_the_same_image_gets_other_views_at_another_index_or_key():
    same = np.repeat(DIGITS[:1], 16, axis=0)
    v1, _ = views(same, augment.digits_transform)
    w1, _ = views(same, augment.digits_transform, key=jax.random.key(8))
    assert np.abs(v1[0] - v1[1]).max() > 0.1
    assert np.abs(v1[0] - w1[0]).max() > 0.1


@pytest.mark.parametrize(
    ("images", "transform", "devices"),
    [
        (DIGITS, augment.digits_transform, 8),
        pytest.param(DIGITS, augment.digits_transform, 2, marks=pytest.mark.exhaustive),
        pytest.param(PHOTOS, augment.simclr_transform, 8, marks=pytest.mark.exhaustive),
    ],
    ids=["digits", "digits on two", "photos"],
)
def test_views_are_equal_bit_for_bit_on_any_number_of_devices(images, transform, devices):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("batch",))
    shard = jax.shard_map(
        lambda key, x, index: augment.two_views(key, x, transform=transform, index=index),
        mesh=mesh,
        in_specs=(P(), P("batch"), P("batch")),
        out_specs=P("batch"),
    )
    sharded = jax.jit(shard)(KEY, images, jnp.arange(len(images)))
    for view, expected in zip(sharded, views(images, transform), strict=True):
        np.testing.assert_array_equal(view, expected)


def test_float_images_are_taken_as_they_are():
    v1, _ = views(DIGITS.astype(np.float32) / 255, lambda key, image: image)
    np.testing.assert_array_equal(v1, DIGITS.astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([0, 51, 255], np.uint8), [0, 0.2, 1]),
        (np.array([0, 13107, 65535], np.uint16), [0, 0.2, 1]),
        (np.array([False, True]), [0, 1]),
        (np.array([0, 0.25, 1], np.float16), [0, 0.25, 1]),
        (np.array([0, 0.25, 1.0005]), [0, 0.25, 1.0005]),
        (jnp.array([0, 0.25, 1], jnp.bfloat16), [0, 0.25, 1]),
        (np.zeros((0, 3)), np.zeros((0, 3))),
    ],
    ids=lambda v: str(getattr(v, "dtype", "")),
)
def test_pixels_of_every_dtype_with_a_scale(pixels, expected):
    for given in (augment.to_float(pixels), jax.jit(augment.to_float)(pixels)):
        assert given.dtype == jnp.float32
        np.testing.assert_allclose(given, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.array([0, 255], np.int32), r"expected uint8.* got int32.*images\.astype\('uint8'\)"),
        (np.array([0, 127], np.int8), "got int8"),
        (np.array([0, 255], np.int64), "got int"),
        (np.array([0, 1j]), "got complex"),
        (np.array([0.0, 255.0]), r"floats in \[0, 1\], got 0 to 255; divide"),
        (np.array([-2.1, 2.6], np.float32), r"got -2\.1 to 2\.6"),
        (np.array([0.0, np.nan], np.float32), "got nan to nan"),
        (np.array([0.0, np.inf], np.float32), "got 0 to inf"),
    ],
    ids=lambda v: str(getattr(v, "dtype", "")),
)
def test_pixels_without_a_scale_are_refused(pixels, said):
    with pytest.raises(ValueError, match=said):
        augment.to_float(pixels)
    with pytest.raises(ValueError, match=said):
        augment.two_views(KEY, pixels.reshape(1, 1, 2, 1), transform=lambda key, image: image)


@pytest.mark.parametrize("mode", ["shard_map", "shard_map, check_vma=False", "pmap"])
def test_devices_would_draw_the_same_without_an_index(mode):
    def local(images):
        return augment.two_views(KEY, images, transform=augment.digits_transform)[0]

    if mode == "pmap":
        mapped, images = jax.pmap(local, axis_name="batch", devices=jax.devices()[:2]), DIGITS
        images = images.reshape(2, 8, 8, 8, 1)
    else:
        mesh = Mesh(np.array(jax.devices()[:2]), ("batch",))
        settings = {"mesh": mesh, "in_specs": P("batch"), "out_specs": P("batch")}
        mapped = jax.jit(jax.shard_map(local, check_vma="False" not in mode, **settings))
        images = DIGITS
    with pytest.raises(
        ValueError, match=r"same views.*index=jaxcon.collectives.row_index\(8, 'batch'\)"
    ):
        mapped(images)


def test_a_batch_without_channels_is_refused():
    with pytest.raises(AssertionError, match="rank"):
        augment.two_views(KEY, DIGITS[..., 0], transform=augment.digits_transform)


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


def test_gain_scales_and_noise_spreads():
    keys = jax.random.split(KEY, 500)
    image = jnp.full((4, 4, 1), 0.5)
    gained = np.asarray(
        jax.vmap(partial(augment.random_gain, strength=0.4), (0, None))(keys, image)
    )
    factor = gained[:, 0, 0, 0] / 0.5
    assert 0.6 <= factor.min() < 0.62
    assert 1.38 < factor.max() <= 1.4
    np.testing.assert_allclose(gained, factor[:, None, None, None] * 0.5 * np.ones((4, 4, 1)), 1e-6)
    noisy = jax.vmap(partial(augment.gaussian_noise, std=0.1), (0, None))(keys, image)
    assert abs(float(noisy.std()) - 0.1) < 0.005
    assert abs(float(noisy.mean()) - 0.5) < 0.005


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


def test_photo_operations_fire_as_often_as_they_say():
    keys = jax.random.split(KEY, 400)
    image = PHOTOS[0] / np.float32(255)
    whole = partial(augment.simclr_transform, area=(0.999, 1.0))
    out = np.asarray(jax.jit(jax.vmap(whole, (0, None)))(keys, image))
    gray = np.ptp(out, axis=-1).max((1, 2)) < 1e-5
    assert 0.14 < gray.mean() < 0.26


def test_gray_photos_keep_their_gray():
    gray = np.repeat(PHOTOS[:1, ..., :1], 3, axis=-1) / np.float32(255)
    jittered = augment.colour_jitter(KEY, gray[0], strength=0.5)
    np.testing.assert_allclose(np.ptp(jittered, axis=-1), 0, atol=1e-5)
    assert np.abs(jittered - gray[0]).max() > 0.02


@pytest.mark.parametrize("shape", [(80, 80), (16, 128), (128, 16), (19, 100), (65, 65), (1, 70)])
def test_a_blur_has_the_width_that_was_drawn_on_images_of_any_shape(shape):
    """The variance of what a point becomes, along each axis that is wide enough to hold it."""
    image = np.zeros((*shape, 1), np.float32)
    middle = shape[0] // 2, shape[1] // 2
    image[middle] = 1
    for sigma in (0.7, 2.0):
        blur = jax.jit(partial(augment.random_blur, sigma=(sigma, sigma)))
        blurred = np.asarray(blur(KEY, image), np.float64)
        for axis, side in enumerate(shape):
            if side > 8 * sigma + 1:
                along = blurred[..., 0].sum(axis=1 - axis)
                offsets = np.arange(side) - middle[axis]
                std = np.sqrt((along * offsets**2).sum() / along.sum())
                np.testing.assert_allclose(std, sigma, rtol=0.01)


def test_a_blur_is_a_sum_over_the_mirrored_image():
    image = np.random.default_rng(3).uniform(size=(20, 30, 3)).astype(np.float32)
    blurred = augment.random_blur(KEY, image, sigma=(2.0, 2.0))
    offsets = np.arange(-8, 9)
    kernel = np.exp(-(offsets**2) / 8)
    kernel /= kernel.sum()
    mirrored = np.pad(image.astype(float), ((8, 8), (8, 8), (0, 0)), mode="reflect")
    expected = np.zeros((20, 30, 3))
    for i, j in np.ndindex(17, 17):
        expected += kernel[i] * kernel[j] * mirrored[i : i + 20, j : j + 30]
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(66, 66), (3, 70), (1, 1)])
def test_an_even_picture_stays_even_up_to_its_corners(shape):
    white = np.ones((*shape, 3), np.float32)
    blurred = jax.jit(partial(augment.random_blur, sigma=(2.0, 2.0)))(KEY, white)
    np.testing.assert_allclose(blurred, 1, atol=1e-6)
    crop = jax.jit(partial(augment.random_resized_crop, area=(0.2, 0.9)))(KEY, white)
    np.testing.assert_allclose(crop, 1, atol=1e-5)


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


def test_maybe_never_at_probability_zero():
    out = augment.maybe(KEY, lambda key, x: x + 1, jnp.zeros(3), probability=0.0)
    np.testing.assert_array_equal(out, np.zeros(3))


def test_a_blur_of_no_width_blurs_nothing():
    image = np.float32(PHOTOS[0] / 255.0)
    for sigma in ((0.0, 0.0), (1e-9, 1e-9)):
        np.testing.assert_array_equal(augment.random_blur(KEY, image, sigma=sigma), image)
