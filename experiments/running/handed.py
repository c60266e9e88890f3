"""Checks of what a user's own page passes in: whether an experiment can use it."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.running.options import flag
from experiments.running.process import jit_once
from jaxcon import collectives
from jaxcon.training.devices import make_mesh
from jaxcon.typing import AxisName


@dataclasses.dataclass(frozen=True)
class Loss:
    """No options: the loss is passed in with all its settings."""


def gathered(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a loss over the rows of all devices, from one that knows nothing about devices.

    Every device computes all of it: the loss and its gradient are the same on one device and on many,
    but the work is not shared.

    Example:
      >>> far = gathered(lambda z1, z2: ((z1 - z2) ** 2).mean())
      >>> print(far(jnp.ones((2, 3)), jnp.zeros((2, 3)), axis_name=None))
      1.0

    Args:
      loss: `(z1, z2) -> scalar` of embeddings `[batch, dim]`; it may take keywords.
    """
    return functools.partial(over_all_rows, loss)


def over_all_rows(
    loss: Callable[..., Any], z1: jax.Array, z2: jax.Array, *, axis_name: AxisName, **settings: Any
) -> Any:
    """Returns the mean over devices of a loss of all their rows; what `gathered` returns calls it."""
    z1, z2 = collectives.gather((z1, z2), axis_name)
    return collectives.mean(loss(z1, z2, **settings), axis_name)


def check_loss(loss: Callable[..., Any], **learned: float) -> None:
    """Raises a TypeError if a loss cannot be called as an experiment calls it.

    Args:
      loss: `(z1, z2, *, axis_name) -> scalar`.
      **learned: scalars that it is also given, as keywords.
    """
    names = ", ".join(["z1, z2, *, axis_name", *learned])
    try:
        inspect.signature(loss).bind(None, None, axis_name=None, **learned)
    except TypeError as error:
        raise TypeError(
            f"loss: expected a function ({names}), got {getattr(loss, '__name__', loss)} ({error}); "
            "docs/your_own.md shows what to do with axis_name"
        ) from None


def check_value(loss: Callable[..., Any], shape: tuple[int, int], **learned: float) -> None:
    """Raises a ValueError for a loss that is not a scalar, or not the same on every device.

    Args:
      loss: a loss that passes `check_loss`.
      shape: (batch, dim) of the embeddings.
      **learned: initial values of the scalars that it learns.
    """
    shapes: list[tuple[int, ...]] = []

    def traced(z1: jax.Array, z2: jax.Array) -> jax.Array:
        value = jnp.asarray(loss(z1, z2, axis_name="batch", **learned))
        shapes.append(value.shape)
        return value

    rows, mesh = jax.P("batch"), make_mesh(jax.local_devices()[:1])
    mapped = jax.shard_map(traced, mesh=mesh, in_specs=rows, out_specs=jax.P())
    zeros = jax.ShapeDtypeStruct(shape, jnp.float32)
    try:
        jax.eval_shape(mapped, zeros, zeros)
    except ValueError:
        if not shapes:  # it raised itself
            raise
        if not shapes[0]:
            raise ValueError(
                "loss: its value may differ from device to device; reduce it over axis_name, for "
                "example by collectives.mean, or pass gathered(loss): docs/your_own.md shows both"
            ) from None
    if shapes[0]:
        raise ValueError(f"loss: expected a scalar, got an array of shape {shapes[0]}")


def loss_of_zeros(loss: Callable[..., Any], shape: tuple[int, int], **learned: float) -> float:
    """Returns the loss of embeddings that are all zeros, which surely carry no information.

    Args:
      loss: a loss that passes `check_loss`.
      shape: (batch, dim) of the embeddings.
      **learned: initial values of the scalars that it learns.
    """
    zeros = jnp.zeros(shape)
    return float(jit_once(functools.partial(loss, axis_name=None, **learned))(zeros, zeros))


def level(
    loss: Callable[..., Any],
    chance: float | None,
    shape: tuple[int, int],
    **learned: float,
) -> float:
    """Returns the loss of embeddings that carry no information: as passed in, or that of zeros.

    Example:
      >>> level(gathered(lambda z1, z2: 2 + (z1 * z2).sum()), None, (4, 3))
      2.0

    Args:
      loss: a loss that passes `check_loss`.
      chance: what the page passes in, or None.
      shape: (batch, dim) of the embeddings.
      **learned: initial values of the scalars that the loss learns.

    Raises:
      ValueError: if it is not a number above 0, or the loss fails `check_value`.
    """
    check_value(loss, shape, **learned)
    if chance is None:
        chance = loss_of_zeros(loss, shape, **learned)
    if not 0 < chance < float("inf"):
        raise ValueError(
            f"chance={chance}: expected a loss above 0; pass chance=, the loss of embeddings that "
            "carry no information, such as that of random ones"
        )
    return chance


def check_module(name: str, module: Any) -> None:
    """Raises a TypeError for an encoder that is not a network, or cannot be called like one.

    Example:
      >>> check_module("encoder", nn.Dense)
      Traceback (most recent call last):
      TypeError: encoder: expected a Flax module, such as Dense(...), got the class Dense

    Args:
      name: the keyword it was passed as.
      module: the encoder, or None.
    """
    if module is None:
        return
    if not isinstance(module, nn.Module):
        what = getattr(module, "__name__", None)
        wanted, got = (
            (f", such as {what}(...)", f"the class {what}") if what else ("", repr(module))
        )
        raise TypeError(f"{name}: expected a Flax module{wanted}, got {got}")
    try:
        inspect.signature(type(module).__call__).bind(None, None, train=False)
    except (AttributeError, TypeError) as error:
        raise TypeError(
            f"{name}: expected a network that can be called as {type(module).__name__}(...)(inputs, "
            f"train=...), got one that cannot ({error})"
        ) from None


def check_features(name: str, module: nn.Module | None, inputs: jax.Array) -> None:
    """Raises a ValueError for an encoder whose outputs are not features, one row for each input.

    Args:
      name: the keyword it was passed as.
      module: the encoder, or None.
      inputs: a few inputs, as in a batch.
    """
    if module is None:
        return
    key = jax.random.key(0)
    made = jax.eval_shape(lambda x: module.init_with_output(key, x, train=False)[0], inputs)
    shape = getattr(made, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != len(inputs):
        got = type(made).__name__ if shape is None else f"{list(shape)} of {len(inputs)} inputs"
        raise ValueError(
            f"{name}: expected features [batch, width], got {got}; for feature maps, return their "
            "mean, x.mean(axis=(1, 2))"
        )


def check_left_out(group: Any, **own: Any) -> None:
    """Raises a ValueError for a flag that was typed although the page passes in its own.

    Args:
      group: a group of options, as typed.
      **own: what was passed in, or None, by the option that it replaces.
    """
    for name, thing in own.items():
        typed = getattr(group, name)
        if thing is not None and typed != getattr(type(group)(), name):
            raise ValueError(f"{flag(name)}={typed}: the page passes in its own; leave it out")
