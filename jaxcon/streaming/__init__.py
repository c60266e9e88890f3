"""Reductions over a similarity matrix: the one primitive that all pairwise losses are built from.

From the matrix `s = x y^T` of all pairs a loss needs a few vectors: the log-sum-exp of the negatives
for each row, the same for each column, or sums. `reduce_pairs` computes them all in one pass.

Ids decide which pairs count: a pair with equal ids is not a negative. With the global index of an
example as its id, this one rule leaves out the diagonal of CLIP, and self and twin in NT-Xent.

>>> import jax.numpy as jnp
>>> from jaxcon.streaming import Channel, Side, reduce_pairs
>>> x, y = jnp.eye(3), jnp.log(jnp.arange(1.0, 10).reshape(3, 3))
>>> ids = jnp.arange(3)
>>> (row,) = reduce_pairs(Side(x, ids), Side(y, ids), [Channel(axis=1)])
>>> print(jnp.exp(row).round(4))  # s is y transposed: 4 + 7, 2 + 8, 3 + 6
[11. 10.  9.]

For one set of rows with itself, `reduce_pairs(Side(x, ids), None, ...)`, every pair is visited once.

To read on: `jaxcon.streaming.reductions` takes the matrix as a `jaxcon.streaming.whole`, or has
`jaxcon.streaming.engine` differentiate `jaxcon.streaming.sweeps` over its tiles, on one device or
round a `jaxcon.streaming.ring` of them. `jaxcon.streaming.rules` says which, for each platform.
"""

from jaxcon.streaming.channels import (
    PRECISION,
    Channel,
    different_ids,
    masked_logsumexp,
    nothing,
    similarity_logits,
)
from jaxcon.streaming.reductions import at_precision, reduce_cosines, reduce_pairs, sum_cosines
from jaxcon.streaming.rules import Rule
from jaxcon.streaming.sides import Side
from jaxcon.streaming.stores import filled_like

__all__ = [
    "PRECISION",
    "Channel",
    "Rule",
    "Side",
    "at_precision",
    "different_ids",
    "filled_like",
    "masked_logsumexp",
    "nothing",
    "reduce_cosines",
    "reduce_pairs",
    "similarity_logits",
    "sum_cosines",
]
