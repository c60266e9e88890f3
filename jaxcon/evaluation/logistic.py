"""Logistic regression on the devices: all penalties of a grid in one program, each to its optimum.

>>> x, y = np.array([[-1.0], [1.0]], np.float32), np.array([0, 1])
>>> weak, strong = fit(x, y, [1e-3, 1.0], classes=2, devices=jax.devices()[:1])
>>> bool(weak.scores(x)[1, 1] < strong.scores(x)[1, 1])
True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TOLERANCE = 1e-4  # of the largest entry of the gradient, as in scikit-learn
ITERATIONS = 1000
_SCORES = 2**24  # numbers that the devices hold at a time: rows times classes times penalties


class Linear(NamedTuple):
    """A linear classifier.

    Attributes:
      weights: float32 `[dim, classes]`.
      bias: float32 `[classes]`; minus infinity for classes that no row was of.
    """

    weights: np.ndarray
    bias: np.ndarray

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Returns logits `[n, classes]` of rows `[n, dim]`."""
        return rows @ self.weights + self.bias


class _Tiles(NamedTuple):
    """Rows in tiles, of which each device has a part.

    Attributes:
      rows: float32 `[tiles, size, dim + 1]`; the last feature is 1 for a row, 0 for padding.
      labels: int32 `[tiles, size]`.
    """

    rows: jax.Array
    labels: jax.Array


def fit(
    rows: np.ndarray, labels: np.ndarray, strengths: Sequence[float], *, classes: int, devices: Any
) -> list[Linear]:
    """Fits a multinomial logistic regression for each inverse strength C of the l2 penalty.

    With n rows it minimizes, over weights W and a bias without penalty,

        mean_i -log softmax(x_i W + b)[y_i] + |W|^2 / (2 C n)

    until no entry of the gradient exceeds 1e-4 (or for 1,000 iterations). The problem is convex, so
    there is one optimum, and neither a learning rate nor a decay to search. In coordinates in which the
    features' covariance is diagonal, with variances v, the curvature is nowhere above v / 2 + 1 / (C n)
    (Böhning). Gradients divided by that, with Nesterov's momentum, which begins anew where it climbs,
    need no line search.

    The devices share the rows, `n dim / devices` float32 numbers each, and see them a tile at a time.

    Args:
      rows: float32 `[n, dim]`, about standardized.
      labels: int `[n]`, from 0 to classes - 1.
      strengths: values of C, each above 0.
      classes: number of classes.
      devices: devices of this process.

    Returns:
      A classifier for each strength.

    Reference:
      Böhning, Multinomial logistic regression algorithm, 1992; O'Donoghue and Candès, Adaptive restart
      for accelerated gradient schemes, 2015.
    """
    mesh = Mesh(np.array(devices), ("rows",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    n, dim = rows.shape
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    tiles = _tiled(rows - mean, labels, _SCORES // (classes * len(strengths)), mesh)
    variances, basis = np.linalg.eigh(np.asarray(_second_moments(tiles.rows))[:dim, :dim] / n)
    turn = np.eye(dim + 1, dtype=np.float32)
    turn[:dim, :dim] = basis
    decay = np.zeros((dim + 1, len(strengths), 1), np.float32)
    decay[:dim] = 1 / (np.asarray(strengths, np.float64)[:, None] * n)
    half = np.append(np.maximum(variances, 0), 1).astype(np.float32)[:, None, None] / 2
    known = np.bincount(labels, minlength=classes) > 0
    given = jax.device_put((turn, decay, half + decay, known), everywhere)
    found = np.asarray(_minimize(tiles, *given))  # (dim + 1, strengths, classes)
    models = []
    for number in range(len(strengths)):
        weights = basis @ found[:dim, number]
        bias = np.where(known, found[dim, number] - mean @ weights, -np.inf)
        models.append(Linear(weights, bias.astype(np.float32)))
    return models


def _tiled(rows: np.ndarray, labels: np.ndarray, size: int, mesh: Mesh) -> _Tiles:
    """Places rows on the devices, in tiles of about `size`."""
    n, dim = rows.shape
    size = max(1, min(n, size))
    size = -(-size // mesh.size) * mesh.size
    tiles = -(-n // size)
    padded: Any = np.zeros((tiles * size, dim + 1), np.float32)
    padded[:n, :dim], padded[:n, dim] = rows, 1
    numbers: Any = np.zeros(tiles * size, np.int32)
    numbers[:n] = labels
    shared = NamedSharding(mesh, PartitionSpec(None, "rows"))
    return jax.device_put(
        _Tiles(padded.reshape(tiles, size, dim + 1), numbers.reshape(tiles, size)), shared
    )


def _over(tiles: Any, function: Callable[..., jax.Array]) -> jax.Array:
    """Sums a function of each tile."""
    if len(jax.tree.leaves(tiles)[0]) == 1:
        return function(*(leaf[0] for leaf in tiles))
    shape = jax.eval_shape(function, *(leaf[0] for leaf in tiles))
    zero = jnp.zeros(shape.shape, shape.dtype)
    return lax.scan(lambda total, tile: (total + function(*tile), None), zero, tiles)[0]


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


@jax.jit
def _second_moments(rows: jax.Array) -> jax.Array:
    """Returns the sum over rows of their products with themselves, `[dim + 1, dim + 1]`."""
    return _over((rows,), lambda tile: _product(tile.T, tile))


@jax.jit
def _minimize(
    tiles: _Tiles, turn: jax.Array, decay: jax.Array, curvature: jax.Array, known: jax.Array
) -> jax.Array:
    """Minimizes all problems side by side, so that their products with the rows are one.

    Args:
      tiles: centred rows.
      turn: `[dim + 1, dim + 1]`, from the rows' coordinates to those of weights.
      decay: `[dim + 1, problems, 1]`, weights of the penalty.
      curvature: of the same shape, the bound.
      known: bool `[classes]`, which classes there are.

    Returns:
      Weights, the last of them the bias: `[dim + 1, problems, classes]`.
    """
    width, problems, _ = decay.shape
    classes = len(known)
    turned = tiles._replace(rows=_product(tiles.rows, turn))
    total = jnp.sum(tiles.rows[..., -1])

    def gradient(weights: jax.Array) -> jax.Array:
        def of_tile(rows: jax.Array, labels: jax.Array) -> jax.Array:
            scores = _product(rows, weights.reshape(width, -1)).reshape(-1, problems, classes)
            odds = jax.nn.softmax(jnp.where(known, scores, -jnp.inf))
            wrong = odds - (labels[:, None, None] == jnp.arange(classes))
            return _product(rows.T, wrong.reshape(-1, problems * classes))

        return _over(turned, of_tile).reshape(weights.shape) / total + decay * weights

    def step(carry: Any) -> Any:
        weights, ahead, pace, _, number = carry
        slope = gradient(ahead)
        moved = ahead - slope / curvature
        climbs = jnp.sum(slope * (moved - weights), axis=(0, 2), keepdims=True) > 0
        faster = jnp.where(climbs, 1, (1 + jnp.sqrt(1 + 4 * pace**2)) / 2)
        momentum = jnp.where(climbs, 0, (pace - 1) / faster)
        largest = jnp.max(jnp.abs(slope))
        return moved, moved + momentum * (moved - weights), faster, largest, number + 1

    def unfinished(carry: Any) -> jax.Array:
        return (carry[3] > TOLERANCE) & (carry[4] < ITERATIONS)

    zeros = jnp.zeros((width, problems, classes))
    first = (zeros, zeros, jnp.ones((1, problems, 1)), jnp.inf, 0)
    return lax.while_loop(unfinished, step, first)[0]
