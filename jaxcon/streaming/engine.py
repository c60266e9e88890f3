"""The derivative of a reduction: one sweep over the tiles of `s = x y^T` forward, and one backward.

Only the inputs and one value per row and channel survive the forward sweep, whatever platform it was
cut for; the backward sweep computes every tile again. On CPUs the tiles of medium batches are kept:
elsewhere zeros stand in for them, and no program that holds both sweeps computes those.

Where only a sum of the values with known weights is wanted, the cotangents are known before the
values, and one sweep finds both value and gradient: 3 products of N x N x dim instead of 4.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxcon.streaming import ring
from jaxcon.streaming.channels import Plan, accumulator
from jaxcon.streaming.gradients import residuals
from jaxcon.streaming.platforms import by_platform
from jaxcon.streaming.rules import Cut
from jaxcon.streaming.sides import Operand, all_ready, block_shape, measured
from jaxcon.streaming.states import empty_state, results
from jaxcon.streaming.stores import (
    empty_gradients,
    filled_like,
    first_gradients,
    gradient_of,
    varying_like,
)
from jaxcon.streaming.sweeps import (
    add_both,
    add_gradients,
    add_own_gradients,
    add_own_values,
    add_values,
)
from jaxcon.streaming.tiles import on_axis, tile_count
from jaxcon.typing import Array

Weights = tuple[Array, ...]


# A sweep returns the rows of a side with a scale unchanged, as a second result: if a loss computes
# something from these instead, its gradient starts the sums of the backward sweep, rather than being
# one more matrix to add to them.


def _rows_through(*sides: Operand | None) -> tuple[Array | None, ...]:
    """Returns the rows of the sides that have a scale."""
    return tuple(None if s is None or s.scale is None else s.z for s in sides)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def sweep(plan: Plan, rows: Operand, cols: Operand | None) -> Any:
    """Computes the channels' values, `[n]` or `[m]`; also returns the rows of both sides as they came.

    If `cols` is None, both sides are `rows`.
    """
    values = by_platform(plan.cuts, lambda cut, *s: _values(plan, cut, *s)[0], rows, cols)
    return values, _rows_through(rows, cols)


def _values(plan: Plan, cut: Cut, rows: Operand, cols: Operand | None) -> tuple[Any, Any]:
    """Computes the values, and the tiles if they are kept."""
    rows = _swept(cut, measured(rows))
    own, tiles = empty_state(plan, rows, 1), None
    if cols is None:
        if plan.ring is None:
            own, tiles = add_own_values(plan, cut, rows, own)
        else:
            own = ring.values_of_one_set(plan, cut, rows, own)
        return results(plan, own), tiles
    cols = _swept(cut, measured(cols))
    state = empty_state(plan, cols, 0)
    if plan.ring is None:
        (own, state), tiles = add_values(plan, cut, rows, cols, (own, state))
    else:
        own, state = ring.values_of_two_sets(plan, cut, rows, cols, own, state)
    sides = results(plan, state), results(plan, own)
    return tuple(sides[c.axis][k] for k, c in enumerate(plan.channels)), tiles


def _swept(cut: Cut, side: Operand) -> Operand:
    """Returns a measured side as a sweep takes it, and as it travels round a ring."""
    return all_ready(side) if cut.ready else side


def _values_and_tiles(
    plan: Plan, like: Cut, cut: Cut, rows: Operand, cols: Operand | None
) -> tuple[Any, Any]:
    """Does the same, with zeros for the tiles of the cut `like` where this cut keeps none."""
    values, tiles = _values(plan, cut, rows, cols)
    if tiles is not None:
        return values, tiles
    edges = like.rows, like.cols
    sides = rows, rows if cols is None else cols
    shapes = [block_shape(len(side.z), edge) for side, edge in zip(sides, edges, strict=True)]
    count = tile_count(shapes[0][0], None if cols is None else shapes[1][0])
    s = jnp.zeros((count, shapes[0][1], shapes[1][1]), accumulator(rows.z.dtype))
    s = varying_like(s, rows.z)
    return values, (s, s[:, :, 0] if plan.distances else None)


def _sweep_fwd(plan: Plan, rows: Operand, cols: Operand | None) -> Any:
    keeping = [cut for _, cut in plan.cuts if cut.keep]
    if keeping:
        f = partial(_values_and_tiles, plan, keeping[0])
        values, tiles = by_platform(plan.cuts, f, rows, cols)
        through = _rows_through(rows, cols)
    else:
        # From `sweep` itself, so that a second derivative finds its custom rule again instead of
        # differentiating the forward loop.
        swept: Any = sweep(plan, rows, cols)
        (values, through), tiles = swept, None
    return (values, through), (rows, cols, values, tiles)


@partial(jax.checkpoint, static_argnums=(0,))  # a second derivative keeps no branch's residuals
def _sweep_bwd(plan: Plan, kept: Any, cotangents: Any) -> tuple[Any, Any]:
    return by_platform(plan.cuts, partial(_gradients, plan), *kept, *cotangents)


def _gradients(
    plan: Plan,
    cut: Cut,
    rows: Operand,
    cols: Operand | None,
    values: tuple[Array, ...],
    tiles: Any,
    of_values: tuple[Array, ...],
    of_rows: tuple[Array | None, ...],
) -> tuple[Any, Any]:
    """Computes the cotangents of both sides."""
    rows = measured(rows)
    saved = residuals(plan, values, of_values)
    own, along = first_gradients(rows, of_rows[0], _passed(cut, rows, 1))
    tiles = tiles if cut.keep else None
    if cols is None:
        if plan.ring is None:
            own = add_own_gradients(plan, cut, _swept(cut, rows), saved, own, tiles)
        else:
            own = ring.gradients_of_one_set(plan, cut, _swept(cut, rows), saved, own)
        return gradient_of(rows, own, along, _passed(cut, rows, 1)), None
    cols = measured(cols)
    store, along_cols = first_gradients(cols, of_rows[1], _passed(cut, cols, 0))
    saved = on_axis(plan, saved, 1), on_axis(plan, saved, 0)
    sides = _swept(cut, rows), _swept(cut, cols)
    if plan.ring is None:
        own, store = add_gradients(plan, cut, *sides, saved, (own, store), tiles)
    else:
        own, store = ring.gradients_of_two_sets(plan, cut, *sides, saved, own, store)
    return (
        gradient_of(rows, own, along, _passed(cut, rows, 1)),
        gradient_of(cols, store, along_cols, _passed(cut, cols, 0)),
    )


def _passed(cut: Cut, side: Operand, axis: int) -> int:
    """Returns how many rows' gradients pass through their norms together.

    Those of one block of the tiles, because on CPUs the operand of a row sum is a matrix of its own;
    all of them, where they were made ready together.
    """
    return len(side.z) if cut.ready else cut.rows if axis == 1 else cut.cols


sweep.defvjp(_sweep_fwd, _sweep_bwd)


def weighted_total(weights: Sequence[Array], values: Sequence[Array]) -> Array:
    """Sums all channels' weighted values."""
    return jnp.sum(jnp.stack([jnp.sum(w * v) for w, v in zip(weights, values, strict=True)]))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_sweep(plan: Plan, weights: Weights, rows: Operand, cols: Operand) -> Array:
    """Sums `weight * value` over channels and rows; all channels are sums and have axis 1."""
    swept: Any = sweep(plan, rows, cols)
    return weighted_total(weights, swept[0])


def _sum_fwd(plan: Plan, weights: Weights, rows: Operand, cols: Operand) -> Any:
    kept = by_platform(plan.cuts, partial(_values_and_gradients, plan), weights, rows, cols)
    return weighted_total(weights, kept[0]), kept


def _values_and_gradients(
    plan: Plan, cut: Cut, weights: Weights, rows: Operand, cols: Operand
) -> Any:
    """Computes the values, and the cotangents of both sides if that of the sum is 1."""
    rows, cols = measured(rows), measured(cols)
    sides = _swept(cut, rows), _swept(cut, cols)
    saved = tuple((w, filled_like(w)) for w in weights)  # the residuals of a backward sweep
    saved = on_axis(plan, saved, 1), on_axis(plan, saved, 0)
    own = empty_state(plan, rows, 1), empty_gradients(rows)
    store = empty_gradients(cols)
    if plan.ring is None:
        (values, of_rows), of_cols = add_both(plan, cut, *sides, saved, own, store)
    else:
        (values, of_rows), of_cols = ring.both_of_two_sets(plan, cut, *sides, saved, own, store)
    gradients = (
        gradient_of(rows, of_rows, None, _passed(cut, rows, 1)),
        gradient_of(cols, of_cols, None, _passed(cut, cols, 0)),
    )
    return results(plan, values), gradients


def _sum_bwd(plan: Plan, kept: Any, cotangent: Array) -> Any:
    values, gradients = jax.tree.map(lambda g: (cotangent * g).astype(g.dtype), kept)
    return values, *gradients


sum_sweep.defvjp(_sum_fwd, _sum_bwd)
