"""The engine: one sweep over the tiles of ``s = x y^T`` forward, and one backward.

Only the inputs and one statistic per row and channel survive the forward sweep; the backward sweep
computes every tile again. For a log-sum-exp ``R_i`` with cotangent ``g_i`` the cotangent of a logit is
``g_i e^{l_ij - R_i}``, so no matrix is ever stored::

    forward   R_i = log sum_j e^{l_ij}
    backward  ds_ij = sum over channels of g_i e^{l_ij - R_i} dl_ij/ds_ij
              dx_i = sum_j ds_ij y_j,  dy_j = sum_i ds_ij x_i

Where x and y are the same rows, ``s_ij = s_ji``: tiles on and above the diagonal are visited, and each
serves in two roles, as it stands and transposed. That is 2 instead of 4 products of N x N x dim.

A *side* is a set of rows cut into blocks, with what is known of them. A *store* holds one entry per
block of a side. Both are pytrees whose leaves lead with the block: ``[blocks, block, ...]``.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon.streaming.channels import Channel, nothing
from jaxcon.typing import Array


class Known(NamedTuple):
    """What is known of rows in one role: ids and auxiliaries (pytrees), and which rows are valid."""

    ids: Any
    aux: Any
    valid: Array | None


class Side(NamedTuple):
    """Rows ``z``, and what is known of them as rows and as columns of the matrix (None: never used)."""

    z: Array
    as_row: Known | None
    as_col: Known | None


class Plan(NamedTuple):
    """The static part of a sweep.

    Attributes:
      channels: what to compute.
      symmetric: whether both sides are the same kind of rows, so that a tile serves in two roles.
      bounded: whether all logits are so small that their exponentials need no shift.
      keep: whether the forward sweep keeps its tiles for the backward sweep.
      precision: of the products.
    """

    channels: tuple[Channel, ...]
    symmetric: bool
    bounded: bool
    keep: bool
    precision: Any


class Part(NamedTuple):
    """One channel on one tile: ``axis`` is the axis of the tile to reduce (1 gives values of rows)."""

    channel: int
    axis: int
    keep: Array


def take(store: Any, i: Any) -> Any:
    """Entry i of a store."""
    return jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, i, keepdims=False), store)


def put(store: Any, i: Any, entry: Any) -> Any:
    """The store with entry i replaced."""
    return jax.tree.map(lambda a, e: lax.dynamic_update_index_in_dim(a, e, i, 0), store, entry)


def accumulator(dtype: Any) -> Any:
    """The dtype to accumulate products of ``dtype`` in."""
    return jnp.promote_types(dtype, jnp.float32)


def product(plan: Plan, a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """Matrix product over the named axes, accumulated in float32 at least."""
    return lax.dot_general(
        a,
        b,
        (((contract[0],), (contract[1],)), ((), ())),
        precision=plan.precision,
        preferred_element_type=accumulator(b.dtype),
    )


def tile_count(rows: Side, cols: Side | None) -> int:
    """How many tiles a sweep visits; cols None: those on and above the diagonal."""
    n = rows.z.shape[0]
    return n * (n + 1) // 2 if cols is None else n * cols.z.shape[0]


def tile_index(k: Any, rows: Side, cols: Side | None) -> tuple[Any, Any]:
    """Block row and block column of the k-th tile, row by row.

    Above the diagonal of n blocks, row r is followed by the row that fills it up to a fixed width:
    for odd n width n, row n - r; for even n width n + 1, row n - 1 - r.
    """
    n = rows.z.shape[0]
    if cols is not None:
        return k // cols.z.shape[0], k % cols.z.shape[0]
    width = n + 1 - n % 2
    r, c = k // width, k % width
    first = c < n - r
    return jnp.where(first, r, n - 1 - r + n % 2), jnp.where(first, r + c, c - 1 + n % 2)


def all_parts(plan: Plan, row: Side, col: Side) -> list[Part]:
    """Every channel on the tile of a block of rows and one of columns, in one or both roles."""
    parts = []
    for c, channel in enumerate(plan.channels):
        keep = _kept(channel, row.as_row, col.as_col)
        parts.append(Part(c, channel.axis, keep))
        if plan.symmetric:  # the same keep, so that XLA finds both roles' exponentials to be one
            parts.append(Part(c, 1 - channel.axis, keep))
    return parts


def all_logits(plan: Plan, tile: Array, row_aux: Any, col_aux: Any) -> list[Array]:
    """The logits of :func:`all_parts`. The aux are pairs: of the block as rows, and as columns."""
    logits = []
    for channel in plan.channels:
        logits.append(channel.logits(tile, _spread(row_aux[0], 1), _spread(col_aux[1], 0)))
        if plan.symmetric:
            logits.append(channel.logits(tile, _spread(col_aux[0], 0), _spread(row_aux[1], 1)))
    return logits


def aux_of(side: Side) -> tuple[Any, Any]:
    """A side's auxiliaries as rows and as columns."""
    return tuple(() if known is None else known.aux for known in (side.as_row, side.as_col))


def _spread(tree: Any, axis: int) -> Any:
    """Vectors along the rows (1) or the columns (0) of a tile, ready to broadcast."""
    return jax.tree.map(lambda a: jnp.expand_dims(a, axis), tree)


def _kept(channel: Channel, row: Any, col: Any) -> Array:
    """Which pairs of a tile count."""
    row, col = _spread(row, 1), _spread(col, 0)
    keep = channel.pairs(row.ids, col.ids)
    for valid in (row.valid, col.valid):
        keep = keep if valid is None else keep & valid
    return keep


def on_axis(plan: Plan, entries: Any, axis: int) -> tuple[Any, ...]:
    """The entries of the channels that have values on a side, None for the others."""
    mine = [plan.symmetric or channel.axis == axis for channel in plan.channels]
    return tuple(e if m else None for e, m in zip(entries, mine, strict=True))


def _varying(a: Any) -> frozenset[str]:
    """The mapped axes over whose devices an array varies, as far as shard_map keeps account of it."""
    return jax.typeof(a).manual_axis_type.varying


def varying_like(value: Array, like: Array) -> Array:
    """``value``, cast to vary over the devices over which ``like`` does inside shard_map."""
    return vary_together((value, like))[0]


def vary_together(tree: Any) -> Any:
    """All arrays of a tree, cast to vary over every axis over which one of them does.

    Loop carries and cotangents of a custom rule must have the type of what they are added to.
    """
    axes = frozenset().union(*map(_varying, jax.tree.leaves(tree)))

    def cast(a: Array) -> Array:
        missing = axes - _varying(a)
        return lax.pcast(a, tuple(missing), to="varying") if missing else a

    return jax.tree.map(cast, tree)


# Forward. Per channel a side's store holds, for a log-sum-exp, the running maximum m and
# t = sum e^{l - m} (bounded: t alone, m = 0), and for a plain sum the sum.


def empty_state(plan: Plan, side: Side, axis: int) -> tuple[Any, ...]:
    """The store of a forward sweep before the first tile, of rows (axis 1) or columns (0)."""
    zeros = varying_like(jnp.zeros(side.z.shape[:2], accumulator(side.z.dtype)), side.z)
    lowest = jnp.full_like(zeros, nothing(zeros.dtype))
    states = [(lowest, zeros) if c.log and not plan.bounded else (zeros,) for c in plan.channels]
    return on_axis(plan, states, axis)


def _add_tile(plan: Plan, part: Part, state: Any, logits: Array) -> Any:
    """The state of one channel and block after one more tile."""
    if not plan.channels[part.channel].log:
        return (state[0] + jnp.sum(jnp.where(part.keep, logits, 0), part.axis),)
    logits = jnp.where(part.keep, logits, -jnp.inf)
    if plan.bounded:
        return (state[0] + jnp.sum(jnp.exp(logits), part.axis),)
    old, total = state
    new = jnp.maximum(old, lax.stop_gradient(jnp.max(logits, part.axis)))
    terms = jnp.exp(logits - jnp.expand_dims(new, part.axis))
    return new, total * jnp.exp(old - new) + jnp.sum(terms, part.axis)


def merge(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    """The state after two sweeps over different tiles, from the state of each."""

    def both(a: Any, b: Any) -> Any:
        if len(a) == 1:
            return (a[0] + b[0],)
        top = jnp.maximum(a[0], b[0])
        return top, a[1] * jnp.exp(a[0] - top) + b[1] * jnp.exp(b[0] - top)

    return tuple(map(both, one, other))


def results(plan: Plan, state: tuple[Any, ...]) -> tuple[Any, ...]:
    """A side's values at the end of a forward sweep."""

    def result(channel: Channel, state: Any) -> Array | None:
        if state is None:
            return None
        if not channel.log:
            return state[0]
        some = state[-1] != 0  # true for NaN, which stays visible
        lse = jnp.log(jnp.where(some, state[-1], 1))
        lse = lse if plan.bounded else lse + state[0]
        return jnp.where(some, lse, nothing(lse.dtype))

    return tuple(result(c, s) for c, s in zip(plan.channels, state, strict=True))


def forward_sweep(
    plan: Plan, rows: Side, cols: Side | None, stores: tuple[Any, ...]
) -> tuple[tuple[Any, ...], Array | None]:
    """Adds all tiles to the stores, ``(of rows, of columns)``, or ``(of both,)`` where cols is None.

    Returns the stores and, if the plan keeps them, the tiles ``[tiles, block, block]``.
    """
    right = rows if cols is None else cols

    def visit(stores: tuple[Any, ...], k: Array) -> tuple[tuple[Any, ...], Array | None]:
        i, j = tile_index(k, rows, cols)
        row, col = take(rows, i), take(right, j)
        tile = product(plan, row.z, col.z, (1, 1))  # (b, d) . (d, c) -> (b, c)
        parts = all_parts(plan, row, col)
        logits = all_logits(plan, tile, aux_of(row), aux_of(col))
        updated = list(stores)
        for axis, where, block in ((1, 0, i), (0, -1, j)):
            before = take(updated[where], block)
            entry = list(before)
            for part, l in zip(parts, logits, strict=True):
                if part.axis == axis:
                    entry[part.channel] = _add_tile(plan, part, entry[part.channel], l)
            if cols is None and axis == 0:  # a diagonal tile has served its rows already
                entry = jax.tree.map(partial(jnp.where, i != j), entry, list(before))
            updated[where] = put(updated[where], block, tuple(entry))
        return tuple(updated), tile if plan.keep else None

    return scan_tiles(visit, stores, jnp.arange(tile_count(rows, cols)))


def scan_tiles(visit: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
    """``lax.scan``, without a loop where there is one tile."""
    if len(jax.tree.leaves(xs)[0]) > 1:
        return lax.scan(visit, carry, xs)
    carry, y = visit(carry, jax.tree.map(lambda a: a[0], xs))
    return carry, jax.tree.map(lambda a: a[None], y)


# Backward. A side's store of residuals holds (scale, shift) per channel, such that the cotangent of
# a logit is scale e^{logit - shift}, or scale alone for a plain sum. Its store of gradients holds
# those of z and of the auxiliaries.


def residuals(plan: Plan, values: tuple[Array, ...], cotangents: tuple[Array, ...]) -> Any:
    """The store of (scale, shift) from the channels' values and cotangents."""

    def residual(channel: Channel, value: Array, g: Array) -> tuple[Array, Array]:
        if not channel.log:
            return g, jnp.zeros_like(g)
        some = value != nothing(value.dtype)
        value, g = jnp.where(some, value, 0), jnp.where(some, g, 0)
        if plan.bounded:
            return g * jnp.exp(-value), jnp.zeros_like(value)
        return g, value

    return tuple(map(residual, plan.channels, values, cotangents))


def empty_gradients(side: Side) -> Any:
    """The store of a backward sweep before the first tile."""
    return jax.tree.map(
        lambda a: varying_like(jnp.zeros(a.shape, accumulator(a.dtype)), a),
        (side.z, aux_of(side)),
    )


def _cotangent(plan: Plan, part: Part, logits: Array, residual: Any) -> Array:
    """The cotangent of the logits of one channel on one tile."""
    scale, shift = _spread(residual, part.axis)
    if not plan.channels[part.channel].log:
        return jnp.broadcast_to(jnp.where(part.keep, scale, 0), logits.shape)
    exponent = logits if plan.bounded else logits - shift
    return scale * jnp.exp(jnp.where(part.keep, exponent, -jnp.inf))


def backward_sweep(
    plan: Plan,
    rows: Side,
    cols: Side | None,
    saved: tuple[Any, ...],
    stores: tuple[Any, ...],
    tiles: Array | None = None,
) -> tuple[Any, ...]:
    """Adds the gradients of all tiles to the stores. ``saved``: residuals, per side like the stores."""
    right = rows if cols is None else cols

    @jax.checkpoint  # a second derivative recomputes the tiles too
    def visit(stores: tuple[Any, ...], x: Any) -> tuple[tuple[Any, ...], None]:
        k, tile = x
        i, j = tile_index(k, rows, cols)
        row, col = take(rows, i), take(right, j)
        if tile is None:
            tile = product(plan, row.z, col.z, (1, 1))
        of_row, of_col = take(saved[0], i), take(saved[-1], j)
        if cols is None:
            of_col = jax.tree.map(lambda a: jnp.where(i != j, a, 0), of_col)
        logits, pull = jax.vjp(partial(all_logits, plan), tile, aux_of(row), aux_of(col))
        cotangents = [
            _cotangent(plan, part, l, (of_row if part.axis == 1 else of_col)[part.channel])
            for part, l in zip(all_parts(plan, row, col), logits, strict=True)
        ]
        ds, row_aux, col_aux = pull(cotangents)
        ds = ds.astype(row.z.dtype)
        dx = product(plan, ds, col.z, (1, 0))  # (b, c) . (c, d) -> (b, d)
        dy = product(plan, ds, row.z, (0, 0))  # (c, b) . (b, d) -> (c, d)
        updated = list(stores)
        for where, block, gradient in ((0, i, (dx, row_aux)), (-1, j, (dy, col_aux))):
            entry = jax.tree.map(jnp.add, take(updated[where], block), gradient)
            updated[where] = put(updated[where], block, entry)
        return tuple(updated), None

    return scan_tiles(visit, stores, (jnp.arange(tile_count(rows, cols)), tiles))[0]


def gradient_of(side: Side, store: Any) -> Side:
    """A side's cotangent from its store of gradients; what is not differentiable gets None."""
    z, (row_aux, col_aux) = jax.tree.map(
        lambda a, g: g.astype(a.dtype), (side.z, aux_of(side)), store
    )

    def known(primal: Known | None, aux: Any) -> Known | None:
        return (
            None if primal is None else Known(jax.tree.map(lambda _: None, primal.ids), aux, None)
        )

    return Side(z, known(side.as_row, row_aux), known(side.as_col, col_aux))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def sweep(plan: Plan, rows: Side, cols: Side | None) -> tuple[Array, ...]:
    """The channels' values in blocks, ``[blocks, block]``; cols None: both sides are ``rows``."""
    return _forward(plan._replace(keep=False), rows, cols)[0]


def _forward(plan: Plan, rows: Side, cols: Side | None) -> tuple[tuple[Array, ...], Array | None]:
    sides = (rows,) if cols is None else (rows, cols)
    stores = tuple(empty_state(plan, side, 1 - k) for k, side in enumerate(sides))
    stores, tiles = forward_sweep(plan, rows, cols, stores)
    per_side = [results(plan, store) for store in stores]
    values = tuple(per_side[c.axis - 1][k] for k, c in enumerate(plan.channels))
    return values, tiles


def _sweep_fwd(plan: Plan, rows: Side, cols: Side | None) -> Any:
    # Without kept tiles the values come from `sweep` itself, so that a second derivative finds its
    # custom rule again instead of differentiating the forward loop.
    values, tiles = _forward(plan, rows, cols) if plan.keep else (sweep(plan, rows, cols), None)
    return values, (rows, cols, values, tiles)


def _sweep_bwd(plan: Plan, kept: Any, cotangents: tuple[Array, ...]) -> tuple[Any, Any]:
    rows, cols, values, tiles = kept
    sides = (rows,) if cols is None else (rows, cols)
    saved = residuals(plan, values, cotangents)
    saved = tuple(on_axis(plan, saved, axis) for axis in (1, 0)[: len(sides)])
    stores = tuple(empty_gradients(side) for side in sides)
    stores = backward_sweep(plan, rows, cols, saved, stores, tiles)
    grads = [gradient_of(side, store) for side, store in zip(sides, stores, strict=True)]
    return grads[0], None if cols is None else grads[1]


sweep.defvjp(_sweep_fwd, _sweep_bwd)
