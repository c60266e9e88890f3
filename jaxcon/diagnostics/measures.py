"""Single numbers: chance level, accuracy, rank, mean cosine; and the checks they share."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxcon import collectives
from jaxcon.similarity import as_float, cosine_similarity, l2_normalize
from jaxcon.typing import Array, ArrayLike


def chance_loss(num_candidates: int) -> float:
    """Computes `ln K`, the cross-entropy of a model to which all K candidates look alike.

    K is the global batch size N for `clip_loss` and `npairs_loss`, and 2 N - 1 for `ntxent_loss`.

    Raises:
      ValueError: if `num_candidates` is not a whole number >= 1.

    Example:
      >>> print(f"{chance_loss(7):.4f}")
      1.9459
    """
    if not (math.isfinite(num_candidates) and num_candidates == int(num_candidates) >= 1):
        raise ValueError(f"num_candidates must be a whole number >= 1, got {num_candidates}")
    return math.log(num_candidates)


def contrastive_accuracy(z1: ArrayLike, z2: ArrayLike) -> Array:
    """Computes the share of rows of z1 whose pair is the nearest, by cosine, of all rows of z2.

    A row whose pair ties with k - 1 others for the highest similarity counts as 1 / k, so collapsed
    embeddings score chance.

    Args:
      z1, z2: `[n, *features]`, paired embeddings, any scale.

    Returns:
      A scalar in [0, 1]; chance is 1 / n. Under `jit`, NaN where an argument is not finite.

    Raises:
      ValueError: if the shapes differ, there are no rows, the dtype is not a float, or rows are not
        finite.

    Example:
      >>> z, same = jnp.eye(4), jnp.ones((4, 3))
      >>> print(contrastive_accuracy(z, z), contrastive_accuracy(same, same))
      1.0 0.25
    """
    z1, z2 = paired_rows(z1, z2)
    refuse_not_finite(z1=z1, z2=z2)
    return _accuracy(z1, z2)


@jax.jit
def _accuracy(z1: Array, z2: Array) -> Array:
    similarities = cosine_similarity(z1, z2)
    best = similarities == jnp.max(similarities, axis=1, keepdims=True)
    accuracy = jnp.mean(jnp.diagonal(best) / jnp.maximum(jnp.sum(best, axis=1), 1))
    return jnp.where(jnp.isfinite(similarities).all(), accuracy, jnp.nan)


def effective_rank(z: ArrayLike) -> float:
    """Computes how many directions the centred rows use: `exp` of their singular values' entropy.

    With `p_i` the i-th singular value over their sum, this is `exp(-sum p_i ln p_i)`: k for rows
    spread evenly over k directions. 0 if the centred rows hold less than 1e-6 of the rows' energy.

    Args:
      z: `[n, *features]`. Rows are taken as they are; normalize them to count directions alone.

    Returns:
      A number in {0} or [1, min(n - 1, dim)].

    Raises:
      ValueError: if there are no rows, or rows are not finite.

    Reference:
      Roy & Vetterli, The effective rank, 2007; Garrido et al., RankMe, 2022,
      https://arxiv.org/abs/2210.02885

    Example:
      >>> print(round(effective_rank(jnp.concatenate([jnp.eye(3), -jnp.eye(3)])), 4))
      3.0
    """
    rows = np.asarray(z, np.float64)
    _check_shape(rows.shape, "z")
    rows = rows.reshape(len(rows), -1)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(not_finite({"z": (len(bad), int(bad[0]))}, len(rows)))
    rows = rows / (np.abs(rows).max() or 1)  # squares neither overflow nor vanish
    centred = rows - rows.mean(axis=0)
    if not (centred**2).sum() >= 1e-6 * (rows**2).sum() > 0:
        return 0.0
    singular = np.linalg.svd(centred, compute_uv=False)
    p = singular[singular > 0] / singular.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def mean_cosine(z: ArrayLike) -> Array:
    """Computes the mean cosine of different rows: 1 in a collapse, near 0 if spread. O(n dim).

    This is `(n |mean u|^2 - mean |u|^2) / (n - 1)` for the normalized rows u: the mean over all pairs,
    without the pairs of a row with itself.

    Args:
      z: `[n, *features]`, n >= 2, any scale.

    Returns:
      A scalar in [-1 / (n - 1), 1]. Under `jit`, NaN where z is not finite.

    Raises:
      ValueError: if there are fewer than two rows, the dtype is not a float, or rows are not finite.

    Example:
      >>> print(mean_cosine(jnp.array([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])).round(3))
      -0.333
    """
    rows = as_rows(z, "z")
    if len(rows) < 2:
        raise ValueError(
            f"mean_cosine compares different rows: expected at least 2, got {len(rows)}"
        )
    refuse_not_finite(z=rows)
    return _mean_cosine(rows)


@jax.jit
def _mean_cosine(rows: Array) -> Array:
    n, u = len(rows), l2_normalize(rows)
    own = jnp.mean(jnp.sum(u * u, axis=1))  # 1, unless there are rows of zeros
    return (n * jnp.sum(jnp.mean(u, axis=0) ** 2) - own) / (n - 1)


def paired_rows(z1: ArrayLike, z2: ArrayLike) -> tuple[Array, Array]:
    """Returns both as `[n, dim]` of a float dtype; raises a ValueError if they are not pairs."""
    shapes = np.shape(z1), np.shape(z2)
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"z1 and z2 must be [n, *features] of one shape, row i of both a pair; "
            f"got {shapes[0]} and {shapes[1]}"
        )
    return as_rows(z1, "z1"), as_rows(z2, "z2")


def as_rows(z: ArrayLike, name: str) -> Array:
    """Returns `z` as `[n, dim]`, at least float32, whole on every device of an Explicit mesh."""
    _check_shape(np.shape(z), name)
    array: Any = z if isinstance(z, jax.Array) else np.asarray(z)
    mesh = collectives.explicit_mesh(z) if isinstance(z, jax.Array) else None
    array = array if mesh is None else collectives.replicate_on(mesh, array)
    rows = array.reshape(len(array), -1)
    if isinstance(rows, np.ndarray) and rows.dtype == np.float64:
        # JAX may round them to float32, where 1e300 is infinite: bring each row to about 1 first.
        largest = np.abs(rows).max(axis=1, keepdims=True)
        rows = rows / np.where((largest > 0) & np.isfinite(largest), largest, 1)
    return as_float(rows, name)


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if len(shape) < 2 or 0 in shape:
        raise ValueError(
            f"{name} must be [n, *features] with at least one row and one feature, got shape {shape}"
        )


def refuse_not_finite(**rows: Array) -> None:
    """Raises a ValueError for NaN and infinity in concrete arrays `[n, dim]`."""
    bad = count_not_finite(**rows)
    if bad:
        raise ValueError(not_finite(bad, len(next(iter(rows.values())))))


def count_not_finite(**rows: Array) -> dict[str, tuple[int, int]]:
    """Maps names of concrete arrays to how many rows are not finite, and to the first such row."""
    concrete = {k: v for k, v in rows.items() if not isinstance(v, Tracer)}
    counts: dict[str, Any] = jax.device_get({k: _not_finite(v) for k, v in concrete.items()})
    return {k: (int(count), int(first)) for k, (count, first) in counts.items() if count}


@jax.jit
def _not_finite(rows: Array) -> tuple[Array, Array]:
    bad = ~jnp.isfinite(rows).all(axis=1)
    return jnp.sum(bad), jnp.argmax(bad)


def not_finite(bad: dict[str, tuple[int, int]], n: int) -> str:
    """Says in words what `count_not_finite` found.

    Example:
      >>> not_finite({"z1": (3, 7)}, 64)
      'not finite: 3 of 64 rows of z1 hold NaN or infinity, the first is row 7'
    """
    found = (
        f"{count} of {n} rows of {name} hold NaN or infinity, the first is row {first}"
        for name, (count, first) in bad.items()
    )
    return "not finite: " + "; ".join(found)
