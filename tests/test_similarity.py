"""Similarity matrices and normalization against NumPy loops, at every scale and dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon import losses
from jaxcon.similarity import (
    as_float,
    cosine_similarity,
    dot_product,
    l2_normalize,
    paired_logits,
    squared_distance,
)

X = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(7, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("function", "of_a_pair"),
    [
        (dot_product, lambda a, b: np.sum(a * b)),
        (cosine_similarity, lambda a, b: np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))),
        (squared_distance, lambda a, b: np.sum((a - b) ** 2)),
    ],
)
def test_matrices_are_the_pairs_values(function, of_a_pair):
    expected = [[of_a_pair(a, b) for b in np.float64(Y)] for a in np.float64(X)]
    function = jax.jit(function)
    np.testing.assert_allclose(function(X, Y), expected, rtol=2e-5, atol=1e-6)
    assert function(X.astype(jnp.bfloat16), Y).dtype == jnp.float32
    with jax.enable_x64(True):
        got = function(np.float64(X), np.float64(Y))
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_squared_distance_of_equal_rows_is_not_negative():
    x = 100 * X
    assert (np.asarray(squared_distance(x, x)) >= 0).all()


@pytest.mark.parametrize("function", [dot_product, cosine_similarity, squared_distance])
@pytest.mark.parametrize(
    ("x", "y"), [(X[0], Y), (X, Y[:, :-1]), (X[None], Y)], ids=["rank 1", "widths", "rank 3"]
)
def test_other_shapes_are_refused(function, x, y):
    with pytest.raises(ValueError, match=r"expected x \[n, dim\] and y \[m, dim\]"):
        function(x, y)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_of_every_scale_become_unit_rows(dtype):
    smallest, largest = (1e-4, 1e4) if dtype == "float16" else (1e-30, 1e30)
    expected = np.float64(X) / np.linalg.norm(np.float64(X), axis=1, keepdims=True)
    unit = jax.jit(l2_normalize)
    for scale in (smallest, 1.0, largest):
        got = unit((scale * X).astype(jnp.dtype(dtype)))
        assert got.dtype == jnp.float32
        tolerance = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 8e-3}[dtype]
        np.testing.assert_allclose(got, expected, atol=tolerance)
    assert not np.any(l2_normalize(jnp.zeros((2, 3), dtype)))


def test_rows_of_every_power_of_two_become_unit_rows():
    """From where the smallest of their entries is a normal number to where the largest is finite."""
    row = np.array([0.75, -0.5, 0.25, 0.9], np.float32)
    scales = np.ldexp(np.float32(1), np.arange(-123, 128))
    got = jax.jit(l2_normalize)(scales[:, None] * row)
    expected = np.float64(row) / np.linalg.norm(np.float64(row))
    np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), rtol=3e-7)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12, 1e16])
@pytest.mark.parametrize("of", ["rows", "a pair"])
def test_second_derivatives_at_every_scale(of, scale):
    """They fall with the square of the scale."""
    x, y = jnp.asarray(X), jnp.asarray(X[::-1] + 1)

    def f(x):
        if of == "rows":
            return jnp.sum(jnp.sin(3 * l2_normalize(x)))
        return jnp.sum(jnp.sin(paired_logits(x, y, jnp.array(2.0))))

    def curvature(x, v):
        return jax.grad(lambda x: jnp.sum(jax.grad(f)(x) * v))(x)

    at_one = jax.jit(curvature)(x, y)
    got = jax.jit(curvature)(
        scale * x, scale**1.5 * y
    )  # of the result, a root of the scale is left
    np.testing.assert_allclose(got * scale**0.5, at_one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("loss", [losses.clip_loss, losses.siglip_loss, losses.ntxent_loss])
def test_a_row_of_zeros_among_constants_spoils_no_derivative(loss):
    """XLA computes ahead what depends on constants alone, and in another order."""
    z1, z2, direction = np.float32(np.random.default_rng(0).normal(size=(3, 16, 8)))
    z2[5] = 0

    def along(z1, z2):
        return jax.jvp(lambda z1: loss(z1, z2, temperature=0.3), (z1,), (direction,))[1]

    np.testing.assert_allclose(jax.jit(lambda z1: along(z1, z2))(z1), jax.jit(along)(z1, z2), 1e-4)


def test_a_row_with_inf_or_nan_is_nan():
    rows = jnp.array([[jnp.inf, 1.0], [jnp.nan, 1.0], [-jnp.inf, jnp.inf], [3.0, 4.0]])
    got = np.asarray(jax.jit(l2_normalize)(rows))
    assert np.isnan(got[:3]).all()
    np.testing.assert_allclose(got[3], [0.6, 0.8])


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
def test_the_gradient_of_normalize_is_the_projection(scale):
    """d(x / |x|) v = (v - u (u . v)) / |x|."""
    cotangent = np.random.default_rng(2).normal(size=X.shape)
    back = jax.jit(lambda x, g: jax.vjp(l2_normalize, x)[1](g)[0])
    got = back(np.float32(scale * X), np.float32(cotangent))
    length = np.linalg.norm(np.float64(X), axis=1, keepdims=True)
    u = X / length
    expected = (cotangent - u * np.sum(u * cotangent, axis=1, keepdims=True)) / length
    np.testing.assert_allclose(np.float64(got) * scale, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_cosines_of_a_zero_row_are_zero_to_the_last_bit(dtype):
    x, y = np.random.default_rng(0).normal(size=(2, 12, 5)).astype(dtype)
    x[3] = y[7] = 0
    cosines = np.array(jax.jit(cosine_similarity)(x, y))
    assert not cosines[3].any()
    assert not cosines[:, 7].any()
    assert np.abs(np.delete(np.delete(cosines, 3, 0), 7, 1)).min() > 0


def test_a_zero_row_has_zero_gradient():
    grad = jax.jit(jax.grad(lambda x: jnp.sum(l2_normalize(x) * 3.0)))(jnp.zeros((2, 4)))
    np.testing.assert_array_equal(grad, 0)


def test_what_is_not_finite_stays_visible():
    for poison in (np.nan, np.inf):
        x = X.copy()
        x[1, 2] = poison
        got = np.asarray(l2_normalize(x))
        assert not np.isfinite(got[1]).all()
        assert np.isfinite(got[[0, 2, 3, 4]]).all()


def test_the_axis_can_be_chosen():
    np.testing.assert_allclose(l2_normalize(X, axis=0), l2_normalize(X.T).T, rtol=1e-6)


def test_gradients_in_float16_saturate():
    """A row of 1e-4 has a gradient of 1e6 or so, which float16 does not hold."""
    x = jnp.full((1, 4), 1e-4, jnp.float16)
    grad = jax.jit(jax.grad(lambda x: 1e5 * l2_normalize(x)[0, 0]))(x)
    assert np.isfinite(np.float64(grad)).all()
    assert np.max(np.abs(np.float64(grad))) == np.finfo(np.float16).max


@pytest.mark.parametrize("x", [np.arange(3), np.ones(3, bool), np.ones(3, complex)])
def test_as_float_refuses_other_dtypes(x):
    with pytest.raises(ValueError, match="z must be of a floating-point dtype, got"):
        as_float(x, "z")


@pytest.mark.parametrize("dim", [768, 2048, 5000])
def test_cosines_of_equal_rows_are_equal_and_one(dim):
    """However a kernel adds up equal terms: in one order the sum of 768 of them is off by 5e-5."""
    cosines = jax.jit(cosine_similarity)
    for row in (np.ones(dim), np.random.default_rng(3).normal(size=dim), np.eye(dim)[0]):
        rows = np.float32(np.broadcast_to(row, (7, dim)))
        got = np.float64(cosines(rows, rows))
        np.testing.assert_allclose(got, 1, rtol=4 * np.finfo(np.float32).eps)
        assert np.ptp(got) <= 4 * np.finfo(np.float32).eps
