"""Cosine regression beyond the contract: the digits of a nearly aligned pair, and rows of zeros."""

import jax.numpy as jnp
import numpy as np

from jaxcon import losses


def test_nearly_aligned_rows_keep_their_digits():
    angle = 1e-4  # 2 - 2 cos is 1e-8, less than the rounding of cos in float32
    p, t = jnp.array([[1.0, 0.0]]), jnp.array([[jnp.cos(angle), jnp.sin(angle)]])
    np.testing.assert_allclose(losses.cosine_regression_loss(p, t), angle**2, rtol=1e-3)


def test_a_zero_row_has_cosine_zero():
    p, t = jnp.array([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]]), jnp.array([[1.0, 2.0], [0, 0], [0, 0]])
    np.testing.assert_allclose(losses.cosine_regression_loss(p, t, reduce_fn=None), 2.0)
