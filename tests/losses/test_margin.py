"""The margin family beyond the contract: which pairs are mined, and what ties do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxcon import losses
from tests.losses.formulas import mining


def test_circle_leaves_out_anchors_without_a_positive_or_without_a_negative():
    z = np.random.default_rng(0).normal(size=(5, 3))
    labels = jnp.array([0, 0, 0, 1, 2])
    values = jax.jit(lambda z: losses.circle_loss(z, labels, reduce_fn=None))(z)
    assert (values[:3] > 0).all()
    assert not values[3:].any()
    mean = jax.jit(losses.circle_loss)(z, labels)
    np.testing.assert_allclose(mean, values[:3].mean(), rtol=1e-6)


def test_equal_distances_are_no_semi_hard_triplets():
    z = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = jnp.array([0, 0, 1, 2])
    # Anchor 0 has its positive and the negative 2 at the same distance, anchor 1 the negative 3: with
    # ">=" each would add the margin. What is farther than the positive is beyond the margin.
    loss = functools.partial(losses.triplet_loss, mining=losses.semi_hard)
    assert jax.jit(loss)(z, labels) == 0


def test_equally_hard_candidates_share_the_gradient():
    z = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8], [0.8, 0.6], [0.8, -0.6]])
    labels = jnp.array([0, 0, 0, 1, 1])
    weights = jnp.array([1.0, 0, 0, 0, 0])

    def loss(z):
        return losses.triplet_loss(z, labels, mining=losses.hardest, weights=weights)

    grad = jax.jit(jax.grad(loss))(z)
    mirrored = grad[jnp.array([0, 2, 1, 4, 3])] * jnp.array([[1.0, -1.0]])
    np.testing.assert_allclose(grad, mirrored, atol=1e-6)
    assert jnp.abs(grad[1:]).sum(axis=1).min() > 0.01


def test_mining_may_be_a_function_of_ones_own():
    def nearest_positive(distances, positives, negatives, margin):
        near = jnp.min(distances, initial=jnp.inf, where=positives)
        return losses.all_triplets(distances, positives & (distances == near), negatives, margin)

    def loop(positives, negatives, distances, margin):
        near = sorted(positives, key=lambda p: distances[p])[:1]
        return [(p, n) for p in near for n in negatives]

    rng = np.random.default_rng(10)
    z, labels = rng.normal(size=(16, 6)), rng.integers(0, 4, 16)
    expected = mining.triplet(loop)(z, labels, ids=np.arange(16))
    got = jax.jit(functools.partial(losses.triplet_loss, mining=nearest_positive))(z, labels)
    mean = np.average(expected.values, weights=expected.count)
    np.testing.assert_allclose(got, mean, rtol=1e-5)
