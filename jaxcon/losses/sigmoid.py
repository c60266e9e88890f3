"""Losses that judge every pair by itself: match or no match, by the logistic loss.

>>> import jax
>>> from jaxcon import losses
>>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
>>> print(f"{losses.siglip_loss(z1, z2):.3f}, {losses.siglip_loss(z1, z1):.3f}")
7.806, 0.804

What the keywords from `axis_name` on mean: `jaxcon.typing`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxcon.losses._channels import ones, other_classes, other_ids, same_class
from jaxcon.losses._exchange import cosine_channels, cosine_sum, cross_channels
from jaxcon.losses._meshes import over_mesh
from jaxcon.losses._reduce import reduce_rows, reduce_total
from jaxcon.losses._rows import Evaluation, Rows, prepare
from jaxcon.losses._settings import inverse, setting
from jaxcon.similarity import paired_logits
from jaxcon.streaming import Channel
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision, ReduceFn


@over_mesh
def siglip_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    bias: ArrayLike = -10.0,
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
    """SigLIP's pairwise sigmoid loss.

    ::

        mean_i [softplus(-s_ii) + sum_{j != i} softplus(s_ij)],
        s_ij = cos(z1_i, z2_j) / temperature + bias

    No normalization over the candidates: an image may match no text, or several. Temperature and bias
    are learned from these initial values; the bias starts near -log N, so that the many negatives do
    not swamp the first steps.

    Example:
      >>> z = jnp.eye(4)
      >>> print(f"{siglip_loss(z, z):.6f}")  # log 2 + 3 log(1 + e^-10)
      0.693283

    Args:
      z1, z2: `[batch, *features]`, paired embeddings, any scale; normalized here.
      temperature: positive scalar.
      bias: scalar, added to every logit.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[batch]`; False takes a row out, as anchor and as candidate, and it may hold NaN.
      weights: `[batch]`, the weight of each anchor in the mean; None: 1.
      ids: int `[batch]`; rows that share an id are not negatives of each other. None: all differ.
      labels: int `[batch]`; rows that share a label are positives of each other, and the first term is
        the average over an anchor's positives.
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
      Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023,
      https://arxiv.org/abs/2303.15343
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
    bias = setting(bias, "bias", rows.dtype)
    scale, _ = inverse(temperature, rows.dtype)
    row_aux = jnp.full(len(rows.position), bias)
    labelled = labels is not None
    channels = [Channel(1, _repelled, other_classes if labelled else other_ids, log=False)]
    shares = [jnp.ones_like(rows.weights)]
    if labelled:
        channels.append(Channel(1, _attracted, same_class, log=False))
        shares.append(1 / _number_of_positives(rows))
    x, y = rows.z
    if reduce_fn is None:
        parts, x, y = cosine_channels(rows, x, y, scale, channels, row_aux=row_aux)
        values = jnp.zeros_like(rows.weights)
        for share, part in zip(shares, parts, strict=True):
            values = values + share * part
        if not labelled:
            values = values + jax.nn.softplus(-(paired_logits(x, y, scale) + bias))
        return reduce_rows(values, rows, reduce_fn)
    # The weights of all terms are known: value and gradient in one sweep, 3 products instead of 4.
    shares = [share * rows.weights for share in shares]
    total = cosine_sum(rows, x, y, scale, channels, shares, row_aux=row_aux)
    if not labelled:
        positives = jax.nn.softplus(-(paired_logits(x, y, scale) + bias))
        total = total + jnp.sum(rows.weights * positives)
    return reduce_total(total, rows.weights, reduce_fn, axis_name)


def _number_of_positives(rows: Rows) -> Array:
    """Counts each anchor's positives, at least 1; only labels matter, so the rows are kept narrow."""
    narrow = jnp.zeros((len(rows.position), 1), rows.dtype)
    channels = [Channel(1, ones, same_class, log=False)]
    (count,) = cross_channels(rows, narrow, narrow, channels)
    return jnp.maximum(count, 1)


@jax.custom_jvp
def _softplus(x: Array) -> Array:
    """Computes softplus; its derivative reads x alone, or its values would be kept as a matrix."""
    return jax.nn.softplus(x)


@_softplus.defjvp
def _softplus_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return jax.nn.softplus(x), jax.nn.sigmoid(x) * dx


def _repelled(tile: Array, bias: Any, col_aux: Any) -> Array:
    return _softplus(tile + bias)


def _attracted(tile: Array, bias: Any, col_aux: Any) -> Array:
    return _softplus(-(tile + bias))
