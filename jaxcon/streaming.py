"""Reductions over a similarity matrix: the one primitive that the pairwise losses are made of.

A loss needs, of the matrix ``s = x y^T`` of all pairs, a few vectors: for each row the log-sum-exp of
its negatives, for each column likewise, or sums. :func:`reduce_pairs` computes them all in one pass.

Which pairs count is decided by ids: a pair whose ids are equal is no negative. With the global index
of an example as its id, this one rule leaves out the diagonal of CLIP, and self and twin in NT-Xent.

>>> import jax.numpy as jnp
>>> from jaxcon.streaming import Channel, reduce_pairs
>>> x, y = jnp.eye(3), jnp.log(jnp.arange(1.0, 10).reshape(3, 3))
>>> ids = jnp.arange(3)
>>> (row,) = reduce_pairs(x, y, [Channel(axis=1)], row_ids=ids, col_ids=ids)
>>> print(jnp.exp(row).round(4))  # s is y transposed: 4 + 7, 2 + 8, 3 + 6
[11. 10.  9.]
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon.typing import Array

PRECISION = lax.Precision.HIGHEST  # the default is TF32 on NVIDIA GPUs and bfloat16 on TPUs


def similarity_logits(tile: Array, row_aux: Any, col_aux: Any) -> Array:
    """The similarities themselves as logits."""
    return tile


def different_ids(row_ids: Any, col_ids: Any) -> Array:
    """Keeps the pairs of unequal ids: the negatives."""
    return row_ids != col_ids


class Channel(NamedTuple):
    """One vector to compute: a reduction of logits over the pairs to keep.

    Attributes:
      axis: 1 reduces over columns and gives a value a row; 0 gives a value a column.
      logits: ``(tile, row_aux, col_aux) -> logits``, pointwise in the tile; the auxiliaries come as
        ``[rows, 1]`` and ``[1, columns]``.
      pairs: ``(row_ids, col_ids) -> bool``, which pairs count; broadcast likewise.
      log: True for the log of the sum of the logits' exponentials; False for the plain sum.
    """

    axis: int
    logits: Callable[[Array, Any, Any], Array] = similarity_logits
    pairs: Callable[[Any, Any], Array] = different_ids
    log: bool = True


def nothing(dtype: Any) -> float:
    """The log-sum-exp of no pair at all: finite, so that no inf - inf can arise from it."""
    return float(jnp.finfo(dtype).min) / 4


def reduce_pairs(
    x: Array,
    y: Array,
    channels: Sequence[Channel],
    *,
    row_ids: Any,
    col_ids: Any,
    row_valid: Array | None = None,
    col_valid: Array | None = None,
    row_aux: Any = (),
    col_aux: Any = (),
) -> tuple[Array, ...]:
    """Reduces ``s_ij = x_i . y_j`` over the pairs that each channel keeps.

    Args:
      x: ``[n, dim]``, the rows; y: ``[m, dim]``, the columns.
      channels: what to compute.
      row_ids: int ``[n]`` or a tuple of them, handed to ``channel.pairs``; col_ids: ``[m]`` likewise.
      row_valid: bool ``[n]``, col_valid: bool ``[m]``: False takes a row or column out of all pairs.
      row_aux: arrays ``[n]`` handed to ``channel.logits``; col_aux: ``[m]``.

    Returns:
      For each channel ``[n]`` (axis 1) or ``[m]`` (axis 0). Where no pair is kept, a log-sum-exp is
      :func:`nothing`, a sum 0, both with zero gradient.
    """
    tile = jnp.matmul(x, y.T, precision=PRECISION)  # (n, d) . (d, m) -> (n, m)
    rows = jax.tree.map(lambda a: a[:, None], (row_ids, row_aux))
    cols = jax.tree.map(lambda a: a[None, :], (col_ids, col_aux))
    valid = jnp.ones((), bool)
    if row_valid is not None:
        valid = valid & row_valid[:, None]
    if col_valid is not None:
        valid = valid & col_valid[None, :]

    def reduce(channel: Channel) -> Array:
        logits = channel.logits(tile, rows[1], cols[1])
        keep = jnp.broadcast_to(channel.pairs(rows[0], cols[0]) & valid, logits.shape)
        if channel.log:
            return masked_logsumexp(logits, keep, channel.axis)
        return jnp.sum(jnp.where(keep, logits, 0), axis=channel.axis)

    return tuple(reduce(channel) for channel in channels)


def masked_logsumexp(logits: Array, keep: Array, axis: int) -> Array:
    """``log sum exp`` over the kept entries; :func:`nothing`, with zero gradient, where none is."""
    shift = lax.stop_gradient(
        jnp.max(logits, axis=axis, keepdims=True, initial=-jnp.inf, where=keep)
    )
    some = jnp.any(keep, axis=axis)
    shift = jnp.where(jnp.expand_dims(some, axis), shift, 0)
    total = jnp.sum(jnp.exp(jnp.where(keep, logits - shift, -jnp.inf)), axis=axis)
    lse = jnp.log(jnp.where(some, total, 1)) + jnp.squeeze(shift, axis)
    return jnp.where(some, lse, nothing(logits.dtype))
