"""Own rows against all devices' candidates, which are gathered or travel in a ring.

Every loss over pairs states what it needs as channels of `jaxcon.streaming.reduce_pairs`; here each
device gets their values for its own anchors.
"""

from typing import Any

import jax.numpy as jnp

from jaxcon import collectives, similarity
from jaxcon.losses._rows import Rows
from jaxcon.similarity import l2_normalize, scaled_unit_rows
from jaxcon.streaming import (
    Channel,
    Side,
    reduce_cosines,
    reduce_pairs,
    rules,
    sum_cosines,
)
from jaxcon.typing import Array, AxisName


def cross_channels(
    rows: Rows,
    x: Array,
    y: Array | None,
    channels: list[Channel],
    *,
    row_aux: Any = (),
    col_aux: Any = (),
    bound: float | None = None,
    distances: bool = False,
) -> tuple[Array, ...]:
    """Reduces own rows of x against all devices' rows of y, for this device's anchors.

    What a column collects from this device's rows alone is completed over the devices, so that both
    directions of a symmetric loss come from one product.

    Args:
      rows: what is known of x and of y.
      y: if None, the candidates are the rows of x, one set.
      row_aux, col_aux: what the channels' logits get from the rows and the columns. For one set they
        read the same from both, or nothing from the columns.
      bound: a number that no logit exceeds in magnitude, if one is known.
      distances: reduce squared distances, not products.
    """
    own, cols, ring = _sides(rows, x, y, row_aux, col_aux)
    block_size, _, precision = rows.evaluation
    values = reduce_pairs(
        own,
        cols,
        channels,
        ring=ring,
        block_size=block_size,
        bound=bound,
        precision=precision,
        distances=distances,
    )
    return values if ring == rows.axis_name else _completed(channels, values, rows.axis_name)


def cosine_channels(
    rows: Rows,
    x: Array,
    y: Array | None,
    scale: Array,
    channels: list[Channel],
    *,
    row_aux: Any = (),
    bound: float | None = None,
) -> tuple[tuple[Array, ...], Array, Array]:
    """Does `cross_channels` for the cosines, `scale cos(x_i, y_j)`, of rows as they came.

    Also returns x and y, for a pair's own logit; `jaxcon.streaming.reduce_cosines` says why.
    """
    if _gathers(rows, x):
        u, v = _unit_rows(x, y, scale)
        values = cross_channels(rows, u, v, channels, row_aux=row_aux, bound=bound)
        return values, x, x if y is None else y
    own, cols, ring = _sides(rows, x, y, row_aux)
    block_size, _, precision = rows.evaluation
    return reduce_cosines(
        own,
        cols,
        scale,
        channels,
        ring=ring,
        block_size=block_size,
        bound=bound,
        precision=precision,
    )


def cosine_sum(
    rows: Rows,
    x: Array,
    y: Array,
    scale: Array,
    channels: list[Channel],
    weights: list[Array],
    *,
    row_aux: Any = (),
) -> Array:
    """Computes own anchors' values of `cosine_channels`, weighted and summed over the channels."""
    ready = _gathers(rows, x)
    if ready:
        x, y = _unit_rows(x, y, scale)
    own, cols, ring = _sides(rows, x, y, row_aux)
    block_size, _, precision = rows.evaluation
    return sum_cosines(
        own,
        cols,
        None if ready else scale,
        channels,
        weights,
        ring=ring,
        block_size=block_size,
        precision=precision,
    )


def view_logits(
    rows: Rows,
    scale: Array,
    channels: list[Channel],
    *,
    row_aux: Any = (),
    bound: float | None = None,
) -> tuple[Array, tuple[Array, ...]]:
    """Computes each anchor's logit with its other view, and channels of its cosines with all others.

    `rows`: from `jaxcon.losses._rows.two_views`.
    """
    (z,) = rows.z
    values, z, _ = cosine_channels(rows, z, None, scale, channels, row_aux=row_aux, bound=bound)
    return jnp.tile(similarity.view_logits(z, scale), 2), values


def _gathers(rows: Rows, x: Array) -> bool:
    """Returns whether the candidates of several devices are gathered for these rows."""
    return collectives.size(rows.axis_name) > 1 and not _goes_round(rows, x)


def _goes_round(rows: Rows, x: Array) -> bool:
    """Returns whether the candidates travel round the devices: as asked, or as the rule has it."""
    if rows.axis_name is None or rows.evaluation.exchange is collectives.gather:
        return False
    if rows.evaluation.exchange is collectives.ring:
        return True
    return rules.current().travels(len(x), collectives.size(rows.axis_name))


def _unit_rows(x: Array, y: Array | None, scale: Array) -> tuple[Array, Array]:
    """Returns rows and candidates ready to multiply, so that only what is gathered exists twice."""
    return scaled_unit_rows(x, scale), l2_normalize(x if y is None else y)


def _sides(
    rows: Rows, x: Array, y: Array | None, row_aux: Any, col_aux: Any = ()
) -> tuple[Side, Any, AxisName]:
    """Returns own rows, the columns that this device starts from, and the axis to go round.

    The columns are those of all devices, and there is no axis; or, in a ring, those of this device.
    None: they are its own rows.
    """
    names = (rows.position, rows.ids, rows.labels)  # what channel.pairs sees
    valid = rows.valid if rows.masked else None
    own = Side(x, names, valid, row_aux)
    here = None if y is None else Side(y, names, valid, col_aux)
    if _goes_round(rows, x):
        return own, here, rows.axis_name
    if _gathers(rows, x):
        cols = own._replace(aux=col_aux) if here is None else here
        return own, collectives.gather(cols, rows.axis_name), None
    return own, here, None


def _completed(
    channels: list[Channel], values: tuple[Array, ...], axis_name: AxisName
) -> tuple[Array, ...]:
    """Completes this device's values: combines what all devices' rows contribute to a column."""

    def complete(channel: Channel, value: Array) -> Array:
        if channel.axis == 1:
            return value
        over_devices = collectives.logsumexp if channel.log else collectives.sum
        return collectives.own_rows(over_devices(value, axis_name), axis_name)

    return tuple(complete(c, v) for c, v in zip(channels, values, strict=True))
