"""Losses for embeddings with a learned log standard deviation: how sure is the encoder?

>>> import jax, jax.numpy as jnp
>>> from jaxcon import losses
>>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
>>> sure = jnp.zeros(8)
>>> print(f"{losses.gaussian_clip_loss(z1, z2, sure, sure):.3f}")
4.268

What the keywords from `axis_name` on mean: `jaxcon.typing`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcon import collectives
from jaxcon.losses._channels import ones, other_ids
from jaxcon.losses._exchange import cross_channels
from jaxcon.losses._meshes import over_mesh
from jaxcon.losses._reduce import positive_and_rest, reduce_rows
from jaxcon.losses._rows import Evaluation, Rows, flatten, mask_rows, prepare
from jaxcon.losses._settings import flag, positive, setting
from jaxcon.similarity import as_float, l2_normalize
from jaxcon.streaming import Channel
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision, ReduceFn


@over_mesh
def gaussian_clip_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    log_std1: ArrayLike,
    log_std2: ArrayLike,
    *,
    exact: bool = False,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """CLIP on Gaussians: a sample also predicts how far its pair may lie.

    With `D_ab = |z1_a - z2_b|^2`, `l = log_std2` and `k = log_std1`::

        A_ab = -l_b - D_ab / exp(2 l_b)        (row a chooses among the columns)
        B_ab = -k_a - D_ab / exp(2 k_a)        (column b chooses among the rows)
        mean_i [ce(A_i., i) + ce(B_.i, i)] / 2

    Up to a factor on D and `dim` on the log, A is the log-density of z1_a under the Gaussian around
    z2_b; `exact=True` is that density: `-dim l_b - D_ab / (2 exp(2 l_b))`. A general caption, which
    fits many images, can afford a larger deviation.

    Example:
      >>> z, sure = jnp.eye(4), jnp.zeros(4)
      >>> print(f"{gaussian_clip_loss(z, z, sure, sure):.4f}")  # log(1 + 3 e^-2)
      0.3408

    Args:
      z1, z2: `[batch, *features]`, paired embeddings, not normalized here. Start with norms near 1.
      log_std1, log_std2: `[batch]`, their log standard deviations. Start at 0. `exp(-2 log_std)`
        must not overflow: keep them above -40 in float32.
      exact: whether to use the isotropic Gaussian log-density.
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
      reduce_fn: `jnp.mean` or `jnp.sum` over the anchors; None: the value of each, `[batch]`.

    Returns:
      A scalar in [0, inf); `log N` if all embeddings and all deviations are equal.

    Raises:
      ValueError: for arguments of another shape or dtype; the message says which.

    Reference:
      A proposal on a forum for CLIP with a predicted variance; compare Chun, Improved Probabilistic
      Image-Text Representations, 2023, https://arxiv.org/abs/2305.18171
    """
    rows = prepare(
        {"z1": z1, "z2": z2},
        axis_name=axis_name,
        where=where,
        weights=weights,
        ids=ids,
        evaluation=Evaluation(block_size, exchange, precision),
    )
    x, y = rows.z
    k, l = (_log_std(v, n, rows) for v, n in ((log_std1, "log_std1"), (log_std2, "log_std2")))
    if k.ndim != 1 or l.ndim != 1:
        raise ValueError(
            f"log_std1 and log_std2 must be [batch], one deviation per row, got {k.shape}, {l.shape}"
        )
    log_density, given_column, given_row = _densities(
        *((x.shape[1], 0.5) if flag(exact, "exact") else (1, 1.0))
    )
    rest1, rest2 = cross_channels(
        rows,
        x,
        y,
        [Channel(1, given_column, other_ids), Channel(0, given_row, other_ids)],
        row_aux=k,
        col_aux=l,
        distances=True,
    )
    pair = jnp.sum((x - y) ** 2, axis=1)
    forward = positive_and_rest(log_density(pair, l), rest1)
    backward = positive_and_rest(log_density(pair, k), rest2)
    return reduce_rows((forward + backward) / 2, rows, reduce_fn)


@over_mesh
def csd_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    log_std1: ArrayLike,
    log_std2: ArrayLike,
    *,
    scale: ArrayLike = 5.0,
    shift: ArrayLike = 5.0,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """CSD loss: match probability from the closed-form sampled distance of PCME++.

    The expected squared distance between samples of two diagonal Gaussians has a closed form; a
    logistic function of it judges every pair::

        D_ab = |m1_a - m2_b|^2 + sum sigma1_a^2 + sum sigma2_b^2,     m = z / |z|
        mean over all pairs of the binary cross-entropy of  shift - scale D_ab

    Example:
      >>> z, sure = jnp.eye(4), jnp.full(4, -10.0)
      >>> print(f"{csd_loss(z, z, sure, sure):.4f}")  # softplus(-5), both on and off the diagonal
      0.0067

    Args:
      z1, z2: `[batch, *features]`, the means, any scale; normalized here.
      log_std1, log_std2: log standard deviations, `[batch]`, one for all features of a row, or
        `[batch, *features]`.
      scale: positive scalar, usually learned from this initial value.
      shift: scalar, likewise.
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
      reduce_fn: `jnp.mean` or `jnp.sum` over the anchors; None: the value of each, `[batch]`.

    Returns:
      A scalar in [0, inf).

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      Chun, Improved Probabilistic Image-Text Representations, 2023, https://arxiv.org/abs/2305.18171
    """
    rows = prepare(
        {"z1": z1, "z2": z2},
        axis_name=axis_name,
        where=where,
        weights=weights,
        ids=ids,
        evaluation=Evaluation(block_size, exchange, precision),
    )
    x, y = (l2_normalize(z) for z in rows.z)
    variance1 = _variance(_log_std(log_std1, "log_std1", rows), x.shape[1])
    variance2 = _variance(_log_std(log_std2, "log_std2", rows), y.shape[1])
    offset1, offset2 = (jnp.sum(m * m, axis=1) + v for m, v in ((x, variance1), (y, variance2)))
    scale = positive(scale, "scale", rows.dtype)
    shift = setting(shift, "shift", rows.dtype)

    repelled, count = cross_channels(
        rows,
        x,
        y,
        [Channel(1, _mismatch, other_ids, log=False), Channel(1, ones, other_ids, log=False)],
        row_aux=(offset1, jnp.full(len(x), scale), jnp.full(len(x), shift)),
        col_aux=offset2,
    )
    pair = jnp.sum((x - y) ** 2, axis=1) + variance1 + variance2
    values = (jax.nn.softplus(scale * pair - shift) + repelled) / (1 + count)
    return reduce_rows(values, rows, reduce_fn)


@functools.cache  # one function object per form, so that what was compiled for it is reused
def _densities(size: int, half: float) -> tuple[Callable[..., Array], ...]:
    """Returns the log-density of a distance; also as logits, given the column's or row's Gaussian."""

    def log_density(distance: Array, log_std: Array) -> Array:
        return -size * log_std - half * distance * jnp.exp(-2 * log_std)

    def given_column(distance: Array, row: Any, col: Any) -> Array:
        return log_density(distance, col)

    def given_row(distance: Array, row: Any, col: Any) -> Array:
        return log_density(distance, row)

    return log_density, given_column, given_row


def _mismatch(tile: Array, row: Any, col: Any) -> Array:
    # By the product: its rounding, 1e-7, is multiplied by a scale of about 5 and goes no further.
    offset, scale, shift = row
    return jax.nn.softplus(shift - scale * (offset + col - 2 * tile))


def _log_std(log_std: ArrayLike, name: str, rows: Rows) -> Array:
    """Checks a log standard deviation: `[batch]` or `[batch, dim]`, masked rows 0."""
    value = as_float(collectives.replicated(log_std), name).astype(rows.dtype)
    batch, dim = rows.z[0].shape
    if value.ndim > 1 and value.shape[0] == batch:
        value = flatten(value)
    if value.shape not in ((batch,), (batch, dim)):
        raise ValueError(
            f"{name} must be [batch], ({batch},), or of the shape of the embeddings, "
            f"got {jnp.shape(log_std)}"
        )
    return mask_rows(value, rows.valid)


def _variance(log_std: Array, dim: int) -> Array:
    """Computes `sum sigma^2` over the features of each row."""
    features = dim if log_std.ndim == 1 else 1
    return features * jnp.sum(flatten(jnp.exp(2 * log_std)), axis=1)
