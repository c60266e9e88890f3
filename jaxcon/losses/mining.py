"""The triplet loss, and which triplets of a batch it is made from.

Rows of one label are positives of each other, rows of other labels are negatives.

>>> import jax
>>> from jaxcon import losses
>>> z = jax.random.normal(jax.random.key(0), (8, 4))
>>> labels = jnp.array([0, 0, 1, 1, 2, 2, 3, 3])
>>> loss = jax.jit(losses.triplet_loss, static_argnames="mining")
>>> print(f"{loss(z, labels, mining=losses.semi_hard):.3f}")
0.128

A mining function says which triplets of an anchor count. It sees one anchor's row of the distance
matrix, `(distances [m], positives bool [m], negatives bool [m], margin) -> counts [m]`, and returns
how many of the chosen triplets each candidate takes part in; only triplets with a hinge above 0 may
be chosen. Counts carry no gradient and suffice: a sum of hinges above 0 is linear in the distances.
So no list of triplets is ever built.

What the keywords from `axis_name` on mean: `jaxcon.typing`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon import collectives
from jaxcon.losses._meshes import over_mesh
from jaxcon.losses._mined import (
    Fixed,
    How,
    Members,
    Mining,
    Operands,
    hinges,
    hinges_in_blocks,
    kinds,
    open_closure,
    weighted_sum,
)
from jaxcon.losses._reduce import reduce_rows, reduce_total
from jaxcon.losses._rows import Rows, prepare, required
from jaxcon.losses._settings import setting
from jaxcon.similarity import l2_normalize
from jaxcon.similarity.distances import centred_rows, squared_distances
from jaxcon.streaming import rules
from jaxcon.streaming.stores import vary_together
from jaxcon.typing import Array, ArrayLike, AxisName, ReduceFn


def all_triplets(distances: Array, positives: Array, negatives: Array, margin: Array) -> Array:
    """Chooses every triplet with a hinge above 0: `d_n < d_p + margin`.

    Args:
      distances: `[m]`, from the anchor to each candidate.
      positives: bool `[m]`.
      negatives: bool `[m]`.
      margin: scalar.

    Returns:
      `[m]`, the number of chosen triplets that each candidate takes part in.

    Example:
      >>> d = jnp.array([0.5, 0.8, 0.6, 0.9])
      >>> pos, neg = jnp.array([1, 1, 0, 0], bool), jnp.array([0, 0, 1, 1], bool)
      >>> print(all_triplets(d, pos, neg, jnp.array(0.2)))  # all but (0.5, 0.9)
      [1. 2. 2. 1.]
    """
    return _count_nearer(distances, positives, negatives, margin).astype(distances.dtype)


def semi_hard(distances: Array, positives: Array, negatives: Array, margin: Array) -> Array:
    """Chooses triplets whose negative is beyond the positive, yet within the margin (FaceNet).

    `d_p < d_n < d_p + margin`. Arguments and result as in `all_triplets`.

    Example:
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
    """Chooses the farthest positive and nearest negative ("batch hard"), if `d_n < d_p + margin`.

    Equally far candidates share the triplet evenly. Arguments and result as in `all_triplets`.

    Example:
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


@over_mesh
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

    The mean over the triplets (anchor a, positive p, negative n) of all devices with a loss above 0::

        sum max(0, d_ap - d_an + margin) / #{d_ap - d_an + margin > 0},   d_ij = |z_i - z_j|

    among those that `mining` chooses; 0 if there is none. Every row of the batch is an anchor.
    The time is N^2 log N, not N^3: hinges are counted by sorting each anchor's distances. The memory is
    that of a few copies of the rows and of the distances of some anchors, 2^22 pairs at a time
    (`jaxcon.streaming.rules`).

    Per anchor (`reduce_fn=None`) the value is the mean over the anchor's own c_i active triplets, 0
    without any. The mean is their average by its own normalizer, `sum w_i c_i v_i / sum w_i c_i`;
    `jnp.sum` gives `sum w_i v_i`.

    Example:
      >>> z, labels = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), jnp.array([0, 0, 1])
      >>> print(f"{triplet_loss(z, labels):.3f}")  # sqrt(2) - 0 + 0.2, and sqrt(2) - sqrt(2) + 0.2
      0.907

    Args:
      z: `[n, *features]`, any scale; normalized here.
      labels: int `[n]`.
      margin: scalar >= 0; distances lie in [0, 2].
      mining: `all_triplets`, `semi_hard`, `hardest` or a function like them.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[n]`; False takes a row out, as anchor and as candidate, and it may hold NaN.
      weights: `[n]`, the weight of each anchor in the mean; None: 1.
      ids: int `[n]`; rows that share an id are not negatives of each other. None: all differ.
      reduce_fn: `jnp.mean` or `jnp.sum` over the anchors; None: the value of each, `[n]`.

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
        return reduce_rows(rows.weights, rows, reduce_fn)
    own = Members(rows.position, rows.ids, rows.labels, rows.valid)
    everyone = collectives.gather(own, rows.axis_name)
    anchors = max(rules.current().mined_pairs // len(everyone.valid), 1)
    if len(own.valid) > anchors:
        return _in_blocks(anchors, rows, own, everyone, margin, mining, reduce_fn)
    x = l2_normalize(rows.z[0])
    positives, negatives = kinds(own, everyone)
    squares = squared_distances(x, collectives.gather(x, rows.axis_name), positives | negatives)
    return _reduced(*hinges(squares, positives, negatives, margin, mining), rows, reduce_fn)


def _in_blocks(
    anchors: int,
    rows: Rows,
    own: Members,
    everyone: Members,
    margin: Array,
    mining: Mining,
    reduce_fn: ReduceFn,
) -> Array:
    """Computes the loss of so many anchors at a time."""
    x = jax.checkpoint(l2_normalize)(
        rows.z[0]
    )  # beside the centred rows, no derivative keeps these
    y = centred_rows(collectives.gather(x, rows.axis_name))
    operands = Operands(y, rows.weights, margin)
    operands, own, everyone = vary_together((operands, own, everyone))
    y, weights, margin = operands
    mine, captured = open_closure(
        mining, jnp.sum(y, axis=1), everyone.valid, everyone.valid, margin
    )
    how, fixed = How(mine, anchors, reduce_fn is jnp.sum), Fixed(own, everyone, captured)
    if reduce_fn is None:
        return _reduced(*hinges_in_blocks(how, y, margin, fixed), rows, reduce_fn)
    total, active = weighted_sum(how, operands, fixed)
    return reduce_total(total, weights * active, reduce_fn, rows.axis_name)


def _reduced(total: Array, active: Array, rows: Rows, reduce_fn: ReduceFn) -> Array:
    """Reduces sums of hinges over active triplets, one of each per anchor."""
    by_triplets = rows._replace(
        weights=rows.weights * active, valid=rows.valid & ((active > 0) | jnp.isnan(total))
    )
    values = total / jnp.where(active > 0, active, 1)
    if reduce_fn is jnp.mean:
        return reduce_rows(values, by_triplets, reduce_fn)
    return reduce_rows(values, by_triplets._replace(weights=rows.weights), reduce_fn)


def _count_nearer(
    distances: Array, positives: Array, negatives: Array, reach: Array, *, ties: bool = False
) -> Array:
    """Counts in how many pairs (p, n) with `d_n < d_p + reach` (`<=` with ties) each is: int `[m]`.

    In the order of `d_p + reach` and `d_n`, that is the number of negatives before a positive and
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
