"""What a user's own page hands over: whether it can be used as an experiment uses it."""

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
    """Without options: the loss is handed over with all of its settings."""


def gathered(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loss that knows nothing of devices as one over the rows of all of them.

    Every device computes the whole: it is the same loss, with the same gradient, on one device and on
    many, but it is not shared out.

    >>> far = gathered(lambda z1, z2: ((z1 - z2) ** 2).mean())
    >>> print(far(jnp.ones((2, 3)), jnp.zeros((2, 3)), axis_name=None))
    1.0

    Args:
      loss: from embeddings `[batch, dim]`, two of them, and perhaps keywords, to a scalar.
    """
    return functools.partial(over_all_rows, loss)


def over_all_rows(
    loss: Callable[..., Any], z1: jax.Array, z2: jax.Array, *, axis_name: AxisName, **settings: Any
) -> Any:
    """Return the mean over devices of a loss of the rows of all of them; of `gathered`."""
    z1, z2 = collectives.gather((z1, z2), axis_name)
    return collectives.mean(loss(z1, z2, **settings), axis_name)


def check_loss(loss: Callable[..., Any], **learned: float) -> None:
    """Raise a TypeError where a loss cannot be called as an experiment calls it.

    Args:
      loss: `(z1, z2, *, axis_name) -> scalar`.
      **learned: scalars that it is given by their names besides.
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
    """Raise a ValueError for a loss that is no scalar, or not the same on every device.

    Args:
      loss: of `check_loss`.
      shape: (batch, dim) of the embeddings.
      **learned: first values of the scalars that the loss learns.
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
                "loss: its value may differ from device to device; expected one that is reduced "
                "over axis_name, as by collectives.mean, or hand over gathered(loss): "
                "docs/your_own.md shows both"
            ) from None
    if shapes[0]:
        raise ValueError(f"loss: expected a scalar, got an array of shape {shapes[0]}")


def level(
    loss: Callable[..., Any],
    chance: float | None,
    shape: tuple[int, int],
    **learned: float,
) -> float:
    """Return the loss of embeddings that tell nothing: what was handed over, or that of zeros.

    >>> level(gathered(lambda z1, z2: 2 + (z1 * z2).sum()), None, (4, 3))
    2.0

    Args:
      loss: of `check_loss`.
      chance: handed over, or None.
      shape: (batch, dim) of the embeddings.
      **learned: first values of the scalars that the loss learns.

    Raises:
      ValueError: it is not a number above 0, or the loss one of `check_value`.
    """
    check_value(loss, shape, **learned)
    if chance is None:
        alone = functools.partial(loss, axis_name=None, **learned)
        zeros = jnp.zeros(shape)
        chance = float(jit_once(alone)(zeros, zeros))
    if not 0 < chance < float("inf"):
        raise ValueError(
            f"chance={chance}: expected a loss above 0; hand over chance=, the loss of embeddings "
            "that tell nothing, such as that of random ones"
        )
    return chance


def check_module(name: str, module: Any) -> None:
    """Raise a TypeError for an encoder that is no network, or that is called otherwise.

    >>> check_module("encoder", nn.Dense)
    Traceback (most recent call last):
    TypeError: encoder: expected a Flax module, such as Dense(...), got the class Dense

    Args:
      name: what it was handed over as.
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
            f"{name}: expected a network that is called as {type(module).__name__}(...)(inputs, "
            f"train=...), got another ({error})"
        ) from None


def check_features(name: str, module: nn.Module | None, inputs: jax.Array) -> None:
    """Raise a ValueError for an encoder whose outputs are no features, a row for each input.

    Args:
      name: what it was handed over as.
      module: the encoder, or None.
      inputs: some, as of a batch.
    """
    if module is None:
        return
    key = jax.random.key(0)
    made = jax.eval_shape(lambda x: module.init_with_output(key, x, train=False)[0], inputs)
    shape = getattr(made, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != len(inputs):
        got = type(made).__name__ if shape is None else f"{list(shape)} of {len(inputs)} inputs"
        raise ValueError(
            f"{name}: expected features [batch, width], got {got}; for maps of features return their "
            "mean, as x.mean(axis=(1, 2))"
        )


def check_left_out(group: Any, **own: Any) -> None:
    """Raise a ValueError for a flag that was typed although the page hands over its own.

    Args:
      group: of options, as typed.
      **own: what was handed over, or None, by the option that it stands for.
    """
    for name, thing in own.items():
        typed = getattr(group, name)
        if thing is not None and typed != getattr(type(group)(), name):
            raise ValueError(f"{flag(name)}={typed}: the page hands over its own; leave it out")
