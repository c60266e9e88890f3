"""Losses on the correlations of two views: agreement on the diagonal, none off it.

Under `axis_name` the statistics are those of the global batch. Statistics per device, averaged
afterwards, would be another loss: its value changes with the number of devices.

>>> import jax
>>> from jaxcon import losses
>>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 64, 4))
>>> print(f"{losses.barlow_twins_loss(z1, z2):.3f}, {losses.barlow_twins_loss(z1, z1):.3f}")
4.180, 0.001

What the keywords from `axis_name` on mean: `jaxcon.typing`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon import collectives
from jaxcon.losses._channels import other_ids, square
from jaxcon.losses._exchange import cross_channels
from jaxcon.losses._meshes import over_mesh
from jaxcon.losses._reduce import reduce_rows
from jaxcon.losses._rows import Evaluation, Rows, prepare
from jaxcon.losses._settings import setting
from jaxcon.streaming import PRECISION, Channel
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision, ReduceFn


@over_mesh
def barlow_twins_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    off_diagonal_weight: ArrayLike = 5e-3,
    scale: ArrayLike = 1.0,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
) -> Array:
    """Barlow Twins: the features' cross-correlation matrix of two views should be the identity.

    With each feature standardized over the batch (biased variance, eps 1e-5)::

        c = z1^T z2 / N                                               [dim, dim]
        scale (sum_i (c_ii - 1)^2 + off_diagonal_weight sum_{i != j} c_ij^2)

    It needs no negatives, and a large `dim` rather than a large batch.

    Example:
      >>> z = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
      >>> print(f"{barlow_twins_loss(z, -z):.2f}")  # c = -I
      8.00

    Args:
      z1, z2: `[batch, *features]`, two views, as they come from the projector.
      off_diagonal_weight: the paper's lambda.
      scale: factor on the whole, to suit a learning rate.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[batch]`; False takes a row out, as anchor and as candidate, and it may hold NaN.

    Returns:
      A scalar >= 0.

    Raises:
      ValueError: for arguments of another shape or dtype; the message says which.

    Reference:
      Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021,
      https://arxiv.org/abs/2103.03230
    """
    rows = prepare({"z1": z1, "z2": z2}, axis_name=axis_name, where=where)
    count = _count(rows, axis_name)
    z1, z2 = (_standardize(z, rows.valid, count, axis_name) for z in rows.z)
    c = collectives.sum(_product(z1, z2), axis_name) / count  # (d, n) . (n, d) -> (d, d)
    diagonal = jnp.diagonal(c)
    off_diagonal = jnp.sum(_without_diagonal(c) ** 2)
    weight = setting(off_diagonal_weight, "off_diagonal_weight", rows.dtype)
    value = setting(scale, "scale", rows.dtype) * (
        jnp.sum((diagonal - 1) ** 2) + weight * off_diagonal
    )
    return jnp.where(_any_row(rows, axis_name), value, 0)


@over_mesh
def vicreg_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    invariance: ArrayLike = 25.0,
    variance: ArrayLike = 25.0,
    covariance: ArrayLike = 1.0,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
) -> Array:
    """VICReg: views agree (invariance), features spread (variance) without repeating (covariance).

    ::

        invariance mean((z1 - z2)^2)
        + variance mean_views mean_features max(0, 1 - sqrt(Var + 1e-4))
        + covariance sum_views sum_{i != j} Cov_ij^2 / dim

    with unbiased variances and covariances of the batch.

    Example:
      >>> z = jnp.ones((4, 2))
      >>> print(f"{vicreg_loss(z, z):.2f}")  # collapsed: 25 (1 - 0.01)
      24.75

    Args:
      z1, z2: `[batch, *features]`, two views, as they come from the projector.
      invariance, variance, covariance: weights of the three terms.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[batch]`; False takes a row out, as anchor and as candidate, and it may hold NaN.

    Returns:
      A scalar >= 0.

    Raises:
      ValueError: for arguments of another shape or dtype; the message says which.

    Reference:
      Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, 2021,
      https://arxiv.org/abs/2105.04906
    """
    rows = prepare({"z1": z1, "z2": z2}, axis_name=axis_name, where=where)
    count = _count(rows, axis_name)
    dim = rows.z[0].shape[1]
    z1, z2 = rows.z
    distance = collectives.sum(jnp.sum((z1 - z2) ** 2), axis_name) / (count * dim)

    def spread(z: Array) -> tuple[Array, Array]:
        z = _center(z, rows.valid, count, axis_name)
        cov = collectives.sum(_product(z, z), axis_name) / jnp.maximum(count - 1, 1)
        hinge = jax.nn.relu(1 - jnp.sqrt(jnp.diagonal(cov) + 1e-4))
        return jnp.mean(hinge), jnp.sum(_without_diagonal(cov) ** 2) / dim

    (std1, cov1), (std2, cov2) = spread(z1), spread(z2)
    value = (
        setting(invariance, "invariance", rows.dtype) * distance
        + setting(variance, "variance", rows.dtype) * (std1 + std2) / 2
        + setting(covariance, "covariance", rows.dtype) * (cov1 + cov2)
    )
    return jnp.where(_any_row(rows, axis_name), value, 0)


@over_mesh
def sample_correlation_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    off_diagonal_weight: ArrayLike = 5e-3,
    scale: ArrayLike = 0.025,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Sample correlation loss: each row should correlate with its pair alone.

    With each row standardized over its features (biased variance, eps 1e-5)::

        C = z1 z2^T / N                                               [N, N]
        scale sum_i [(C_ii - 1)^2 + off_diagonal_weight sum_{j != i} C_ij^2]

    Barlow Twins with the roles of samples and features exchanged. Note the division by the batch size:
    the diagonal reaches 1 only where `dim` equals `N`.

    Example:
      >>> z = jnp.array([[1.0, -1.0], [1.0, 1.0]])  # the second row has no variance
      >>> print(f"{sample_correlation_loss(z, z, scale=1.0):.3f}")  # (1 - 1)^2 + (0 - 1)^2
      1.000

    Args:
      z1, z2: `[batch, *features]`, two views.
      off_diagonal_weight: weight of the entries off the diagonal.
      scale: factor on the whole.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[batch]`; False takes a row out, as anchor and as candidate, and it may hold NaN.
      weights: `[batch]`, the weight of each anchor in the mean; None: 1.
      ids: int `[batch]`; rows that share an id are not negatives of each other. None: all differ.
      block_size: edge of the tiles in which the pairs are evaluated; None: chosen by their number.
      exchange: `collectives.gather` the candidates of all devices, or pass them on in a
        `collectives.ring`; None: chosen by their number.
      precision: of the products between rows: a `jax.lax.Precision`, or `jnp.bfloat16`; None:
        `jnp.bfloat16` for embeddings that come in it, `HIGHEST` for others.
      reduce_fn: `jnp.mean` or `jnp.sum` over the anchors; None: the value of each, `[batch]`. The
        value is N times the mean over anchors of the bracket, N the number of valid rows on all
        devices; values per anchor carry that factor. Pairs that share an id leave the sum off the
        diagonal.

    Returns:
      A scalar >= 0.

    Raises:
      ValueError: for arguments of another shape or dtype; the message says which.

    Reference:
      Zbontar et al., Barlow Twins, 2021, https://arxiv.org/abs/2103.03230, whose code this variant
      transposes.
    """
    rows = prepare(
        {"z1": z1, "z2": z2},
        axis_name=axis_name,
        where=where,
        weights=weights,
        ids=ids,
        evaluation=Evaluation(block_size, exchange, precision),
    )
    count = _count(rows, axis_name)
    x, y = (_standardize_rows(z) for z in rows.z)
    x = x / count
    (squares,) = cross_channels(rows, x, y, [Channel(1, square, other_ids, log=False)])
    weight = setting(off_diagonal_weight, "off_diagonal_weight", rows.dtype)
    bracket = (jnp.sum(x * y, axis=1) - 1) ** 2 + weight * squares
    values = count * setting(scale, "scale", rows.dtype) * bracket
    return reduce_rows(values, rows, reduce_fn)


def _count(rows: Rows, axis_name: AxisName) -> Array:
    """Returns the number of valid rows on all devices, at least 1."""
    count = collectives.sum(jnp.sum(rows.valid.astype(rows.dtype)), axis_name)
    return jnp.maximum(count, 1)


def _any_row(rows: Rows, axis_name: AxisName) -> Array:
    """Returns whether any device has a valid row; without one there is nothing to correlate."""
    return collectives.sum(jnp.any(rows.valid).astype(rows.dtype), axis_name) > 0


def _center(z: Array, valid: Array, count: Array, axis_name: AxisName) -> Array:
    """Subtracts the features' means over the valid rows of all devices; masked rows stay 0."""
    mean = collectives.sum(jnp.sum(z, axis=0), axis_name) / count
    return jnp.where(valid[:, None], z - mean[None, :], 0)


def _standardize(z: Array, valid: Array, count: Array, axis_name: AxisName) -> Array:
    """Applies batch normalization over the valid rows of all devices, without scale and offset."""
    z = _center(z, valid, count, axis_name)
    variance = collectives.sum(jnp.sum(z * z, axis=0), axis_name) / count
    return z * lax.rsqrt(variance + 1e-5)[None, :]


def _standardize_rows(z: Array) -> Array:
    z = z - jnp.mean(z, axis=1, keepdims=True)
    return z * lax.rsqrt(jnp.mean(z * z, axis=1, keepdims=True) + 1e-5)


def _product(x: Array, y: Array) -> Array:
    return jnp.matmul(x.T, y, precision=PRECISION)  # (d, n) . (n, d) -> (d, d)


def _without_diagonal(c: Array) -> Array:
    return jnp.where(jnp.eye(c.shape[0], dtype=bool), 0, c)
