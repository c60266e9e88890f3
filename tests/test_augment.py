"""Views: what each operation does to pixels, and that they depend on key and row alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxcon import augment

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
        pytest.param(PHOTOS[..., :1], augment.simclr_transform, marks=pytest.mark.slow),
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
        pytest.param(DIGITS, augment.digits_transform, 2, marks=pytest.mark.slow),
        pytest.param(PHOTOS, augment.simclr_transform, 8, marks=pytest.mark.slow),
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


def test_blur_keeps_the_mean_and_smooths():
    image = np.random.default_rng(3).uniform(size=(80, 80, 3)).astype(np.float32)
    blurred = augment.random_blur(KEY, image, sigma=(1.0, 1.0))[8:-8, 8:-8]
    np.testing.assert_allclose(blurred.mean(), image.mean(), atol=0.02)
    assert blurred.std() < 0.5 * image.std()


def test_maybe_never_at_probability_zero():
    out = augment.maybe(KEY, lambda key, x: x + 1, jnp.zeros(3), probability=0.0)
    np.testing.assert_array_equal(out, np.zeros(3))
