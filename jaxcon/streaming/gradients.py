"""The backward side of a tile: the cotangents of its logits, and from them those of its rows.

A side's store of residuals holds (scale, shift) per channel, such that the cotangent of a logit is
`scale e^{logit - shift}`, or scale alone for a plain sum. Its store of gradients holds those of z and
of the auxiliaries.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxcon.similarity.distances import pulled_back
from jaxcon.streaming.channels import Channel, Plan, nothing, product
from jaxcon.streaming.rules import Cut
from jaxcon.streaming.states import exponentials
from jaxcon.streaming.stores import filled_like
from jaxcon.streaming.tiles import Part, Tile, all_logits, spread
from jaxcon.typing import Array


def residuals(plan: Plan, values: tuple[Array, ...], cotangents: tuple[Array, ...]) -> Any:
    """Makes the store of (scale, shift) from the channels' values and cotangents."""

    def residual(channel: Channel, value: Array, g: Array) -> tuple[Array, Array]:
        if not channel.log:
            return g, filled_like(g)
        some = value != nothing(value.dtype)
        value, g = jnp.where(some, value, 0), jnp.where(some, g, 0)
        if plan.bounded:
            return g * jnp.exp(-value), filled_like(value)
        return g, value

    return tuple(map(residual, plan.channels, values, cotangents))


def tile_gradients(
    plan: Plan, cut: Cut, tile: Tile, parts: list[Part], of_row: Any, of_col: Any
) -> tuple[Any, Any]:
    """Computes what a tile adds to the gradients of its rows and columns, from their residuals."""
    logits, pull = jax.vjp(partial(all_logits, plan), tile.s, tile.row.aux, tile.col.aux)
    ds, row_aux, col_aux = pull(_cotangents(plan, cut, parts, logits, of_row, of_col))
    dx, dy = _pulled_back(plan, tile, ds)
    return (dx, row_aux), (dy, col_aux)


def _cotangents(
    plan: Plan, cut: Cut, parts: list[Part], logits: list[Array], of_row: Any, of_col: Any
) -> list[Array]:
    """Computes the cotangents of the logits on one tile.

    Parts that differ only in their scales share one product with a matrix of the sums of these scales.
    """
    scales: dict[Any, Array] = {}
    alike: dict[Any, tuple[Part, Any]] = {}
    for part in parts:
        channel = plan.channels[part.channel]
        residual = (of_row if part.axis == 1 else of_col)[part.channel]
        scale, shift = spread(residual, part.axis)
        own = channel.log and not plan.bounded  # an exponential with its own shift
        key = (part.source, channel.pairs, channel.log, (part.channel, part.axis) if own else None)
        scales[key] = scales[key] + scale if key in scales else scale
        alike[key] = part, shift
    cotangents = [jnp.zeros((), l.dtype) for l in logits]
    for key, (part, shift) in alike.items():
        l = logits[part.source]
        if plan.channels[part.channel].log:
            exponent = l if plan.bounded else l - shift
            more = scales[key] * exponentials(cut, part.keep, exponent)
        else:
            more = jnp.where(part.keep, scales[key], 0)
        cotangents[part.source] = cotangents[part.source] + more
    return [jnp.broadcast_to(c, l.shape) for c, l in zip(cotangents, logits, strict=True)]


def _pulled_back(plan: Plan, tile: Tile, ds: Array) -> tuple[Array, Array]:
    """Computes the cotangents of a tile's rows and columns from that of its entries."""
    if plan.distances:
        return pulled_back(tile.x, tile.y, tile.near, ds, precision=plan.precision)
    ds = ds.astype(tile.x.dtype)
    dx = product(ds, tile.y, (1, 0), plan.precision)  # (b, c) . (c, d) -> (b, d)
    dy = product(ds, tile.x, (0, 0), plan.precision)  # (c, b) . (b, d) -> (c, d)
    return dx, dy
