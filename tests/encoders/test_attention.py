"""Attention: its formula, its precision in bfloat16, and what waits for the gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon.encoders.attention import attend

RNG = np.random.default_rng(0)
Q, K, V = np.float32(3 * RNG.normal(size=(3, 2, 9, 4, 16)))  # images, tokens, heads, dim
MASK = RNG.random((2, 1, 1, 9)) < 0.7


def by_loops(q, k, v, mask):
    """In float64, one head of one image at a time."""
    out = np.zeros(q.shape)
    for image, head in np.ndindex(q.shape[0], q.shape[2]):
        scores = np.float64(q[image, :, head]) @ k[image, :, head].T / np.sqrt(q.shape[-1])
        scores = np.where(mask[image, 0, 0], scores, -np.inf)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        out[image, :, head] = weights / weights.sum(1, keepdims=True) @ v[image, :, head]
    return out


@pytest.mark.parametrize("mask", [MASK, np.ones_like(MASK)])
def test_attention_by_its_formula_and_by_flax(mask):
    got = jax.jit(attend)(Q, K, V, mask)
    np.testing.assert_allclose(got, by_loops(Q, K, V, mask), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        got, nn.dot_product_attention(Q, K, V, mask=mask), rtol=1e-4, atol=1e-5
    )


def test_bfloat16_is_closer_than_a_softmax_in_bfloat16():
    half = [jnp.asarray(x, jnp.bfloat16) for x in (Q, K, V)]
    exact = by_loops(*(np.float64(x) for x in half), np.ones_like(MASK))
    got = jax.jit(attend)(*half)
    assert got.dtype == jnp.bfloat16
    error, other = (
        np.sqrt(np.mean((np.float64(x) - exact) ** 2))
        for x in (got, jax.jit(nn.dot_product_attention)(*half))
    )
    assert error < 0.6 * other
    assert error < 2**-8 * np.sqrt(np.mean(exact**2))


def test_gradients_are_those_of_flax():
    def gradients(attention):
        def value(q, k, v):
            return jnp.sum(jnp.sin(attention(q, k, v, mask=MASK)))

        return jax.jit(jax.grad(value, argnums=(0, 1, 2)))(Q, K, V)

    for ours, theirs in zip(gradients(attend), gradients(nn.dot_product_attention), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_a_row_that_sees_nothing_is_finite():
    none = np.zeros_like(MASK)
    value, gradient = jax.value_and_grad(lambda q: attend(q, K, V, none).sum())(Q)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
