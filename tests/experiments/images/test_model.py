"""The loss of two views: of whole images, or of two crops that the host made of each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import barlow_twins, simclr
from experiments.images.model import make_cached, make_loss
from experiments.images.recipes import Images
from jaxcon.augment import BARLOW_TWINS_COLOURS, SIMCLR_COLOURS, coloured, two_views

KEY = jax.random.key(3)
CROPS = np.random.default_rng(0).integers(0, 256, (4, 2, 6, 6, 3), dtype=np.uint8)
INDEX = np.array([7, 1, 0, 4], np.int32)


def embed(variables, images, **_):
    """A linear encoder, without a head and without statistics."""
    return images.mean(axis=(1, 2)) @ variables["params"]


def apply(variables, inputs, mutable=None, method=None, **settings):
    z = inputs if method == "project" else embed(variables, inputs, **settings)
    return z if mutable is None else (z, {})


def distance(z1, z2, *, axis_name):
    del axis_name
    return jnp.sum((z1 - z2) ** 2 * jnp.arange(1.0, 5.0)[:, None])


def plain(key, image):
    return image * jax.random.uniform(key)


def dark(key, image):
    return plain(key, image) / 2


@pytest.mark.parametrize("crops", [False, True])
def test_the_loss_is_that_of_the_views_also_in_chunks(crops):
    if crops:
        images, chosen = CROPS, {"colours": (dark, plain)}
        views = coloured(KEY, images, transforms=(dark, plain), index=INDEX)
    else:
        images, chosen = CROPS[:, 0], {}
        views = two_views(KEY, images, transform=plain, index=INDEX)
    params = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    batch = {"image": images, "index": INDEX}

    def expected(params):
        return distance(*(embed({"params": params}, view) for view in views), axis_name="batch")

    value, gradient = jax.value_and_grad(expected)(params)
    loss_fn = make_loss(None, plain, distance, apply, **chosen)
    cached = make_cached(plain, distance, apply, chunk_size=2, **chosen)
    by_loss = jax.jit(jax.value_and_grad(lambda p: loss_fn(p, {}, batch, KEY)[0]))(params)
    (in_chunks, _), chunked = jax.jit(lambda p: cached(p, {}, batch, KEY))(params)
    for found in (by_loss, (in_chunks, chunked)):
        np.testing.assert_allclose(found[0], value, rtol=1e-4)
        np.testing.assert_allclose(found[1], gradient, rtol=1e-3, atol=1e-5)


def test_one_crop_of_each_image_is_too_few():
    loss_fn = make_loss(None, plain, distance, apply)
    with pytest.raises(ValueError, match=r"expected \[batch, 2, .*got \(4, 1, 6"):
        loss_fn(np.ones((3, 2)), {}, {"image": CROPS[:, :1], "index": INDEX}, KEY)


def test_each_method_has_the_colours_of_its_paper():
    recipes = functools.partial(Images, "folder:photographs")
    assert simclr.resolve(simclr.SimCLR(images=recipes()), 9000, 224)[1].colours == SIMCLR_COLOURS
    of_twins = barlow_twins.resolve(barlow_twins.BarlowTwins(images=recipes()), 9000, 224)[1]
    assert of_twins.colours == BARLOW_TWINS_COLOURS
