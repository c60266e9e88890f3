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

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcon.streaming.channels import (
    PRECISION,
    Channel,
    different_ids,
    masked_logsumexp,
    nothing,
    reduce_dense,
    similarity_logits,
)
from jaxcon.streaming.tiles import Known, Plan, Side, sweep, vary_together
from jaxcon.typing import Array

# Logits within +-50 need no shift: e^50 times 10^12 terms is far below the largest float32, and
# e^-50 / 10^12 far above the smallest.
_NO_SHIFT = 50.0

# The rule of block_size=None, measured on 2 CPU cores; see docs/benchmarks.
_DENSE_ENTRIES = 2**18
_KEPT_ENTRIES = 2**26
_BLOCK = 512


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
    block_size: int | None = None,
    bound: float | None = None,
    precision: Any = PRECISION,
) -> tuple[Array, ...]:
    """Reduces ``s_ij = x_i . y_j`` over the pairs that each channel keeps.

    Args:
      x: ``[n, dim]``, the rows; y: ``[m, dim]``, the columns. If y, its ids and its validity *are*
        those of x, the same arrays, each unordered pair is visited once: half the work. bfloat16 is
        multiplied as such.
      channels: what to compute.
      row_ids: int ``[n]`` or a tuple of them, handed to ``channel.pairs``; col_ids: ``[m]`` likewise.
      row_valid: bool ``[n]``, col_valid: bool ``[m]``: False takes a row or column out of all pairs.
        Its x or y must still be finite.
      row_aux: arrays ``[n]`` handed to ``channel.logits``; col_aux: ``[m]``. Differentiable.
      block_size: edge of the tiles in which to evaluate, in memory O((n + m) dim) for value and
        gradient; any size, it need not divide n or m. Second derivatives work where the inner one is
        in reverse mode; forward mode (``jax.jvp``, ``jax.jacfwd``, ``jax.hessian``) raises JAX's
        TypeError. None chooses by the number of pairs n m: up to 2^18 the whole matrix by plain
        operations, in any mode of differentiation; up to 2^26 tiles that the backward pass finds
        again (256 MiB in float32); beyond, tiles that it computes again.
      bound: a number that no logit exceeds in magnitude, if one is known before the data: the inverse
        of a constant temperature for cosines. Up to 50 it saves the search for the largest logit.
      precision: of the products.

    Returns:
      For each channel ``[n]`` (axis 1) or ``[m]`` (axis 0), float32 at least. Where no pair is kept, a
      log-sum-exp is :func:`nothing`, a sum 0, both with zero gradient. NaN in a valid row stays NaN.

    Raises:
      ValueError: for a block_size that is not a positive integer.
    """
    if block_size is not None and (not isinstance(block_size, int) or block_size < 1):
        raise ValueError(f"block_size must be a positive integer or None, got {block_size!r}")
    row, col = Known(row_ids, row_aux, row_valid), Known(col_ids, col_aux, col_valid)
    entries = x.shape[0] * y.shape[0]
    if block_size is None and entries <= _DENSE_ENTRIES:
        tile = jnp.matmul(x, y.T, precision=precision)  # (n, d) . (d, m) -> (n, m)
        return reduce_dense(tile, channels, row, col)
    plan = Plan(
        channels=tuple(channels),
        symmetric=_same((x, row_ids, row_valid), (y, col_ids, col_valid)),
        bounded=bound is not None and bound <= _NO_SHIFT,
        keep=block_size is None and entries <= _KEPT_ENTRIES,
        precision=precision,
    )
    x, y, row, col = vary_together((x, y, row, col))
    if plan.symmetric:
        sides = _side(x, row, col, block_size), None
    else:
        sides = _side(x, row, None, block_size), _side(y, None, col, block_size)
    values = _jit_sweep(plan, *sides)
    lengths = (y.shape[0], x.shape[0])
    return tuple(
        v.reshape(-1)[: lengths[c.axis]] for c, v in zip(plan.channels, values, strict=True)
    )


def _same(a: Any, b: Any) -> bool:
    """Whether two pytrees hold the very same arrays."""
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(p is q for p, q in zip(a, b, strict=True))


_jit_sweep = jax.jit(sweep, static_argnums=0)  # eager calls compile once


def _side(z: Array, as_row: Known | None, as_col: Known | None, block_size: int | None) -> Side:
    """Rows cut into blocks; the last is filled up with rows that are not valid."""
    n = z.shape[0]
    block = min(block_size or _BLOCK, n)
    blocks = -(-n // block)
    padding = blocks * block - n

    def fill(known: Known | None) -> Known | None:
        if known is None or not padding:
            return known
        valid = jnp.ones(n, bool) if known.valid is None else known.valid
        return known._replace(valid=valid)

    def cut(a: Array) -> Array:
        a = jnp.pad(a, ((0, padding),) + ((0, 0),) * (a.ndim - 1)) if padding else a
        return a.reshape(blocks, block, *a.shape[1:])

    return jax.tree.map(cut, Side(z, fill(as_row), fill(as_col)))


__all__ = [
    "PRECISION",
    "Channel",
    "different_ids",
    "masked_logsumexp",
    "nothing",
    "reduce_pairs",
    "similarity_logits",
]
