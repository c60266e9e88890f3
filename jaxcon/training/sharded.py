"""A state in shards: parameters, optimizer state and averages spread over the devices of a batch.

Replicated, the state is on every device; here a device holds a part of each large array, so that its
share falls with the number of devices. A step of `make_sharded_step`

1. gathers the parameters (all-gather) and takes loss and gradient under `jax.shard_map`, as
   `shard_step` does: losses and batch statistics with an `axis_name` are the same;
2. averages the gradient so that each device gets the part that it updates (reduce-scatter). The two
   send what the all-reduce of `shard_step` sends. (For some slices of TPUs, such as v5e:4x4, their
   compiler makes of it an all-reduce of which a chip keeps its part);
3. updates its part, outside of `shard_map` but under the same jit. There an array is still the whole
   one, of which XLA computes the parts: norms over all of it, as LARS and clipping take them, and
   masks by shape are right, whatever the optimizer. Inside of `shard_map` (ZeRO as it was first
   written) optimizers would see pieces, and each would have to know.

While a step runs, a device holds all parameters and, until they are scattered, gradients as well: what
falls is what stays from step to step.

>>> import jax.numpy as jnp
>>> import optax
>>> from jaxcon.training.devices import make_mesh
>>> from jaxcon.training.state import create_state
>>> def loss_fn(params, carried, batch, key):
...     loss = lax.pmean(jnp.mean((batch["image"] @ params["w"] - 1.0) ** 2), "batch")
...     return loss, (carried, {})
>>> optimizer, apply_fn = optax.adam(0.1), lambda v, x: x @ v["params"]["w"]
>>> def create(variables):
...     return create_state(variables, optimizer, apply_fn=apply_fn)
>>> variables, mesh = {"params": {"w": jnp.zeros((512, 8))}}, make_mesh(jax.devices())
>>> shardings = state_sharding(jax.eval_shape(create, variables), mesh)
>>> state = jax.jit(create, out_shardings=shardings)(variables)
>>> step = make_sharded_step(loss_fn, shardings)
>>> state, metrics = step(state, {"image": jnp.ones((8, 512))}, jax.random.key(0))
>>> float(metrics["loss"]), state.params["w"].sharding.spec == shardings.params["w"].spec
(1.0, True)
"""

import math
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcon.training._shared import at_least_float32
from jaxcon.training.devices import BATCH_AXIS
from jaxcon.training.state import TrainState
from jaxcon.training.step import LossFn, Step, ValueAndGrad, make_train_step

# An array with fewer numbers stays whole: to gather it takes longer than its bytes are worth.
AT_LEAST = 4096


def state_sharding(
    state: Any, mesh: Mesh | AbstractMesh, *, at_least: int = AT_LEAST, axis_name: str = BATCH_AXIS
) -> Any:
    """Returns where the arrays of a state go: each divided along its largest dimension.

    That is the largest of those that the devices divide, the first of several. Arrays without such a
    dimension, and small ones, stay whole on every device.

    Example:
      >>> from jax.sharding import AbstractMesh
      >>> mesh = AbstractMesh((16,), ("batch",))
      >>> shapes = {"kernel": np.ones((24, 192)), "odd": np.ones((90, 50)), "bias": np.ones(192)}
      >>> for name, sharding in state_sharding(shapes, mesh).items():
      ...     print(name, tuple(sharding.spec))
      bias ()
      kernel (None, 'batch')
      odd ()

    Args:
      state: a state or any tree of arrays, or of their shapes (`jax.eval_shape`).
      mesh: from `make_mesh`.
      at_least: arrays with fewer numbers stay whole.
      axis_name: the axis of the mesh over which to spread them.

    Returns:
      The tree with a `NamedSharding` in place of each array.
    """
    devices = mesh.shape[axis_name]

    def place(leaf: Any) -> NamedSharding:
        shape = np.shape(leaf)
        divided = [size if size % devices == 0 else 0 for size in shape]
        if devices == 1 or math.prod(shape) < at_least or not any(divided):
            return NamedSharding(mesh, P())
        before = divided.index(max(divided))
        return NamedSharding(mesh, P(*[None] * before, axis_name))

    return jax.tree.map(place, state)


def bytes_on_a_device(state: Any, shardings: Any) -> int:
    """Returns how many bytes of a state each device holds.

    Example:
      >>> shapes = {"kernel": np.ones((64, 128), np.float32)}
      >>> bytes_on_a_device(shapes, state_sharding(shapes, AbstractMesh((16,), ("batch",))))
      2048

    Args:
      state: a tree of arrays, or of their shapes.
      shardings: from `state_sharding`.
    """

    def held(leaf: Any, sharding: NamedSharding) -> int:
        return math.prod(sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize

    return sum(jax.tree.leaves(jax.tree.map(held, state, shardings)))


def make_sharded_step(
    loss_fn: LossFn,
    shardings: TrainState,
    *,
    value_and_grad: ValueAndGrad | None = None,
    ema_decay: float | None = None,
    axis_name: str = BATCH_AXIS,
) -> Step:
    """Returns the step of a sharded state, in place of `shard_step(make_train_step(loss_fn), mesh)`.

    Losses, updates and refusals are the same, to rounding. The state is donated: the one passed in can
    no longer be used. `devices.fetch` brings what it holds to the host, also from other hosts.

    Args:
      loss_fn: as for `make_train_step`, with `axis_name` in the loss.
      shardings: those of the state, from `state_sharding`; with the same optimizer and `apply_fn`, not
        others made alike.
      value_and_grad: as for `make_train_step`.
      ema_decay: as for `make_train_step`.
      axis_name: the axis of the mesh over which the rows of the batch, and the state, are spread.

    Returns:
      The step, compiled at its first call, on global arrays.

    Raises:
      ValueError: as `make_train_step`, or if `shardings` are none; in the first call also if the state
        lies elsewhere, or the loss, a collection or a metric may differ between devices.
    """
    mesh: Any = _mesh_of(shardings)
    step = make_train_step(
        loss_fn,
        value_and_grad=_scattered(loss_fn, value_and_grad, mesh, shardings.params, axis_name),
        ema_decay=ema_decay,
        axis_name=None,
    )
    return jax.jit(
        step,
        in_shardings=(shardings, NamedSharding(mesh, P(axis_name)), None),
        out_shardings=(shardings, NamedSharding(mesh, P())),
        donate_argnums=0,
    )


def _mesh_of(shardings: Any) -> Any:
    for leaf in jax.tree.leaves(shardings):
        if not isinstance(leaf, NamedSharding):
            raise ValueError(
                "shardings: expected a NamedSharding in place of each array of the state, got "
                f"{type(leaf).__name__}; give those of state_sharding(state, mesh)"
            )
    return jax.tree.leaves(shardings)[0].mesh


def _scattered(
    loss_fn: LossFn,
    value_and_grad: ValueAndGrad | None,
    mesh: Mesh,
    shardings: Any,
    axis_name: str,
) -> ValueAndGrad:
    """Returns value and gradient on global arrays; of the mean gradient each device has its part."""
    gradient_fn = value_and_grad or jax.value_and_grad(loss_fn, has_aux=True)

    def mean_of_part(gradient: jax.Array, sharding: NamedSharding) -> jax.Array:
        if axis_name not in sharding.spec:
            return lax.pmean(gradient, axis_name)
        along = sharding.spec.index(axis_name)
        total = lax.psum_scatter(gradient, axis_name, scatter_dimension=along, tiled=True)
        return total / lax.axis_size(axis_name)

    def on_device(params: Any, carried: Any, batch: Any, key: jax.Array) -> Any:
        outputs, gradients = gradient_fn(params, carried, batch, key)
        return outputs, jax.tree.map(mean_of_part, at_least_float32(gradients), shardings)

    specs: Any = {"mesh": mesh, "in_specs": (P(), P(), P(axis_name), P())}
    alike = jax.shard_map(loss_fn, out_specs=P(), **specs)
    parts = jax.tree.map(lambda sharding: sharding.spec, shardings)
    # With the check of varying axes on, autodiff would sum the gradient on all devices before it could
    # be scattered. Off, the mean is what makes it the single-device gradient (docs/devices.md).
    mapped = jax.shard_map(on_device, out_specs=(P(), parts), check_vma=False, **specs)

    def run(*arguments: Any) -> Any:
        jax.eval_shape(alike, *arguments)  # the check, without the gradient
        return mapped(*arguments)

    return run
