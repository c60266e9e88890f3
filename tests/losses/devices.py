"""One training step's value and gradients, with the batch spread over devices in every way JAX has.

A step is what a trainer does: encode the rows with replicated weights, take the loss over
``axis_name``, average the weights' gradient over the same axis. :func:`spread` runs it and brings the
results into the form of :func:`alone`, so that the two can be compared.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.losses.calls import QUICK, apply, arguments, join, precision
from tests.losses.cases import DIM, Case

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
    """``(weights, embeddings, others, rows) -> Step`` of this device's part of the batch."""

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
    """Encoder, embeddings, others and rows in ``dtype``."""
    embeddings, others, rows, _ = arguments(case, inputs, rows, dtype, None)
    return encoder_weights().astype(dtype), embeddings, others, rows


@functools.cache
def _alone(case: Case) -> Callable:
    return jax.jit(step(case, None), compiler_options=QUICK)


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
    """The step with the batch over ``devices`` devices, in one of :data:`MODES`."""
    with precision(dtype):
        return jax.tree.map(
            np.asarray,
            MODES[mode](case, devices, average, *prepared(case, inputs, rows, dtype)),
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


def _vmap(case: Case, devices: int, average: Callable, weight: Any, *batch: Any) -> Step:
    mapped = jax.vmap(step(case, AXIS, average), in_axes=(None, 0, 0, 0), axis_name=AXIS)
    result = jax.jit(mapped, compiler_options=QUICK)(weight, *_chunks(batch, devices))
    return _rejoined(result, devices)


def _pmap(case: Case, devices: int, average: Callable, weight: Any, *batch: Any) -> Step:
    mapped = jax.pmap(
        step(case, AXIS, average),
        in_axes=(None, 0, 0, 0),
        axis_name=AXIS,
        devices=jax.devices()[:devices],
    )
    return _rejoined(mapped(weight, *_chunks(batch, devices)), devices)


def _shard_map(
    case: Case, devices: int, average: Callable, weight: Any, *batch: Any, shape: Any, check: bool
) -> Step:
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
    result = jax.jit(mapped, compiler_options=QUICK)(weight, *batch)
    if check:
        return result
    grads = _chunks(result.embeddings, devices)
    return _rejoined(result._replace(embeddings=grads), devices)


def _sharded(
    case: Case, devices: int, average: Callable, weight: Any, *batch: Any, kind: AxisType
) -> Step:
    """Plain jit on globally sharded arrays; there is no axis name, and no part of a batch."""
    mesh = jax.make_mesh((devices,), (AXIS,), axis_types=(kind,), devices=jax.devices()[:devices])
    put = functools.partial(jax.device_put, device=NamedSharding(mesh, P(AXIS)))
    weight = jax.device_put(weight, NamedSharding(mesh, P()))
    return jax.jit(step(case, None), compiler_options=QUICK)(weight, *jax.tree.map(put, batch))


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
