"""Reductions over cosines, normalized tile by tile, against those of normalized rows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon.similarity import l2_normalize
from jaxcon.streaming import Channel, Rule, Side, reduce_cosines, reduce_pairs, sum_cosines
from jaxcon.streaming.rules import in_force
from tests.streaming.problems import equal_ids, one_set, problem, products, scaled, sides


@pytest.fixture(autouse=True)
def few_rows_are_treated_as_many():
    """They would be normalized before the sweep."""
    with in_force(Rule(copied_entries=0)):
        yield


def cosine_total(p, x, y, scale, block_size):
    """A scalar of two channels and of the rows that come back; block_size 0: plain formulas."""
    rows = Side(x, p["row_ids"], p["row_valid"])
    cols = None if y is None else Side(y, p["col_ids"], p["col_valid"])
    y = x if y is None else y
    channels = [Channel(1), Channel(0, pairs=equal_ids, log=False)]
    if block_size:
        values, x, y = reduce_cosines(rows, cols, scale, channels, block_size=block_size)
    else:
        u = rows._replace(z=l2_normalize(x) * scale)
        v = Side(l2_normalize(y), p["col_ids"], p["col_valid"])
        values = reduce_pairs(u, v, channels)
    row, col = (jnp.sum(jnp.where(v > -1e30, v, 0) * jnp.sin(jnp.arange(len(v)))) for v in values)
    return row + col + jnp.sum(jnp.cos(x)) + jnp.sum(jnp.sin(y) ** 2)


@pytest.mark.parametrize("block_size", [8, pytest.param(64, marks=pytest.mark.exhaustive)])
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
        (lse,), _, _ = reduce_cosines(Side(x, ids), Side(y, ids), 5.0, [Channel(1)], block_size=4)
        return jnp.sum(jnp.sin(lse))

    step = jax.jit(jax.value_and_grad(f))
    (one, grad), (other, scaled) = (step(x * k) for k in (factor != 0, factor))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    np.testing.assert_allclose(
        scaled * factor, jnp.where(factor != 0, grad, 0), rtol=1e-4, atol=1e-6
    )
    assert not grad[3].any()


def weighted(p, x, y, weights, block_size):
    channels = [Channel(1, scaled, log=False), Channel(1, pairs=equal_ids, log=False)]
    rows, cols = sides(p | {"x": x, "y": y})
    return sum_cosines(rows, cols, 3.0, channels, weights, block_size=block_size)


@pytest.mark.parametrize("block_size", [8, pytest.param(64, marks=pytest.mark.exhaustive)])
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
    x, ids, block = jnp.ones((512, 64)), jnp.arange(512), 256

    def sums(x, y):
        sides, channels = (Side(x, ids), Side(y, ids)), [Channel(1, log=False)]
        return sum_cosines(*sides, 2.0, channels, [jnp.ones(512)], block_size=block)

    def reductions(x, y):
        sides = Side(x, ids), Side(y, ids)
        return jnp.sum(reduce_cosines(*sides, 2.0, [Channel(1)], block_size=block)[0][0])

    assert products(sums, x, x + 1, block) == 1
    assert products(jax.value_and_grad(sums, argnums=(0, 1)), x, x + 1, block) == 3
    assert products(jax.value_and_grad(reductions, argnums=(0, 1)), x, x + 1, block) == 4


def test_few_rows_are_normalized_before_the_sweep():
    p = problem(23, 37)
    weights = [jnp.sin(jnp.arange(23.0)), jnp.cos(jnp.arange(23.0))]
    few = Rule(copied_entries=p["x"].size + p["y"].size)

    def value_and_grad():
        f = partial(weighted, p, weights=weights, block_size=8)
        return jax.jit(jax.value_and_grad(lambda x, y: f(x, y), argnums=(0, 1)))(p["x"], p["y"])

    def in_tiles(ring=None):
        """Whether it is so: the rows that come back went through the sweep."""
        came_back = []

        def trace(x):
            rows, cols = sides(p | {"x": x})
            back = reduce_cosines(rows, cols, 3.0, [Channel(1)], ring=ring, block_size=8)[1]
            came_back.append(back is x)

        mapped = jax.vmap(trace, axis_name="batch") if ring else trace
        jax.eval_shape(mapped, p["x"][None] if ring else p["x"])
        return not all(came_back)

    expected = value_and_grad()
    assert in_tiles()
    with in_force(few):
        got = value_and_grad()
        assert not in_tiles()
        assert in_tiles("batch")
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, got, expected)
