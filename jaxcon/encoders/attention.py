"""Attention whose sums are in float32 and whose products are in the dtype of the computation."""

import jax
import jax.numpy as jnp
from jax import Array


@jax.checkpoint
def attend(query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
    """Computes `softmax(query . key / sqrt(dim)) . value` for each head.

    In bfloat16 the products take bfloat16 and sum in float32, and the softmax is in float32 from the
    sums on: rounding them first would cost two of the three digits of its weights. The gradient
    computes scores and weights again, `heads * queries * keys` numbers an image that would wait for it
    otherwise (on CPUs they do: XLA drops the barrier there). Takes the place of Flax's own, which is
    the same in float32: `nn.MultiHeadDotProductAttention(attention_fn=attend)`.

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
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=wide)
    scores = scores / jnp.sqrt(query.shape[-1]).astype(wide)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(wide).min)
    weights = jax.nn.softmax(scores).astype(query.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)
