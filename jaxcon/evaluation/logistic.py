"""Logistic regression on the devices: all penalties of a grid in one program, each to its optimum.

>>> x, y = np.array([[-1.0], [1.0]], np.float32), np.array([0, 1])
>>> weak, strong = fit(x, y, [1e-3, 1.0], classes=2, devices=jax.devices()[:1])
>>> bool(weak.scores(x)[1, 1] < strong.scores(x)[1, 1])
True
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TOLERANCE = 1e-4  # of the largest entry of the gradient, as in scikit-learn
ITERATIONS = 300
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


def fit(
    rows: np.ndarray,
    labels: np.ndarray,
    strengths: Sequence[float],
    *,
    classes: int,
    devices: Sequence[Any],
    start: Linear | None = None,
) -> list[Linear]:
    """Fits a multinomial logistic regression for each inverse strength C of the l2 penalty.

    With n rows it minimizes, over weights W and a bias without penalty,

        mean_i -log softmax(x_i W + b)[y_i] + |W|^2 / (2 C n)

    by L-BFGS on all rows, until no entry of the gradient exceeds 1e-4 (or 300 iterations). The problem
    is convex: there is one optimum, and neither a learning rate nor a decay to search. The devices
    share the rows, `n dim / devices` float32 numbers each, and see them a tile at a time.

    Args:
      rows: float32 `[n, dim]`, about standardized.
      labels: int `[n]`, from 0 to classes - 1.
      strengths: values of C, each above 0.
      classes: number of classes.
      devices: devices of this process.
      start: a classifier to begin at instead of zeros.

    Returns:
      A classifier for each strength.
    """
    mesh = Mesh(np.array(devices), ("rows",))
    n, dim = rows.shape
    tile = max(1, min(n, _SCORES // (classes * len(strengths))))
    tile = -(-tile // len(devices)) * len(devices)
    tiles = -(-n // tile)

    def tiled(values: np.ndarray) -> jax.Array:
        whole = np.zeros((tiles * tile, *values.shape[1:]), values.dtype)
        whole[:n] = values
        sharding = NamedSharding(mesh, PartitionSpec(None, "rows"))
        return jax.device_put(whole.reshape(tiles, tile, *values.shape[1:]), sharding)

    known = np.bincount(labels, minlength=classes) > 0
    if start is None:
        start = Linear(np.zeros((dim, classes), np.float32), np.zeros(classes, np.float32))
    begin = Linear(start.weights, np.where(known, np.maximum(start.bias, -_FAR), 0))
    begin = jax.tree.map(lambda x: np.stack([x] * len(strengths)).astype(np.float32), begin)
    everywhere = NamedSharding(mesh, PartitionSpec())
    penalties = (1 / (np.asarray(strengths, np.float64) * n)).astype(np.float32)
    given = jax.device_put((begin, penalties, known), everywhere)
    data = (tiled(rows), tiled(labels.astype(np.int32)), tiled(np.ones(n, np.float32)))
    weights, bias = jax.device_get(_minimize(*given, data))
    return [Linear(w, np.where(known, b, -np.inf)) for w, b in zip(weights, bias, strict=True)]


_FAR = 30.0  # a bias of minus infinity, of a class that comes with new rows, begins here


@jax.jit
def _minimize(begin: Linear, penalties: jax.Array, known: jax.Array, data: Any) -> Any:
    """Minimizes all problems side by side: their products with the rows are one."""
    return jax.vmap(functools.partial(_minimize_one, known=known, data=data))(begin, penalties)


def _minimize_one(begin: Linear, penalty: jax.Array, *, known: jax.Array, data: Any) -> Linear:
    total = jnp.sum(data[2])

    def losses(model: Linear, tile: Any) -> jax.Array:
        rows, labels, counts = tile
        scores = jnp.matmul(rows, model.weights, precision=lax.Precision.HIGHEST) + model.bias
        scores = jnp.where(known, scores, -jnp.inf)
        own = jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
        return jnp.sum(jnp.where(counts > 0, jax.nn.logsumexp(scores, axis=1) - own, 0)) / total

    def objective(model: Linear) -> jax.Array:
        decay = penalty / 2 * jnp.sum(model.weights**2)
        if len(data[0]) == 1:
            return decay + losses(model, jax.tree.map(lambda x: x[0], data))
        again = jax.checkpoint(losses)  # scores are computed again, not kept
        return decay + lax.scan(lambda sum_, t: (sum_ + again(model, t), None), 0.0, data)[0]

    solver = optax.lbfgs()
    evaluate = optax.value_and_grad_from_state(objective)

    def step(carry: Any) -> Any:
        model, state, _, number = carry
        value, gradient = evaluate(model, state=state)
        updates, state = solver.update(
            gradient, state, model, value=value, grad=gradient, value_fn=objective
        )
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in gradient]))
        return optax.apply_updates(model, updates), state, largest, number + 1

    def unfinished(carry: Any) -> jax.Array:
        return (carry[2] > TOLERANCE) & (carry[3] < ITERATIONS)

    first = (begin, solver.init(begin), jnp.float32(jnp.inf), 0)
    return lax.while_loop(unfinished, step, first)[0]
