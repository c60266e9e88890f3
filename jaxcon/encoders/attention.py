"""Attention whose sums are in float32 and whose products are in the dtype of the computation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def attend(query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
    """Computes `softmax(query . key / sqrt(dim)) . value` for each head.

    In bfloat16 the products take bfloat16 and sum in float32, and the softmax is in float32 from the
    sums on: rounding them first would cost two of the three digits of its weights. The weights are
    rounded for the product with the values, and as such enter the gradient. Takes the place of Flax's
    own, which is the same in float32: `nn.MultiHeadDotProductAttention(attention_fn=attend)`.

    Example:
      >>> q = k = v = jnp.eye(2)[None, :, None]  # one image, two tokens, one head
      >>> attend(q, k, v, jnp.array([True, False]))[0, :, 0].tolist()  # the second is seen by none
      [[1.0, 0.0], [1.0, 0.0]]

    Args:
      query: `[batch, queries, heads, dim]`.
      key: `[batch, keys, heads, dim]`.
      value: `[batch, keys, heads, dim]`.
      mask: bool, broadcast to `[batch, heads, queries, keys]`; True may be attended to.

    Returns:
      `[batch, queries, heads, dim]`, the dtype of the query.
    """
    wide = jnp.promote_types(query.dtype, jnp.float32)
    query = query / jnp.sqrt(query.shape[-1]).astype(query.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=wide)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(wide).min)
    return jnp.einsum("bhqk,bkhd->bqhd", _weights(scores, query.dtype), value)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _weights(scores: Array, dtype: Any) -> Array:
    return jax.nn.softmax(scores).astype(dtype)


@_weights.defjvp
def _weights_jvp(dtype: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (scores,), (moved,) = primals, tangents
    weights = _weights(scores, dtype)
    # Of the rounded weights, which wait for the gradient anyway: a copy in float32 need not.
    wide = weights.astype(scores.dtype)
    moved = wide * (moved - jnp.sum(wide * moved, axis=-1, keepdims=True))
    return weights, moved.astype(dtype)
