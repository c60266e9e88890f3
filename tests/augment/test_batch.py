"""Views of a batch: floats in range that depend on key and row alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcon import augment
from tests.augment.images import DIGITS, KEY, PHOTOS

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


def test_one_view_is_the_first_of_two():
    views = augment.two_views(KEY, DIGITS, transform=augment.digits_transform)
    one = augment.one_view(KEY, DIGITS, transform=augment.digits_transform)
    np.testing.assert_allclose(one, views[0], atol=1e-6)
    others = jnp.arange(len(DIGITS)) + 7
    moved = augment.one_view(KEY, DIGITS, transform=augment.digits_transform, index=others)
    assert np.abs(moved - one).max() > 0.1
