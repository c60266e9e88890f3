"""The state of a run: everything that a step changes, and nothing else.

Position in the data and randomness are functions of (seed, step), so they need no place in it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training import train_state

from jaxcon.training._shared import at_least_float32


class TrainState(train_state.TrainState):
    """Flax's state with batch statistics, a moving average and a count of refused updates.

    `variables()` is what `apply_fn` takes; `variables(average=True)` is its moving average.
    """

    batch_stats: Any = struct.field(default_factory=dict)
    ema: Any = None
    skipped: jax.Array = struct.field(default_factory=lambda: jnp.zeros((), jnp.int32))

    def variables(self, *, average: bool = False) -> dict[str, Any]:
        """Return `{"params", "batch_stats"}`, averaged where asked for and kept.

        An average is in float32 at least, whatever the dtype of the parameters.
        """
        if average and self.ema is not None:
            return self.ema
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    variables: dict[str, Any],
    optimizer: optax.GradientTransformation,
    *,
    apply_fn: Callable[..., Any],
    average: bool = False,
) -> TrainState:
    """Return the state before the first step.

    What is summed over steps, the average and the statistics, is kept in float32 at least: in bfloat16
    0.5 + 0.001 is 0.5. Parameters keep their dtype; in float32 small updates are not lost either.

    >>> state = create_state({"params": {"w": jnp.ones(2)}}, optax.sgd(0.1), apply_fn=lambda v: v)
    >>> int(state.step), state.ema
    (0, None)

    Args:
        variables: of flax's `init`: `params` and, where there is batch norm, `batch_stats`.
        optimizer: of `optimizers`.
        apply_fn: from variables and inputs to outputs; kept for whoever evaluates.
        average: keep an exponential moving average of the variables; the step then needs an
            `ema_decay`.

    Returns:
        The state.
    """
    params = variables["params"]
    batch_stats = at_least_float32(variables.get("batch_stats", {}))
    # The average starts as a copy: the step donates its state, and a buffer is donated only once.
    ema = at_least_float32({"params": params, "batch_stats": batch_stats})
    return TrainState.create(
        apply_fn=apply_fn,
        params=params,
        tx=optimizer,
        batch_stats=batch_stats,
        ema=jax.tree.map(jnp.copy, ema) if average else None,
    ).replace(step=jnp.zeros((), jnp.int32))
