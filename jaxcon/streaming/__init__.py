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

import operator
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon.similarity import scaled_unit_rows
from jaxcon.streaming.channels import (
    PRECISION,
    Channel,
    at_precision,
    different_ids,
    masked_logsumexp,
    nothing,
    reduce_dense,
    similarity_logits,
)
from jaxcon.streaming.ring import ring_sweep
from jaxcon.streaming.sides import Known, Side, filled_like, vary_together
from jaxcon.streaming.sums import sum_sweep, weighted_total
from jaxcon.streaming.tiles import Plan, sweep
from jaxcon.typing import Array, ArrayLike, AxisName

# Logits within +-50 need no shift: e^50 times 10^12 terms is far below the largest float32, and
# e^-50 / 10^12 far above the smallest.
_NO_SHIFT = 50.0

# The rule of block_size=None, measured on 2 CPU cores: docs/benchmarks/forms.md. Of a set of rows with
# itself an eighth, for tiles save half of its work.
_DENSE_ENTRIES = 2**21
_KEPT_ENTRIES = 2**26
_COPIED_ENTRIES = 2**23  # of rows, 32 MiB in float32: a normalized copy of fewer is no burden
_BLOCK = 512  # at most
_LANES = 16  # a multiple of which a block is, for vector units


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
    distances: bool = False,
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
        TypeError. None chooses by the number of pairs n m: up to 2^21 (2^18 where y is x) the whole
        matrix by plain operations, in any mode of differentiation; up to 2^26 tiles, of up to 512,
        that the backward pass finds again (256 MiB in float32); beyond, tiles that it computes again.
        The thresholds are those of CPUs, on all backends.
      bound: a number that no logit exceeds in magnitude, if one is known before the data: the inverse
        of a constant temperature for cosines. Up to 50 it saves the search for the largest logit.
      precision: of the products.
      distances: reduce the squared distances ``|x_i - y_j|^2`` instead, which
        :mod:`jaxcon.similarity.distances` keeps right between rows that are close.

    Returns:
      For each channel ``[n]`` (axis 1) or ``[m]`` (axis 0), float32 at least. Where no pair is kept, a
      log-sum-exp is :func:`nothing`, a sum 0, both with zero gradient. NaN in a valid row stays NaN.

    Raises:
      ValueError: for a block_size that is not a positive integer.
    """
    block_size = _checked_block_size(block_size)
    row, col = Known(row_ids, row_aux, row_valid), Known(col_ids, col_aux, col_valid)
    if _is_dense(x, y, block_size):
        return reduce_dense(
            *(x, y, channels, row, col),
            precision=precision,
            bounded=_needs_no_shift(bound),
            distances=distances,
        )
    same = _same((x, row_ids, row_valid), (y, col_ids, col_valid))
    plan = _plan(channels, same, bound, precision)
    plan = plan._replace(keep=_keeps(x, y, block_size), distances=distances)
    return _reduce(plan, None, x, y, row, col, block_size)[0]


def reduce_ring(
    x: Array,
    y: Array,
    channels: Sequence[Channel],
    *,
    axis_name: AxisName,
    row_ids: Any,
    col_ids: Any,
    row_valid: Array | None = None,
    col_valid: Array | None = None,
    row_aux: Any = (),
    col_aux: Any = (),
    block_size: int | None = None,
    bound: float | None = None,
    precision: Any = PRECISION,
    distances: bool = False,
) -> tuple[Array, ...]:
    """:func:`reduce_pairs` of all devices' rows with all devices' columns, without gathering them.

    Blocks of columns travel round the devices by :func:`jaxcon.collectives.ring`, with the statistics
    of those columns; a device holds its own rows and one block. Of P devices with n rows each, where
    rows and columns are the same set, a block travels P // 2 hops and half the products are saved.

    Args:
      x: ``[n, dim]``, this device's rows; y: ``[m, dim]``, its columns. If y, its ids and its validity
        *are* those of x, each unordered pair is visited once.
      axis_name: the mapped axis.
      block_size: edge of the tiles; None: even blocks of up to 512.

    The other arguments are those of :func:`reduce_pairs`.

    Returns:
      For each channel ``[n]`` (axis 1) or ``[m]`` (axis 0): this device's rows reduced over all
      devices' columns, and its columns over all devices' rows.

    Raises:
      ValueError: for a block_size that is not a positive integer.
    """
    block_size = _checked_block_size(block_size)
    row, col = Known(row_ids, row_aux, row_valid), Known(col_ids, col_aux, col_valid)
    same = _same((x, row_ids, row_valid), (y, col_ids, col_valid))
    plan = _plan(channels, same, bound, precision)._replace(distances=distances)
    return _reduce(plan, axis_name, x, y, row, col, block_size)[0]


def reduce_cosines(
    x: Array,
    y: Array,
    scale: ArrayLike,
    channels: Sequence[Channel],
    *,
    row_ids: Any,
    col_ids: Any,
    row_valid: Array | None = None,
    col_valid: Array | None = None,
    row_aux: Any = (),
    col_aux: Any = (),
    ring: AxisName = None,
    block_size: int | None = None,
    bound: float | None = None,
    precision: Any = PRECISION,
) -> tuple[tuple[Array, ...], Array, Array]:
    """:func:`reduce_pairs` of ``s_ij = scale cos(x_i, y_j)``, without a copy of many rows, normalized.

    Value and gradient with respect to both take, beyond the rows and their gradients, memory for a few
    numbers a row: where x and y have more than 2^23 entries, the tiles normalize the rows that they
    read, and the gradient is summed where it is returned.

    For that the rows come back as they went in. What a loss has to say of a row besides, its logit with
    the positive say, it should compute from these: its gradient then starts those sums, where it would
    else be a further matrix. Rows of 0 have no gradient, neither from here nor from there.

    >>> x, ids = jnp.array([[2.0, 0.0], [3.0, 3.0]]), jnp.arange(2)
    >>> (row,), x, _ = reduce_cosines(x, x, 10.0, [Channel(axis=1)], row_ids=ids, col_ids=ids)
    >>> print(row.round(3), x[1])
    [7.071 7.071] [3. 3.]

    Args:
      x, y: ``[n, dim]`` and ``[m, dim]``, any scale, of float32 at least; a row of 0 has cosine 0.
      scale: a positive scalar.
      ring: a mapped axis, to reduce over all devices' rows as :func:`reduce_ring` does.
      precision: of the products; or ``jnp.bfloat16``, to round the normalized rows to it.

    The other arguments and the errors are those of :func:`reduce_pairs`.

    Returns:
      The channels' values, x and y.
    """
    block_size = _checked_block_size(block_size)
    same = _same((x, row_ids, row_valid), (y, col_ids, col_valid))
    scale = jnp.asarray(scale, x.dtype)
    scales = (scale, jnp.ones_like(scale))
    if same:
        scales = (jnp.sqrt(scale), jnp.sqrt(scale))
    row, col = Known(row_ids, row_aux, row_valid), Known(col_ids, col_aux, col_valid)
    if not _normalizes_first(x, y, precision, ring, block_size):
        plan = _plan(channels, same, bound, precision)
        return _reduce(plan, ring, x, y, row, col, block_size, scales)
    u = scaled_unit_rows(x, scales[0])
    v = u if same else scaled_unit_rows(y, scales[1])
    u, v, precision = at_precision(precision, u, v)
    reduce = reduce_pairs if ring is None else partial(reduce_ring, axis_name=ring)
    values = reduce(
        u,
        u if same else v,  # the very same array tells that the matrix is symmetric
        channels,
        row_ids=row_ids,
        col_ids=col_ids,
        row_valid=row_valid,
        col_valid=col_valid,
        row_aux=row_aux,
        col_aux=col_aux,
        block_size=block_size,
        bound=bound,
        precision=precision,
    )
    return values, x, y


def sum_cosines(
    x: Array,
    y: Array,
    scale: ArrayLike,
    channels: Sequence[Channel],
    weights: Sequence[Array],
    *,
    row_ids: Any,
    col_ids: Any,
    row_valid: Array | None = None,
    col_valid: Array | None = None,
    row_aux: Any = (),
    col_aux: Any = (),
    ring: AxisName = None,
    block_size: int | None = None,
    precision: Any = PRECISION,
) -> Array:
    """The values of :func:`reduce_cosines`, weighted and summed: ``sum over channels of w . values``.

    In tiles it costs 3 products instead of 4: where it is differentiated, it takes the gradient in the
    same sweep. No tiles are kept, whatever the size.

    >>> x, ids, channel = jnp.eye(2), jnp.arange(2), Channel(axis=1, log=False)
    >>> print(sum_cosines(x, -x + 1, 5.0, [channel], [jnp.ones(2)], row_ids=ids, col_ids=ids))
    10.0

    Args:
      channels: sums of rows, with ``axis=1`` and ``log=False``.
      weights: ``[n]`` for each channel.

    The other arguments and the errors are those of :func:`reduce_cosines`.

    Returns:
      A scalar.
    """
    block_size = _checked_block_size(block_size)
    row, col = Known(row_ids, row_aux, row_valid), Known(col_ids, col_aux, col_valid)
    scale = jnp.asarray(scale, x.dtype)
    scales = (scale, jnp.ones_like(scale))
    dense = ring is None and _is_dense(x, y, block_size)
    if _normalizes_first(x, y, precision, ring, block_size):
        x, y = (scaled_unit_rows(z, s) for z, s in zip((x, y), scales, strict=True))
        scales = (None, None)
    x, y, precision = at_precision(precision, x, y)
    if dense:
        values = reduce_dense(x, y, channels, row, col, precision=precision)
        return weighted_total(weights, values)
    plan = _plan(channels, False, None, precision)
    rows, cols = (
        _side(x, row, None, scales[0], block_size),
        _side(y, None, col, scales[1], block_size),
    )
    weights = tuple(_cut(w, *rows.z.shape[:2]) for w in weights)
    sweep_of = _jit_sum if ring is None else sum_sweep
    return sweep_of(plan, ring, *vary_together((weights, rows, cols)))


_jit_sweep = jax.jit(sweep, static_argnums=0)  # eager calls compile once
_jit_sum = jax.jit(sum_sweep, static_argnums=(0, 1))


def _checked_block_size(block_size: Any) -> int | None:
    """A size as a Python number, whatever kind of integer it came as."""
    if block_size is None:
        return None
    try:
        size = operator.index(block_size)
    except (TypeError, jax.errors.JAXTypeError):  # not a whole number, or a traced one
        size = 0
    if isinstance(block_size, bool) or size < 1:
        raise ValueError(f"block_size must be a positive integer or None, got {block_size!r}")
    return size


def _same(a: Any, b: Any) -> bool:
    """Whether two pytrees hold the very same arrays."""
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(p is q for p, q in zip(a, b, strict=True))


def _is_dense(x: Array, y: Array, block_size: int | None) -> bool:
    """Whether to evaluate by plain operations."""
    limit = _DENSE_ENTRIES // 8 if y is x else _DENSE_ENTRIES
    return block_size is None and x.shape[0] * y.shape[0] <= limit


def _keeps(x: Array, y: Array, block_size: int | None) -> bool:
    """Whether to evaluate by plain operations or in tiles that are kept."""
    return block_size is None and x.shape[0] * y.shape[0] <= _KEPT_ENTRIES


def _normalizes_first(
    x: Array, y: Array, precision: Any, ring: AxisName, block_size: int | None
) -> bool:
    """Whether to normalize all rows before a sweep, not those of each tile in it: a little faster.

    At half the size, with few pairs or few rows, normalized rows are not what fills the memory.
    """
    half = not isinstance(precision, lax.Precision)
    entries = x.size if y is x else x.size + y.size
    few = _keeps(x, y, block_size) or entries <= _COPIED_ENTRIES
    return half or (ring is None and few)


def _needs_no_shift(bound: float | None) -> bool:
    return bound is not None and bound <= _NO_SHIFT


def _plan(channels: Sequence[Channel], same: bool, bound: float | None, precision: Any) -> Plan:
    return Plan(
        channels=tuple(channels),
        symmetric=same,
        bounded=_needs_no_shift(bound),
        keep=False,
        precision=precision,
    )


def _reduce(
    plan: Plan,
    ring: AxisName,
    x: Array,
    y: Array,
    row: Known,
    col: Known,
    block_size: int | None,
    scales: tuple[Array, Array] | None = None,
) -> tuple[tuple[Array, ...], Array, Array]:
    """A sweep's values, and the rows that it passed on."""
    one, other = scales or (None, None)
    if plan.symmetric:
        sides = vary_together((_side(x, row, col, one, block_size), None))
    else:
        sides = vary_together(
            (_side(x, row, None, one, block_size), _side(y, None, col, other, block_size))
        )
    swept: Any = _jit_sweep(plan, *sides) if ring is None else ring_sweep(plan, ring, *sides)
    values, through = swept
    lengths = (y.shape[0], x.shape[0])
    pairs = zip(plan.channels, values, strict=True)
    values = tuple(v.reshape(-1)[: lengths[channel.axis]] for channel, v in pairs)
    x = x if through[0] is None else through[0].reshape(-1, x.shape[1])[: len(x)]
    if plan.symmetric:
        return values, x, x
    return values, x, y if through[1] is None else through[1].reshape(-1, y.shape[1])[: len(y)]


def _side(
    z: Array,
    as_row: Known | None,
    as_col: Known | None,
    scale: Array | None,
    block_size: int | None,
) -> Side:
    """Rows cut into blocks; the last is filled up with rows that are not valid."""
    n = z.shape[0]
    room = max(n, 1)  # without any row one of filling
    block = min(block_size or _even_block(room), room)
    blocks = -(-room // block)
    padding = blocks * block - n

    def fill(known: Known | None) -> Known | None:
        if known is None or not padding:
            return known
        valid = jnp.ones(n, bool) if known.valid is None else known.valid
        return known._replace(valid=valid)

    side = Side(z, fill(as_row), fill(as_col))
    side = jax.tree.map(lambda a: _cut(a, blocks, block), side)
    return side._replace(scale=None if scale is None else jnp.full((blocks, block), scale))


def _even_block(n: int) -> int:
    """A block size that leaves n rows little to fill up: 513 are two blocks of 272, not of 512."""
    blocks = -(-n // _BLOCK)
    return -(-n // blocks // _LANES) * _LANES


def _cut(a: Array, blocks: int, block: int) -> Array:
    padding = blocks * block - len(a)
    a = jnp.pad(a, ((0, padding),) + ((0, 0),) * (a.ndim - 1)) if padding else a
    return a.reshape(blocks, block, *a.shape[1:])


__all__ = [
    "PRECISION",
    "Channel",
    "at_precision",
    "different_ids",
    "filled_like",
    "masked_logsumexp",
    "nothing",
    "reduce_cosines",
    "reduce_pairs",
    "reduce_ring",
    "similarity_logits",
    "sum_cosines",
]
