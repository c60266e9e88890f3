"""Squared distances of all pairs by one matrix product, right even for pairs that are close.

`|x|^2 + |y|^2 - 2 x . y` costs one product, but is a difference of numbers of the size of `|x|^2`:
in float32, unit rows that differ by 5e-4 come out wrong by half, closer ones as 0. So

- rows are taken relative to their mean, which changes no distance and makes a narrow cone wide;
- rows with a pair whose distance is still a small part of their lengths are found, and such pairs are
  computed once more, as sums of squares of differences. Where there are none, that costs nothing.

>>> import jax.numpy as jnp
>>> from jaxcon.similarity.distances import squared_distances
>>> x = jnp.array([[1.0, 1.0], [1.0, 1.0001], [-1.0, 2.0]])
>>> print(f"{squared_distances(x, x)[0, 1]:.2e}")
1.00e-08
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon.typing import Array

# A pair is close if its squared distance is below this part of |x|^2 + |y|^2. Above it the product's
# rounding, some 1e-7 of the lengths (1e-6 for rows of some thousand features), is at most 1e-3 of the
# square and half of that of its root.
_CLOSE = 2.0**-10
# Pairs among which the nearest are found together: 64 MiB in float32.
_PAIRS_AT_ONCE = 2**24


def squared_distances(
    x: Array, y: Array, keep: Array | None = None, *, precision: Any = lax.Precision.HIGHEST
) -> Array:
    """Computes `|x_i - y_j|^2` of all pairs, differentiable in every mode.

    Args:
      x: `[n, dim]`; y: `[m, dim]`, of one float dtype; bfloat16 is computed in float32.
      keep: bool `[n, m]`, the pairs that matter: among the others, close ones may keep the rounding
        of the product. None: all.
      precision: of the product, in which rows of any dtype are relative to their mean: float32.

    Returns:
      `[n, m]`, at least float32; never negative for pairs that matter.
    """
    return squares_and_near(x, y, keep, precision=precision)[0]


def nearest(x: Array, y: Array, keep: Callable[[Array], Array]) -> Array:
    """Finds the row of y that is nearest to each row of x, by the same measure; no derivative.

    For each row the smallest product form decides; where that is close, the differences do. No matrix
    of distances is written out, and on no platform are more than 2^24 held at a time.

    Example:
      >>> x = jnp.array([[1.0, 1.0], [1.0, 1.0001], [1.0, 1.0003]])
      >>> print(nearest(x, x, lambda i: i[:, None] != jnp.arange(3)))
      [1 0 1]

    Args:
      x: `[n, dim]`; y: `[m, dim]`, m at least 1; of one float dtype.
      keep: from indices of rows of x, int `[b]`, to the pairs that matter, bool `[b, m]`.

    Returns:
      int `[n]`; 0 where no pair matters.
    """
    x, y = _wide(x), _wide(y)
    u, v = _centred(x, y)
    of_y = jnp.sum(v * v, axis=1)
    n, at_once = len(x), max(_PAIRS_AT_ONCE // len(y), 1)

    def of_rows(rows: Array) -> Array:
        x_rows, u_rows, kept = x[rows], u[rows], keep(rows)
        of_x = jnp.sum(u_rows * u_rows, axis=1)
        products = _product(u_rows, v, lax.Precision.HIGHEST)
        ordered = of_y[None, :] - 2 * products  # |u_i - v_j|^2 - |u_i|^2
        ordered = jnp.where(kept, ordered, jnp.inf)
        index = jnp.argmin(ordered, axis=1)
        least = of_x + jnp.min(ordered, axis=1)
        left = least < _CLOSE * (of_x + jnp.max(of_y))  # a few more than those with a close pair

        def mend(i: Array, index: Array) -> Array:
            best = jnp.argmin(jnp.where(kept[i], _by_differences(x_rows[i], y), jnp.inf))
            return index.at[i].set(best.astype(index.dtype))

        return _over_rows(left, mend, index)

    if n <= at_once:
        return of_rows(jnp.arange(n))
    blocks = jnp.arange(-(-n // at_once) * at_once).reshape(-1, at_once)
    return lax.map(of_rows, jnp.minimum(blocks, n - 1)).reshape(-1)[:n]


def squares_and_near(
    x: Array, y: Array, keep: Array | None, *, precision: Any, centred: bool = False
) -> tuple[Array, Array]:
    """Computes the squared distances, and which rows have close pairs: `[n]`, 1 or 0.

    `centred`: whether x and y are rows of `centred_rows`, which no mean is subtracted from again.
    """
    keep = jnp.ones((len(x), len(y)), bool) if keep is None else keep
    return _squares(_wide(x), _wide(y), keep, precision, centred)


def centred_rows(x: Array) -> Array:
    """Subtracts the mean of the rows from each, for many calls of `squares_and_near`."""
    return _centred(*(_wide(x),) * 2)[1]


def pulled_back(
    x: Array, y: Array, near: Array, cotangent: Array, *, precision: Any
) -> tuple[Array, Array]:
    """Computes cotangents of x and y from that of the squared distances; rows `near` have close pairs.

    Plain autodiff would compute the product of the rows once more to find those pairs.
    """
    tangent = partial(_tangent, _wide(x), _wide(y), near, precision, False)
    return jax.linear_transpose(tangent, _wide(x), _wide(y))(cotangent)


def add_pulled_back(
    total: Array, y: Array, i: Array, near: Array, cotangent: Array, *, precision: Any
) -> Array:
    """Adds to `total` the cotangent of y, centred rows of which the rows i are compared with all.

    The sum of what `pulled_back` has for both sides, but in place: beside `total` and y, one matrix of
    their size is held. It has no derivative in reverse mode.

    Args:
      total, y: `[m, dim]`; i: int `[b]`; near: `[b]`.
      cotangent: `[b, m]`, of the squared distances.
    """
    u, far = y[i], 2 * (1 - near)[:, None] * cotangent
    total = total + jnp.sum(far, axis=0)[:, None] * y - _product(far.T, u.T, precision)
    total = total.at[i].add(jnp.sum(far, axis=1)[:, None] * u - _product(far, y.T, precision))

    def mend(k: Array, total: Array) -> Array:
        more = 2 * cotangent[k][:, None] * (y - u[k][None, :])
        return (total + more).at[i[k]].add(-jnp.sum(more, axis=0))

    return _over_rows(near > 0, mend, total)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
@partial(jax.jit, static_argnums=(3, 4), inline=True)  # for eager calls, which then compile once
def _squares(x: Array, y: Array, keep: Array, precision: Any, centred: bool) -> tuple[Array, Array]:
    u, v = (x, y) if centred else _centred(x, y)
    of_x, of_y = jnp.sum(u * u, axis=1), jnp.sum(v * v, axis=1)
    square = (
        of_x[:, None] + of_y[None, :] - 2 * _product(u, v, precision)
    )  # (n, d) . (d, m) -> (n, m)
    # From the scaled lengths, not the sum above scaled, which XLA would write out as a matrix.
    bound_x, bound_y = _CLOSE * of_x, _CLOSE * of_y
    close = square < bound_x[:, None] + bound_y[None, :]  # False for NaN, which stays visible
    near = jnp.any(close & keep, axis=1)
    if 0 in square.shape:
        return square, near.astype(x.dtype)

    def mend(i: Array, square: Array) -> Array:
        close = square[i] < bound_x[i] + bound_y
        return square.at[i].set(jnp.where(close, _by_differences(x[i], y), square[i]))

    square = _over_rows(near, mend, square)
    return square, near.astype(x.dtype)  # a float, which has a tangent in every version of JAX


@_squares.defjvp
def _squares_jvp(precision: Any, centred: bool, primals: Any, tangents: Any) -> Any:
    x, y, keep = primals
    # Under a checkpoint, a scan that is differentiated twice does not lose this rule.
    again = jax.checkpoint(_squares, static_argnums=(3, 4))
    square, near = again(x, y, keep, precision, centred)
    tangent = _tangent(x, y, near, precision, centred, *tangents[:2])
    return (square, near), (tangent, 0 * near)


@partial(jax.jit, static_argnums=(3, 4), inline=True)
def _tangent(
    x: Array, y: Array, near: Array, precision: Any, centred: bool, dx: Array, dy: Array
) -> Array:
    """Computes `2 (x_i - y_j) . (dx_i - dy_j)`, linear in dx and dy; for near rows by differences.

    Factors per row leave those out of the products: a factor per pair would have to be kept for a
    derivative.
    """
    u, v = (x, y) if centred else _centred(x, y)
    far = 2 * (1 - near)[:, None]
    square = jnp.sum(far * u * dx, axis=1)[:, None] + far * jnp.sum(v * dy, axis=1)[None, :]
    square = square + _product(-far * dx, v, precision) + _product(-far * u, dy, precision)
    if 0 in square.shape:
        return square

    @jax.checkpoint  # keeps no differences of all pairs, nor y for every row, for a derivative
    def of_row(x_i: Array, near_i: Array, y: Array) -> Array:
        def nothing(x_i: Array, y: Array) -> Array:
            return 0 * y[:, 0]

        return lax.cond(near_i > 0, _by_differences, nothing, x_i, y)

    def by_rows(x: Array, y: Array) -> Array:
        return lax.map(lambda row: of_row(*row, y), (x, near))

    def mended(dx: Array, dy: Array) -> Array:
        return jax.jvp(by_rows, (x, y), (dx, dy))[1]

    def none_mended(dx: Array, dy: Array) -> Array:
        # Of a constant, autodiff would write a matrix of zeros.
        return jnp.broadcast_to(0 * dx[:1, :1], square.shape)

    return square + lax.cond(jnp.any(near > 0), mended, none_mended, dx, dy)


def _by_differences(x_i: Array, y: Array) -> Array:
    """Computes squared distances of one row to all rows of y."""
    return jnp.sum((x_i[None, :] - y) ** 2, axis=1)


def _over_rows(left: Array, mend: Callable[[Array, Array], Array], value: Array) -> Array:
    """Applies `mend(i, value)` for each row i that is left: no turn where there is none."""

    def turn(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        left, value = carry
        i = jnp.argmax(left)  # the first row that is left
        return left.at[i].set(False), mend(i, value)

    return lax.while_loop(lambda carry: jnp.any(carry[0]), turn, (left, value))[1]


def _wide(x: Array) -> Array:
    return jnp.asarray(x).astype(jnp.promote_types(x.dtype, jnp.float32))


def _centred(x: Array, y: Array) -> tuple[Array, Array]:
    """Subtracts the mean of y's rows, on which distances do not depend, from both sets of rows."""
    used = jnp.any(y != 0, axis=1).astype(x.dtype)  # rows of zeros are padding
    mean = lax.stop_gradient(used @ y / jnp.maximum(jnp.sum(used), 1))
    mean = jnp.where(jnp.isfinite(mean), mean, 0)[None, :]  # one bad row is no reason to spoil all
    return x - mean, y - mean


def _product(x: Array, y: Array, precision: Any) -> Array:
    return jnp.matmul(x, y.T, precision=precision)
