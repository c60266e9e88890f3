"""Reductions over cosines, normalized tile by tile, against those of normalized rows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon import streaming
from jaxcon.similarity import l2_normalize
from jaxcon.streaming import PRECISION, Channel, reduce_cosines, reduce_pairs, sum_cosines
from tests.test_streaming import equal_ids, one_set, problem, scaled


@pytest.fixture(autouse=True)
def few_rows_are_treated_as_many(monkeypatch):
    """They would be normalized before the sweep."""
    monkeypatch.setattr(streaming, "_COPIED_ENTRIES", 0)


def cosine_total(p, x, y, scale, block_size):
    """A scalar of two channels and of the rows that come back; block_size 0: plain formulas."""
    y = x if y is None else y
    known = {k: p[k] for k in ("row_ids", "col_ids", "row_valid", "col_valid")}
    channels = [Channel(1), Channel(0, pairs=equal_ids, log=False)]
    if block_size:
        values, x, y = reduce_cosines(x, y, scale, channels, **known, block_size=block_size)
    else:
        u, v = l2_normalize(x) * scale, l2_normalize(y)
        values = reduce_pairs(u, v, channels, **known)
    row, col = (jnp.sum(jnp.where(v > -1e30, v, 0) * jnp.sin(jnp.arange(len(v)))) for v in values)
    return row + col + jnp.sum(jnp.cos(x)) + jnp.sum(jnp.sin(y) ** 2)


@pytest.mark.parametrize("block_size", [8, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("data", [problem(23, 37), one_set(29)], ids=["two sets", "one set"])
def test_cosines_are_those_of_normalized_rows(data, block_size):
    """Also where what is computed from the returned rows depends on their length."""
    arguments = (data["x"], None if data["y"] is data["x"] else data["y"], 7.0)
    argnums = (0, 2) if arguments[1] is None else (0, 1, 2)

    def value_and_grad(block_size):
        f = partial(cosine_total, data, block_size=block_size)
        return jax.jit(jax.value_and_grad(f, argnums=argnums))(*arguments)

    expected, got = value_and_grad(0), value_and_grad(block_size)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), got, expected)


def test_cosines_of_rows_of_any_scale_and_of_zero_rows():
    x, y = jax.random.normal(jax.random.key(0), (2, 9, 4))
    factor = jnp.array([1e-20, 1e20, 1.0, 0.0, *[1.0] * 5])[:, None]
    ids = jnp.arange(9)

    def f(x):
        (lse,), _, _ = reduce_cosines(
            x, y, 5.0, [Channel(1)], row_ids=ids, col_ids=ids, block_size=4
        )
        return jnp.sum(jnp.sin(lse))

    (one, grad), (other, scaled) = (jax.value_and_grad(f)(x * k) for k in (factor != 0, factor))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    np.testing.assert_allclose(
        scaled * factor, jnp.where(factor != 0, grad, 0), rtol=1e-4, atol=1e-6
    )
    assert not grad[3].any()


def weighted(p, x, y, weights, block_size):
    known = {
        k: p[k] for k in ("row_ids", "col_ids", "row_valid", "col_valid", "row_aux", "col_aux")
    }
    channels = [Channel(1, scaled, log=False), Channel(1, pairs=equal_ids, log=False)]
    return sum_cosines(x, y, 3.0, channels, weights, **known, block_size=block_size)


@pytest.mark.parametrize("block_size", [8, pytest.param(64, marks=pytest.mark.slow)])
def test_sums_take_their_gradient_in_the_forward_sweep(block_size):
    p = problem(23, 37)
    weights = [jnp.sin(jnp.arange(23.0)), jnp.cos(jnp.arange(23.0))]

    def gradient(block_size):
        f = jax.value_and_grad(partial(weighted, p, block_size=block_size), argnums=(0, 1, 2))
        return jax.jit(f)(p["x"], p["y"], weights)

    def curvature(block_size):
        inner = jax.grad(lambda x: weighted(p, x, p["y"], weights, block_size))
        return jax.jit(jax.grad(lambda x: jnp.sum(inner(x) * jnp.cos(p["x"]))))(p["x"])

    same = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(same, gradient(block_size), gradient(None))
    same(curvature(block_size), curvature(None))


def test_sums_take_three_products_and_other_reductions_four():
    x, ids = jnp.ones((64, 8)), jnp.arange(64)
    settings = {"row_ids": ids, "col_ids": ids, "block_size": 16}

    def sums(x, y):
        channels = [Channel(1, log=False)]
        return sum_cosines(x, y, 2.0, channels, [jnp.ones(64)], **settings)

    def reductions(x, y):
        return jnp.sum(reduce_cosines(x, y, 2.0, [Channel(1)], **settings)[0][0])

    def products(f):
        return str(jax.make_jaxpr(f)(x, x + 1)).count("dot_general[")

    assert products(sums) == 1
    assert products(jax.value_and_grad(sums, argnums=(0, 1))) == 3
    assert products(jax.value_and_grad(reductions, argnums=(0, 1))) == 4


def test_few_rows_are_normalized_before_the_sweep(monkeypatch):
    p = problem(23, 37)
    weights = [jnp.sin(jnp.arange(23.0)), jnp.cos(jnp.arange(23.0))]

    def value_and_grad():
        f = partial(weighted, p, weights=weights, block_size=8)
        return jax.jit(jax.value_and_grad(lambda x, y: f(x, y), argnums=(0, 1)))(p["x"], p["y"])

    in_tiles = value_and_grad()
    monkeypatch.setattr(streaming, "_COPIED_ENTRIES", p["x"].size + p["y"].size)
    assert streaming._normalizes_first(p["x"], p["y"], PRECISION, None, 8)
    assert not streaming._normalizes_first(p["x"], p["y"], PRECISION, "batch", 8)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, value_and_grad(), in_tiles)
