"""Losses that classify an embedding's positive among its candidates by softmax.

Of the logits ``s_ij = z1_i . z2_j / temperature``, each is a mean over anchors i of

    -log(e^{s_i+} / (e^{s_i+} + sum_neg e^{s_ij}))  =  softplus(R_i - s_i+)

with ``R_i`` the log-sum-exp over the negatives; they differ in what counts as a negative. The second
form is the one computed: it keeps its digits when the pair is well aligned.

>>> import jax
>>> from jaxcon import losses
>>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
>>> print(f"{losses.ntxent_loss(z1, z2, temperature=0.5):.3f}")
2.545

What the keywords from ``axis_name`` on mean: :mod:`jaxcon.typing`.
"""

import jax.numpy as jnp

from jaxcon import collectives
from jaxcon.losses._candidates import (
    candidate_channels,
    candidate_loss,
    cosine_channels,
    cross_channels,
    inverse_bound,
    other_ids,
    paired_logits,
    peers,
    reduce_rows,
    two_view_logits,
)
from jaxcon.losses._negatives import check_negatives, extra_negatives
from jaxcon.losses._shared import (
    Evaluation,
    flag,
    has_any,
    positive,
    positive_and_rest,
    prepare,
    required,
    setting,
)
from jaxcon.streaming import PRECISION, Channel, nothing
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision, ReduceFn


def ntxent_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    temperature: ArrayLike = 0.5,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = collectives.gather,
    precision: Precision = PRECISION,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Normalized temperature-scaled cross-entropy of SimCLR (Chen et al. 2020, eq. 1).

    Of the 2N rows ``u`` of both views, each anchor's positive is its other view and its negatives are
    the 2N - 2 rows of the other examples::

        mean_i -log(exp(s_{i,p(i)}) / sum_{j != i} exp(s_ij)),   s_ij = cos(u_i, u_j) / temperature

    >>> z = jnp.eye(4)
    >>> print(f"{ntxent_loss(z, z, temperature=0.1):.6f}")  # perfect: log(1 + 6 e^-10)
    0.000272

    Args:
      z1, z2: ``[batch, *features]``, two views, any scale; normalized here.
      temperature: positive scalar; SimCLR used 0.5 for CIFAR-10 and 0.1 for ImageNet.
      axis_name to reduce_fn: see :mod:`jaxcon.typing`. ``reduce_fn=None`` returns
        ``[2 * batch]``: z1's anchors, then z2's.

    Returns:
      A scalar in [0, inf), ``log(2 N - 1)`` when all embeddings are equal.

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020,
      https://arxiv.org/abs/2002.05709
    """
    rows = prepare(
        {"z1": z1, "z2": z2},
        axis_name=axis_name,
        where=where,
        weights=weights,
        ids=ids,
        evaluation=Evaluation(block_size, exchange, precision),
    )
    pos, neg, both = two_view_logits(rows, temperature, axis_name)
    return reduce_rows(positive_and_rest(pos, neg), both, reduce_fn, axis_name)


def npairs_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    normalize: bool = True,
    l2_weight: ArrayLike = 0.0,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = collectives.gather,
    precision: Precision = PRECISION,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """N-pairs loss: each z1 classifies its z2 among the batch's, one way.

    ::

        mean_i [-log softmax_j(z1_i . z2_j / temperature)_i + l2_weight (|z1_i|^2 + |z2_i|^2) / 4]

    with z1 and z2 normalized (cosine similarities) unless ``normalize=False``, the form of the paper.

    At temperature 1 cosines can lower the loss very little: with 7 pairs from ln 7 = 1.946, when all
    embeddings are equal, to 1.05 at best. See ``diagnostics.collapse_report``.

    >>> print(f"{npairs_loss(jnp.ones((7, 5)), jnp.ones((7, 5))):.4f}")  # ln 7
    1.9459

    Args:
      z1, z2: ``[batch, *features]``, any scale.
      temperature: positive scalar.
      normalize: whether to compare by cosine; if False, by the inner product of the rows as they are.
      l2_weight: weight of the squared norms of the rows as they came (the paper regularizes them; the
        factor 1/4 is that of TensorFlow's ``npairs_loss``).
      axis_name to reduce_fn: see :mod:`jaxcon.typing`.

    Returns:
      A scalar in [0, inf), ``log N`` when all embeddings are equal (and l2_weight is 0).

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      Sohn, Improved Deep Metric Learning with Multi-class N-pair Loss Objective, 2016,
      https://papers.nips.cc/paper/6200-improved-deep-metric-learning-with-multi-class-n-pair-loss-objective
    """
    rows = prepare(
        {"z1": z1, "z2": z2},
        axis_name=axis_name,
        where=where,
        weights=weights,
        ids=ids,
        evaluation=Evaluation(block_size, exchange, precision),
    )
    weight = setting(l2_weight, "l2_weight", rows.dtype)
    x, y = rows.z
    scale = 1 / positive(temperature, "temperature", rows.dtype)
    channels = [Channel(1, pairs=other_ids)]
    if flag(normalize, "normalize"):
        bound = inverse_bound(temperature)
        (neg,), u, v = cosine_channels(rows, x, y, scale, axis_name, channels, bound=bound)
        pair = paired_logits(u, v, scale)
    else:
        (neg,) = cross_channels(rows, x * scale, y, axis_name, channels)
        pair = jnp.sum(x * scale * y, axis=1)
    values = positive_and_rest(pair, neg)
    if not (isinstance(l2_weight, int | float) and l2_weight == 0):  # 0 * inf at rows of 1e20
        values = values + weight * jnp.sum(x * x + y * y, axis=1) / 4
    return reduce_rows(values, rows, reduce_fn, axis_name)


def clip_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    temperature: ArrayLike = 0.07,
    label_smoothing: ArrayLike = 0.0,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = collectives.gather,
    precision: Precision = PRECISION,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Symmetric InfoNCE of CLIP: each row of z1 finds its z2, and the reverse.

    ::

        mean_i [ce(s_i., i) + ce(s_.i, i)] / 2,   s_ij = cos(z1_i, z2_j) / temperature

    with ``ce`` the cross-entropy of a row's softmax. Label smoothing moves a share of the target from
    the positive to all candidates evenly.

    >>> z = jnp.eye(4)
    >>> print(f"{clip_loss(z, z, temperature=0.1):.6f}")  # log(1 + 3 e^-10)
    0.000136

    Args:
      z1, z2: ``[batch, *features]``, paired embeddings, any scale; normalized here.
      temperature: positive scalar, usually learned: ``encoders.Temperature``.
      label_smoothing: in [0, 1).
      axis_name to reduce_fn: see :mod:`jaxcon.typing`.

    Returns:
      A scalar in [0, inf), ``log N`` when all embeddings are equal.

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021,
      https://arxiv.org/abs/2103.00020
    """
    rows = prepare(
        {"z1": z1, "z2": z2},
        axis_name=axis_name,
        where=where,
        weights=weights,
        ids=ids,
        labels=labels,
        evaluation=Evaluation(block_size, exchange, precision),
    )
    smoothing = setting(
        label_smoothing, "label_smoothing", rows.dtype, lambda v: (v >= 0) & (v < 1), "in [0, 1)"
    )
    smooth = not (isinstance(label_smoothing, int | float) and label_smoothing == 0)
    scale = 1 / positive(temperature, "temperature", rows.dtype)
    one_way = candidate_channels(labels is not None, smooth)
    channels = [c._replace(axis=axis) for axis in (1, 0) for c in one_way]
    bound = inverse_bound(temperature)
    x, y = rows.z
    outputs, x, y = cosine_channels(rows, x, y, scale, axis_name, channels, bound=bound)
    pair = paired_logits(x, y, scale)
    forward, backward = (
        candidate_loss(pair, part, labels is not None, smoothing if smooth else None)
        for part in (outputs[: len(one_way)], outputs[len(one_way) :])
    )
    return reduce_rows((forward + backward) / 2, rows, reduce_fn, axis_name)


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
    exchange: Exchange = collectives.gather,
    precision: Precision = PRECISION,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """InfoNCE from z1 to z2, with negatives from the batch, from a queue, or chosen per anchor.

    ::

        mean_i -log(e^{s_ii} / (e^{s_ii} + sum_{j != i} e^{s_ij} + sum_k e^{n_ik}))

    with ``s_ij = cos(z1_i, z2_j) / temperature`` and ``n_ik`` the same towards the extra negatives.

    >>> z, queue = jnp.eye(4), -jnp.eye(4)
    >>> print(f"{info_nce_loss(z, z, queue, temperature=1.0, in_batch=False):.3f}")
    0.806
    >>> print(f"{jnp.log(1 + (3 + jnp.exp(-1.0)) / jnp.e):.3f}")  # cosines 1; 0, 0, 0, -1
    0.806

    Args:
      z1: ``[batch, *features]``, anchors, any scale; all embeddings are normalized here.
      z2: ``[batch, *features]``, row i the positive of anchor i.
      negatives: ``[m, *features]``, shared by all anchors and never gathered over devices (MoCo's
        queue, replicated); or ``[batch, k, *features]``, k for each anchor.
      temperature: positive scalar.
      in_batch: whether the other rows of z2 are negatives too.
      negative_ids: int ``[m]`` or ``[batch, k]``; a negative whose id is the anchor's leaves.
      axis_name to reduce_fn: see :mod:`jaxcon.typing`.

    Returns:
      A scalar in [0, inf); ``log K`` when all embeddings are equal, K the number of candidates.

    Raises:
      ValueError: for arguments of another shape, dtype or range, or when there is no source of
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
        raise ValueError("labels find positives among the rows of z2: they need in_batch=True")
    if negative_ids is not None and (negatives is None or ids is None):
        raise ValueError("negative_ids are compared with ids: pass negatives and ids as well")
    scale = 1 / positive(temperature, "temperature", rows.dtype)
    bound = inverse_bound(temperature)
    x, y = rows.z
    extra = jnp.full(len(rows.position), nothing(rows.dtype))
    if negatives is not None:
        queue = check_negatives(rows, negatives, negative_ids, jnp.shape(z1))
        extra = extra_negatives(rows, *queue, scale, bound)
    if not in_batch:
        values = positive_and_rest(paired_logits(x, y, scale), extra)
        return reduce_rows(values, rows, reduce_fn, axis_name)
    channels = candidate_channels(labels is not None, smooth=False)
    (neg, *others), x, y = cosine_channels(rows, x, y, scale, axis_name, channels, bound=bound)
    neg = neg if negatives is None else jnp.logaddexp(neg, extra)
    values = candidate_loss(paired_logits(x, y, scale), [neg, *others], labels is not None)
    return reduce_rows(values, rows, reduce_fn, axis_name)


def supcon_loss(
    z: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = collectives.gather,
    precision: Precision = PRECISION,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Supervised contrastive loss: rows of one label are positives of each other.

    ::

        mean_i mean_{p in P(i)} -log(e^{s_ip} / sum_{j != i} e^{s_ij})

    with ``s_ij = cos(z_i, z_j) / temperature`` and ``P(i)`` the other rows with the label of i: the
    ``L_out`` of the paper. Anchors without a positive leave the mean. It is computed as
    ``softplus(R_neg - R_pos) + (R_pos - mean_p s_ip)`` with the log-sum-exp R over the other labels and
    over P(i), which is exact where a class is well aligned. With the example's index as
    label it is NT-Xent of any number of views:

    >>> import jax
    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> both, index = jnp.concatenate([z1, z2]), jnp.tile(jnp.arange(8), 2)
    >>> print(f"{supcon_loss(both, index, temperature=0.5):.3f}")
    2.545

    Args:
      z: ``[n, *features]``, any scale; normalized here.
      labels: int ``[n]``.
      temperature: positive scalar.
      axis_name to reduce_fn: see :mod:`jaxcon.typing`.

    Returns:
      A scalar in [0, inf).

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      Khosla et al., Supervised Contrastive Learning, 2020, https://arxiv.org/abs/2004.11362
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
    scale = 1 / positive(temperature, "temperature", rows.dtype)
    bound = inverse_bound(temperature)
    (x,) = rows.z
    channels = candidate_channels(True, False, peers)
    outputs, *_ = cosine_channels(rows, x, x, scale, axis_name, channels, bound=bound)
    neg, *same = outputs
    pos = same[0]
    rows = rows._replace(valid=rows.valid & has_any(pos))
    return reduce_rows(candidate_loss(pos, [neg, *same], True), rows, reduce_fn, axis_name)
