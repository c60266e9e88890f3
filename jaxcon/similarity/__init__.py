"""Similarity matrices between two sets of rows, accumulated in at least float32.

>>> import jax.numpy as jnp
>>> from jaxcon import similarity
>>> x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
>>> y = jnp.array([[6.0, 8.0], [-4.0, 3.0], [0.3, 0.4]])
>>> print(similarity.cosine_similarity(x, y).round(4))
[[1. 0. 1.]
 [0. 0. 0.]]
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon.similarity.distances import squared_distances
from jaxcon.typing import Array, ArrayLike


def l2_normalize(x: ArrayLike, *, axis: int = -1) -> Array:
    """Divides rows by their Euclidean norm: `x / |x|`, and 0 (with zero gradient) for a zero row.

    Right for rows of any scale that the dtype can hold: the squares of a row of 1e-20 or 1e20 would
    under- or overflow, so such rows are first multiplied by a power of 2. That factor is held constant
    in the gradient; this changes nothing, as `x / |x|` is scale-invariant.
    `x / max(norm, eps)`, the usual form, has NaN gradients at 0.

    Args:
      x: `[..., dim]`, any float dtype. Entries below the smallest normal number of the dtype
        (1.2e-38 in float32) may count as 0, as on CPUs.
      axis: the axis whose norm becomes 1.

    Returns:
      An array of the shape of `x`, of `promote_types(x.dtype, float32)`.

    Raises:
      ValueError: if `x` is not of a float dtype.

    Example:
      >>> print(l2_normalize(jnp.array([[3e20, 4e20], [3e-20, 4e-20], [0.0, 0.0]])).round(6))
      [[0.6 0.8]
       [0.6 0.8]
       [0.  0. ]]
    """
    rows = jnp.moveaxis(as_float(x, "x"), axis, -1)
    return jnp.moveaxis(scaled_unit_rows(rows, jnp.ones((), rows.dtype)), -1, axis)


@jax.custom_jvp
def scaled_unit_rows(x: Array, scale: Array) -> Array:
    """Computes `scale x / |x|` of rows along the last axis; see `l2_normalize`. `scale` is positive.

    With `o` the result, the derivative `scale dx / |x| - o (o . dx) / (scale |x|)` needs only `o`
    and the norms. Autodiff of the formula would keep two further matrices of the size of x, which for
    a million rows is half of all memory.
    """
    magnitude, inverse = norms(x)
    return (x / magnitude) * (inverse * scale)


@scaled_unit_rows.defjvp
def _scaled_unit_rows_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (x, scale), (dx, dscale) = primals, tangents
    out = scaled_unit_rows(x, scale)
    magnitude, inverse = norms(x)
    inverse = inverse / magnitude
    along = jnp.sum(out * dx, axis=-1, keepdims=True) * (inverse / scale)
    return out, dx * inverse * scale + out * (dscale / scale - along)


def norms(x: Array) -> tuple[Array, Array]:
    """Computes rows' magnitude m and `m / |x|`, 0 for a zero row: `[..., dim]` to twice `[..., 1]`.

    m is a power of 2, 1 but for rows of extreme scale, and constant in derivatives, so `m / |x| / m`
    has those of `1 / |x|`.
    """
    rows = x.reshape(-1, x.shape[-1])
    values = by_rows(_norms, rows)
    return tuple(v.reshape(*x.shape[:-1], 1) for v in values)


@jax.custom_jvp
@partial(jax.jit, inline=True)  # here and below: for eager calls, which then compile once
def _norms(x: Array) -> tuple[Array, Array]:
    """Sums squares at three scales in one pass over x, of which one holds all that counts of any row.

    In float32 the factor is 2^89. Plain squares serve sums from 2^-60 to 2^89: what is lost below
    2^-126 is no part of them. Smaller rows, times 2^89, and larger ones, divided by it, have entries
    below 2^60 and sums below 2^118.
    """
    info = jnp.finfo(x.dtype)
    exponent, edge = int(0.7 * info.maxexp), 2.0 ** int(0.47 * info.maxexp)
    factor = 2.0**exponent

    def squares(f: float) -> Array:
        # Clipped, or XLA multiplies the factors of both first: of constant zeros, 0 times 2^178 is NaN.
        y = jnp.clip(x * f, -edge, edge)
        return jnp.sum(y * y, axis=-1)

    plain, small, large = jnp.sum(x * x, axis=-1), squares(factor), squares(1 / factor)
    is_small, is_large = plain < 2.0 ** (-2 * exponent // 3), plain > factor
    zero = is_small & (small < (info.tiny * factor) ** 2)  # False for NaN, which stays visible
    square = jnp.where(is_large, large, jnp.where(is_small, small, plain))
    magnitude = jnp.where(is_large, factor, jnp.where(is_small & ~zero, 1 / factor, 1.0))
    inverse = jnp.where(zero, 0, lax.rsqrt(jnp.where(zero, 1, square)))
    inverse = jnp.where(is_large & (large >= edge**2), jnp.nan, inverse)  # inf is among its entries
    return magnitude.astype(x.dtype), inverse


@_norms.defjvp
def _norms_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    """Reads the scale that counts alone: at the others, the squares of a row may be infinite."""
    (x,), (dx,) = primals, tangents
    magnitude, inverse = _norms(x)
    factor = (inverse / magnitude)[:, None]
    change = -inverse * jnp.sum(
        (x / magnitude[:, None] * inverse[:, None]) * (dx * factor), axis=-1
    )
    return (magnitude, inverse), (0 * magnitude, change)


_AT_A_TIME = 4096


def by_rows(f: Callable[..., Any], *arrays: Array) -> Any:
    """Computes `f(*arrays)`, values per row of `[n, dim]`; on CPUs some thousands of rows at a time.

    There XLA computes the operand of a row sum as a matrix of its own: this way it is never large.
    """
    if len(arrays[0]) <= _AT_A_TIME:
        return f(*arrays)
    return lax.platform_dependent(*arrays, cpu=partial(_some_at_a_time, f), default=f)


def _some_at_a_time(f: Callable[..., Any], *arrays: Array) -> Any:
    n = len(arrays[0]) // _AT_A_TIME * _AT_A_TIME
    whole = tuple(a[:n].reshape(-1, _AT_A_TIME, a.shape[1]) for a in arrays)
    values = jax.tree.map(jnp.ravel, lax.map(lambda blocks: f(*blocks), whole))
    if n == len(arrays[0]):
        return values
    return jax.tree.map(lambda *v: jnp.concatenate(v), values, f(*(a[n:] for a in arrays)))


def cosine_similarity(x: ArrayLike, y: ArrayLike) -> Array:
    """Computes the cosines `x_i . y_j / (|x_i| |y_j|)`, in [-1, 1]; 0 where a row is zero.

    Args:
      x: `[n, dim]`.
      y: `[m, dim]`.

    Returns:
      `[n, m]`, at least float32.

    Raises:
      ValueError: if the arguments are not matrices of equal width and of a float dtype.

    Example:
      >>> x, y = jnp.array([[1.0, 1.0]]), jnp.array([[2.0, 2.0], [-3.0, -3.0]])
      >>> print(cosine_similarity(x, y).round(4))
      [[ 1. -1.]]
    """
    u, v = (l2_normalize(z) for z in _matrices(x, y))
    cosines = centred_product(u, v, _dot)
    either = jnp.any(u != 0, axis=1)[:, None] & jnp.any(v != 0, axis=1)[None, :]
    return jnp.where(either, cosines, 0)  # exactly 0: rows of 0 are equally near to all


def dot_product(x: ArrayLike, y: ArrayLike) -> Array:
    """Computes inner products `x_i . y_j`. Arguments and result are as in `cosine_similarity`.

    Example:
      >>> print(dot_product(jnp.eye(2), jnp.ones((1, 2))))
      [[1.]
       [1.]]
    """
    return _dot(*_matrices(x, y))


def squared_distance(x: ArrayLike, y: ArrayLike) -> Array:
    """Computes squared Euclidean distances `|x_i - y_j|^2`, never negative.

    Right to a thousandth of their value in float32, even between rows that are far closer to each other
    than to 0; `jaxcon.similarity.distances` says how. Arguments and result are as in
    `cosine_similarity`.

    Example:
      >>> print(squared_distance(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])))
      [[25.]]
    """
    return squared_distances(*_matrices(x, y), precision=lax.Precision.HIGHEST)


def paired_logits(x: Array, y: Array, scale: Array) -> Array:
    """Computes `scale cos(x_i, y_i)` of each pair.

    A loss of well-aligned pairs is about the small angle between them. `1 - |u - v|^2 / 2` gives it to
    many digits, whereas u . v is rounded, as are |u| and |v| to 1, at about 1e-7: 1e-5 after division
    by a temperature of 0.01. Far from alignment it is the other way round.

    Example:
      >>> x = jnp.array([[1.0, 1.0], [3.0, 4.0]])
      >>> print(paired_logits(x, jnp.array([[2.0, 2.0], [-4.0, 3.0]]), jnp.array(10.0)))
      [10.  0.]
    """
    return _paired_logits(x, y, norms(x), norms(y), scale)


def view_logits(z: Array, scale: Array) -> Array:
    """Does `paired_logits` for two views in one array, `z [2 n, dim]`: row i with row n + i.

    It takes the norms of all rows at once, as a loss does that compares each row with all.
    """
    of_all = norms(z)
    x, y = jnp.split(z, 2)
    of_x, of_y = zip(*(jnp.split(a, 2) for a in of_all), strict=True)
    return _paired_logits(x, y, of_x, of_y, scale)


@partial(jax.jit, inline=True)
def _paired_cosines(x: Array, y: Array, *of_both: Array) -> Array:
    x_size, x_inverse, y_size, y_inverse = of_both
    u, v = (x / x_size) * x_inverse, (y / y_size) * y_inverse
    dot, apart = jnp.sum(u * v, axis=1), jnp.sum((u - v) ** 2, axis=1)
    return jnp.where(dot > 0.5, 1 - apart / 2, dot)


@jax.custom_jvp
def _paired_logits(x: Array, y: Array, of_x: Any, of_y: Any, scale: Array) -> Array:
    return scale * by_rows(_paired_cosines, x, y, *of_x, *of_y)


@_paired_logits.defjvp
def _paired_logits_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    """Uses `d cos = (v - cos u) . dx / |x| + (u - cos v) . dy / |y|`: no matrix outlives a pass.

    That includes what the norms change.
    """
    x, y, (x_size, x_inverse), (y_size, y_inverse), scale = primals
    dx, dy, _, _, dscale = tangents
    cosine = by_rows(_paired_cosines, x, y, x_size, x_inverse, y_size, y_inverse)
    u, v = (x / x_size) * x_inverse, (y / y_size) * y_inverse
    to_x = (v - cosine[:, None] * u) * (scale * x_inverse) / x_size
    to_y = (u - cosine[:, None] * v) * (scale * y_inverse) / y_size
    return scale * cosine, cosine * dscale + jnp.sum(to_x * dx + to_y * dy, axis=1)


def centred_product(x: Array, y: Array, product: Callable[[Array, Array], Array]) -> Array:
    """Computes `x y^T` as `(x - c) (y - c)^T + x . c + (y - c) . c`, c the mean of y's rows.

    Some kernels add the terms of an inner product one after the other: the sum of 768 equal ones, of
    rows of ones, is then off by 5e-5, always in the same direction. With equal rows there is nothing
    left to add here, and all products agree to a few roundings, whatever the kernel. Rows with fewer
    digits than float32 stay as they are: their differences from a mean would be rounded.
    """
    if jnp.finfo(x.dtype).bits < 32:
        return product(x, y)
    c = lax.stop_gradient(jnp.mean(y, axis=0))
    c = jnp.where(jnp.isfinite(c), c, 0)[None, :]  # one bad row is no reason to spoil all
    along_x, along_y = _sum_in_stages(x * c), _sum_in_stages((y - c) * c)
    return product(x - c, y - c) + along_x[:, None] + along_y[None, :]


def _sum_in_stages(x: Array, stage: int = 32) -> Array:
    """Sums rows `[n, dim]` so that roundings do not add up: 32 terms at a time, then those sums."""
    while x.shape[1] > stage:
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % stage)))
        x = jnp.sum(x.reshape(len(x), x.shape[1] // stage, stage), axis=2)
        x = lax.optimization_barrier(x)  # or XLA makes one long sum of the two
    return jnp.sum(x, axis=1)


def as_float(x: ArrayLike, name: str) -> Array:
    """Returns `x` as an array of float32 or wider; a ValueError names an argument that is not float."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"{name} must be of a floating-point dtype, got {x.dtype}; "
            f"convert it with {name}.astype('float32')"
        )
    if x.dtype == jnp.float16:
        return _widen_float16(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@jax.custom_vjp
def _widen_float16(x: Array) -> Array:
    """Casts float16 to float32. The gradient saturates at 65504: that of a row of 1e-4 may be 1e6."""
    return x.astype(jnp.float32)


def _widen_float16_fwd(x: Array) -> tuple[Array, None]:
    return _widen_float16(x), None


def _widen_float16_bwd(_: None, g: Array) -> tuple[Array]:
    limit = float(jnp.finfo(jnp.float16).max)
    return (jnp.clip(g, -limit, limit).astype(jnp.float16),)


_widen_float16.defvjp(_widen_float16_fwd, _widen_float16_bwd)


def _matrices(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    x, y = as_float(x, "x"), as_float(y, "y")
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"expected x [n, dim] and y [m, dim] of equal width, got {x.shape} and {y.shape}; "
            "flatten trailing axes with x.reshape(len(x), -1)"
        )
    return x, y


def _dot(x: Array, y: Array) -> Array:
    # Explicit precision: the default is TF32 on NVIDIA GPUs and bfloat16 on TPUs.
    return jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST)  # (n, d) . (d, m) -> (n, m)
