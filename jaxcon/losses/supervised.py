"""The softmax loss for labelled rows: every other row of an anchor's class is a positive.

>>> import jax
>>> from jaxcon import losses
>>> z = jax.random.normal(jax.random.key(0), (8, 4))
>>> print(f"{losses.supcon_loss(z, jnp.arange(8) // 2, temperature=0.5):.3f}")
2.890

What the keywords from `axis_name` on mean: `jaxcon.typing`.
"""

import jax.numpy as jnp

from jaxcon.losses._channels import candidate_channels, candidate_loss, peers
from jaxcon.losses._exchange import cosine_channels
from jaxcon.losses._meshes import over_mesh
from jaxcon.losses._reduce import has_any, reduce_rows
from jaxcon.losses._rows import Evaluation, prepare, required
from jaxcon.losses._settings import inverse
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision, ReduceFn


@over_mesh
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
    exchange: Exchange = None,
    precision: Precision = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Supervised contrastive loss: rows of one label are positives of each other.

    ::

        mean_i mean_{p in P(i)} -log(e^{s_ip} / sum_{j != i} e^{s_ij})

    with `s_ij = cos(z_i, z_j) / temperature` and `P(i)` the other rows with the label of i: the
    `L_out` of the paper. Anchors without a positive leave the mean. It is computed as
    `softplus(R_neg - R_pos) + (R_pos - mean_p s_ip)` with the log-sum-exp R over the other labels and
    over P(i), which is exact where a class is well aligned. With the example's index as its label, it
    is NT-Xent of any number of views.

    Example:
      >>> import jax
      >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
      >>> both, index = jnp.concatenate([z1, z2]), jnp.tile(jnp.arange(8), 2)
      >>> print(f"{supcon_loss(both, index, temperature=0.5):.3f}")
      2.545

    Args:
      z: `[n, *features]`, any scale; normalized here.
      labels: int `[n]`.
      temperature: positive scalar.
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
    scale, bound = inverse(temperature, rows.dtype)
    channels = candidate_channels(True, False, peers)
    (x,) = rows.z
    (neg, pos, *same), *_ = cosine_channels(rows, x, None, scale, channels, bound=bound)
    rows = rows._replace(valid=rows.valid & has_any(pos))
    return reduce_rows(candidate_loss(pos, [neg, pos, *same], True), rows, reduce_fn)
