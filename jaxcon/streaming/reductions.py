"""What a loss calls: reductions of products or distances, of cosines, and their weighted sums.

Each chooses its form by `jaxcon.streaming.rules`: the whole matrix by plain operations, or a sweep
over its tiles.
"""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon.similarity import scaled_unit_rows
from jaxcon.streaming import rules
from jaxcon.streaming.channels import PRECISION, Channel, Plan
from jaxcon.streaming.engine import sum_sweep, sweep, weighted_total
from jaxcon.streaming.sides import Side, operand
from jaxcon.streaming.stores import vary_together
from jaxcon.streaming.whole import reduce_whole
from jaxcon.typing import Array, ArrayLike, AxisName

# Logits within +-50 need no shift: e^50 times 10^12 terms is far below the largest float32, and
# e^-50 / 10^12 far above the smallest.
_NO_SHIFT = 50.0


def reduce_pairs(
    rows: Side,
    cols: Side | None,
    channels: Sequence[Channel],
    *,
    ring: AxisName = None,
    block_size: int | None = None,
    bound: float | None = None,
    precision: Any = PRECISION,
    distances: bool = False,
) -> tuple[Array, ...]:
    """Reduces `s_ij = x_i . y_j` over the pairs that each channel keeps.

    Args:
      rows: `x [n, dim]` and what is known of it. bfloat16 is multiplied as such.
      cols: `y [m, dim]` likewise; or None: the columns *are* the rows, and each unordered pair is
        visited once, for half the work. A channel's logits then get the same `aux` in both roles.
      channels: what to compute.
      ring: a mapped axis over whose devices to reduce, without gathering: all devices' rows with all
        devices' columns. Blocks of columns travel round the devices by `jaxcon.collectives.ring`,
        with the statistics of those columns; a device holds its own rows and one block. For one set of
        rows on P devices, a block travels P // 2 hops and half the products are saved.
      block_size: edge of the tiles in which to evaluate, in memory O((n + m) dim) for value and
        gradient; any size, it need not divide n or m. Second derivatives work where the inner one is
        in reverse mode; forward mode (`jax.jvp`, `jax.jacfwd`, `jax.hessian`) raises JAX's
        TypeError. None chooses by the number of pairs n m: up to 2^21 (2^18 of one set) the whole
        matrix by plain operations, in any mode of differentiation; up to 2^26 tiles, of up to 512,
        that are kept for the backward pass (256 MiB in float32); beyond, and in a ring, tiles that it
        computes again. These are the numbers for CPUs; `jaxcon.streaming.rules` holds them all.
      bound: a number that no logit exceeds in magnitude, if one is known before the data: for cosines,
        the inverse of a constant temperature. Up to 50 it saves the search for the largest logit.
      precision: of the products; or `jnp.bfloat16`, to round the rows to it.
      distances: reduce the squared distances `|x_i - y_j|^2` instead, which
        `jaxcon.similarity.distances` keeps right between rows that are close.

    Returns:
      For each channel `[n]` (axis 1) or `[m]` (axis 0), float32 at least; in a ring, this device's
      rows reduced over all devices' columns, and its columns over all devices' rows. Where no pair is
      kept, a log-sum-exp is `nothing`, a sum 0, both with zero gradient. NaN in a valid row stays
      NaN.

    Raises:
      ValueError: for a block_size that is not a positive integer.
    """
    block_size = _checked(block_size)
    dtype, precision = at_precision(precision, rows.z.dtype, distances=distances)
    plan = Plan(tuple(channels), cols is None, precision, distances, _needs_no_shift(bound), ring)
    rows = rows._replace(z=rows.z.astype(dtype))
    cols = None if cols is None else cols._replace(z=cols.z.astype(dtype))
    if _is_whole(rows, cols, block_size, ring):
        return _jit_whole(plan, rows, cols)
    return _swept(plan, rows, cols, block_size, None)[0]


def reduce_cosines(
    rows: Side,
    cols: Side | None,
    scale: ArrayLike,
    channels: Sequence[Channel],
    *,
    ring: AxisName = None,
    block_size: int | None = None,
    bound: float | None = None,
    precision: Any = PRECISION,
) -> tuple[tuple[Array, ...], Array, Array]:
    """Does `reduce_pairs` for `s_ij = scale cos(x_i, y_j)`, without a normalized copy of many rows.

    Beyond the rows and their gradients, value and gradient take memory for a few numbers per row:
    where x and y have more than 2^23 entries, the tiles normalize the rows that they read, and the
    gradient is summed where it is returned.

    To this end the rows come back as they went in. Whatever else a loss computes from a row, such as
    its logit with the positive, it should compute from these: its gradient then starts those sums,
    and would otherwise be a further matrix. Rows of 0 get no gradient, from here or from there.

    Example:
      >>> from jaxcon.streaming import Channel, Side, reduce_cosines
      >>> rows = Side(jnp.array([[2.0, 0.0], [3.0, 3.0]]), ids=jnp.arange(2))
      >>> (row,), x, _ = reduce_cosines(rows, None, 10.0, [Channel(axis=1)])
      >>> print(row.round(3), x[1])
      [7.071 7.071] [3. 3.]

    Args:
      rows: `x [n, dim]` and what is known of it, any scale, at least float32; a row of 0 has
        cosine 0.
      cols: `y [m, dim]` likewise; None: the columns are the rows.
      scale: a positive scalar.

    The other arguments and the errors are those of `reduce_pairs`.

    Returns:
      The channels' values, x and y.
    """
    block_size = _checked(block_size)
    dtype, products = at_precision(precision, rows.z.dtype)
    plan = Plan(tuple(channels), cols is None, products, False, _needs_no_shift(bound), ring)
    scale = jnp.asarray(scale, rows.z.dtype)
    one = jnp.ones_like(scale)
    lengths = (jnp.sqrt(scale), one) if cols is None else (scale, one)
    whole = _is_whole(rows, cols, block_size, ring)
    if not whole and _normalizes_in_sweep(rows, cols, precision, block_size, ring):
        return _swept(plan, rows, cols, block_size, lengths)
    u = rows._replace(z=scaled_unit_rows(rows.z, lengths[0]).astype(dtype))
    v = None
    if cols is not None:
        v = cols._replace(z=scaled_unit_rows(cols.z, lengths[1]).astype(dtype))
    values = _jit_whole(plan, u, v) if whole else _swept(plan, u, v, block_size, None)[0]
    return values, rows.z, (rows if cols is None else cols).z


def sum_cosines(
    rows: Side,
    cols: Side,
    scale: ArrayLike | None,
    channels: Sequence[Channel],
    weights: Sequence[Array],
    *,
    ring: AxisName = None,
    block_size: int | None = None,
    precision: Any = PRECISION,
) -> Array:
    """Computes the weighted sum of the values of `reduce_cosines`: `sum over channels of w . values`.

    In tiles it costs 3 products instead of 4: where it is differentiated, it finds the gradient in the
    same sweep. No tiles are kept, whatever the size.

    Example:
      >>> from jaxcon.streaming import Channel, Side, sum_cosines
      >>> x, ids, channel = jnp.eye(2), jnp.arange(2), Channel(axis=1, log=False)
      >>> print(sum_cosines(Side(x, ids), Side(-x + 1, ids), 5.0, [channel], [jnp.ones(2)]))
      10.0

    Args:
      cols: `y [m, dim]`, never None: one set of rows is passed as both.
      scale: a positive scalar; None: the weighted sum of `reduce_pairs`, of the rows as they are.
      channels: sums of rows, with `axis=1` and `log=False`.
      weights: `[n]` for each channel.

    The other arguments and the errors are those of `reduce_cosines`.

    Returns:
      A scalar.
    """
    block_size = _checked(block_size)
    dtype, products = at_precision(precision, rows.z.dtype)
    plan = Plan(tuple(channels), one_set=False, precision=products, ring=ring)
    whole = _is_whole(rows, cols, block_size, ring)
    lengths = None, None
    if scale is not None:
        scale = jnp.asarray(scale, rows.z.dtype)
        lengths = scale, jnp.ones_like(scale)
        if whole or not _normalizes_in_sweep(rows, cols, precision, block_size, ring):
            rows = rows._replace(z=scaled_unit_rows(rows.z, lengths[0]))
            cols = cols._replace(z=scaled_unit_rows(cols.z, lengths[1]))
            lengths = None, None
    if lengths[0] is None:
        rows, cols = (side._replace(z=side.z.astype(dtype)) for side in (rows, cols))
    if whole:
        return weighted_total(weights, _jit_whole(plan, rows, cols))
    plan = _planned(plan, rows, cols, block_size, at_once=True)
    sweep_of = _jit_sum if ring is None else sum_sweep
    sides = operand(rows, lengths[0]), operand(cols, lengths[1])
    return sweep_of(plan, *vary_together((tuple(weights), *sides)))


def at_precision(
    precision: Any, dtype: Any, *, distances: bool = False
) -> tuple[Any, lax.Precision]:
    """Returns the dtype in which rows of `dtype` are multiplied, and the precision of the products.

    `jnp.bfloat16` as a precision rounds the rows to it. Distances multiply them relative to their
    mean, where they have more digits than bfloat16: rounded once more, the error would be four times
    that of the rows.
    """
    if isinstance(precision, lax.Precision):
        return dtype, precision
    return precision, lax.Precision.HIGH if distances else lax.Precision.DEFAULT


_jit_whole = jax.jit(reduce_whole, static_argnums=0)  # eager calls compile once
_jit_sweep = jax.jit(sweep, static_argnums=0)
_jit_sum = jax.jit(sum_sweep, static_argnums=0)


def _checked(block_size: Any) -> int | None:
    """Returns a size as a Python number, whatever kind of integer it came as."""
    if block_size is None:
        return None
    try:
        size = operator.index(block_size)
    except (TypeError, jax.errors.JAXTypeError):  # not a whole number, or a traced one
        size = 0
    if isinstance(block_size, bool) or size < 1:
        raise ValueError(f"block_size must be a positive integer or None, got {block_size!r}")
    return size


def _is_whole(rows: Side, cols: Side | None, block_size: int | None, ring: AxisName) -> bool:
    """Returns whether to reduce one whole matrix; never with a given block size or in a ring."""
    if block_size is not None or ring is not None:
        return False
    return rules.current().whole(len(rows.z), None if cols is None else len(cols.z))


def _normalizes_in_sweep(
    rows: Side, cols: Side | None, precision: Any, block_size: int | None, ring: AxisName
) -> bool:
    """Returns whether a sweep normalizes the rows it reads; a copy of half the size costs little."""
    if not isinstance(precision, lax.Precision):
        return False
    rule = rules.current()
    if ring is not None:
        return True
    entries = rows.z.size + (0 if cols is None else cols.z.size)
    cuts = rule.cuts(len(rows.z), None if cols is None else len(cols.z), rows.z.dtype)
    kept = block_size is None and any(cut.keep for _, cut in cuts)
    return not kept and not rule.copies(entries)


def _needs_no_shift(bound: float | None) -> bool:
    return bound is not None and bound <= _NO_SHIFT


def _planned(
    plan: Plan,
    rows: Side,
    cols: Side | None,
    block_size: int | None,
    *,
    keep: bool = True,
    at_once: bool = False,
) -> Plan:
    """Adds every platform's cut to the plan."""
    m = None if cols is None else len(cols.z)
    cuts = rules.current().cuts(
        len(rows.z),
        m,
        rows.z.dtype,
        block_size=block_size,
        keep=keep,
        at_once=at_once,
        ring=plan.ring is not None,
        distances=plan.distances,
    )
    return plan._replace(cuts=cuts)


def _swept(
    plan: Plan,
    rows: Side,
    cols: Side | None,
    block_size: int | None,
    lengths: tuple[Array, Array] | None,
) -> tuple[tuple[Array, ...], Array, Array]:
    """Returns a sweep's values, and the rows of both sides as it passed them on."""
    plan = _planned(plan, rows, cols, block_size, keep=lengths is None)
    of_rows, of_cols = lengths or (None, None)
    sides = operand(rows, of_rows), None if cols is None else operand(cols, of_cols)
    sweep_of = _jit_sweep if plan.ring is None else sweep
    swept: Any = sweep_of(plan, *vary_together(sides))
    values, (x, y) = swept
    x = rows.z if x is None else x
    return values, x, x if cols is None else cols.z if y is None else y
