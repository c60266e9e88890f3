"""One training step's value and gradients, with the batch spread over devices in every way JAX has.

A step is what a trainer does: encode the rows with replicated weights, take the loss over
`axis_name`, average the weights' gradient over the same axis. `spread` runs it and brings the
results into the form of `alone`, so that the two can be compared.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcon.losses._meshes import evaluate
from tests.losses.calls import apply, arguments, join, precision
from tests.losses.case import DIM, Case

AXIS = "batch"


class Step(NamedTuple):
    """What a step gives: the loss, the gradient of the encoder, and that of each row."""

    value: Any
    encoder: Any
    embeddings: Any


def encoder_weights() -> np.ndarray:
    """A linear encoder, near the identity."""
    return np.eye(DIM) + 0.2 * np.random.default_rng(11).normal(size=(DIM, DIM))


def step(case: Case, axis_name: Any, average: Callable = lax.pmean) -> Callable:
    """`(weights, embeddings, others, rows) -> Step` of this device's part of the batch."""

    def value(weight: Any, embeddings: Any, others: Any, rows: Any) -> Any:
        encoded = {k: z if "log_std" in k else z @ weight for k, z in embeddings.items()}
        return apply(case, join(case, encoded, others), rows, axis_name=axis_name)

    def local(weight: Any, embeddings: Any, others: Any, rows: Any) -> Step:
        loss, (encoder, grads) = jax.value_and_grad(value, argnums=(0, 1))(
            weight, embeddings, others, rows
        )
        return Step(loss, encoder if axis_name is None else average(encoder, axis_name), grads)

    return local


def prepared(case: Case, inputs: Mapping, rows: Mapping, dtype: Any) -> tuple:
    """Encoder, embeddings, others and rows in `dtype`."""
    embeddings, others, rows, _ = arguments(case, inputs, rows, dtype, None)
    return encoder_weights().astype(dtype), embeddings, others, rows


@functools.cache
def _alone(case: Case) -> Callable:
    return jax.jit(step(case, None))


def alone(case: Case, inputs: Mapping, rows: Mapping, dtype: Any) -> Step:
    """The step on one device."""
    with precision(dtype):
        return jax.tree.map(np.asarray, _alone(case)(*prepared(case, inputs, rows, dtype)))


def spread(
    case: Case,
    mode: str,
    devices: int,
    inputs: Mapping,
    rows: Mapping,
    dtype: Any,
    average: Callable = lax.pmean,
) -> Step:
    """The step with the batch over `devices` devices, in one of `MODES`."""
    with precision(dtype):
        return jax.tree.map(
            np.asarray,
            MODES[mode](case, devices, average)(*prepared(case, inputs, rows, dtype)),
        )


def _chunks(tree: Any, devices: int) -> Any:
    return jax.tree.map(lambda a: a.reshape(devices, -1, *a.shape[1:]), tree)


def _rejoined(result: Step, devices: int) -> Step:
    """Checks that all devices agree. The rows' gradient counts every device's copy of the loss."""
    for leaf in jax.tree.leaves((result.value, result.encoder)):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    return Step(
        result.value[0],
        result.encoder[0],
        jax.tree.map(lambda g: g.reshape(-1, *g.shape[2:]) / devices, result.embeddings),
    )


# A mode is a function of (case, devices, average) that gives the step over that many devices. It is
# cached, so that one compilation a dtype serves every batch.


@functools.cache
def _vmap(case: Case, devices: int, average: Callable) -> Callable:
    mapped = jax.vmap(step(case, AXIS, average), in_axes=(None, 0, 0, 0), axis_name=AXIS)
    run = jax.jit(mapped)
    return lambda weight, *batch: _rejoined(run(weight, *_chunks(batch, devices)), devices)


@functools.cache
def _pmap(case: Case, devices: int, average: Callable) -> Callable:
    run = jax.pmap(
        step(case, AXIS, average),
        in_axes=(None, 0, 0, 0),
        axis_name=AXIS,
        devices=jax.devices()[:devices],
    )
    return lambda weight, *batch: _rejoined(run(weight, *_chunks(batch, devices)), devices)


@functools.cache
def _shard_map(case: Case, devices: int, average: Callable, *, shape: Any, check: bool) -> Callable:
    names = AXIS if shape is None else ("data", "model")
    mesh = Mesh(np.array(jax.devices()[:devices]).reshape(shape or devices), names)
    rows = P(names)
    local = step(case, names, average)

    def stacked(*args: Any) -> Step:
        result = local(*args)
        return result._replace(value=result.value[None], encoder=result.encoder[None])

    # With the check, out_specs P() is JAX's own proof that value and gradient are equal everywhere.
    mapped = jax.shard_map(
        local if check else stacked,
        mesh=mesh,
        in_specs=(P(), rows, rows, rows),
        out_specs=Step(P(), P(), rows) if check else Step(rows, rows, rows),
        check_vma=check,
    )
    run = jax.jit(mapped)

    def rejoined(*args: Any) -> Step:
        result = run(*args)
        grads = _chunks(result.embeddings, devices)
        return _rejoined(result._replace(embeddings=grads), devices)

    return run if check else rejoined


@functools.cache
def _sharded(case: Case, devices: int, average: Callable, *, kind: AxisType) -> Callable:
    """Plain jit on globally sharded arrays; there is no axis name, and no part of a batch."""
    mesh = jax.make_mesh((devices,), (AXIS,), axis_types=(kind,), devices=jax.devices()[:devices])
    put = functools.partial(jax.device_put, device=NamedSharding(mesh, P(AXIS)))
    run = jax.jit(step(case, None))

    def on_mesh(weight: Any, *batch: Any) -> Step:
        weight = jax.device_put(weight, NamedSharding(mesh, P()))
        return run(weight, *jax.tree.map(put, batch))

    return on_mesh


MODES: dict[str, Callable] = {
    "vmap": _vmap,
    "pmap": _pmap,
    "shard_map": functools.partial(_shard_map, shape=None, check=True),
    "shard_map unchecked": functools.partial(_shard_map, shape=None, check=False),
    "shard_map 2-D": functools.partial(_shard_map, shape=(-1, 2), check=True),
    "shard_map 2-D unchecked": functools.partial(_shard_map, shape=(-1, 2), check=False),
    "jit Auto": functools.partial(_sharded, kind=AxisType.Auto),
    "jit Explicit": functools.partial(_sharded, kind=AxisType.Explicit),
}


def forget() -> None:
    """Drops what was compiled, so that a replaced function is seen, and seen no longer."""
    for mode in (_vmap, _pmap, _shard_map, _sharded, _alone):
        mode.cache_clear()
    evaluate.clear_cache()
