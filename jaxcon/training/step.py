"""The train step: one pure function of (state, batch, key), the same under every transform.

A loss returns its value already averaged over `axis_name`; the step averages gradients over the
same axis. That pair gives the single-device gradient under `jax.pmap` and under `jax.shard_map`,
with its varying-axes check on or off; either half alone is wrong by the number of devices in one
of them.

>>> from jaxcon.training.state import create_state
>>> def loss_fn(params, carried, batch, key):
...     loss = jnp.mean((batch["image"] @ params["w"] - 1.0) ** 2)
...     return loss, (carried, {})
>>> variables = {"params": {"w": jnp.zeros(3)}}
>>> state = create_state(variables, optax.sgd(0.1), apply_fn=lambda v, x: x)
>>> step = jax.jit(make_train_step(loss_fn, axis_name=None))
>>> state, metrics = step(state, {"image": jnp.ones((4, 3))}, jax.random.key(0))
>>> float(metrics["loss"]), int(state.step)
(1.0, 1)
"""

from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcon import collectives
from jaxcon.training._shared import at_least_float32, check_number, is_inexact
from jaxcon.training.devices import BATCH_AXIS
from jaxcon.training.state import TrainState, averaged

Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]
# loss_fn(params, carried, batch, key) -> (loss, (carried, metrics))
LossFn = Callable[
    [Any, dict[str, Any], Batch, jax.Array], tuple[jax.Array, tuple[Mapping[str, Any], Metrics]]
]
# value_and_grad(params, carried, batch, key) -> ((loss, (carried, metrics)), gradient)
ValueAndGrad = Callable[[Any, dict[str, Any], Batch, jax.Array], tuple[Any, Any]]
Step = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]


def make_train_step(
    loss_fn: LossFn,
    *,
    value_and_grad: ValueAndGrad | None = None,
    ema_decay: float | None = None,
    axis_name: str | None = BATCH_AXIS,
) -> Step:
    """Returns `step(state, batch, key) -> (state, metrics)`.

    `loss_fn` gets `fold_in(key, state.step)`, and must return a loss, collections and metrics that
    are equal on all devices of the axis (`collectives.mean`). An update is refused if the loss, the
    gradient's norm, or a number among the variables after it is not finite: variables and optimizer
    stay as they were and `state.skipped` counts it. The step number and the schedules of the
    optimizer move on, so the next batch is a new one and the learning rate ends where it should.

    Args:
      loss_fn: `(params, carried, batch, key) -> (loss, (carried, metrics))`, where `carried` holds
        whatever moves without a gradient, by the names of flax's collections: `batch_stats`, a
        queue, or a teacher. It returns all of them, whether they moved or not.
      value_and_grad: the loss and its gradient, where they are found in another way than by
        `jax.value_and_grad(loss_fn, has_aux=True)`: by `cached_value_and_grad`, in chunks.
      ema_decay: decay of the moving average, at least 0 and below 1; None for a state without one.
      axis_name: the mapped axis over which gradients are averaged; None for no axis.

    Returns:
      The step. Its metrics are those of `loss_fn`, `loss`, `gradient_norm` and `skipped`.

    Raises:
      ValueError: if `ema_decay` is out of its range; in the first call, also if it is given for a
        state without an average or missing for one with it, or if `loss_fn` returns other
        collections than the state carries.
    """
    if ema_decay is not None:
        check_number("ema_decay", ema_decay, low=0, high=1)

    def step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        _check_average(state, ema_decay)
        chex.assert_equal_shape_prefix(jax.tree.leaves(dict(batch)), 1)
        key = jax.random.fold_in(key, state.step)

        gradient_fn = value_and_grad or jax.value_and_grad(loss_fn, has_aux=True)
        outputs, gradients = gradient_fn(state.params, state.carried, batch, key)
        loss, (carried, metrics) = outputs
        _check_collections(state, carried)
        mean = collectives.mean(at_least_float32(gradients), axis_name)
        norm = optax.tree.norm(mean)
        gradients = jax.tree.map(lambda g, p: g.astype(p.dtype), mean, state.params)
        chex.assert_rank([loss, norm], 0)

        with jax.named_scope("optimizer"):  # its name in profiles
            updated = state.apply_gradients(grads=gradients, carried=dict(carried))
            updated = updated.replace(ema=_average(updated, ema_decay))
        chex.assert_trees_all_equal_shapes_and_dtypes(updated, state)
        finite = _all_finite((loss, norm, updated.variables()))
        state = _accept(finite, updated, state)

        return state, {**metrics, "loss": loss, "gradient_norm": norm, "skipped": state.skipped}

    return step


def shard_step(step: Step, mesh: Mesh, *, axis_name: str = BATCH_AXIS) -> Step:
    """Returns the step under jit and `jax.shard_map`: state replicated, rows of the batch split.

    The state is donated: the one passed in can no longer be used. `sharded.make_sharded_step` splits
    the state as well.

    Args:
      step: from `make_train_step`.
      mesh: a mesh with the axis `axis_name`.
      axis_name: the axis name of the step.

    Returns:
      The step, compiled at its first call, on global arrays.
    """
    specs = (P(), P(axis_name), P())
    return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=P()), donate_argnums=0)


def _check_average(state: TrainState, decay: float | None) -> None:
    """Refuses half of the setting, which would train as if requested but evaluate another network."""
    if decay is None and state.ema is not None:
        raise ValueError(
            "ema_decay: expected a number, as the state keeps an average, got None: it would stay at "
            "the untrained start; set it, or use create_state(average=False)"
        )
    if decay is not None and state.ema is None:
        raise ValueError(
            f"ema_decay: expected None, as the state keeps no average, got {decay}; "
            "create_state(average=True) keeps one"
        )


def _check_collections(state: TrainState, carried: Mapping[str, Any]) -> None:
    """Refuses a change of collections: new ones would be lost, missing ones would stand still."""
    if state.carried.keys() != carried.keys():
        names = (", ".join(sorted(tree)) or "none" for tree in (state.carried, carried))
        raise ValueError(
            "loss_fn: expected the collections that the state carries ({}), got {}; give all to "
            "create_state, and return all of them".format(*names)
        )


def _average(state: TrainState, decay: float | None) -> Any:
    if decay is None:
        return state.ema

    def average(new: jax.Array, old: jax.Array) -> jax.Array:
        return decay * old + (1.0 - decay) * new if is_inexact(old) else new

    return jax.tree.map(average, averaged(state.variables()), state.ema)


# States of optax that count steps for a schedule and hold nothing else.
_CLOCKS = (optax.ScaleByScheduleState, optax.AddDecayedWeightsState)
_HYPERPARAMETERS = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)


def _all_finite(tree: Any) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if is_inexact(leaf)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _accept(finite: jax.Array, updated: TrainState, state: TrainState) -> TrainState:
    """Selects the whole state: guarding parameters alone would let NaN into the statistics."""

    def select(new: Any, old: Any) -> Any:
        if isinstance(new, _CLOCKS):
            return new
        if isinstance(new, _HYPERPARAMETERS):  # their values follow from the count
            return new._replace(inner_state=choose(new.inner_state, old.inner_state))
        return jnp.where(finite, new, old)

    def choose(new: Any, old: Any) -> Any:
        return jax.tree.map(select, new, old, is_leaf=lambda x: isinstance(x, counted))

    counted = (*_CLOCKS, *_HYPERPARAMETERS)
    kept = choose(updated, state)
    return kept.replace(step=updated.step, skipped=state.skipped + jnp.where(finite, 0, 1))
