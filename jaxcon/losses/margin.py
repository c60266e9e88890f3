"""Losses that ask for a gap between the positives and the negatives of an anchor.

`multi_similarity_loss` and `circle_loss` take labels: rows of one label are positives of each
other, rows of other labels are negatives. `spectral_contrastive_loss` takes pairs.

>>> import jax
>>> from jaxcon import losses
>>> z = jax.random.normal(jax.random.key(0), (8, 4))
>>> labels = jnp.array([0, 0, 1, 1, 2, 2, 3, 3])
>>> print(f"{losses.multi_similarity_loss(z, labels):.3f}")
1.144

What the keywords from `axis_name` on mean: `jaxcon.typing`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon.losses._channels import ones, other_classes, other_ids, peers, square
from jaxcon.losses._exchange import cross_channels
from jaxcon.losses._meshes import over_mesh
from jaxcon.losses._reduce import reduce_rows
from jaxcon.losses._rows import Evaluation, prepare, required
from jaxcon.losses._settings import positive, setting
from jaxcon.similarity import l2_normalize
from jaxcon.streaming import Channel
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision, ReduceFn


@over_mesh
def multi_similarity_loss(
    z: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 2.0,
    beta: ArrayLike = 50.0,
    base: ArrayLike = 0.5,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Multi-similarity loss: each pair is weighted by its similarity relative to the others'.

    ::

        mean_i [log(1 + sum_p e^{-alpha (s_ip - base)}) / alpha
                + log(1 + sum_n e^{beta (s_in - base)}) / beta],   s_ij = cos(z_i, z_j)

    over all pairs; the paper's mining of pairs is left out. An anchor without a positive or a negative
    still counts, with that term 0.

    Example:
      >>> z, labels = jnp.eye(2), jnp.array([0, 1])
      >>> print(f"{multi_similarity_loss(z, labels, beta=1.0, base=0.0):.4f}")  # log(1 + e^0)
      0.6931

    Args:
      z: `[n, *features]`, any scale; normalized here.
      labels: int `[n]`.
      alpha: positive scalar, the sharpness towards far positives.
      beta: positive scalar, the sharpness towards near negatives.
      base: scalar, the similarity above which a negative costs, and below which a positive does.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[n]`; False takes a row out, as anchor and as candidate, and it may hold NaN.
      weights: `[n]`, the weight of each anchor in the mean; None: 1.
      ids: int `[n]`; rows that share an id are not negatives of each other. None: all differ.
      block_size: edge of the tiles in which the pairs are evaluated; None: chosen by their number.
      exchange: `collectives.gather` the candidates of all devices, or pass them on in a
        `collectives.ring`; None: chosen by their number.
      precision: of the products between rows: a `jax.lax.Precision`, or `jnp.bfloat16`; None:
        `jnp.bfloat16` for embeddings that come in it, `HIGHEST` for others.
      reduce_fn: `jnp.mean` or `jnp.sum` over the anchors; None: the value of each, `[n]`.

    Returns:
      A scalar in [0, inf).

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning, 2019,
      https://arxiv.org/abs/1904.06627
    """
    rows = prepare(
        {"z": z},
        axis_name=axis_name,
        where=where,
        weights=weights,
        ids=ids,
        labels=required(labels),
        evaluation=Evaluation(block_size, exchange, precision),
    )
    alpha = positive(alpha, "alpha", rows.dtype)
    beta = positive(beta, "beta", rows.dtype)
    base = setting(base, "base", rows.dtype)
    x = l2_normalize(rows.z[0])
    channels = [
        Channel(1, _similar_positive, peers),
        Channel(1, _similar_negative, other_classes),
    ]
    aux = tuple(jnp.full(len(x), value) for value in (alpha, beta, base))
    pos, neg = cross_channels(rows, x, None, channels, row_aux=aux)
    values = jax.nn.softplus(pos) / alpha + jax.nn.softplus(neg) / beta
    return reduce_rows(values, rows, reduce_fn)


@over_mesh
def circle_loss(
    z: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.4,
    gamma: ArrayLike = 80.0,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Circle loss: similarities far from their optimum weigh more.

    ::

        mean_i log(1 + sum_n e^{gamma a_in (s_in - m)} sum_p e^{-gamma a_ip (s_ip - 1 + m)})
        a_in = max(0, s_in + m),  a_ip = max(0, 1 + m - s_ip),  m = margin,  s_ij = cos(z_i, z_j)

    The weights `a` carry no gradient. Anchors without a positive or without a negative leave the
    mean.

    Example:
      >>> z, labels = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 0, 1])
      >>> print(f"{circle_loss(z, labels, gamma=1.0):.4f}")  # log(1 + e^{-0.4^2} e^{-0.4^2})
      0.5459

    Args:
      z: `[n, *features]`, any scale; normalized here.
      labels: int `[n]`.
      margin: scalar in [0, 1]; the paper: 0.4 for few images per class, 0.25 for faces.
      gamma: positive scalar, the scale; the paper: 80, and 256 for faces.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[n]`; False takes a row out, as anchor and as candidate, and it may hold NaN.
      weights: `[n]`, the weight of each anchor in the mean; None: 1.
      ids: int `[n]`; rows that share an id are not negatives of each other. None: all differ.
      block_size: edge of the tiles in which the pairs are evaluated; None: chosen by their number.
      exchange: `collectives.gather` the candidates of all devices, or pass them on in a
        `collectives.ring`; None: chosen by their number.
      precision: of the products between rows: a `jax.lax.Precision`, or `jnp.bfloat16`; None:
        `jnp.bfloat16` for embeddings that come in it, `HIGHEST` for others.
      reduce_fn: `jnp.mean` or `jnp.sum` over the anchors; None: the value of each, `[n]`.

    Returns:
      A scalar in [0, inf).

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, 2020,
      https://arxiv.org/abs/2002.10857
    """
    rows = prepare(
        {"z": z},
        axis_name=axis_name,
        where=where,
        weights=weights,
        ids=ids,
        labels=required(labels),
        evaluation=Evaluation(block_size, exchange, precision),
    )
    margin = setting(margin, "margin", rows.dtype, lambda v: (v >= 0) & (v <= 1), "in [0, 1]")
    gamma = positive(gamma, "gamma", rows.dtype)
    x = l2_normalize(rows.z[0])
    channels = [
        Channel(1, _circle_positive, peers),
        Channel(1, _circle_negative, other_classes),
        Channel(1, ones, peers, log=False),
        Channel(1, ones, other_classes, log=False),
    ]
    aux = tuple(jnp.full(len(x), value) for value in (margin, gamma))
    pos, neg, positives, negatives = cross_channels(rows, x, None, channels, row_aux=aux)
    both = (positives > 0) & (negatives > 0)
    values = jax.nn.softplus(jnp.where(both, pos, 0) + jnp.where(both, neg, 0))
    return reduce_rows(values, rows._replace(valid=rows.valid & both), reduce_fn)


@over_mesh
def spectral_contrastive_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Spectral contrastive loss, on embeddings as they come.

    ::

        mean_i [-2 z1_i . z2_i + mean_{j != i} (z1_i . z2_j)^2]

    Up to a constant, it is the error of factorizing the graph of augmentations; its minimum is known in
    closed form. An anchor without a negative still counts, with that term 0.

    Example:
      >>> z = jnp.eye(3)
      >>> print(f"{spectral_contrastive_loss(z, z):.1f}")
      -2.0

    Args:
      z1, z2: `[batch, *features]`, two views; not normalized, and not scale-invariant.
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
      A scalar.

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      HaoChen et al., Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive
      Loss, 2021, https://arxiv.org/abs/2106.04156
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
    channels = [
        Channel(1, square, other_ids, log=False),
        Channel(1, ones, other_ids, log=False),
    ]
    squares, count = cross_channels(rows, x, y, channels)
    values = squares / jnp.maximum(count, 1) - 2 * jnp.sum(x * y, axis=1)
    return reduce_rows(values, rows, reduce_fn)


def _similar_positive(s: Array, row_aux: Any, col_aux: Any) -> Array:
    alpha, _, base = row_aux
    return -alpha * (s - base)


def _similar_negative(s: Array, row_aux: Any, col_aux: Any) -> Array:
    _, beta, base = row_aux
    return beta * (s - base)


def _circle_positive(s: Array, row_aux: Any, col_aux: Any) -> Array:
    margin, gamma = row_aux
    weight = jnp.maximum(1 + margin - lax.stop_gradient(s), 0)
    return -gamma * lax.stop_gradient(weight) * (s - 1 + margin)


def _circle_negative(s: Array, row_aux: Any, col_aux: Any) -> Array:
    margin, gamma = row_aux
    weight = jnp.maximum(lax.stop_gradient(s) + margin, 0)
    return gamma * lax.stop_gradient(weight) * (s - margin)
