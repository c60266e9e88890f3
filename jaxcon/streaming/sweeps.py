"""Sweeps over the tiles of `s = x y^T`, forward and backward, on one device.

For a log-sum-exp `R_i` with cotangent `g_i` the cotangent of a logit is `g_i e^{l_ij - R_i}`, so no
matrix is ever stored::

    forward   R_i = log sum_j e^{l_ij}
    backward  ds_ij = sum over channels of g_i e^{l_ij - R_i} dl_ij/ds_ij
              dx_i = sum_j ds_ij y_j,  dy_j = sum_i ds_ij x_i

Sides and stores come and go as rows; a sweep cuts them into the blocks that its `Cut` says. It adds to
what the stores hold, so that sweeps over different columns follow one another, as round a ring.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon.similarity.distances import pulled_back
from jaxcon.streaming.channels import Channel, Plan, accumulator, log_total, nothing, product
from jaxcon.streaming.rules import Cut
from jaxcon.streaming.sides import Operand, cut_rows, in_blocks, rows_of
from jaxcon.streaming.stores import (
    empty_gradients,
    filled_like,
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

# The largest exponent of which bfloat16 holds the exponential, times a sum of billions.
_LARGEST = 60.0

# Forward. Per channel a side's store holds, for a log-sum-exp, the running maximum m and
# t = sum e^{l - m} (bounded: t alone, m = 0), and for a plain sum the sum.


def empty_state(plan: Plan, side: Operand, axis: int) -> tuple[Any, ...]:
    """The store of a forward sweep before the first tile, of rows (axis 1) or columns (0)."""
    zeros = varying_like(jnp.zeros(len(side.z), accumulator(side.z.dtype)), side.z)
    lowest = filled_like(zeros, nothing(zeros.dtype))
    states = [(lowest, zeros) if c.log and not plan.bounded else (zeros,) for c in plan.channels]
    return on_axis(plan, states, axis)


def _add_tile(plan: Plan, cut: Cut, part: Part, state: Any, logits: Array) -> Any:
    """The state of one channel and block after one more tile."""
    if not plan.channels[part.channel].log:
        return (state[0] + jnp.sum(jnp.where(part.keep, logits, 0), part.axis),)
    if plan.bounded:
        return (state[0] + _sum(_exponentials(cut, part, logits), part.axis, logits.dtype),)
    old, total = state
    top = jnp.max(jnp.where(part.keep, logits, -jnp.inf), part.axis)
    new = jnp.maximum(old, lax.stop_gradient(top))
    terms = _exponentials(cut, part, logits - jnp.expand_dims(new, part.axis))
    return new, total * jnp.exp(old - new) + _sum(terms, part.axis, logits.dtype)


def _exponentials(cut: Cut, part: Part, exponents: Array) -> Array:
    """`e^exponent` of the pairs to keep, 0 of the others.

    `rounded`: in bfloat16, as XLA writes them where a product ends, before it asks which to keep. None
    to keep is above 0 unless the logits are bounded, by far less than what bfloat16 can hold.
    """
    if not cut.rounded:
        return jnp.exp(jnp.where(part.keep, exponents, -jnp.inf))
    terms = jnp.exp(jnp.minimum(exponents, _LARGEST)).astype(jnp.bfloat16)
    return jnp.where(part.keep, terms, 0)


def _sum(terms: Array, axis: int, dtype: Any) -> Array:
    return jnp.sum(terms, axis, dtype=dtype)


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


def add_values(
    plan: Plan, cut: Cut, rows: Operand, cols: Operand, stores: tuple[Any, Any]
) -> tuple[tuple[Any, Any], Any]:
    """Adds all tiles to the stores of rows and columns.

    Returns the stores and, if the cut keeps them, the matrices of all tiles, stacked.
    """
    row_blocks, col_blocks = in_blocks(rows, cut.rows), in_blocks(cols, cut.cols)
    stores = _cut_like(stores[0], row_blocks), _cut_like(stores[1], col_blocks)
    (own, store), tiles = _forward(plan, cut, row_blocks, col_blocks, stores)
    return (rows_of(own, len(rows.z)), rows_of(store, len(cols.z))), tiles


def add_own_values(plan: Plan, cut: Cut, rows: Operand, own: Any) -> tuple[Any, Any]:
    """The same for the pairs of one set of rows, of whose values there is one store."""
    if cut.half:
        blocks = in_blocks(rows, cut.rows)
        (own,), tiles = _forward(plan, cut, blocks, None, (_cut_like(own, blocks),))
        return rows_of(own, len(rows.z)), tiles
    plan = plan._replace(one_set=False)
    stores = on_axis(plan, own, 1), on_axis(plan, own, 0)
    sides, tiles = add_values(plan, cut, rows, rows, stores)
    return tuple(sides[1 - c.axis][k] for k, c in enumerate(plan.channels)), tiles


def _cut_like(store: Any, blocks: Operand) -> Any:
    """A store of rows in the blocks of their side."""
    return jax.tree.map(lambda a: cut_rows(a, *blocks.z.shape[:2]), store)


def _forward(
    plan: Plan, cut: Cut, rows: Operand, cols: Operand | None, stores: tuple[Any, ...]
) -> tuple[tuple[Any, ...], Any]:
    """Adds all tiles to the stores, `(of rows, of columns)`, or `(of both,)` where cols is None."""

    def visit(stores: tuple[Any, ...], k: Array) -> tuple[tuple[Any, ...], Any]:
        tile = tile_at(plan, rows, cols, k)
        stores = _add_values(plan, cut, tile, cols is None, stores)
        return stores, tile.matrix if cut.keep else None

    return scan_blocks(visit, stores, jnp.arange(_tiles(rows, cols)))


def _tiles(rows: Operand, cols: Operand | None) -> int:
    return tile_count(len(rows.z), None if cols is None else len(cols.z))


def _add_values(
    plan: Plan, cut: Cut, tile: Tile, one_set: bool, stores: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The stores of a forward sweep after one more tile."""
    parts = all_parts(plan, tile.row, tile.col)
    logits = all_logits(plan, tile.s, tile.row.aux, tile.col.aux)
    updated = list(stores)
    for axis, where, block in ((1, 0, tile.i), (0, -1, tile.j)):
        before = take(updated[where], block)
        entry = list(before)
        for part in parts:
            if part.axis == axis:
                state = entry[part.channel]
                entry[part.channel] = _add_tile(plan, cut, part, state, logits[part.source])
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


def _cotangents(
    plan: Plan, cut: Cut, parts: list[Part], logits: list[Array], of_row: Any, of_col: Any
) -> list[Array]:
    """The cotangents of the logits on one tile.

    Parts that differ in their scales alone share one product with a matrix of these scales' sums.
    """
    scales: dict[Any, Array] = {}
    alike: dict[Any, tuple[Part, Any]] = {}
    for part in parts:
        channel = plan.channels[part.channel]
        residual = (of_row if part.axis == 1 else of_col)[part.channel]
        scale, shift = spread(residual, part.axis)
        own = channel.log and not plan.bounded  # an exponential with its own shift
        key = (part.source, channel.pairs, channel.log, (part.channel, part.axis) if own else None)
        scales[key] = scales[key] + scale if key in scales else scale
        alike[key] = part, shift
    cotangents = [jnp.zeros((), l.dtype) for l in logits]
    for key, (part, shift) in alike.items():
        l = logits[part.source]
        if plan.channels[part.channel].log:
            exponent = l if plan.bounded else l - shift
            more = scales[key] * _exponentials(cut, part, exponent)
        else:
            more = jnp.where(part.keep, scales[key], 0)
        cotangents[part.source] = cotangents[part.source] + more
    return [jnp.broadcast_to(c, l.shape) for c, l in zip(cotangents, logits, strict=True)]


def add_gradients(
    plan: Plan,
    cut: Cut,
    rows: Operand,
    cols: Operand,
    saved: tuple[Any, Any],
    stores: tuple[Any, Any],
    tiles: Any = None,
) -> tuple[Any, Any]:
    """Adds the gradients of all tiles to the stores. `saved`: residuals, per side like the stores."""
    row_blocks, col_blocks = in_blocks(rows, cut.rows), in_blocks(cols, cut.cols)
    stores = _cut_like(stores[0], row_blocks), _cut_like(stores[1], col_blocks)
    saved = _cut_like(saved[0], row_blocks), _cut_like(saved[1], col_blocks)
    own, store = _backward(plan, cut, row_blocks, col_blocks, saved, stores, tiles)
    return rows_of(own, len(rows.z)), rows_of(store, len(cols.z))


def add_own_gradients(
    plan: Plan, cut: Cut, rows: Operand, saved: Any, own: Any, tiles: Any = None
) -> Any:
    """The same for the pairs of one set of rows."""
    if cut.half:
        blocks = in_blocks(rows, cut.rows)
        of_rows, store = (_cut_like(saved, blocks),), (_cut_like(own, blocks),)
        return rows_of(_backward(plan, cut, blocks, None, of_rows, store, tiles)[0], len(rows.z))
    plan = plan._replace(one_set=False)
    saved = on_axis(plan, saved, 1), on_axis(plan, saved, 0)
    stores = own, empty_gradients(rows)
    sides = add_gradients(plan, cut, rows, rows, saved, stores, tiles)
    return jax.tree.map(jnp.add, *sides)


def _backward(
    plan: Plan,
    cut: Cut,
    rows: Operand,
    cols: Operand | None,
    saved: tuple[Any, ...],
    stores: tuple[Any, ...],
    tiles: Any,
) -> tuple[Any, ...]:
    """The stores of gradients, `(of rows, of columns)` or `(of both,)`, after all tiles."""

    def tile_gradients(x: Any) -> tuple[Tile, Any, Any]:
        k, kept = x
        tile = tile_at(plan, rows, cols, k, kept)
        return tile, *_gradients(plan, cut, tile, cols is None, saved)

    @jax.checkpoint  # a second derivative recomputes the tiles too
    def of_one_set(stores: tuple[Any, ...], x: Any) -> tuple[tuple[Any, ...], None]:
        tile, of_row, of_col = tile_gradients(x)
        # Two steps of a loop: of two updates of one store side by side XLA makes copies of the whole.
        both = jax.tree.map(lambda *a: jnp.stack(a), (tile.i, of_row), (tile.j, of_col))
        return (lax.scan(lambda store, x: (_add(store, *x), None), stores[0], both)[0],), None

    @jax.checkpoint
    def of_two_sets(stores: tuple[Any, ...], x: Any) -> tuple[tuple[Any, ...], None]:
        tile, of_row, of_col = tile_gradients(x)
        return (_add(stores[0], tile.i, of_row), _add(stores[1], tile.j, of_col)), None

    @jax.checkpoint
    def of_panels(store: Any, x: Any) -> tuple[Any, Any]:
        tile, of_row, of_col = tile_gradients(x)
        return _add(store, tile.j, of_col), of_row

    xs = jnp.arange(_tiles(rows, cols)), tiles
    if cols is None or len(cols.z) > 1:
        return scan_blocks(of_one_set if cols is None else of_two_sets, stores, xs)[0]
    store, of_rows = scan_blocks(of_panels, stores[1], xs)  # every block of rows is visited once
    return jax.tree.map(jnp.add, stores[0], of_rows), store


def _gradients(
    plan: Plan, cut: Cut, tile: Tile, one_set: bool, saved: tuple[Any, ...]
) -> tuple[Any, Any]:
    """What a tile adds to the gradients of its rows and of its columns."""
    of_row, of_col = take(saved[0], tile.i), take(saved[-1], tile.j)
    if one_set:  # a diagonal tile serves its rows alone; the shift stays, e^logit could be inf
        of_col = [r and (jnp.where(tile.i != tile.j, r[0], 0), r[1]) for r in of_col]
    logits, pull = jax.vjp(partial(all_logits, plan), tile.s, tile.row.aux, tile.col.aux)
    parts = all_parts(plan, tile.row, tile.col)
    ds, row_aux, col_aux = pull(_cotangents(plan, cut, parts, logits, of_row, of_col))
    dx, dy = _pulled_back(plan, tile, ds)
    return (dx, row_aux), (dy, col_aux)


def _add(store: Any, block: Array, gradient: Any) -> Any:
    return put(store, block, jax.tree.map(jnp.add, take(store, block), gradient))


def _pulled_back(plan: Plan, tile: Tile, ds: Array) -> tuple[Array, Array]:
    """Cotangents of a tile's rows for one of its entries."""
    if plan.distances:
        return pulled_back(tile.x, tile.y, tile.near, ds, precision=plan.precision)
    ds = ds.astype(tile.x.dtype)
    dx = product(ds, tile.y, (1, 0), plan.precision)  # (b, c) . (c, d) -> (b, d)
    dy = product(ds, tile.x, (0, 0), plan.precision)  # (c, b) . (b, d) -> (c, d)
    return dx, dy


def add_both(
    plan: Plan, cut: Cut, rows: Operand, cols: Operand, saved: tuple[Any, Any], own: Any, store: Any
) -> tuple[Any, Any]:
    """Adds values and gradients in one sweep, for residuals that do not depend on the values.

    `own`: the values of the rows so far, and their gradients; `store`: the gradients of the columns.
    """
    row_blocks, col_blocks = in_blocks(rows, cut.rows), in_blocks(cols, cut.cols)
    of_rows, of_cols = _cut_like(saved[0], row_blocks), _cut_like(saved[1], col_blocks)
    no_values = on_axis(plan, (None,) * len(plan.channels), 0)

    def tile_of(k: Array, values: Any) -> tuple[Tile, Any, Any, Any]:
        tile = tile_at(plan, row_blocks, col_blocks, k)
        values, _ = _add_values(plan, cut, tile, False, (values, no_values))
        return tile, values, *_gradients(plan, cut, tile, False, (of_rows, of_cols))

    @jax.checkpoint
    def of_tiles(stores: Any, k: Array) -> tuple[Any, None]:
        (values, of_x), of_y = stores
        tile, values, of_row, of_col = tile_of(k, values)
        return ((values, _add(of_x, tile.i, of_row)), _add(of_y, tile.j, of_col)), None

    @jax.checkpoint
    def of_panels(stores: Any, k: Array) -> tuple[Any, Any]:
        values, of_y = stores
        tile, values, of_row, of_col = tile_of(k, values)
        return (values, _add(of_y, tile.j, of_col)), of_row

    own, store = _cut_like(own, row_blocks), _cut_like(store, col_blocks)
    tiles = jnp.arange(_tiles(row_blocks, col_blocks))
    if len(col_blocks.z) > 1:
        (own, store), _ = scan_blocks(of_tiles, (own, store), tiles)
    else:
        (values, store), of_x = scan_blocks(of_panels, (own[0], store), tiles)
        own = values, jax.tree.map(jnp.add, own[1], of_x)
    return rows_of(own, len(rows.z)), rows_of(store, len(cols.z))
