"""The state of a run: everything that a step changes, and nothing else.

The position in the data and all randomness are functions of (seed, step), so they are not part of it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training import train_state

from jaxcon.training._shared import at_least_float32

# Collections that are averaged; a queue or a counter is not.
_AVERAGED = ("params", "batch_stats")


class TrainState(train_state.TrainState):
    """Flax's state, plus what moves without a gradient, an average and a count of refused updates.

    `variables()` is what `apply_fn` takes; `variables(average=True)` is their moving average.

    Attributes:
      carried: every collection of variables except the parameters, such as `batch_stats`, by its name.
      ema: the average of parameters and batch statistics, in at least float32; None if none is kept.
      skipped: how many updates were refused, int32.
    """

    carried: dict[str, Any] = struct.field(default_factory=dict)
    ema: Any = None
    skipped: jax.Array = struct.field(default_factory=lambda: jnp.zeros((), jnp.int32))

    def variables(self, *, average: bool = False) -> dict[str, Any]:
        """Returns all collections by name, averaged if requested and kept."""
        kept = self.ema if average and self.ema is not None else {}
        return {"params": self.params, **self.carried, **kept}


def averaged(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the collections that are averaged, in at least float32."""
    return at_least_float32({name: variables[name] for name in _AVERAGED if name in variables})


def create_state(
    variables: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    *,
    apply_fn: Callable[..., Any],
    average: bool = False,
) -> TrainState:
    """Returns the state before the first step.

    Whatever is summed over steps, the average and the statistics, is kept in at least float32: in
    bfloat16 0.5 + 0.001 is 0.5. Parameters keep their dtype; in float32 they do not lose small updates.

    Example:
      >>> state = create_state({"params": {"w": jnp.ones(2)}}, optax.sgd(0.1), apply_fn=lambda v: v)
      >>> int(state.step), state.ema
      (0, None)

    Args:
      variables: from flax's `init`: `params`, and any other collections, such as `batch_stats`; the
        loss gets these, and returns them as they should be after the step.
      optimizer: an optimizer of `optimizers` or optax.
      apply_fn: maps variables and inputs to outputs; kept for evaluation.
      average: whether to keep an exponential moving average of the variables; the step then needs
        an `ema_decay`.

    Returns:
      The state.

    Raises:
      ValueError: if there are no parameters, or a collection has the name of a part of the state.
    """
    if "params" not in variables:
        raise ValueError(f"variables: expected params among them, got {', '.join(variables)}")
    carried = {name: tree for name, tree in variables.items() if name != "params"}
    if taken := sorted(_FIELDS & carried.keys()):
        raise ValueError(
            f"variables: expected another name for the collection {taken[0]}: the state uses that"
        )
    carried = at_least_float32(carried)
    # The average starts as a copy: the step donates its state, and a buffer can be donated only once.
    ema = averaged({"params": variables["params"], **carried})
    return TrainState.create(
        apply_fn=apply_fn,
        params=variables["params"],
        tx=optimizer,
        carried=carried,
        ema=jax.tree.map(jnp.copy, ema) if average else None,
    ).replace(step=jnp.zeros((), jnp.int32))


_FIELDS = {field.name for field in dataclasses.fields(TrainState)}
# What a checkpoint holds besides parameters and other collections.
NO_VARIABLES = _FIELDS - {"params", "carried"}
