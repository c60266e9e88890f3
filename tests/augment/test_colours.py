"""Gain, noise, colours and blur: what each does to pixels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon import augment
from jaxcon.augment import colours
from tests.augment.images import KEY, PHOTOS


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


def test_a_blur_of_no_width_blurs_nothing():
    image = np.float32(PHOTOS[0] / 255.0)
    for sigma in ((0.0, 0.0), (1e-9, 1e-9)):
        np.testing.assert_array_equal(augment.random_blur(KEY, image, sigma=sigma), image)


@pytest.mark.parametrize("shape", [(70, 40, 3), (5, 9, 1)])
def test_a_tpu_blurs_by_products_what_others_blur_by_shifts(shape):
    """Rows, columns and what is mirrored beyond them, also where the kernel is wider than the image."""
    rng = np.random.default_rng(0)
    image = np.float32(rng.random((2, *shape)))
    kernel = np.float32(rng.dirichlet(np.ones(17), 2))
    by_shifts, by_products = (
        jax.jit(jax.vmap(form))(image, kernel)
        for form in (colours._by_shifts, colours._by_products)
    )
    np.testing.assert_allclose(by_products, by_shifts, atol=1e-5)

    def blur(key, image):
        return augment.random_blur(key, image)

    traced = jax.jit(jax.vmap(blur)).trace(jax.random.split(KEY, 2), image)
    programs = {name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("tpu", "cpu")}
    assert "dot_general" in programs["tpu"]
    assert "dot_general" not in programs["cpu"]
