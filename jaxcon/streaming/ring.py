"""Sweeps over the pairs of all devices' rows, with the columns travelling round the devices.

Each device keeps its rows; a *visitor*, the block of columns of another device, comes by with its own
store and moves on. After P visits every visitor is home. Where rows and columns are one set, the pair
of devices {p, q} meets once: visitors travel P // 2 hops, serve in both roles at every stop, and their
store is sent home. If P is even the last stop is made from both ends at once, so there each device
takes its own half of the results.

Under plain autodiff a ring would keep every tile of every hop; hence the custom derivative, which goes
round once more.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon import collectives
from jaxcon.streaming.channels import Plan
from jaxcon.streaming.sides import Blocks, measured
from jaxcon.streaming.stores import empty_gradients, first_gradients, gradient_of
from jaxcon.streaming.sweeps import (
    backward_sweep,
    empty_state,
    forward_sweep,
    merge,
    residuals,
    results,
    rows_through,
)
from jaxcon.streaming.tiles import on_axis
from jaxcon.typing import AxisName

# visit(visitor, own store, visitor's store) -> both stores
Visit = Callable[[Any, Any, Any], tuple[Any, Any]]


def all_round(axis_name: AxisName, visit: Visit, visitor: Any, own: Any, store: Any) -> Any:
    """Every device visits every other; the visitors' stores end at home."""
    hop = partial(collectives.ring, axis_name=axis_name)

    def stop(carry: Any, _: None) -> tuple[Any, None]:
        visitor, own, store = carry
        own, store = visit(visitor, own, store)
        return (hop(visitor), own, hop(store)), None

    carry = (visitor, own, store)
    carry, _ = lax.scan(stop, carry, length=collectives.size(axis_name) - 1)
    own, store = visit(*carry)
    return own, hop(store)


def _half_round(
    axis_name: AxisName, visit: Visit, visitor: Any, own: Any, store: Any, join: Any
) -> Any:
    """Every two devices meet once; the visitors' stores are sent home and joined to the own."""
    hop = partial(collectives.ring, axis_name=axis_name)
    devices = collectives.size(axis_name)
    empty, stops = store, (devices - 1) // 2

    def stop(carry: Any, _: None) -> tuple[Any, None]:
        visitor, own, store = carry
        visitor, store = hop(visitor), hop(store)
        return (visitor, *visit(visitor, own, store)), None

    (visitor, own, store), _ = lax.scan(stop, (visitor, own, store), length=stops)
    if devices % 2 == 0:
        own, _ = visit(hop(visitor), own, empty)
    return join(own, collectives.ring(store, axis_name, -stops))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def ring_sweep(plan: Plan, axis_name: AxisName, rows: Blocks, cols: Blocks | None) -> Any:
    """`jaxcon.streaming.sweeps.sweep` of this device's rows and columns with all devices'."""
    through = rows_through(rows, cols)
    rows = measured(rows)

    def visit(visitor: Blocks, own: Any, store: Any) -> Any:
        return forward_sweep(plan, rows, visitor, (own, store))[0]

    own = empty_state(plan, rows, 1)
    if cols is not None:
        of_rows, of_cols = all_round(
            axis_name, visit, measured(cols), own, empty_state(plan, cols, 0)
        )
        sides = results(plan, of_rows), results(plan, of_cols)
        return tuple(sides[1 - c.axis][k] for k, c in enumerate(plan.channels)), through
    ((own,), _) = forward_sweep(plan, rows, None, (own,))
    store = empty_state(plan, rows, 0)
    return results(plan, _half_round(axis_name, visit, rows, own, store, merge)), through


def _ring_fwd(plan: Plan, axis_name: AxisName, rows: Blocks, cols: Blocks | None) -> Any:
    swept: Any = ring_sweep(plan, axis_name, rows, cols)
    values, through = swept
    return (values, through), (rows, cols, values)


def _ring_bwd(plan: Plan, axis_name: AxisName, kept: Any, cotangents: Any) -> tuple[Any, Any]:
    rows, cols, values = kept
    of_values, (of_own, of_columns) = cotangents
    rows = measured(rows)
    saved = residuals(plan, values, of_values)
    of_rows = on_axis(plan, saved, 1)

    def visit(visitor: Any, own: Any, store: Any) -> Any:
        block, of_block = visitor
        return backward_sweep(plan, rows, block, (of_rows, of_block), (own, store))

    own, along = first_gradients(rows, of_own)
    if cols is not None:
        cols = measured(cols)
        store, along_columns = first_gradients(cols, of_columns)
        visitor = (cols, on_axis(plan, saved, 0))
        own, store = all_round(axis_name, visit, visitor, own, store)
        return gradient_of(rows, own, along), gradient_of(cols, store, along_columns)
    (own,) = backward_sweep(plan, rows, None, (saved,), (own,))
    add = partial(jax.tree.map, jnp.add)
    own = _half_round(axis_name, visit, (rows, saved), own, empty_gradients(rows), add)
    return gradient_of(rows, own, along), None


ring_sweep.defvjp(_ring_fwd, _ring_bwd)
