"""Losses that classify an embedding's positive among its candidates by softmax.

With logits `s_ij = z1_i . z2_j / temperature`, each is a mean over anchors i of

    -log(e^{s_i+} / (e^{s_i+} + sum_neg e^{s_ij}))  =  softplus(R_i - s_i+)

with `R_i` the log-sum-exp over the negatives; they differ in what counts as a negative. The second
form is the one computed: it keeps its digits when the pair is well aligned.

>>> import jax
>>> from jaxcon import losses
>>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
>>> print(f"{losses.ntxent_loss(z1, z2, temperature=0.5):.3f}")
2.545

What the keywords from `axis_name` on mean: `jaxcon.typing`.
"""

import jax.numpy as jnp

from jaxcon.losses._channels import candidate_channels, candidate_loss, other_ids
from jaxcon.losses._exchange import cosine_channels, cross_channels, view_logits
from jaxcon.losses._meshes import over_mesh
from jaxcon.losses._reduce import positive_and_rest, reduce_rows
from jaxcon.losses._rows import Evaluation, prepare, two_views
from jaxcon.losses._settings import flag, inverse, is_zero, setting
from jaxcon.similarity import paired_logits
from jaxcon.streaming import Channel
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision, ReduceFn


@over_mesh
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
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """NT-Xent, the normalized temperature-scaled cross-entropy of SimCLR (Chen et al. 2020, eq. 1).

    Of the 2N rows `u` of both views, each anchor's positive is its other view and its negatives are
    the 2N - 2 rows of the other examples::

        mean_i -log(exp(s_{i,p(i)}) / sum_{j != i} exp(s_ij)),   s_ij = cos(u_i, u_j) / temperature

    Example:
      >>> z = jnp.eye(4)
      >>> print(f"{ntxent_loss(z, z, temperature=0.1):.6f}")  # perfect: log(1 + 6 e^-10)
      0.000272

    Args:
      z1, z2: `[batch, *features]`, two views, any scale; normalized here.
      temperature: positive scalar; SimCLR used 0.5 for CIFAR-10 and 0.1 for ImageNet.
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
      reduce_fn: `jnp.mean` or `jnp.sum` over the anchors; None: the value of each, `[2 * batch]`:
        z1's anchors, then z2's.

    Returns:
      A scalar in [0, inf), `log(2 N - 1)` if all embeddings are equal.

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
    rows = two_views(rows)
    scale, bound = inverse(temperature, rows.dtype)
    pos, (neg,) = view_logits(rows, scale, [Channel(1, pairs=other_ids)], bound=bound)
    return reduce_rows(positive_and_rest(pos, neg), rows, reduce_fn)


@over_mesh
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
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """N-pairs loss: each z1 classifies its z2 among the batch's, one way.

    ::

        mean_i [-log softmax_j(z1_i . z2_j / temperature)_i + l2_weight (|z1_i|^2 + |z2_i|^2) / 4]

    with z1 and z2 normalized (cosine similarities) unless `normalize=False`, the form of the paper.

    At temperature 1, cosines can lower the loss very little: with 7 pairs, from ln 7 = 1.946, where all
    embeddings are equal, to 1.05 at best. See `diagnostics.collapse_report`.

    Example:
      >>> print(f"{npairs_loss(jnp.ones((7, 5)), jnp.ones((7, 5))):.4f}")  # ln 7
      1.9459

    Args:
      z1, z2: `[batch, *features]`, any scale.
      temperature: positive scalar.
      normalize: whether to compare by cosine; if False, by the inner product of the rows as they are.
      l2_weight: weight of the squared norms of the rows as they came (the paper regularizes them; the
        factor 1/4 is that of TensorFlow's `npairs_loss`).
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
      A scalar in [0, inf), `log N` if all embeddings are equal (and l2_weight is 0).

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
    scale, bound = inverse(temperature, rows.dtype)
    channels = [Channel(1, pairs=other_ids)]
    if flag(normalize, "normalize"):
        (neg,), u, v = cosine_channels(rows, x, y, scale, channels, bound=bound)
        pair = paired_logits(u, v, scale)
    else:
        (neg,) = cross_channels(rows, x * scale, y, channels)
        pair = jnp.sum(x * scale * y, axis=1)
    values = positive_and_rest(pair, neg)
    if not is_zero(l2_weight):  # 0 * inf at rows of 1e20
        values = values + weight * jnp.sum(x * x + y * y, axis=1) / 4
    return reduce_rows(values, rows, reduce_fn)


@over_mesh
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
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Symmetric InfoNCE of CLIP: each row of z1 finds its z2, and the reverse.

    ::

        mean_i [ce(s_i., i) + ce(s_.i, i)] / 2,   s_ij = cos(z1_i, z2_j) / temperature

    with `ce` the cross-entropy of a row's softmax. Label smoothing moves a share of the target from
    the positive to all candidates evenly.

    Example:
      >>> z = jnp.eye(4)
      >>> print(f"{clip_loss(z, z, temperature=0.1):.6f}")  # log(1 + 3 e^-10)
      0.000136

    Args:
      z1, z2: `[batch, *features]`, paired embeddings, any scale; normalized here.
      temperature: positive scalar, usually learned: `encoders.Temperature`.
      label_smoothing: in [0, 1).
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
      A scalar in [0, inf), `log N` if all embeddings are equal.

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
    smooth = not is_zero(label_smoothing)
    scale, bound = inverse(temperature, rows.dtype)
    one_way = candidate_channels(labels is not None, smooth)
    channels = [c._replace(axis=axis) for axis in (1, 0) for c in one_way]
    x, y = rows.z
    outputs, x, y = cosine_channels(rows, x, y, scale, channels, bound=bound)
    pair = paired_logits(x, y, scale)
    forward, backward = (
        candidate_loss(pair, part, labels is not None, smoothing if smooth else None)
        for part in (outputs[: len(one_way)], outputs[len(one_way) :])
    )
    return reduce_rows((forward + backward) / 2, rows, reduce_fn)
