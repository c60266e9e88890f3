"""Transforms: how often their operations fire."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxcon import augment
from tests.augment.images import KEY, PHOTOS


def test_photo_operations_fire_as_often_as_they_say():
    keys = jax.random.split(KEY, 400)
    image = PHOTOS[0] / np.float32(255)
    whole = partial(augment.simclr_transform, area=(0.999, 1.0))
    out = np.asarray(jax.jit(jax.vmap(whole, (0, None)))(keys, image))
    gray = np.ptp(out, axis=-1).max((1, 2)) < 1e-5
    assert 0.14 < gray.mean() < 0.26


def test_maybe_never_at_probability_zero():
    out = augment.maybe(KEY, lambda key, x: x + 1, jnp.zeros(3), probability=0.0)
    np.testing.assert_array_equal(out, np.zeros(3))
