"""Losses that ask for a gap between the positives and the negatives of an anchor.

``triplet_loss``, ``multi_similarity_loss`` and ``circle_loss`` take labels: rows of one label are
positives of each other, rows of other labels are negatives. ``spectral_contrastive_loss`` takes pairs.

>>> import jax
>>> from jaxcon import losses
>>> z = jax.random.normal(jax.random.key(0), (8, 4))
>>> labels = jnp.array([0, 0, 1, 1, 2, 2, 3, 3])
>>> print(f"{losses.triplet_loss(z, labels, mining=losses.semi_hard):.3f}")
0.128

A mining function says which triplets of an anchor count. It sees one anchor's row of the distance
matrix, ``(distances [m], positives bool [m], negatives bool [m], margin) -> counts [m]``, and returns
in how many of the chosen triplets each candidate takes part; only triplets with a hinge above 0 may
be chosen. Counts carry no gradient and suffice: a sum of hinges above 0 is linear in the distances. So
no list of triplets is ever built.

What the keywords from ``axis_name`` on mean: :mod:`jaxcon.typing`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon import collectives
from jaxcon.losses._candidates import (
    cross_channels,
    ones,
    other_classes,
    other_ids,
    peers,
    reduce_rows,
    square,
)
from jaxcon.losses._shared import Evaluation, Rows, positive, prepare, required, setting
from jaxcon.similarity import l2_normalize
from jaxcon.similarity.distances import squared_distances
from jaxcon.streaming import PRECISION, Channel
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision, ReduceFn

Mining = Callable[[Array, Array, Array, Array], Array]

_ANCHORS_AT_ONCE = 128  # mined together: enough to fill a machine, few enough to cost no memory


def all_triplets(distances: Array, positives: Array, negatives: Array, margin: Array) -> Array:
    """Every triplet with a hinge above 0: ``d_n < d_p + margin``.

    Args:
      distances: ``[m]``, from the anchor to each candidate.
      positives: bool ``[m]``.
      negatives: bool ``[m]``.
      margin: scalar.

    Returns:
      ``[m]``, the number of chosen triplets that each candidate takes part in.

    >>> d = jnp.array([0.5, 0.8, 0.6, 0.9])
    >>> pos, neg = jnp.array([1, 1, 0, 0], bool), jnp.array([0, 0, 1, 1], bool)
    >>> print(all_triplets(d, pos, neg, jnp.array(0.2)))  # all but (0.5, 0.9)
    [1. 2. 2. 1.]
    """
    return _count_nearer(distances, positives, negatives, margin).astype(distances.dtype)


def semi_hard(distances: Array, positives: Array, negatives: Array, margin: Array) -> Array:
    """The triplets whose negative is beyond the positive, yet within the margin (FaceNet).

    ``d_p < d_n < d_p + margin``. Arguments and result as in :func:`all_triplets`.

    >>> d = jnp.array([0.5, 0.8, 0.6, 0.9])
    >>> pos, neg = jnp.array([1, 1, 0, 0], bool), jnp.array([0, 0, 1, 1], bool)
    >>> print(semi_hard(d, pos, neg, jnp.array(0.2)))  # (0.5, 0.6) and (0.8, 0.9)
    [1. 1. 1. 1.]
    """
    within = _count_nearer(distances, positives, negatives, margin)
    not_beyond = _count_nearer(distances, positives, negatives, jnp.zeros_like(margin), ties=True)
    # At a margin of 0, or one lost in rounding, a tie is not within but not beyond either.
    return jnp.maximum(within - not_beyond, 0).astype(distances.dtype)


def hardest(distances: Array, positives: Array, negatives: Array, margin: Array) -> Array:
    """The farthest positive with the nearest negative ("batch hard"), if ``d_n < d_p + margin``.

    Equally far candidates share the triplet evenly. Arguments and result as in :func:`all_triplets`.

    >>> d = jnp.array([0.5, 0.8, 0.6, 0.9])
    >>> pos, neg = jnp.array([1, 1, 0, 0], bool), jnp.array([0, 0, 1, 1], bool)
    >>> print(hardest(d, pos, neg, jnp.array(0.2)))
    [0. 1. 1. 0.]
    """
    far = jnp.max(distances, initial=-jnp.inf, where=positives)
    near = jnp.min(distances, initial=jnp.inf, where=negatives)
    farthest, nearest = positives & (distances == far), negatives & (distances == near)

    def share(chosen: Array) -> Array:
        return chosen / jnp.maximum(jnp.sum(chosen), 1)

    counts = (share(farthest) + share(nearest)).astype(distances.dtype)
    return jnp.where(near < far + margin, counts, 0)


def triplet_loss(
    z: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 0.2,
    mining: Mining = all_triplets,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Triplet margin loss on Euclidean distances of normalized rows.

    The mean over the triplets (anchor a, positive p, negative n) with a loss above 0, of all devices::

        sum max(0, d_ap - d_an + margin) / #{d_ap - d_an + margin > 0},   d_ij = |z_i - z_j|

    among those that ``mining`` chooses; 0 if there is none. Every row of the batch is an anchor.
    Time is N^2 log N, not N^3: hinges are counted by sorting each anchor's distances.

    Per anchor (``reduce_fn=None``) the value is the mean over the anchor's own c_i active triplets, 0
    without any. The mean is their average by its own normalizer, ``sum w_i c_i v_i / sum w_i c_i``;
    ``jnp.sum`` gives ``sum w_i v_i``.

    >>> z, labels = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), jnp.array([0, 0, 1])
    >>> print(f"{triplet_loss(z, labels):.3f}")  # sqrt(2) - 0 + 0.2, and sqrt(2) - sqrt(2) + 0.2
    0.907

    Args:
      z: ``[n, *features]``, any scale; normalized here.
      labels: int ``[n]``.
      margin: scalar >= 0; distances lie in [0, 2].
      mining: ``all_triplets``, ``semi_hard``, ``hardest`` or a function like them.
      axis_name, where, weights, ids, reduce_fn: see :mod:`jaxcon.typing`.

    Returns:
      A scalar in [0, 2 + margin].

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    References:
      Schroff et al., FaceNet, 2015, https://arxiv.org/abs/1503.03832; Hermans et al., In Defense of
      the Triplet Loss for Person Re-Identification, 2017, https://arxiv.org/abs/1703.07737
    """
    if not callable(mining):
        raise ValueError(
            f"mining must be a function: all_triplets, semi_hard, hardest or your own; got {mining!r}"
        )
    rows = prepare(
        {"z": z},
        axis_name=axis_name,
        where=where,
        weights=weights,
        ids=ids,
        labels=required(labels),
    )
    margin = setting(margin, "margin", rows.dtype, lambda v: v >= 0, "a number >= 0")
    if not len(rows.weights):
        return reduce_rows(rows.weights, rows, reduce_fn, axis_name)
    distances, positives, negatives = _distances(rows, axis_name)
    counts = lax.stop_gradient(
        lax.map(
            lambda anchor: mining(anchor[0], anchor[1], anchor[2], margin),
            (lax.stop_gradient(distances), positives, negatives),
            batch_size=_ANCHORS_AT_ONCE,
        )
    )
    # Products, not a choice by count: a NaN distance is in no triplet, but 0 * NaN is NaN.
    gaps = jnp.where(positives, counts * (distances + margin), 0)
    gaps = gaps - jnp.where(negatives, counts * distances, 0)
    active = jnp.sum(jnp.where(positives, counts, 0), axis=1)
    total = jnp.sum(gaps, axis=1)
    by_triplets = rows._replace(
        weights=rows.weights * active, valid=rows.valid & ((active > 0) | jnp.isnan(total))
    )
    values = total / jnp.where(active > 0, active, 1)
    if reduce_fn is jnp.mean:
        return reduce_rows(values, by_triplets, reduce_fn, axis_name)
    return reduce_rows(values, by_triplets._replace(weights=rows.weights), reduce_fn, axis_name)


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
    exchange: Exchange = collectives.gather,
    precision: Precision = PRECISION,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Multi-similarity loss: each pair is weighted by its similarity relative to the others'.

    ::

        mean_i [log(1 + sum_p e^{-alpha (s_ip - base)}) / alpha
                + log(1 + sum_n e^{beta (s_in - base)}) / beta],   s_ij = cos(z_i, z_j)

    over all pairs; the paper's mining of pairs is left out. An anchor without a positive or a negative
    counts, with that term 0.

    >>> z, labels = jnp.eye(2), jnp.array([0, 1])
    >>> print(f"{multi_similarity_loss(z, labels, beta=1.0, base=0.0):.4f}")  # log(1 + e^0)
    0.6931

    Args:
      z: ``[n, *features]``, any scale; normalized here.
      labels: int ``[n]``.
      alpha: positive scalar, the sharpness towards far positives.
      beta: positive scalar, the sharpness towards near negatives.
      base: scalar, the similarity from which on a negative, and up to which a positive, costs.
      axis_name to reduce_fn: see :mod:`jaxcon.typing`.

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
    pos, neg = cross_channels(rows, x, x, axis_name, channels, aux)
    values = jax.nn.softplus(pos) / alpha + jax.nn.softplus(neg) / beta
    return reduce_rows(values, rows, reduce_fn, axis_name)


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
    exchange: Exchange = collectives.gather,
    precision: Precision = PRECISION,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Circle loss: similarities that are far from their optimum weigh more.

    ::

        mean_i log(1 + sum_n e^{gamma a_in (s_in - m)} sum_p e^{-gamma a_ip (s_ip - 1 + m)})
        a_in = max(0, s_in + m),  a_ip = max(0, 1 + m - s_ip),  m = margin,  s_ij = cos(z_i, z_j)

    The weights ``a`` carry no gradient. Anchors without a positive or without a negative leave the
    mean.

    >>> z, labels = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 0, 1])
    >>> print(f"{circle_loss(z, labels, gamma=1.0):.4f}")  # log(1 + e^{-0.4^2} e^{-0.4^2})
    0.5459

    Args:
      z: ``[n, *features]``, any scale; normalized here.
      labels: int ``[n]``.
      margin: scalar in [0, 1]; the paper: 0.4 for few images a class, 0.25 for faces.
      gamma: positive scalar, the scale; the paper: 80, and 256 for faces.
      axis_name to reduce_fn: see :mod:`jaxcon.typing`.

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
    pos, neg, positives, negatives = cross_channels(rows, x, x, axis_name, channels, aux)
    both = (positives > 0) & (negatives > 0)
    values = jax.nn.softplus(jnp.where(both, pos, 0) + jnp.where(both, neg, 0))
    return reduce_rows(values, rows._replace(valid=rows.valid & both), reduce_fn, axis_name)


def spectral_contrastive_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = collectives.gather,
    precision: Precision = PRECISION,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Spectral contrastive loss, on embeddings as they are.

    ::

        mean_i [-2 z1_i . z2_i + mean_{j != i} (z1_i . z2_j)^2]

    Up to a constant it is the error of factorizing the graph of augmentations; its minimum is known in
    closed form. An anchor without a negative counts, with that term 0.

    >>> z = jnp.eye(3)
    >>> print(f"{spectral_contrastive_loss(z, z):.1f}")
    -2.0

    Args:
      z1, z2: ``[batch, *features]``, two views; not normalized, and not scale-invariant.
      axis_name to reduce_fn: see :mod:`jaxcon.typing`.

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
    squares, count = cross_channels(rows, x, y, axis_name, channels)
    values = squares / jnp.maximum(count, 1) - 2 * jnp.sum(x * y, axis=1)
    return reduce_rows(values, rows, reduce_fn, axis_name)


def _distances(rows: Rows, axis_name: AxisName) -> tuple[Array, Array, Array]:
    """Distances of own rows to all devices' rows, and which are positives and negatives: [n, m]."""
    x = l2_normalize(rows.z[0])
    names = (rows.position, rows.ids, rows.labels)
    all_x, all_names, all_valid = collectives.gather((x, names, rows.valid), axis_name)
    row = jax.tree.map(lambda a: a[:, None], names)
    col = jax.tree.map(lambda a: a[None, :], all_names)
    valid = rows.valid[:, None] & all_valid[None, :]
    positives, negatives = peers(row, col) & valid, other_classes(row, col) & valid
    square = squared_distances(x, all_x, positives | negatives)
    zero = square <= 0  # equal rows, where the root has no derivative, and pairs of no kind
    distances = jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))
    return distances, positives, negatives


def _count_nearer(
    distances: Array, positives: Array, negatives: Array, reach: Array, *, ties: bool = False
) -> Array:
    """Of the pairs (p, n) with ``d_n < d_p + reach`` (``<=`` with ties), how many each is in: int [m].

    In the order of ``d_p + reach`` and ``d_n``, that is the number of negatives before a positive and
    of positives after a negative.
    """
    m = distances.shape[0]
    keys = jnp.where(positives, distances + reach, distances)
    first, second = (negatives, positives) if ties else (positives, negatives)
    kinds = jnp.where(first, 0, jnp.where(second, 1, 2))
    # Kind and index in one number: it decides between equal keys, and finds the way back.
    _, order = lax.sort((keys, kinds * m + lax.iota(jnp.int32, m)), num_keys=2)
    kinds, order = order // m, order % m
    is_positive, is_negative = kinds == int(ties), kinds == int(not ties)
    before = jnp.cumsum(is_negative)
    after = jnp.sum(is_positive) - jnp.cumsum(is_positive)
    counts = jnp.where(is_positive, before, jnp.where(is_negative, after, 0))
    return jnp.zeros(m, counts.dtype).at[order].set(counts, unique_indices=True)


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
