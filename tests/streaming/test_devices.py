"""The reductions inside mapped functions, on sharded arrays, and round a ring of devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcon import collectives
from jaxcon.streaming import Channel, Side, reduce_pairs
from tests.streaming.problems import lse_sum, scaled

MAPPED = {
    "vmap": lambda f: jax.jit(jax.vmap(f, axis_name="batch")),
    "pmap": lambda f: jax.pmap(f, axis_name="batch", devices=jax.devices()[:4]),
}


def sharded(check_vma):
    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))

    def wrap(f):
        inner = jax.shard_map(
            lambda x, y: jax.tree.map(lambda a: a[None], f(x[0], y[0])),
            mesh=mesh,
            in_specs=P("batch"),
            out_specs=P("batch"),
            check_vma=check_vma,
        )
        return jax.jit(inner)

    return wrap


MAPPED["shard_map"] = sharded(True)
MAPPED["shard_map, check_vma=False"] = sharded(False)


@pytest.mark.parametrize("mode", MAPPED)
def test_inside_mapped_functions(mode):
    x, y = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))

    def local(x, y):
        """Own rows against all devices' columns, and against columns that are the same everywhere."""
        everywhere = jnp.ones((7, 3))
        columns = jax.lax.all_gather(y, "batch", axis=0, tiled=True)
        ids = jax.lax.axis_index("batch") * 5 + jnp.arange(5)
        call = partial(reduce_pairs, Side(x, ids), channels=[Channel(1)], block_size=3)
        (a,), (b,) = (
            call(Side(columns, jnp.arange(20))),
            call(Side(everywhere, -jnp.ones(7, int))),
        )
        return jax.lax.pmean(jnp.mean(a + b), "batch")

    def reference(x, y):
        s = x.reshape(20, 3) @ y.reshape(20, 3).T
        rows = jax.nn.logsumexp(jnp.where(jnp.eye(20, dtype=bool), -jnp.inf, s), axis=1)
        return jnp.mean(rows + jax.nn.logsumexp(x.reshape(20, 3) @ jnp.ones((3, 7)), axis=1))

    value, grads = MAPPED[mode](jax.value_and_grad(local, argnums=(0, 1)))(x, y)
    expected = jax.value_and_grad(reference, argnums=(0, 1))(x, y)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    # Where JAX keeps no account of varying values, the transpose of pmean is psum / P: 4 times 1 / 4.
    for got, want in zip(grads, expected[1], strict=True):
        factor = 1 if mode == "shard_map" else 4
        np.testing.assert_allclose(got, factor * want, rtol=1e-4, atol=1e-6)


def test_on_globally_sharded_arrays():
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    x, y = jax.random.normal(jax.random.key(0), (2, 32, 4))
    f = jax.jit(jax.value_and_grad(partial(lse_sum, block_size=8), argnums=(0, 1)))
    across = jax.device_put((x, y), NamedSharding(mesh, P("batch")))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), f(*across), f(x, y))


def ring_loss(exchange, block_size, same, x, y, axis="batch"):
    """Local part of a loss with rows and columns of all devices, by gather or by ring."""
    n = len(x)
    ids = jax.lax.axis_index(axis) * n + jnp.arange(n)
    aux = {"row_aux": jnp.sum(x, axis=1), "col_aux": jnp.sum(y, axis=1)}
    channels = [Channel(1), Channel(1, scaled)] + [Channel(0)] * (not same)
    rows = Side(x, ids, aux=aux)
    cols = None if same else Side(y, ids, aux=aux)
    if exchange == "ring":
        outputs = reduce_pairs(rows, cols, channels, ring=axis, block_size=block_size)
    else:
        cols = collectives.gather(rows if same else cols, axis)
        outputs = list(reduce_pairs(rows, cols, channels))
        outputs[2:] = [
            collectives.own_rows(collectives.logsumexp(o, axis), axis) for o in outputs[2:]
        ]
    return collectives.mean(sum(jnp.mean(o * jnp.cos(k + o)) for k, o in enumerate(outputs)), axis)


MORE = [pytest.param(n, marks=pytest.mark.exhaustive) for n in (1, 2, 4, 8)]


@pytest.mark.parametrize("devices", [5, *MORE])
@pytest.mark.parametrize("same", [False, True])
def test_ring_is_exact(devices, same):
    x, y = jax.random.normal(jax.random.key(0), (2, devices, 3, 4))

    def run(exchange):
        f = partial(ring_loss, exchange, 2, same)
        return jax.jit(jax.vmap(jax.value_and_grad(f, argnums=(0, 1)), axis_name="batch"))(x, y)

    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6), run("ring"), run("gather")
    )


@pytest.mark.parametrize(
    "mode",
    [
        "shard_map",
        pytest.param("shard_map, check_vma=False", marks=pytest.mark.exhaustive),
        pytest.param("pmap", marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize("same", [False, True])
def test_ring_inside_mapped_functions(mode, same):
    x, y = jax.random.normal(jax.random.key(0), (2, 4, 3, 4))

    def run(exchange):
        f = partial(ring_loss, exchange, 2, same)
        return MAPPED[mode](jax.value_and_grad(f, argnums=(0, 1)))(x, y)

    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6), run("ring"), run("gather")
    )


def moved_rows(same, devices, n=64, dim=32):
    """Rows of dim floats that a device sends in value and gradient, counted while tracing."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))

    def f(x, y):
        ids = jax.lax.axis_index("batch") * n + jnp.arange(n)
        cols = None if same else Side(y, ids)
        (lse,) = reduce_pairs(Side(x, ids), cols, [Channel(1)], ring="batch")
        return jax.lax.pmean(jnp.mean(lse), "batch")

    step = jax.shard_map(
        jax.value_and_grad(f, argnums=(0, 1)),
        mesh=mesh,
        in_specs=P("batch"),
        out_specs=(P(), P("batch")),
    )
    x = jnp.ones((devices * n, dim))
    jaxpr = jax.make_jaxpr(step)(x, x + 1)

    def count(jaxpr):
        found = 0
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "ppermute":
                found += sum(v.aval.size for v in eqn.invars if v.aval.size >= n * dim)
            times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
            inner = [count(inside) for inside in jaxprs_in_params(eqn.params)]
            if eqn.primitive.name == "cond":  # a branch a platform, of which one is compiled
                assert len(set(inner)) == 1
                inner = inner[:1]
            found += times * sum(inner)
        return found

    compiled = jax.jit(step).lower(x, x).compile().as_text()
    assert "all-gather" not in compiled
    assert f"f32[{devices * n},{devices * n}]" not in compiled
    return count(jaxpr.jaxpr) / (n * dim)


@pytest.mark.parametrize("devices", [5, 8])
def test_ring_moves_as_many_rows_as_derived(devices):
    # All round: P - 1 hops of the columns forward; backward P - 1 again, and P of their gradient.
    assert moved_rows(same=False, devices=devices) == 3 * (devices - 1) + 1
    # Half round: P // 2 hops forward and backward, and the gradient there and straight home.
    stops = (devices - 1) // 2
    assert moved_rows(same=True, devices=devices) == 2 * (devices // 2) + stops + 1
