"""InfoNCE, whose negatives may come from elsewhere: a queue for all anchors, or a few for each one.

>>> import jax
>>> from jaxcon import losses
>>> z1, z2, queue = jax.random.normal(jax.random.key(0), (3, 8, 4))
>>> print(f"{losses.info_nce_loss(z1, z2, queue, temperature=0.5):.3f}")
2.809

What the keywords from `axis_name` on mean: `jaxcon.typing`.
"""

import math
from typing import Any

import jax.numpy as jnp

from jaxcon import collectives
from jaxcon.losses._channels import candidate_channels, candidate_loss, every, other_ids
from jaxcon.losses._exchange import cosine_channels
from jaxcon.losses._meshes import over_mesh
from jaxcon.losses._reduce import positive_and_rest, reduce_rows
from jaxcon.losses._rows import Evaluation, Rows, as_integers, flatten, mask_rows, prepare
from jaxcon.losses._settings import flag, inverse
from jaxcon.similarity import as_float, l2_normalize, paired_logits
from jaxcon.streaming import (
    Channel,
    Side,
    at_precision,
    masked_logsumexp,
    nothing,
    reduce_cosines,
)
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision, ReduceFn


@over_mesh
def info_nce_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    negatives: ArrayLike | None = None,
    *,
    temperature: ArrayLike = 0.07,
    in_batch: bool = True,
    negative_ids: ArrayLike | None = None,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """InfoNCE from z1 to z2, with negatives from the batch, from a queue, or chosen per anchor.

    ::

        mean_i -log(e^{s_ii} / (e^{s_ii} + sum_{j != i} e^{s_ij} + sum_k e^{n_ik}))

    with `s_ij = cos(z1_i, z2_j) / temperature` and `n_ik` the same towards the extra negatives.

    Example:
      >>> z, queue = jnp.eye(4), -jnp.eye(4)
      >>> print(f"{info_nce_loss(z, z, queue, temperature=1.0, in_batch=False):.3f}")
      0.806
      >>> print(f"{jnp.log(1 + (3 + jnp.exp(-1.0)) / jnp.e):.3f}")  # cosines 1; 0, 0, 0, -1
      0.806

    Args:
      z1: `[batch, *features]`, anchors, any scale; all embeddings are normalized here.
      z2: `[batch, *features]`, row i the positive of anchor i.
      negatives: `[m, *features]`, shared by all anchors and never gathered over devices (MoCo's
        queue, replicated); or `[batch, k, *features]`, k for each anchor.
      temperature: positive scalar.
      in_batch: whether the other rows of z2 are negatives too.
      negative_ids: int `[m]` or `[batch, k]`; a negative whose id is the anchor's is left out.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[batch]`; False takes a row out, as anchor and as candidate, and it may hold NaN.
      weights: `[batch]`, the weight of each anchor in the mean; None: 1.
      ids: int `[batch]`; rows that share an id are not negatives of each other. None: all differ.
      labels: int `[batch]`; rows that share a label are positives of each other.
      block_size: edge of the tiles in which the pairs are evaluated; None: chosen by their number.
      exchange: `collectives.gather` the candidates of all devices, or pass them on in a
        `collectives.ring`; None: chosen by their number.
      precision: of the products between rows: a `jax.lax.Precision`, or `jnp.bfloat16`; None:
        `jnp.bfloat16` for embeddings that come in it, `HIGHEST` for others.
      reduce_fn: `jnp.mean` or `jnp.sum` over the anchors; None: the value of each, `[batch]`.

    Returns:
      A scalar in [0, inf); `log K` if all embeddings are equal, K the number of candidates.

    Raises:
      ValueError: for arguments of another shape, dtype or range, or if there is no source of
        negatives at all.

    References:
      van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018,
      https://arxiv.org/abs/1807.03748; He et al., Momentum Contrast, 2019,
      https://arxiv.org/abs/1911.05722
    """
    rows = prepare(
        {"z1": z1, "z2": z2},
        axis_name=axis_name,
        where=where,
        weights=weights,
        ids=ids,
        labels=labels,
        evaluation=Evaluation(block_size, exchange, precision),
        renumber=negative_ids is None,
    )
    in_batch = flag(in_batch, "in_batch")
    if negatives is None and not in_batch:
        raise ValueError("in_batch=False leaves no negatives: pass negatives, or in_batch=True")
    if labels is not None and not in_batch:
        raise ValueError("labels find positives among the rows of z2, so they need in_batch=True")
    if negative_ids is not None and (negatives is None or ids is None):
        raise ValueError("negative_ids are compared with ids: pass negatives and ids as well")
    scale, bound = inverse(temperature, rows.dtype)
    x, y = rows.z
    extra = jnp.full(len(rows.position), nothing(rows.dtype))
    if negatives is not None:
        queue = _checked_negatives(rows, negatives, negative_ids, jnp.shape(z1))
        extra = _extra_negatives(rows, *queue, scale, bound)
    if not in_batch:
        values = positive_and_rest(paired_logits(x, y, scale), extra)
        return reduce_rows(values, rows, reduce_fn)
    channels = candidate_channels(labels is not None, smooth=False)
    (neg, *others), x, y = cosine_channels(rows, x, y, scale, channels, bound=bound)
    neg = neg if negatives is None else jnp.logaddexp(neg, extra)
    values = candidate_loss(paired_logits(x, y, scale), [neg, *others], labels is not None)
    return reduce_rows(values, rows, reduce_fn)


def _checked_negatives(
    rows: Rows, negatives: ArrayLike, ids: ArrayLike | None, shape: tuple[int, ...]
) -> tuple[Array, Array | None]:
    """Checks negatives and their ids: `[m, dim]`, `[m]` or `[batch, k, dim]`, `[batch, k]`.

    `shape` is that of the anchors as they came, `[batch, *features]`.
    """
    extra = as_float(collectives.replicated(negatives), "negatives").astype(rows.dtype)
    shared = extra.ndim == len(shape)
    lead = extra.shape[:1] if shared else extra.shape[:2]
    if extra.shape != (lead if shared else shape[:1] + lead[1:]) + shape[1:]:
        raise ValueError(
            f"negatives must be [m, *features], shared by all anchors, or [batch, k, *features] for "
            f"each; z1 is {shape}, got {extra.shape}"
        )
    if ids is not None:
        ids = jnp.asarray(collectives.replicated(as_integers(ids, "negative_ids")))
        if ids.shape != lead:
            raise ValueError(f"negative_ids must have shape {lead}, got {ids.shape}")
    return (flatten(extra) if shared else extra.reshape(*lead, math.prod(shape[1:]))), ids


def _extra_negatives(
    rows: Rows, negatives: Array, ids: Array | None, scale: Array, bound: float | None
) -> Array:
    """Computes the log-sum-exp of `scale cos` over each anchor's extra negatives: `[batch]`."""
    if negatives.ndim == 2:
        return _of_queue(rows, negatives, ids, scale, bound)
    dtype, precision = at_precision(rows.evaluation.precision, rows.dtype)
    u = l2_normalize(rows.z[0]).astype(dtype)
    each = l2_normalize(mask_rows(negatives, rows.valid)).astype(dtype)
    logits = scale * jnp.einsum(
        "nd,nkd->nk", u, each, precision=precision, preferred_element_type=rows.dtype
    )
    keep = jnp.broadcast_to(rows.valid[:, None], logits.shape)
    if ids is not None:
        keep = keep & (ids != rows.ids[:, None])
    return masked_logsumexp(logits, keep, axis=1)


def _of_queue(rows: Rows, queue: Array, ids: Any, scale: Array, bound: float | None) -> Array:
    # Any number may be some row's id, so entries without ids cannot be given one that differs from
    # all: then ids are not compared, and what stands in for them is never read.
    names = jnp.zeros(len(queue), rows.ids.dtype) if ids is None else ids
    (lse,), *_ = reduce_cosines(
        Side(rows.z[0], (rows.position, rows.ids, rows.labels), rows.valid),
        Side(queue, (names, names, names)),  # an entry has neither position nor label
        scale,
        [Channel(1, pairs=every if ids is None else other_ids)],
        block_size=rows.evaluation.block_size,
        bound=bound,
        precision=rows.evaluation.precision,
    )
    return lse
