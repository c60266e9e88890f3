"""NT-Xent with its terms reweighted: the positive left out of the denominator, hard negatives raised.

>>> import jax
>>> from jaxcon import losses
>>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
>>> print(f"{losses.dcl_loss(z1, z2, temperature=0.5):.3f}")
2.403

What the keywords from `axis_name` on mean: `jaxcon.typing`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxcon import collectives
from jaxcon.losses._channels import ones, other_ids
from jaxcon.losses._exchange import view_logits
from jaxcon.losses._meshes import over_mesh
from jaxcon.losses._reduce import has_any, positive_and_rest, reduce_rows
from jaxcon.losses._rows import Evaluation, prepare, two_views
from jaxcon.losses._settings import inverse, positive, setting
from jaxcon.streaming import Channel, masked_logsumexp, nothing
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision, ReduceFn


@over_mesh
def dcl_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    sigma: ArrayLike | None = None,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Decoupled contrastive loss: NT-Xent without the positive in the denominator.

    ::

        mean_i [log sum_neg exp(s_ij) - w_i s_{i,p(i)}],   w_i = 1, or with sigma
        w_i = 2 - N exp(cos_i / sigma) / sum_k exp(cos_k / sigma),  cos_i the pair's cosine

    The gradient does not fade on easy pairs, which helps small batches. Unlike NT-Xent, the loss is not
    bounded below by 0. The weights `w` emphasize hard positives and carry no gradient.

    Example:
      >>> z = jnp.eye(4)
      >>> print(f"{dcl_loss(z, z, temperature=0.1):.3f}")  # log 6 - 1 / 0.1
      -8.208

    Args:
      z1, z2: `[batch, *features]`, two views, any scale; normalized here.
      temperature: positive scalar.
      sigma: positive scalar, the width of the von Mises-Fisher weights (the paper: 0.5); None: w = 1.
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
        z1's anchors, then z2's. An anchor without a negative is not valid.

    Returns:
      A scalar.

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      Yeh et al., Decoupled Contrastive Learning, 2021, https://arxiv.org/abs/2110.06848
    """
    rows = prepare(
        {"z1": z1, "z2": z2},
        axis_name=axis_name,
        where=where,
        weights=weights,
        ids=ids,
        evaluation=Evaluation(block_size, exchange, precision),
    )
    both = two_views(rows)
    scale, bound = inverse(temperature, rows.dtype)
    pos, (neg,) = view_logits(both, scale, [Channel(1, pairs=other_ids)], bound=bound)
    if sigma is not None:
        cosine = pos[: len(rows.position)] * positive(temperature, "temperature", rows.dtype)
        scores = jax.lax.stop_gradient(cosine) / positive(sigma, "sigma", rows.dtype)
        normalizer = masked_logsumexp(*collectives.gather((scores, rows.valid), axis_name), axis=0)
        count = collectives.sum(jnp.sum(rows.valid), axis_name)
        shares = jnp.exp(jnp.where(rows.valid, scores - normalizer, -jnp.inf))
        pos = pos * jnp.tile(2 - count * shares, 2)
    both = both._replace(valid=both.valid & has_any(neg))
    return reduce_rows(neg - pos, both, reduce_fn)


@over_mesh
def hard_negative_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    temperature: ArrayLike = 0.5,
    beta: ArrayLike = 1.0,
    positive_prior: ArrayLike = 0.0,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """NT-Xent whose negatives are weighted by hardness (HCL) and corrected for false ones (debiased).

    With M negatives per anchor and tau+ the prior probability that a "negative" is really of the
    anchor's class::

        G_i = max( (sum_neg w_ij e^{s_ij} - tau+ M e^{s_i+}) / (1 - tau+),  M e^{-1/temperature} )
        w_ij = e^{beta s_ij} / mean_neg e^{beta s_ij}
        mean_i log(1 + G_i / e^{s_i+})

    `beta=0` is the debiased loss of Chuang et al.; with `positive_prior=0` too it is NT-Xent.

    Example:
      >>> from jaxcon import losses
      >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
      >>> print(f"{hard_negative_loss(z1, z2, beta=0.0) - losses.ntxent_loss(z1, z2):.4f}")
      0.0000

    Args:
      z1, z2: `[batch, *features]`, two views, any scale; normalized here.
      temperature: positive scalar.
      beta: scalar >= 0, the concentration on hard negatives.
      positive_prior: tau+, in [0, 1).
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
      A scalar in [0, inf).

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    References:
      Robinson et al., Contrastive Learning with Hard Negative Samples, 2021,
      https://arxiv.org/abs/2010.04592; Chuang et al., Debiased Contrastive Learning, 2020,
      https://arxiv.org/abs/2007.00224
    """
    rows = prepare(
        {"z1": z1, "z2": z2},
        axis_name=axis_name,
        where=where,
        weights=weights,
        ids=ids,
        evaluation=Evaluation(block_size, exchange, precision),
    )
    beta = setting(beta, "beta", rows.dtype, lambda v: v >= 0, "a number >= 0")
    prior = setting(
        positive_prior, "positive_prior", rows.dtype, lambda v: (v >= 0) & (v < 1), "in [0, 1)"
    )
    scale, _ = inverse(temperature, rows.dtype)
    rows = two_views(rows)
    aux = (jnp.full(len(rows.position), 1 + beta), jnp.full(len(rows.position), beta))
    channels = [
        Channel(1, _hardened, other_ids),
        Channel(1, _hardness, other_ids),
        Channel(1, ones, other_ids, log=False),
    ]
    pos, (hard, normalizer, count) = view_logits(rows, scale, channels, row_aux=aux)
    some = count > 0
    log_count = jnp.log(jnp.maximum(count, 1))
    weighted = jnp.where(some, hard - normalizer + log_count, 0)
    # log(e^a - e^b) = a + log(1 - e^{b - a}), where the difference is above the bound; the inner
    # where keeps the logarithm's argument positive on the other branch, for the gradient's sake.
    bound = log_count - scale
    share = prior * jnp.exp(jnp.minimum(log_count + pos - weighted, 80.0))
    corrected = weighted + jnp.log1p(-jnp.where(share < 1, share, 0)) - jnp.log1p(-prior)
    estimate = jnp.where(~(share >= 1), jnp.maximum(corrected, bound), bound)
    estimate = jnp.where(prior > 0, estimate, weighted)
    rest = jnp.where(some, estimate, nothing(rows.dtype))
    return reduce_rows(positive_and_rest(pos, rest), rows, reduce_fn)


def _hardened(tile: Array, row_aux: Any, col_aux: Any) -> Array:
    return row_aux[0] * tile


def _hardness(tile: Array, row_aux: Any, col_aux: Any) -> Array:
    return row_aux[1] * tile
