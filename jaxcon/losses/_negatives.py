"""Negatives that are no rows of the batch: a queue for all anchors, or a few chosen for each."""

import math
from typing import Any

import jax.numpy as jnp

from jaxcon.losses._candidates import every, other_ids
from jaxcon.losses._shared import Rows, as_integers, flatten, mask_rows, replicate
from jaxcon.similarity import as_float, l2_normalize
from jaxcon.streaming import Channel, at_precision, masked_logsumexp, reduce_cosines
from jaxcon.typing import Array, ArrayLike


def check_negatives(
    rows: Rows, negatives: ArrayLike, ids: ArrayLike | None, shape: tuple[int, ...]
) -> tuple[Array, Array | None]:
    """Checks negatives and their ids: ``[m, dim]``, ``[m]`` or ``[batch, k, dim]``, ``[batch, k]``.

    ``shape`` is that of the anchors as they came, ``[batch, *features]``.
    """
    extra = as_float(replicate(negatives), "negatives").astype(rows.dtype)
    shared = extra.ndim == len(shape)
    lead = extra.shape[:1] if shared else extra.shape[:2]
    if extra.shape != (lead if shared else shape[:1] + lead[1:]) + shape[1:]:
        raise ValueError(
            f"negatives must be [m, *features], shared by all anchors, or [batch, k, *features] for "
            f"each; z1 is {shape}, got {extra.shape}"
        )
    if ids is not None:
        ids = jnp.asarray(replicate(as_integers(ids, "negative_ids")))
        if ids.shape != lead:
            raise ValueError(f"negative_ids must have shape {lead}, got {ids.shape}")
    return (flatten(extra) if shared else extra.reshape(*lead, math.prod(shape[1:]))), ids


def extra_negatives(
    rows: Rows, negatives: Array, ids: Array | None, scale: Array, bound: float | None
) -> Array:
    """Log-sum-exp over each anchor's extra negatives of ``scale cos``: [batch]."""
    if negatives.ndim == 2:
        return _of_queue(rows, negatives, ids, scale, bound)
    u = l2_normalize(rows.z[0])
    each = l2_normalize(mask_rows(negatives, rows.valid))
    u, each, precision = at_precision(rows.evaluation.precision, u, each)
    logits = scale * jnp.einsum(
        "nd,nkd->nk", u, each, precision=precision, preferred_element_type=rows.dtype
    )
    keep = jnp.broadcast_to(rows.valid[:, None], logits.shape)
    if ids is not None:
        keep = keep & (ids != rows.ids[:, None])
    return masked_logsumexp(logits, keep, axis=1)


def _of_queue(rows: Rows, queue: Array, ids: Any, scale: Array, bound: float | None) -> Array:
    # Every number may be some row's id, so for entries without ids there is none to give them that
    # differs from all: then ids are not compared, and what stands for them is never read.
    names = jnp.zeros(len(queue), rows.ids.dtype) if ids is None else ids
    ((lse,), _, _) = reduce_cosines(
        rows.z[0],
        queue,
        scale,
        [Channel(1, pairs=every if ids is None else other_ids)],
        row_ids=(rows.position, rows.ids, rows.labels),
        col_ids=(names, names, names),  # a queue entry has neither position nor label
        row_valid=rows.valid,
        block_size=rows.evaluation.block_size,
        bound=bound,
        precision=rows.evaluation.precision,
    )
    return lse
