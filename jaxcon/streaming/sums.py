"""Sums over pairs with known weights: value and gradient in one sweep.

The cotangent of `f(s_ij)` in `sum_i w_i sum_j f(s_ij)` is w_i, known before any value is. So a call
that is differentiated finds the gradient while it computes the value: 3 products of N x N x dim, where
those of `jaxcon.streaming.sweeps` take 4, and round a ring the columns travel once, not twice.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxcon.streaming.channels import Plan
from jaxcon.streaming.ring import all_round, ring_sweep
from jaxcon.streaming.sides import Blocks, measured
from jaxcon.streaming.stores import empty_gradients, filled_like, gradient_of
from jaxcon.streaming.sweeps import both_sweeps, empty_state, results, sweep
from jaxcon.streaming.tiles import on_axis
from jaxcon.typing import Array, AxisName

Weights = tuple[Array, ...]


def weighted_total(weights: Sequence[Array], values: Sequence[Array]) -> Array:
    """The sum of all channels' weighted values."""
    return jnp.sum(jnp.stack([jnp.sum(w * v) for w, v in zip(weights, values, strict=True)]))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sum_sweep(plan: Plan, ring: AxisName, weights: Weights, rows: Blocks, cols: Blocks) -> Array:
    """`sum over channels and rows of weight * value`; all channels are sums and have axis 1."""
    swept: Any = sweep(plan, rows, cols) if ring is None else ring_sweep(plan, ring, rows, cols)
    return weighted_total(weights, swept[0])


def _sum_fwd(plan: Plan, ring: AxisName, weights: Weights, rows: Blocks, cols: Blocks) -> Any:
    rows, cols = measured(rows), measured(cols)
    saved = tuple((w, filled_like(w)) for w in weights)  # the residuals of a backward sweep
    saved = on_axis(plan, saved, 1), on_axis(plan, saved, 0)
    no_values = empty_state(plan, cols, 0)

    def visit(visitor: Blocks, own: Any, store: Any) -> Any:
        values, gradients = own
        stores = (values, no_values), (gradients, store)
        (values, _), (gradients, store) = both_sweeps(plan, rows, visitor, saved, stores)
        return (values, gradients), store

    own = empty_state(plan, rows, 1), empty_gradients(rows)
    if ring is None:
        (values, of_rows), of_cols = visit(cols, own, empty_gradients(cols))
    else:
        (values, of_rows), of_cols = all_round(ring, visit, cols, own, empty_gradients(cols))
    values = results(plan, values)
    gradients = gradient_of(rows, of_rows, None), gradient_of(cols, of_cols, None)
    return weighted_total(weights, values), (values, gradients)


def _sum_bwd(plan: Plan, ring: AxisName, kept: Any, cotangent: Array) -> Any:
    values, gradients = jax.tree.map(lambda g: (cotangent * g).astype(g.dtype), kept)
    return values, *gradients


sum_sweep.defvjp(_sum_fwd, _sum_bwd)
