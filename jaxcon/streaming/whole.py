"""The whole similarity matrix, reduced by plain operations: what every other form must equal."""

from functools import partial

import jax
import jax.numpy as jnp

from jaxcon.similarity import centred_product
from jaxcon.similarity.distances import squared_distances
from jaxcon.streaming.channels import Plan, any_pair, masked_logsumexp, product
from jaxcon.streaming.sides import Side
from jaxcon.typing import Array

# For so few pairs the product is taken of centred rows, which then costs a few microseconds.
_FEW_PAIRS = 2**12


def reduce_whole(plan: Plan, rows: Side, cols: Side | None) -> tuple[Array, ...]:
    """Computes the channels' values by operations that any kind of differentiation goes through."""
    x, *row = rows
    y, *col = rows if cols is None else cols
    row_ids, row_valid, row_aux = jax.tree.map(lambda a: a[:, None], row)
    col_ids, col_valid, col_aux = jax.tree.map(lambda a: a[None, :], col)
    valid = jnp.ones((1, 1), bool)
    for given in (row_valid, col_valid):
        valid = valid if given is None else valid & given
    shape = (x.shape[0], y.shape[0])
    keeps = [channel.pairs(row_ids, col_ids) & valid for channel in plan.channels]
    if plan.distances:
        matrix = squared_distances(x, y, any_pair(keeps, shape), precision=plan.precision)
    elif shape[0] * shape[1] <= _FEW_PAIRS:
        matrix = centred_product(x, y, partial(product, contract=(1, 1), precision=plan.precision))
    else:
        matrix = product(x, y, (1, 1), plan.precision)  # (n, d) . (d, m) -> (n, m)

    values = []
    for channel, keep in zip(plan.channels, keeps, strict=True):
        logits = channel.logits(matrix, row_aux, col_aux)
        keep = jnp.broadcast_to(keep, logits.shape)
        if channel.log:
            values.append(masked_logsumexp(logits, keep, channel.axis, bounded=plan.bounded))
        else:
            values.append(jnp.sum(jnp.where(keep, logits, 0), axis=channel.axis))
    return tuple(values)
