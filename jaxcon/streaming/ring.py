"""Sweeps over the pairs of all devices' rows, with the columns travelling round the devices.

Each device keeps its rows; a *visitor*, the columns of another device, comes by with its own store and
moves on. After P visits every visitor is home. Where rows and columns are one set, each pair of
devices {p, q} meets once: visitors travel P // 2 hops, serve in both roles at every stop, and their
store is sent home. If P is even, the last stop is made from both ends at once, so there each device
takes its own half of the results.

Under plain autodiff a ring would keep every tile of every hop; hence the custom derivative of
`jaxcon.streaming.engine`, which goes round once more.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon import collectives
from jaxcon.streaming.channels import Plan
from jaxcon.streaming.rules import Cut
from jaxcon.streaming.sides import Operand
from jaxcon.streaming.states import empty_state, merge
from jaxcon.streaming.stores import empty_gradients
from jaxcon.streaming.sweeps import (
    add_both,
    add_gradients,
    add_own_gradients,
    add_own_values,
    add_values,
)
from jaxcon.typing import AxisName

# visit(visitor, own store, visitor's store) -> both stores
Visit = Callable[[Any, Any, Any], tuple[Any, Any]]


def _all_round(axis_name: AxisName, visit: Visit, visitor: Any, own: Any, store: Any) -> Any:
    """Has every device visit every other; the visitors' stores end up at home."""
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
    """Has every two devices meet once; the visitors' stores are sent home and joined there."""
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


def _of_values(plan: Plan, cut: Cut, rows: Operand) -> Visit:
    def visit(visitor: Operand, own: Any, store: Any) -> tuple[Any, Any]:
        return add_values(plan, cut, rows, visitor, (own, store))[0]

    return visit


def _of_gradients(plan: Plan, cut: Cut, rows: Operand, of_rows: Any) -> Visit:
    """The visitor brings its residuals."""

    def visit(visitor: Any, own: Any, store: Any) -> tuple[Any, Any]:
        block, of_block = visitor
        return add_gradients(plan, cut, rows, block, (of_rows, of_block), (own, store))

    return visit


def values_of_two_sets(
    plan: Plan, cut: Cut, rows: Operand, cols: Operand, own: Any, store: Any
) -> tuple[Any, Any]:
    """Does `jaxcon.streaming.sweeps.add_values` with all devices' columns, and all their rows."""
    return _all_round(plan.ring, _of_values(plan, cut, rows), cols, own, store)


def values_of_one_set(plan: Plan, cut: Cut, rows: Operand, own: Any) -> Any:
    """Does `jaxcon.streaming.sweeps.add_own_values` with all devices' rows, for this device's."""
    own, _ = add_own_values(plan, cut, rows, own)
    return _half_round(
        plan.ring, _of_values(plan, cut, rows), rows, own, empty_state(plan, rows, 0), merge
    )


def gradients_of_two_sets(
    plan: Plan,
    cut: Cut,
    rows: Operand,
    cols: Operand,
    saved: tuple[Any, Any],
    own: Any,
    store: Any,
) -> tuple[Any, Any]:
    """Does `jaxcon.streaming.sweeps.add_gradients` with all devices' columns, and all their rows."""
    of_rows, of_cols = saved
    return _all_round(
        plan.ring, _of_gradients(plan, cut, rows, of_rows), (cols, of_cols), own, store
    )


def gradients_of_one_set(plan: Plan, cut: Cut, rows: Operand, saved: Any, own: Any) -> Any:
    """Does `jaxcon.streaming.sweeps.add_own_gradients` with all devices' rows, for this device's."""
    own = add_own_gradients(plan, cut, rows, saved, own)
    add = partial(jax.tree.map, jnp.add)
    visit = _of_gradients(plan, cut, rows, saved)
    return _half_round(plan.ring, visit, (rows, saved), own, empty_gradients(rows), add)


def both_of_two_sets(
    plan: Plan,
    cut: Cut,
    rows: Operand,
    cols: Operand,
    saved: tuple[Any, Any],
    own: Any,
    store: Any,
) -> tuple[Any, Any]:
    """Does `jaxcon.streaming.sweeps.add_both` with all devices' columns, which travel only once."""

    def visit(visitor: Operand, own: Any, store: Any) -> tuple[Any, Any]:
        return add_both(plan, cut, rows, visitor, saved, own, store)

    return _all_round(plan.ring, visit, cols, own, store)
