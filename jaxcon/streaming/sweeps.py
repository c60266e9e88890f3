"""The engine: one sweep over the tiles of `s = x y^T` forward, and one backward.

Only the inputs and one statistic per row and channel survive the forward sweep; the backward sweep
computes every tile again. For a log-sum-exp `R_i` with cotangent `g_i` the cotangent of a logit is
`g_i e^{l_ij - R_i}`, so no matrix is ever stored::

    forward   R_i = log sum_j e^{l_ij}
    backward  ds_ij = sum over channels of g_i e^{l_ij - R_i} dl_ij/ds_ij
              dx_i = sum_j ds_ij y_j,  dy_j = sum_i ds_ij x_i

Where only a sum of the values with known weights is wanted, the cotangents are known before the values
are, and one sweep finds both: 3 products instead of 4.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon.similarity.distances import pulled_back
from jaxcon.streaming.channels import Channel, Plan, accumulator, log_total, nothing, product
from jaxcon.streaming.sides import Blocks, measured
from jaxcon.streaming.stores import (
    filled_like,
    first_gradients,
    gradient_of,
    put,
    scan_blocks,
    take,
    varying_like,
)
from jaxcon.streaming.tiles import (
    Part,
    Tile,
    all_logits,
    all_parts,
    on_axis,
    spread,
    tile_at,
    tile_count,
)
from jaxcon.typing import Array

# Forward. Per channel a side's store holds, for a log-sum-exp, the running maximum m and
# t = sum e^{l - m} (bounded: t alone, m = 0), and for a plain sum the sum.


def empty_state(plan: Plan, side: Blocks, axis: int) -> tuple[Any, ...]:
    """The store of a forward sweep before the first tile, of rows (axis 1) or columns (0)."""
    zeros = varying_like(jnp.zeros(side.z.shape[:2], accumulator(side.z.dtype)), side.z)
    lowest = filled_like(zeros, nothing(zeros.dtype))
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
        return log_total(state[-1], 0.0 if plan.bounded else state[0])

    return tuple(result(c, s) for c, s in zip(plan.channels, state, strict=True))


def forward_sweep(
    plan: Plan, rows: Blocks, cols: Blocks | None, stores: tuple[Any, ...]
) -> tuple[tuple[Any, ...], Any]:
    """Adds all tiles to the stores, `(of rows, of columns)`, or `(of both,)` where cols is None.

    Returns the stores and, if the plan keeps them, the matrices of all tiles, stacked.
    """

    def visit(stores: tuple[Any, ...], k: Array) -> tuple[tuple[Any, ...], Any]:
        tile = tile_at(plan, rows, cols, k)
        return _add_values(plan, tile, cols is None, stores), tile.matrix if plan.keep else None

    return scan_blocks(visit, stores, jnp.arange(tile_count(rows, cols)))


def _add_values(plan: Plan, tile: Tile, one_set: bool, stores: tuple[Any, ...]) -> tuple[Any, ...]:
    """The stores of a forward sweep after one more tile."""
    parts = all_parts(plan, tile.row, tile.col)
    logits = all_logits(plan, tile.s, tile.row.aux, tile.col.aux)
    updated = list(stores)
    for axis, where, block in ((1, 0, tile.i), (0, -1, tile.j)):
        before = take(updated[where], block)
        entry = list(before)
        for part, l in zip(parts, logits, strict=True):
            if part.axis == axis:
                entry[part.channel] = _add_tile(plan, part, entry[part.channel], l)
        if one_set and axis == 0:  # a diagonal tile has served its rows already
            entry = jax.tree.map(partial(jnp.where, tile.i != tile.j), entry, list(before))
        updated[where] = put(updated[where], block, tuple(entry))
    return tuple(updated)


# Backward. A side's store of residuals holds (scale, shift) per channel, such that the cotangent of
# a logit is scale e^{logit - shift}, or scale alone for a plain sum. Its store of gradients holds
# those of z and of the auxiliaries.


def residuals(plan: Plan, values: tuple[Array, ...], cotangents: tuple[Array, ...]) -> Any:
    """The store of (scale, shift) from the channels' values and cotangents."""

    def residual(channel: Channel, value: Array, g: Array) -> tuple[Array, Array]:
        if not channel.log:
            return g, filled_like(g)
        some = value != nothing(value.dtype)
        value, g = jnp.where(some, value, 0), jnp.where(some, g, 0)
        if plan.bounded:
            return g * jnp.exp(-value), filled_like(value)
        return g, value

    return tuple(map(residual, plan.channels, values, cotangents))


def _cotangent(plan: Plan, part: Part, logits: Array, residual: Any) -> Array:
    """The cotangent of the logits of one channel on one tile."""
    scale, shift = spread(residual, part.axis)
    if not plan.channels[part.channel].log:
        return jnp.broadcast_to(jnp.where(part.keep, scale, 0), logits.shape)
    exponent = logits if plan.bounded else logits - shift
    return scale * jnp.exp(jnp.where(part.keep, exponent, -jnp.inf))


def backward_sweep(
    plan: Plan,
    rows: Blocks,
    cols: Blocks | None,
    saved: tuple[Any, ...],
    stores: tuple[Any, ...],
    tiles: Any = None,
) -> tuple[Any, ...]:
    """Adds the gradients of all tiles to the stores. `saved`: residuals, per side like the stores."""

    @jax.checkpoint  # a second derivative recomputes the tiles too
    def visit(stores: tuple[Any, ...], x: Any) -> tuple[tuple[Any, ...], None]:
        k, kept = x
        tile = tile_at(plan, rows, cols, k, kept)
        return _add_gradients(plan, tile, cols is None, saved, stores), None

    return scan_blocks(visit, stores, (jnp.arange(tile_count(rows, cols)), tiles))[0]


def _add_gradients(
    plan: Plan, tile: Tile, one_set: bool, saved: tuple[Any, ...], stores: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The stores of a backward sweep after one more tile."""
    of_row, of_col = take(saved[0], tile.i), take(saved[-1], tile.j)
    if one_set:  # a diagonal tile serves its rows alone; the shift stays, e^logit could be inf
        of_col = [r and (jnp.where(tile.i != tile.j, r[0], 0), r[1]) for r in of_col]
    logits, pull = jax.vjp(partial(all_logits, plan), tile.s, tile.row.aux, tile.col.aux)
    cotangents = [
        _cotangent(plan, part, l, (of_row if part.axis == 1 else of_col)[part.channel])
        for part, l in zip(all_parts(plan, tile.row, tile.col), logits, strict=True)
    ]
    ds, row_aux, col_aux = pull(cotangents)
    dx, dy = _pulled_back(plan, tile, ds)

    def add(store: Any, x: Any) -> tuple[Any, None]:
        block, gradient = x
        return put(store, block, jax.tree.map(jnp.add, take(store, block), gradient)), None

    to_row, to_col = (tile.i, (dx, row_aux)), (tile.j, (dy, col_aux))
    if not one_set:
        return add(stores[0], to_row)[0], add(stores[1], to_col)[0]
    # Two steps of a loop: of two updates of one store side by side XLA makes copies of the whole.
    both = jax.tree.map(lambda *a: jnp.stack(a), to_row, to_col)
    return (lax.scan(add, stores[0], both)[0],)


def _pulled_back(plan: Plan, tile: Tile, ds: Array) -> tuple[Array, Array]:
    """Cotangents of a tile's rows for one of its entries."""
    if plan.distances:
        return pulled_back(tile.x, tile.y, tile.near, ds, precision=plan.precision)
    ds = ds.astype(tile.x.dtype)
    dx = product(ds, tile.y, (1, 0), plan.precision)  # (b, c) . (c, d) -> (b, d)
    dy = product(ds, tile.x, (0, 0), plan.precision)  # (c, b) . (b, d) -> (c, d)
    return dx, dy


def both_sweeps(
    plan: Plan,
    rows: Blocks,
    cols: Blocks,
    saved: tuple[Any, ...],
    stores: tuple[tuple[Any, ...], tuple[Any, ...]],
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """A forward and a backward sweep in one, for residuals that do not depend on the values.

    `stores`: those of the forward sweep and those of the backward sweep.
    """

    @jax.checkpoint
    def visit(stores: Any, k: Array) -> tuple[Any, None]:
        values, gradients = stores
        tile = tile_at(plan, rows, cols, k)
        values = _add_values(plan, tile, False, values)
        return (values, _add_gradients(plan, tile, False, saved, gradients)), None

    return scan_blocks(visit, stores, jnp.arange(tile_count(rows, cols)))[0]


# The rows of a side with a scale are a second result of a sweep, as they came in: what a loss computes
# from these instead has its gradient start the sums of the backward sweep, rather than be one more
# matrix to add to them.


def rows_through(*sides: Blocks | None) -> tuple[Array | None, ...]:
    """The rows of the sides with a scale."""
    return tuple(None if s is None or s.scale is None else s.z for s in sides)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def sweep(plan: Plan, rows: Blocks, cols: Blocks | None) -> Any:
    """The channels' values in blocks, `[blocks, block]`, and the rows of both sides as they came.

    `cols` None: both sides are `rows`.
    """
    return _forward(plan._replace(keep=False), rows, cols)[0], rows_through(rows, cols)


def _forward(plan: Plan, rows: Blocks, cols: Blocks | None) -> tuple[tuple[Array, ...], Any]:
    sides = tuple(measured(side) for side in (rows, cols) if side is not None)
    stores = tuple(empty_state(plan, side, 1 - k) for k, side in enumerate(sides))
    stores, tiles = forward_sweep(plan, sides[0], None if cols is None else sides[1], stores)
    per_side = [results(plan, store) for store in stores]
    values = tuple(per_side[c.axis - 1][k] for k, c in enumerate(plan.channels))
    return values, tiles


def _sweep_fwd(plan: Plan, rows: Blocks, cols: Blocks | None) -> Any:
    # Without kept tiles the values come from `sweep` itself, so that a second derivative finds its
    # custom rule again instead of differentiating the forward loop.
    if plan.keep:
        values, tiles = _forward(plan, rows, cols)
        through = rows_through(rows, cols)
    else:
        swept: Any = sweep(plan, rows, cols)
        (values, through), tiles = swept, None
    return (values, through), (rows, cols, values, tiles)


def _sweep_bwd(plan: Plan, kept: Any, cotangents: Any) -> tuple[Any, Any]:
    rows, cols, values, tiles = kept
    of_values, of_rows = cotangents
    sides = tuple(measured(side) for side in (rows, cols) if side is not None)
    saved = residuals(plan, values, of_values)
    saved = tuple(on_axis(plan, saved, axis) for axis in (1, 0)[: len(sides)])
    stores, along = zip(*map(first_gradients, sides, of_rows), strict=True)
    rows, cols = sides if len(sides) == 2 else (*sides, None)
    stores = backward_sweep(plan, rows, cols, saved, stores, tiles)
    grads = [gradient_of(*known) for known in zip(sides, stores, along, strict=True)]
    return grads[0], None if cols is None else grads[1]


sweep.defvjp(_sweep_fwd, _sweep_bwd)
