"""The reductions against plain float64 formulas: values, gradients, what is at the edge."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon.streaming import Channel, Side, nothing, reduce_pairs
from tests.streaming.problems import CHANNELS, differentiable, problem, sides, slow_reduce, total


@pytest.mark.parametrize("distances", [False, True])
@pytest.mark.parametrize("block_size", [None, 8, pytest.param(64, marks=pytest.mark.exhaustive)])
def test_values_are_those_of_the_definition(data, block_size, distances):
    reduce = partial(reduce_pairs, channels=CHANNELS, block_size=block_size, distances=distances)
    outputs = jax.jit(lambda sides: reduce(*sides))(sides(data))
    for output, expected in zip(outputs, slow_reduce(data, distances), strict=True):
        np.testing.assert_allclose(output, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "distances"),
    [
        ({"block_size": 8, "bound": 40.0}, False),
        ({"block_size": 8}, True),
        pytest.param({"block_size": 64}, False, marks=pytest.mark.exhaustive),
    ],
)
def test_gradients_are_those_of_plain_operations(data, settings, distances):
    diff = differentiable(data)

    def gradient(**settings):
        return jax.jit(jax.grad(lambda d: total(data, d, distances=distances, **settings)))(diff)

    plain, tiled = gradient(), gradient(**settings)
    for name, expected in plain.items():
        scale = np.linalg.norm(expected)
        assert np.linalg.norm(tiled[name] - expected) < 1e-5 * scale, name


@pytest.mark.parametrize("block_size", [None, 4])
def test_without_rows_there_is_nothing(block_size):
    x, ids = jnp.ones((3, 2)), jnp.arange(3)
    for rows, cols in ((0, 3), (3, 0), (0, 0)):
        channels = [Channel(1), Channel(0, log=False)]
        reduce = jax.jit(partial(reduce_pairs, channels=channels, block_size=block_size))
        lse, total = reduce(Side(x[:rows], ids[:rows]), Side(x[:cols] + 1, ids[:cols]))
        np.testing.assert_array_equal(lse, np.full(rows, nothing(np.float32)))
        np.testing.assert_array_equal(total, np.zeros(cols))


@pytest.mark.parametrize("block_size", [0, -1, 2.5])
def test_a_block_size_that_is_no_positive_integer_is_refused(block_size):
    with pytest.raises(ValueError, match="block_size must be a positive integer"):
        reduce_pairs(*sides(problem(4, 4)), CHANNELS, block_size=block_size)


@pytest.mark.parametrize("block_size", [None, 4])
def test_rows_without_a_pair_are_finite_with_zero_gradient(block_size):
    x = jnp.ones((6, 3))
    ids = jnp.zeros(6, int)

    def f(x):
        (lse,) = reduce_pairs(Side(x, ids), None, [Channel(1)], block_size=block_size)
        return jnp.sum(jax.nn.softplus(lse)), lse

    (value, lse), grad = jax.jit(jax.value_and_grad(f, has_aux=True))(x)
    assert value == 0
    assert np.all(lse == nothing(jnp.float32))
    assert not grad.any()


@pytest.mark.parametrize("bound", [None, 10.0])
def test_nan_in_a_valid_row_stays_visible(bound):
    x = jax.random.normal(jax.random.key(0), (9, 3)).at[4].set(jnp.nan)
    ids = jnp.arange(9)
    call = partial(reduce_pairs, cols=None, channels=[Channel(1)], block_size=4, bound=bound)
    assert np.isnan(call(Side(x, ids))[0]).all()
    assert np.isfinite(call(Side(x, ids, valid=ids != 4))[0][0])


@pytest.mark.parametrize(
    "temperature", [pytest.param(0.5, marks=pytest.mark.exhaustive), 0.07, 0.01]
)
@pytest.mark.parametrize("block_size", [None, 16])
def test_float32_error_at_low_temperature(temperature, block_size):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(64, 16))
    z = np.concatenate([z, z + 0.01 * rng.normal(size=z.shape)])  # aligned pairs
    u = z / np.linalg.norm(z, axis=1, keepdims=True) / np.sqrt(temperature)
    ids = jnp.tile(jnp.arange(64), 2)
    s = np.where(ids[:, None] == ids, -np.inf, u @ u.T)
    lse = np.logaddexp.reduce(s, axis=1)
    weights = np.exp(s - lse[:, None])
    expected = (weights + weights.T) @ u

    def f(u):
        side, bound = Side(u, ids), 1 / temperature
        return reduce_pairs(side, None, [Channel(1)], block_size=block_size, bound=bound)[0]

    u32 = jnp.asarray(u, jnp.float32)
    np.testing.assert_allclose(jax.jit(f)(u32), lse, rtol=3e-6, atol=3e-6)
    grad = jax.jit(jax.grad(lambda u: f(u).sum()))(u32)
    assert np.linalg.norm(grad - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize(("block_size", "shape"), [(16, "16x16"), (None, "40x24")])
def test_bfloat16_is_multiplied_as_such_and_accumulated_in_float32(block_size, shape):
    p = problem(40, 24, dim=64)
    half = {k: p[k].astype(jnp.bfloat16) for k in ("x", "y")}
    rounded = {k: v.astype(jnp.float32) for k, v in half.items()}

    def call(x, y):
        rows, cols = Side(x, p["row_ids"], p["row_valid"]), Side(y, p["col_ids"], p["col_valid"])
        return reduce_pairs(rows, cols, (Channel(1), Channel(0)), block_size=block_size)

    jitted = jax.jit(call)
    for got, expected in zip(jitted(**half), jitted(**rounded), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    text = jitted.lower(**half).as_text()
    dots = [line for line in text.splitlines() if "dot_general" in line]
    assert dots
    assert all("bf16" in line and f"-> tensor<{shape}xf32>" in line for line in dots)
