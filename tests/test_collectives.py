"""Collectives: the identity without an axis name, and what their names say with one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcon import collectives
from jaxcon.losses import ntxent_loss

DEVICES, ROWS = 8, 3
X = np.random.default_rng(0).normal(size=(DEVICES, ROWS, 2)).astype(np.float32)
ALL = X.reshape(DEVICES * ROWS, 2)


def over_devices(function):
    """The function of each device's part of X, stacked."""
    return np.asarray(jax.vmap(function, axis_name="batch")(X))


@pytest.mark.parametrize(
    "function",
    [
        collectives.gather,
        collectives.sum,
        collectives.mean,
        collectives.logsumexp,
        collectives.own_rows,
    ],
)
def test_without_an_axis_name_nothing_happens(function):
    assert function(X, None) is X


def test_trees_are_reduced_leaf_by_leaf():
    tree = {"a": X, "b": (X,)}
    got = jax.vmap(lambda t: collectives.sum(t, "batch"), axis_name="batch")(tree)
    np.testing.assert_allclose(got["b"][0][3], X.sum(0), rtol=1e-5)
    got = jax.vmap(lambda t: collectives.gather(t, "batch"), axis_name="batch")(tree)
    np.testing.assert_array_equal(got["a"][5], ALL)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (collectives.gather, ALL),
        (collectives.sum, X.sum(0)),
        (collectives.mean, X.mean(0)),
        (collectives.logsumexp, np.log(np.exp(X).sum(0))),
    ],
)
def test_every_device_has_the_same_result(function, expected):
    got = over_devices(lambda x: function(x, "batch"))
    for part in got:
        np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-6)


def test_a_single_device_gathers_nothing():
    """The losses tell by identity that both sides of a matrix are one set of rows: half the work."""
    seen = []
    jax.vmap(lambda x: seen.append(collectives.gather(x, "batch") is x), axis_name="batch")(X[:1])
    assert seen == [True]

    def products(axis_name):
        loss = functools.partial(ntxent_loss, axis_name=axis_name, block_size=4)
        step = jax.vmap(jax.grad(loss), axis_name=axis_name)
        return jax.jit(step).lower(X[:1], X[:1]).compile().cost_analysis()["flops"]

    assert products("batch") < 1.05 * products(None)


def test_own_rows_undoes_gather():
    got = over_devices(lambda x: collectives.own_rows(collectives.gather(x, "batch"), "batch"))
    np.testing.assert_array_equal(got, X)


def test_indices_follow_the_order_of_gather():
    got = over_devices(lambda x: collectives.row_index(len(x), "batch"))
    np.testing.assert_array_equal(got.reshape(-1), np.arange(DEVICES * ROWS))
    np.testing.assert_array_equal(collectives.row_index(4, None), np.arange(4))
    assert got.dtype == np.int32


def test_a_tuple_of_axis_names_in_the_order_of_the_mesh():
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    names = ("data", "model")

    def local(x):
        gathered = collectives.gather(x, names)
        return (
            collectives.row_index(len(x), names),
            collectives.own_rows(gathered, names),
            jnp.full(len(x), collectives.size(names)),
            gathered[None],
        )

    index, own, size, gathered = jax.shard_map(
        local, mesh=mesh, in_specs=P(names), out_specs=P(names)
    )(ALL)
    np.testing.assert_array_equal(index, np.arange(DEVICES * ROWS))
    np.testing.assert_array_equal(own, ALL)
    np.testing.assert_array_equal(size, DEVICES)
    np.testing.assert_array_equal(gathered, np.broadcast_to(ALL, (DEVICES, *ALL.shape)))


def test_gradients_return_to_the_device_of_the_row():
    """All devices read all rows: each row's gradient is the sum over the readers."""
    factor = np.random.default_rng(1).normal(size=(DEVICES, *ALL.shape)).astype(np.float32)

    def total(x):
        read = jax.vmap(lambda a: collectives.gather(a, "batch"), axis_name="batch")(x)
        return jnp.sum(read * factor)

    np.testing.assert_allclose(jax.grad(total)(X).reshape(ALL.shape), factor.sum(0), rtol=1e-5)


def test_logsumexp_of_large_and_absent_terms():
    x = np.full((DEVICES, 2), -np.finfo(np.float32).max / 4, np.float32)
    x[2, 0] = 1000.0
    got = jax.vmap(lambda a: collectives.logsumexp(a, "batch"), axis_name="batch")(x)
    np.testing.assert_allclose(got[:, 0], 1000.0)
    assert np.isfinite(got).all()


def test_an_unbound_name_is_named():
    with pytest.raises(ValueError, match=r"axis_name='rows' is not bound here.*shard_map"):
        collectives.check_bound("rows")
    collectives.check_bound(None)
