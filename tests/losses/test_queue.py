"""The queue of negatives: order, wrap-around, masks, devices, and its use in InfoNCE."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcon import losses
from jaxcon.losses import queue


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def batches(count, n, dim, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, n, dim)).astype(np.float32)


def test_the_oldest_rows_leave_first():
    state = queue.init(jax.random.key(0), size=7, dim=3)
    kept = [*zip(np.asarray(state.z), [-1] * 7, strict=True)]
    push = jax.jit(queue.push)
    for step, z in enumerate(batches(6, 4, 3)):
        ids = np.arange(4) + 10 * step
        state = push(state, z, ids=ids)
        kept = [*kept, *zip(unit(z), ids, strict=True)][-7:]
        oldest_first = np.roll(np.arange(7), -int(state.cursor))
        np.testing.assert_allclose(state.z[oldest_first], [row for row, _ in kept], rtol=1e-6)
        np.testing.assert_array_equal(state.ids[oldest_first], [i for _, i in kept])


def test_masked_rows_neither_enter_nor_push_out():
    start = queue.init(jax.random.key(0), size=6, dim=3)
    z = batches(1, 4, 3)[0]
    where = np.array([True, False, True, False])
    z[~where] = np.nan
    push = jax.jit(queue.push)
    masked = push(start, z, ids=np.arange(4), where=where)
    dense = push(start, z[where], ids=np.array([0, 2]))
    jax.tree.map(np.testing.assert_array_equal, masked, dense)


def test_a_start_is_of_unit_rows_and_no_id():
    state = queue.init(jax.random.key(3), size=5, dim=4, dtype=jnp.bfloat16)
    assert state.z.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.linalg.norm(state.z.astype(np.float32), axis=1), 1, rtol=1e-2)
    assert (state.ids == -1).all()


close = functools.partial(np.testing.assert_allclose, rtol=1e-6)


@pytest.mark.parametrize("mode", ["vmap", "pmap", "shard_map"])
def test_every_device_holds_the_queue_of_one(mode):
    state = queue.init(jax.random.key(0), size=18, dim=3)
    z = batches(1, 16, 3)[0]
    ids, where = np.arange(16, dtype=np.int32), np.arange(16) % 5 != 1
    want = jax.jit(queue.push)(state, z, ids=ids, where=where)

    def push(state, z, ids, where):
        return queue.push(state, z, ids=ids, where=where, axis_name="batch")

    if mode == "shard_map":
        mesh = Mesh(np.array(jax.devices()), ("batch",))
        specs = (P(), P("batch"), P("batch"), P("batch"))
        # out_specs P() makes shard_map prove that the state is equal on every device.
        mapped = jax.jit(jax.shard_map(push, mesh=mesh, in_specs=specs, out_specs=P()))
        got = mapped(state, z, ids, where)
        jax.tree.map(close, got, want)
        return
    transform = jax.vmap if mode == "vmap" else jax.pmap
    chunks = [a.reshape(8, 2, *a.shape[1:]) for a in (z, ids, where)]
    mapped = transform(push, axis_name="batch", in_axes=(None, 0, 0, 0))
    got = jax.device_get((jax.jit(mapped) if mode == "vmap" else mapped)(state, *chunks))
    for device in range(8):
        jax.tree.map(lambda g, w: close(g[device], w), got, want)  # noqa: B023


def test_info_nce_takes_its_rows_as_negatives_and_its_ids_take_them_back():
    state = queue.init(jax.random.key(0), size=6, dim=3)
    earlier, z1, z2 = batches(3, 4, 3)
    state = jax.jit(queue.push)(state, earlier, ids=np.arange(4))
    loss = functools.partial(losses.info_nce_loss, in_batch=False, temperature=0.5, reduce_fn=None)
    got = jax.jit(loss)(z1, z2, state.z, ids=np.arange(2, 6), negative_ids=state.ids)
    x, y, stored = unit(z1), unit(z2), np.asarray(state.z)
    for i in range(4):
        negatives = [np.exp(x[i] @ stored[k] / 0.5) for k in range(6) if state.ids[k] != i + 2]
        positive = np.exp(x[i] @ y[i] / 0.5)
        np.testing.assert_allclose(
            got[i], -np.log(positive / (positive + sum(negatives))), rtol=1e-5
        )


def test_no_gradient_flows_into_what_is_stored():
    state = queue.init(jax.random.key(0), size=6, dim=3)
    z = jnp.asarray(batches(1, 4, 3)[0])
    assert not jax.jit(jax.grad(lambda z: jnp.sum(queue.push(state, z).z ** 3)))(z).any()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda s: queue.push(s, jnp.ones((7, 3))), "holds 6 rows of width 3, got 7 rows"),
        (lambda s: queue.push(s, jnp.ones((4, 5))), "of width 5"),
        (
            lambda s: queue.push(s, jnp.ones((4, 3)), ids=jnp.ones(4)),
            "ids must be of integer dtype",
        ),
        (lambda s: queue.init(jax.random.key(0), 0, 3), "must be positive, got size=0"),
    ],
)
def test_wrong_input_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call(queue.init(jax.random.key(0), size=6, dim=3))
