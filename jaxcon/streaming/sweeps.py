"""Sweeps over the tiles of `s = x y^T`, forward and backward, on one device.

For a log-sum-exp `R_i` with cotangent `g_i`, the cotangent of a logit is `g_i e^{l_ij - R_i}`, so no
matrix is ever stored::

    forward   R_i = log sum_j e^{l_ij}
    backward  ds_ij = sum over channels of g_i e^{l_ij - R_i} dl_ij/ds_ij
              dx_i = sum_j ds_ij y_j,  dy_j = sum_i ds_ij x_i

Sides and stores come and go as rows; a sweep cuts them into blocks as its `Cut` says. It adds to what
the stores hold, so that sweeps over different columns can follow one another, as round a ring.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon.streaming.channels import Plan
from jaxcon.streaming.gradients import tile_gradients
from jaxcon.streaming.rules import Cut
from jaxcon.streaming.sides import Operand, cut_like, in_blocks, rows_of
from jaxcon.streaming.states import add_parts
from jaxcon.streaming.stores import add, empty_gradients, put, scan_blocks, take
from jaxcon.streaming.tiles import Tile, all_logits, all_parts, on_axis, tile_at, tile_count
from jaxcon.typing import Array


def add_values(
    plan: Plan, cut: Cut, rows: Operand, cols: Operand, stores: tuple[Any, Any]
) -> tuple[tuple[Any, Any], Any]:
    """Adds all tiles to the stores of rows and columns.

    Returns the stores and, if the cut keeps them, the matrices of all tiles, stacked.
    """
    row_blocks, col_blocks = in_blocks(rows, cut.rows), in_blocks(cols, cut.cols)
    stores = cut_like(stores[0], row_blocks), cut_like(stores[1], col_blocks)
    (own, store), tiles = _forward(plan, cut, row_blocks, col_blocks, stores)
    return (rows_of(own, len(rows.z)), rows_of(store, len(cols.z))), tiles


def add_own_values(plan: Plan, cut: Cut, rows: Operand, own: Any) -> tuple[Any, Any]:
    """Does the same for the pairs of one set of rows, whose values have one store."""
    if cut.half:
        blocks = in_blocks(rows, cut.rows)
        (own,), tiles = _forward(plan, cut, blocks, None, (cut_like(own, blocks),))
        return rows_of(own, len(rows.z)), tiles
    plan = plan._replace(one_set=False)
    stores = on_axis(plan, own, 1), on_axis(plan, own, 0)
    sides, tiles = add_values(plan, cut, rows, rows, stores)
    return tuple(sides[1 - c.axis][k] for k, c in enumerate(plan.channels)), tiles


def _forward(
    plan: Plan, cut: Cut, rows: Operand, cols: Operand | None, stores: tuple[Any, ...]
) -> tuple[tuple[Any, ...], Any]:
    """Adds all tiles to the stores, `(of rows, of columns)`, or `(of both,)` if cols is None."""

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
    """Adds one more tile to the stores of a forward sweep."""
    parts = all_parts(plan, tile.row, tile.col)
    logits = all_logits(plan, tile.s, tile.row.aux, tile.col.aux)
    updated = list(stores)
    for axis, where, block in ((1, 0, tile.i), (0, -1, tile.j)):
        before = take(updated[where], block)
        entry = add_parts(plan, cut, parts, logits, before, axis)
        if one_set and axis == 0:  # a diagonal tile has already served its rows
            entry = jax.tree.map(partial(jnp.where, tile.i != tile.j), entry, before)
        updated[where] = put(updated[where], block, entry)
    return tuple(updated)


def add_gradients(
    plan: Plan,
    cut: Cut,
    rows: Operand,
    cols: Operand,
    saved: tuple[Any, Any],
    stores: tuple[Any, Any],
    tiles: Any = None,
) -> tuple[Any, Any]:
    """Adds the gradients of all tiles to the stores. `saved`: residuals, by side like the stores."""
    row_blocks, col_blocks = in_blocks(rows, cut.rows), in_blocks(cols, cut.cols)
    stores = cut_like(stores[0], row_blocks), cut_like(stores[1], col_blocks)
    saved = cut_like(saved[0], row_blocks), cut_like(saved[1], col_blocks)
    own, store = _backward(plan, cut, row_blocks, col_blocks, saved, stores, tiles)
    return rows_of(own, len(rows.z)), rows_of(store, len(cols.z))


def add_own_gradients(
    plan: Plan, cut: Cut, rows: Operand, saved: Any, own: Any, tiles: Any = None
) -> Any:
    """Does the same for the pairs of one set of rows."""
    if cut.half:
        blocks = in_blocks(rows, cut.rows)
        of_rows, store = (cut_like(saved, blocks),), (cut_like(own, blocks),)
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
    """Adds all tiles to the stores of gradients, `(of rows, of columns)` or `(of both,)`."""

    def tile_gradients(x: Any) -> tuple[Tile, Any, Any]:
        k, kept = x
        tile = tile_at(plan, rows, cols, k, kept)
        return tile, *_gradients(plan, cut, tile, cols is None, saved)

    @jax.checkpoint  # a second derivative recomputes the tiles too
    def of_one_set(stores: tuple[Any, ...], x: Any) -> tuple[tuple[Any, ...], None]:
        tile, of_row, of_col = tile_gradients(x)
        if not cut.in_turns:
            return (add(add(stores[0], tile.i, of_row), tile.j, of_col),), None
        both = jax.tree.map(lambda *a: jnp.stack(a), (tile.i, of_row), (tile.j, of_col))
        return (lax.scan(lambda store, x: (add(store, *x), None), stores[0], both)[0],), None

    @jax.checkpoint
    def of_two_sets(stores: tuple[Any, ...], x: Any) -> tuple[tuple[Any, ...], None]:
        tile, of_row, of_col = tile_gradients(x)
        return (add(stores[0], tile.i, of_row), add(stores[1], tile.j, of_col)), None

    @jax.checkpoint
    def of_panels(store: Any, x: Any) -> tuple[Any, Any]:
        tile, of_row, of_col = tile_gradients(x)
        return add(store, tile.j, of_col), of_row

    xs = jnp.arange(_tiles(rows, cols)), tiles
    if cols is None or len(cols.z) > 1:
        return scan_blocks(of_one_set if cols is None else of_two_sets, stores, xs)[0]
    store, of_rows = scan_blocks(of_panels, stores[1], xs)  # every block of rows is visited once
    return jax.tree.map(jnp.add, stores[0], of_rows), store


def _gradients(
    plan: Plan, cut: Cut, tile: Tile, one_set: bool, saved: tuple[Any, ...]
) -> tuple[Any, Any]:
    """Computes what a tile adds to the gradients of its rows and of its columns."""
    of_row, of_col = take(saved[0], tile.i), take(saved[-1], tile.j)
    if one_set:  # a diagonal tile serves only its rows; the shift stays: e^logit could be inf
        of_col = [r and (jnp.where(tile.i != tile.j, r[0], 0), r[1]) for r in of_col]
    return tile_gradients(plan, cut, tile, all_parts(plan, tile.row, tile.col), of_row, of_col)


def add_both(
    plan: Plan, cut: Cut, rows: Operand, cols: Operand, saved: tuple[Any, Any], own: Any, store: Any
) -> tuple[Any, Any]:
    """Adds values and gradients in one sweep, for residuals that do not depend on the values.

    `own`: the values of the rows so far, and their gradients; `store`: the gradients of the columns.
    """
    row_blocks, col_blocks = in_blocks(rows, cut.rows), in_blocks(cols, cut.cols)
    of_rows, of_cols = cut_like(saved[0], row_blocks), cut_like(saved[1], col_blocks)
    no_values = on_axis(plan, (None,) * len(plan.channels), 0)

    def tile_of(k: Array, values: Any) -> tuple[Tile, Any, Any, Any]:
        tile = tile_at(plan, row_blocks, col_blocks, k)
        values, _ = _add_values(plan, cut, tile, False, (values, no_values))
        return tile, values, *_gradients(plan, cut, tile, False, (of_rows, of_cols))

    @jax.checkpoint
    def of_tiles(stores: Any, k: Array) -> tuple[Any, None]:
        (values, of_x), of_y = stores
        tile, values, of_row, of_col = tile_of(k, values)
        return ((values, add(of_x, tile.i, of_row)), add(of_y, tile.j, of_col)), None

    @jax.checkpoint
    def of_panels(stores: Any, k: Array) -> tuple[Any, Any]:
        values, of_y = stores
        tile, values, of_row, of_col = tile_of(k, values)
        return (values, add(of_y, tile.j, of_col)), of_row

    own, store = cut_like(own, row_blocks), cut_like(store, col_blocks)
    tiles = jnp.arange(_tiles(row_blocks, col_blocks))
    if len(col_blocks.z) > 1:
        (own, store), _ = scan_blocks(of_tiles, (own, store), tiles)
    else:
        (values, store), of_x = scan_blocks(of_panels, (own[0], store), tiles)
        own = values, jax.tree.map(jnp.add, own[1], of_x)
    return rows_of(own, len(rows.z)), rows_of(store, len(cols.z))
