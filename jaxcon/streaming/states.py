"""The forward side of a tile: what each channel's values have collected, and how a tile adds to them.

For each channel, a side's store holds the running maximum m and `t = sum e^{l - m}` of a log-sum-exp
(bounded: t alone, m = 0), or the sum of a plain sum.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxcon.streaming.channels import Channel, Plan, accumulator, log_total, nothing
from jaxcon.streaming.rules import Cut
from jaxcon.streaming.sides import Operand
from jaxcon.streaming.stores import filled_like, varying_like
from jaxcon.streaming.tiles import Part, on_axis
from jaxcon.typing import Array

# The largest exponent whose exponential bfloat16 holds, also summed over billions.
_LARGEST = 60.0


def empty_state(plan: Plan, side: Operand, axis: int) -> tuple[Any, ...]:
    """Returns the store of a forward sweep before its first tile, of rows (axis 1) or columns (0)."""
    zeros = varying_like(jnp.zeros(len(side.z), accumulator(side.z.dtype)), side.z)
    lowest = filled_like(zeros, nothing(zeros.dtype))
    states = [(lowest, zeros) if c.log and not plan.bounded else (zeros,) for c in plan.channels]
    return on_axis(plan, states, axis)


def add_parts(
    plan: Plan, cut: Cut, parts: list[Part], logits: list[Array], state: tuple[Any, ...], axis: int
) -> tuple[Any, ...]:
    """Adds one more tile to a block's state, of rows (axis 1) or columns (0)."""
    entry = list(state)
    for part in parts:
        if part.axis == axis:
            before = entry[part.channel]
            entry[part.channel] = _add_tile(plan, cut, part, before, logits[part.source])
    return tuple(entry)


def _add_tile(plan: Plan, cut: Cut, part: Part, state: Any, logits: Array) -> Any:
    """Adds one more tile to the state of one channel and block."""
    if not plan.channels[part.channel].log:
        return (state[0] + jnp.sum(jnp.where(part.keep, logits, 0), part.axis),)
    if plan.bounded:
        return (
            state[0] + jnp.sum(exponentials(cut, part.keep, logits), part.axis, dtype=logits.dtype),
        )
    old, total = state
    top = jnp.max(jnp.where(part.keep, logits, -jnp.inf), part.axis)
    new = jnp.maximum(old, lax.stop_gradient(top))
    terms = exponentials(cut, part.keep, logits - jnp.expand_dims(new, part.axis))
    return new, total * jnp.exp(old - new) + jnp.sum(terms, part.axis, dtype=logits.dtype)


def exponentials(cut: Cut, keep: Array, exponents: Array) -> Array:
    """Computes `e^exponent` for the pairs to keep, 0 for the others.

    `rounded`: in bfloat16, as XLA writes them at the end of a product, before it asks which to keep. No
    exponent to keep is above 0, unless the logits are bounded.
    """
    if not cut.rounded:
        return jnp.exp(jnp.where(keep, exponents, -jnp.inf))
    terms = jnp.exp(jnp.minimum(exponents, _LARGEST)).astype(jnp.bfloat16)
    return jnp.where(keep, terms, 0)


def merge(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    """Merges the states of two sweeps over different tiles."""

    def both(a: Any, b: Any) -> Any:
        if len(a) == 1:
            return (a[0] + b[0],)
        top = jnp.maximum(a[0], b[0])
        return top, a[1] * jnp.exp(a[0] - top) + b[1] * jnp.exp(b[0] - top)

    return tuple(map(both, one, other))


def results(plan: Plan, state: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns a side's values at the end of a forward sweep."""

    def result(channel: Channel, state: Any) -> Array | None:
        if state is None:
            return None
        if not channel.log:
            return state[0]
        return log_total(state[-1], 0.0 if plan.bounded else state[0])

    return tuple(result(c, s) for c, s in zip(plan.channels, state, strict=True))
