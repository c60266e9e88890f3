"""The end of every loss: one value per anchor, and the reduction over all devices' anchors."""

import jax
import jax.numpy as jnp

from jaxcon import collectives
from jaxcon.losses._rows import Rows
from jaxcon.streaming import nothing
from jaxcon.typing import Array, AxisName, ReduceFn


def positive_and_rest(positive: Array, rest: Array) -> Array:
    """Computes `-log(e^p / (e^p + e^r))` for a positive's logit p and the others' log-sum-exp r.

    As softplus(r - p): on a well-aligned pair the usual `logsumexp(all) - p` is the difference of
    two equal numbers, its value may be negative, and its gradient is rounding noise.
    """
    return jax.nn.softplus(rest - positive)


def has_any(lse: Array) -> Array:
    """Returns whether a log-sum-exp of `jaxcon.streaming` had any pair."""
    return ~(lse <= nothing(lse.dtype) / 2)  # true for NaN, which stays visible


def reduce_rows(values: Array, rows: Rows, reduce_fn: ReduceFn) -> Array:
    """Reduces one value per row as `reduce_fn` says; see `jaxcon.typing`."""
    values = jnp.where(rows.valid, values, 0)
    if reduce_fn is None:
        return values
    weights = jnp.where(rows.valid, rows.weights, 0)
    return reduce_total(jnp.sum(weights * values), weights, reduce_fn, rows.axis_name)


def reduce_total(total: Array, weights: Array, reduce_fn: ReduceFn, axis_name: AxisName) -> Array:
    """Reduces this device's weighted sum; `weights` are those of its terms.

    The sums are taken over all devices before they are divided: if devices have unequal numbers of
    valid rows, the average of their means is not the mean.
    """
    if reduce_fn is jnp.sum:
        return collectives.sum(total, axis_name)
    if reduce_fn is not jnp.mean:
        raise ValueError(
            f"reduce_fn must be jnp.mean, jnp.sum or None, got {reduce_fn!r}; for another reduction "
            "take reduce_fn=None and reduce the values per anchor yourself"
        )
    total, weight = collectives.sum((total, jnp.sum(weights)), axis_name)
    return total / jnp.where(weight == 0, 1, weight)
