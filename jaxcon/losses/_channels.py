"""What a loss asks of its candidates: which pairs count, and what to compute from them.

Which pairs count is a function of (position, ids, labels) of a row and of a column.
"""

from typing import Any

import jax.numpy as jnp

from jaxcon.losses._reduce import positive_and_rest
from jaxcon.streaming import Channel, filled_like
from jaxcon.typing import Array


def other_ids(row: Any, col: Any) -> Array:
    """Keeps pairs with different ids: the negatives."""
    return row[1] != col[1]


def other_classes(row: Any, col: Any) -> Array:
    """Keeps pairs with different ids and labels: the negatives where labels are given."""
    return (row[1] != col[1]) & (row[2] != col[2])


def same_class(row: Any, col: Any) -> Array:
    """Keeps pairs with one label: the positives between two sets of rows."""
    return row[2] == col[2]


def peers(row: Any, col: Any) -> Array:
    """Keeps pairs with one label within one set of rows: all but the row itself."""
    return (row[2] == col[2]) & (row[0] != col[0])


def every(row: Any, col: Any) -> Array:
    """Keeps all pairs."""
    return jnp.ones((), bool)


def square(tile: Array, row_aux: Any, col_aux: Any) -> Array:
    """Returns the squared products as logits."""
    return tile * tile


def ones(tile: Array, row_aux: Any, col_aux: Any) -> Array:
    """Returns logits whose sum is the number of pairs."""
    return filled_like(tile, 1)


def candidate_channels(labelled: bool, smooth: bool, same: Any = same_class) -> list[Channel]:
    """Lists the log-sum-exp of the negatives per row, and what labels and smoothing need.

    If labelled, also log-sum-exp, sum and count of the positives; if smooth, sum and count of the
    negatives.
    """
    negatives = other_classes if labelled else other_ids
    channels = [Channel(1, pairs=negatives)]
    if labelled:
        channels.append(Channel(1, pairs=same))
        channels.append(Channel(1, pairs=same, log=False))
        channels.append(Channel(1, ones, pairs=same, log=False))
    if smooth:
        channels.append(Channel(1, pairs=negatives, log=False))
        channels.append(Channel(1, ones, pairs=negatives, log=False))
    return channels


def candidate_loss(
    pair: Array, outputs: Any, labelled: bool, smoothing: Array | None = None
) -> Array:
    """Computes the cross-entropy averaged over the positives, from outputs of `candidate_channels`.

    `mean_p (lse - s_p) = softplus(R_neg - R_pos) + (R_pos - mean_p s_p)`: both terms are exact where
    the positives far outweigh the negatives, and the second is 0 for a single positive.
    """
    neg, *rest = outputs
    if labelled:
        pos, total, count = rest[:3]
        mean = total / jnp.maximum(count, 1)
        values = positive_and_rest(pos, neg) + (pos - mean)
    else:
        mean, total, count = pair, pair, 1
        values = positive_and_rest(pair, neg)
    if smoothing is None:
        return values
    neg_total, neg_count = rest[-2:]
    return values + smoothing * (mean - (total + neg_total) / jnp.maximum(count + neg_count, 1))
