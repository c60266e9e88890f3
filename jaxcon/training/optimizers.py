"""Optimizers: functions with one signature, so that an experiment passes the one it wants.

Their state is in at least float32, whatever the dtype of the parameters.

>>> import jax.numpy as jnp
>>> schedule = warmup_cosine(2e-3, warmup_steps=10, total_steps=100)
>>> optimizer = adamw(schedule, weight_decay=1e-4)
>>> state = optimizer.init({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcon.training._shared import at_least_float32, check_count, check_number
from jaxcon.training.decay import decay_mask, names_of


def warmup_cosine(peak: float, *, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Returns a learning rate that rises linearly, then falls to 0 along half a cosine.

    Step 0 already learns: the rise starts above 0, at peak / (warmup_steps + 1).

    Example:
      >>> schedule = warmup_cosine(1.0, warmup_steps=4, total_steps=10)
      >>> [round(float(schedule(step)), 2) for step in (0, 2, 4, 7, 10)]
      [0.2, 0.6, 1.0, 0.5, 0.0]

    Args:
      peak: highest learning rate, positive.
      warmup_steps: number of steps of the rise, 0 or more, fewer than `total_steps`.
      total_steps: number of steps of the run, at least 1.

    Returns:
      A function from the step to the learning rate.

    Raises:
      ValueError: if the warm-up leaves no step to train, or a number is out of its range.
    """
    check_number("peak", peak, low=0, open_low=True)
    check_count("total_steps", total_steps)
    check_count("warmup_steps", warmup_steps, low=0)
    if warmup_steps >= total_steps:
        raise ValueError(
            f"warmup_steps: expected 0 to {total_steps - 1} in a run of {total_steps} steps, "
            f"got {warmup_steps}; warm up for less or train for longer"
        )
    return optax.warmup_cosine_decay_schedule(
        peak / (warmup_steps + 1), peak, warmup_steps, total_steps
    )


def keep_between(
    optimizer: optax.GradientTransformation, bounds: Mapping[str, tuple[float, float]]
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer, with some parameters projected into bounds after each update.

    An update that would leave the bounds ends exactly on one; the optimizer's state keeps its form.

    Example:
      >>> import jax.numpy as jnp
      >>> optimizer = keep_between(optax.sgd(1.0), {"scale": (0.0, 2.0)})
      >>> params, gradient = {"scale": jnp.array(1.0)}, {"scale": jnp.array(-7.0)}
      >>> updates, _ = optimizer.update(gradient, optimizer.init(params), params)
      >>> float(optax.apply_updates(params, updates)["scale"])
      2.0

    Args:
      optimizer: any optimizer.
      bounds: (lowest, highest) by the name of the parameter, or by the end of its path, such as
        "Temperature_0/log_temperature".

    Returns:
      The optimizer; its `update` needs the parameters.

    Raises:
      ValueError: if a lowest value is above the highest.
    """
    for name, (low, high) in bounds.items():
        if not low <= high:
            raise ValueError(f"bounds of {name}: expected lowest <= highest, got {low} and {high}")
    inner = optax.with_extra_args_support(optimizer)

    def bounded(path: Any, update: jax.Array, param: jax.Array) -> jax.Array:
        names = "/" + "/".join(names_of(path))
        for name, (low, high) in bounds.items():
            if names.endswith(f"/{name}"):
                return _within(update, param, low, high)
        return update

    def update_fn(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("keep_between: update needs the parameters, got none")
        updates, state = inner.update(updates, state, params, **extra)
        return jax.tree_util.tree_map_with_path(bounded, updates, params), state

    return optax.GradientTransformationExtraArgs(inner.init, update_fn)


def _within(update: jax.Array, param: jax.Array, low: float, high: float) -> jax.Array:
    """Returns the update whose sum with the parameter, as floats add, lies within the bounds."""
    update = update.astype(param.dtype)
    lowest, highest = jnp.asarray(low, param.dtype), jnp.asarray(high, param.dtype)
    update = jnp.clip(param + update, lowest, highest) - param
    update = jnp.where(param + update > highest, jnp.nextafter(update, -jnp.inf), update)
    return jnp.where(param + update < lowest, jnp.nextafter(update, jnp.inf), update)


def adamw(
    schedule: optax.Schedule, *, weight_decay: float = 1e-4, clip_norm: float | None = None
) -> optax.GradientTransformation:
    """Returns AdamW (Loshchilov and Hutter, 2019), decaying what `decay_mask` selects.

    Example:
      >>> import jax.numpy as jnp
      >>> optimizer = adamw(optax.constant_schedule(0.1), weight_decay=0.5)
      >>> params = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
      >>> zeros = jax.tree.map(jnp.zeros_like, params)
      >>> updates, _ = optimizer.update(zeros, optimizer.init(params), params)
      >>> f"{updates['kernel'].item():.2f}", updates["bias"].item() == 0  # biases do not decay
      ('-0.05', True)

    Args:
      schedule: learning rate by step.
      weight_decay: 0 or more; applied to what `decay_mask` selects.
      clip_norm: largest norm of the gradient, above 0; None clips nothing.

    Returns:
      The optimizer.

    Raises:
      ValueError: if a number is out of its range, or the schedule begins below 0.
    """
    _check(schedule, weight_decay, clip_norm)
    update = optax.adamw(schedule, weight_decay=weight_decay, mask=decay_mask)
    return _finished(update, clip_norm)


def lars(
    schedule: optax.Schedule, *, weight_decay: float = 1e-6, clip_norm: float | None = None
) -> optax.GradientTransformation:
    """Returns LARS (You et al., 2017), SimCLR's optimizer.

    Parameters that do not decay (`decay_mask`) are not rescaled by the trust ratio either.

    Example:
      >>> import jax.numpy as jnp
      >>> optimizer = lars(optax.constant_schedule(1.0), weight_decay=0.0)
      >>> params = {"kernel": jnp.full((1, 1), 2.0)}
      >>> for gradient in (1e-3, 1e3):  # the step follows the norm of the weights, not the gradient's
      ...     gradients = {"kernel": jnp.full((1, 1), gradient)}
      ...     updates, _ = optimizer.update(gradients, optimizer.init(params), params)
      ...     print(f"{updates['kernel'].item():.4f}")
      -0.0020
      -0.0020

    Args:
      schedule: learning rate by step; published values are 0.3 * batch / 256 and the like.
      weight_decay: 0 or more; applied to what `decay_mask` selects.
      clip_norm: largest norm of the gradient, above 0; None clips nothing.

    Returns:
      The optimizer.

    Raises:
      ValueError: if a number is out of its range, or the schedule begins below 0.
    """
    _check(schedule, weight_decay, clip_norm)
    update = optax.lars(
        schedule,
        weight_decay=weight_decay,
        weight_decay_mask=decay_mask,
        trust_ratio_mask=decay_mask,
        momentum=0.9,
    )
    return _finished(update, clip_norm)


def sgd(
    schedule: optax.Schedule, *, weight_decay: float = 5e-4, clip_norm: float | None = None
) -> optax.GradientTransformation:
    """Returns SGD with Nesterov momentum 0.9, and L2 decay of kernels alone.

    Example:
      >>> import jax.numpy as jnp
      >>> optimizer = sgd(optax.constant_schedule(0.1), weight_decay=0.0)
      >>> params = gradients = {"kernel": jnp.ones((1, 1))}
      >>> updates, _ = optimizer.update(gradients, optimizer.init(params), params)
      >>> print(f"{updates['kernel'].item():.2f}")  # -0.1 (1 + 0.9): momentum looks a step ahead
      -0.19

    Args:
      schedule: learning rate by step.
      weight_decay: 0 or more; applied to what `decay_mask` selects.
      clip_norm: largest norm of the gradient, above 0; None clips nothing.

    Returns:
      The optimizer.

    Raises:
      ValueError: if a number is out of its range, or the schedule begins below 0.
    """
    _check(schedule, weight_decay, clip_norm)
    update = optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
        optax.sgd(schedule, momentum=0.9, nesterov=True),
    )
    return _finished(update, clip_norm)


def _check(schedule: Any, weight_decay: Any, clip_norm: Any) -> None:
    """Refuses negative numbers: they climb, grow or turn around, and training goes on regardless."""
    rate = schedule(0) if callable(schedule) else schedule
    check_number("schedule, at its first step", rate, low=0)
    check_number("weight_decay", weight_decay, low=0)
    if clip_norm is not None:
        check_number("clip_norm", clip_norm, low=0, open_low=True)


def _finished(
    update: optax.GradientTransformation, clip_norm: float | None
) -> optax.GradientTransformation:
    """Clips, and sums in at least float32: in bfloat16 Adam's average of squares does not move."""
    if clip_norm is not None:
        update = optax.chain(optax.clip_by_global_norm(clip_norm), update)
    inner = optax.with_extra_args_support(update)

    def init_fn(params: Any) -> Any:
        return inner.init(at_least_float32(params))

    def update_fn(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return inner.update(at_least_float32(updates), state, at_least_float32(params), **extra)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
