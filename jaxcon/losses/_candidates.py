"""The candidates of an anchor: which rows they are, and what a loss needs to know of them.

Every loss over pairs describes what it needs as channels of :func:`jaxcon.streaming.reduce_pairs`; the
functions here pick the pairs, gather the other devices' rows and complete the columns.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxcon import collectives
from jaxcon.losses._shared import Rows, positive, positive_and_rest, reduce_anchors
from jaxcon.similarity import by_rows, l2_normalize, norms
from jaxcon.streaming import (
    Channel,
    at_precision,
    filled_like,
    reduce_cosines,
    reduce_pairs,
    reduce_ring,
    sum_cosines,
)
from jaxcon.typing import Array, ArrayLike, AxisName, ReduceFn

# Which pairs count, as functions of (position, ids, labels) of a row and of a column.


def other_ids(row: Any, col: Any) -> Array:
    """Pairs of different ids: the negatives."""
    return row[1] != col[1]


def other_classes(row: Any, col: Any) -> Array:
    """Pairs of different ids and labels: the negatives where labels are given."""
    return (row[1] != col[1]) & (row[2] != col[2])


def same_class(row: Any, col: Any) -> Array:
    """Pairs of one label: the positives between two sets of rows."""
    return row[2] == col[2]


def peers(row: Any, col: Any) -> Array:
    """Pairs of one label within one set of rows: all but the row itself."""
    return (row[2] == col[2]) & (row[0] != col[0])


def every(row: Any, col: Any) -> Array:
    """All pairs."""
    return jnp.ones((), bool)


def square(tile: Array, row_aux: Any, col_aux: Any) -> Array:
    """Logits that are the squared products."""
    return tile * tile


def ones(tile: Array, row_aux: Any, col_aux: Any) -> Array:
    """Logits whose sum is the number of pairs."""
    return filled_like(tile, 1)


def candidate_channels(labelled: bool, smooth: bool, same: Any = same_class) -> list[Channel]:
    """Per row: the negatives' log-sum-exp; if labelled, log-sum-exp, sum and count of the positives;
    if smooth, sum and count of the negatives."""
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
    """Cross-entropy averaged over the positives, from the outputs of :func:`candidate_channels`.

    ``mean_p (lse - s_p) = softplus(R_neg - R_pos) + (R_pos - mean_p s_p)``: both terms are exact where
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


def cross_channels(
    rows: Rows,
    x: Array,
    y: Array,
    axis_name: AxisName,
    channels: list[Channel],
    row_aux: Any = (),
    col_aux: Any = (),
    *,
    distances: bool = False,
) -> tuple[Array, ...]:
    """Channels of own rows of x against all devices' rows of y, for this device's anchors.

    What a column collects from this device's rows alone is completed over the devices, so that both
    directions of a symmetric loss come from one product. ``distances``: of squared distances, not of
    products.
    """
    same = y is x
    x, y, precision = at_precision(rows.evaluation.precision, x, y)
    rows = rows._replace(evaluation=rows.evaluation._replace(precision=precision))
    y = x if same else y  # the very same array tells the engine that the matrix is symmetric
    y, known, ring = _exchanged(rows, y, axis_name, row_aux, col_aux)
    if ring is not None:
        return reduce_ring(x, y, channels, axis_name=ring, distances=distances, **known)
    outputs = reduce_pairs(x, y, channels, distances=distances, **known)
    return _completed(channels, outputs, axis_name)


def cosine_channels(
    rows: Rows,
    x: Array,
    y: Array,
    scale: Array,
    axis_name: AxisName,
    channels: list[Channel],
    row_aux: Any = (),
    bound: float | None = None,
) -> tuple[tuple[Array, ...], Array, Array]:
    """:func:`cross_channels` of the cosines, ``scale cos(x_i, y_j)``, of rows as they came.

    Returns also x and y, for :func:`paired_logits`; :func:`jaxcon.streaming.reduce_cosines` says why.
    """
    y, known, ring = _exchanged(rows, y, axis_name, row_aux)
    outputs, x, y = reduce_cosines(x, y, scale, channels, ring=ring, bound=bound, **known)
    if ring is not None:
        return outputs, x, y
    return _completed(channels, outputs, axis_name), x, collectives.own_rows(y, axis_name)


def cosine_sum(
    rows: Rows,
    x: Array,
    y: Array,
    scale: Array,
    axis_name: AxisName,
    channels: list[Channel],
    weights: list[Array],
    row_aux: Any = (),
) -> Array:
    """Own anchors' values of :func:`cosine_channels`, weighted and summed over the channels."""
    y, known, ring = _exchanged(rows, y, axis_name, row_aux)
    return sum_cosines(x, y, scale, channels, weights, ring=ring, **known)


def _exchanged(
    rows: Rows, y: Array, axis_name: AxisName, row_aux: Any = (), col_aux: Any = ()
) -> tuple[Array, dict[str, Any], AxisName]:
    """The columns that this device starts from, the engine's keywords, and the axis to go round.

    All devices' columns and no axis, or in a ring this device's columns and the axis.
    """
    block_size, exchange, precision = rows.evaluation
    names = (rows.position, rows.ids, rows.labels)
    valid = rows.valid if rows.masked else None
    columns = {"col_ids": names, "col_valid": valid, "col_aux": col_aux}
    ring = axis_name if exchange is collectives.ring else None
    if ring is None:
        y, columns = collectives.gather((y, columns), axis_name)
    known = {"row_ids": names, "row_valid": valid, "row_aux": row_aux, **columns}
    return y, {**known, "block_size": block_size, "precision": precision}, ring


def _completed(
    channels: list[Channel], outputs: tuple[Array, ...], axis_name: AxisName
) -> tuple[Array, ...]:
    """This device's values: what all devices' rows contribute to a column, put together."""

    def complete(channel: Channel, output: Array) -> Array:
        if channel.axis == 1:
            return output
        over_devices = collectives.logsumexp if channel.log else collectives.sum
        return collectives.own_rows(over_devices(output, axis_name), axis_name)

    return tuple(complete(c, o) for c, o in zip(channels, outputs, strict=True))


@jax.custom_jvp
def paired_logits(x: Array, y: Array, scale: Array) -> Array:
    """``scale cos(x_i, y_i)`` of each pair.

    A loss of well-aligned pairs is about the small angle between them. ``1 - |u - v|^2 / 2`` knows it
    to many digits, where u . v has been rounded, and |u|, |v| were rounded to 1, at about 1e-7: 1e-5
    after division by a temperature of 0.01. Far from alignment it is the other way round.
    """
    return scale * by_rows(_cosine, x, y)


def _cosine(x: Array, y: Array) -> Array:
    u, v = l2_normalize(x), l2_normalize(y)
    dot, apart = jnp.sum(u * v, axis=1), jnp.sum((u - v) ** 2, axis=1)
    return jnp.where(dot > 0.5, 1 - apart / 2, dot)


@paired_logits.defjvp
def _paired_logits_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    """With ``d cos = (v - cos u) . dx / |x| + (u - cos v) . dy / |y|``: no matrix outlives a pass."""
    (x, y, scale), (dx, dy, dscale) = primals, tangents
    cosine = by_rows(_cosine, x, y)
    (x_size, x_inverse), (y_size, y_inverse) = norms(x), norms(y)
    u, v = (x / x_size) * x_inverse, (y / y_size) * y_inverse
    to_x = (v - cosine[:, None] * u) * (scale * x_inverse) / x_size
    to_y = (u - cosine[:, None] * v) * (scale * y_inverse) / y_size
    return scale * cosine, cosine * dscale + jnp.sum(to_x * dx + to_y * dy, axis=1)


def two_view_channels(
    rows: Rows,
    temperature: ArrayLike,
    axis_name: AxisName,
    channels: list[Channel],
    row_aux: Any = (),
    bound: float | None = None,
) -> tuple[Array, tuple[Array, ...], Rows]:
    """Positive logits, channels over the other examples' rows of both views, and the 2N anchors."""
    scale = 1 / positive(temperature, "temperature", rows.dtype)
    z = jnp.concatenate(rows.z)
    of_both = {
        name: jnp.tile(getattr(rows, name), 2)
        for name in ("valid", "weights", "position", "ids", "labels")
    }
    both = rows._replace(z=(z,), **of_both)
    outputs, z, _ = cosine_channels(both, z, z, scale, axis_name, channels, row_aux, bound)
    return jnp.tile(paired_logits(*jnp.split(z, 2), scale), 2), outputs, both


def inverse_bound(temperature: ArrayLike) -> float | None:
    """The bound on logits that are cosines over a temperature; None if that is traced or refused."""
    if isinstance(temperature, Tracer) or not np.issubdtype(
        np.asarray(temperature).dtype, np.number
    ):
        return None
    value = np.asarray(temperature, np.float64)
    return 1.0 / value.item() if value.size == 1 and value.item() > 0 else None


def two_view_logits(
    rows: Rows, temperature: ArrayLike, axis_name: AxisName
) -> tuple[Array, Array, Rows]:
    """Positive logit and log-sum-exp of the negatives of each of the 2N anchors."""
    channels = [Channel(1, pairs=other_ids)]
    pos, (neg,), both = two_view_channels(
        rows, temperature, axis_name, channels, bound=inverse_bound(temperature)
    )
    return pos, neg, both


def reduce_rows(values: Array, rows: Rows, reduce_fn: ReduceFn, axis_name: AxisName) -> Array:
    """Reduces a value per row as :func:`jaxcon.losses._shared.reduce_anchors`."""
    return reduce_anchors(
        values, rows.weights, rows.valid, reduce_fn=reduce_fn, axis_name=axis_name
    )
