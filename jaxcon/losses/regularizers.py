"""Terms that keep embeddings spread out or views together, to add to a loss or to watch.

>>> import jax
>>> from jaxcon import losses
>>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
>>> print(f"{losses.alignment_loss(z1, z2) + losses.uniformity_loss(z1):.3f}")
-1.328

What the keywords from `axis_name` on mean: `jaxcon.typing`.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxcon import collectives
from jaxcon.losses._channels import other_ids
from jaxcon.losses._exchange import cross_channels
from jaxcon.losses._meshes import over_mesh
from jaxcon.losses._reduce import reduce_rows
from jaxcon.losses._rows import Evaluation, prepare
from jaxcon.losses._settings import positive
from jaxcon.similarity import l2_normalize
from jaxcon.similarity.distances import nearest
from jaxcon.streaming import Channel, masked_logsumexp
from jaxcon.typing import Array, ArrayLike, AxisName, Exchange, Precision, ReduceFn


@over_mesh
def alignment_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    alpha: ArrayLike = 2.0,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Alignment loss: how far apart the two views of an example lie on the sphere.

    ::

        mean_i |u_i - v_i|^alpha,   u = z1 / |z1|,  v = z2 / |z2|

    Example:
      >>> print(f"{alignment_loss(jnp.eye(2), -jnp.eye(2)):.1f}")
      4.0

    Args:
      z1, z2: `[batch, *features]`, two views, any scale; normalized here.
      alpha: positive scalar.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[batch]`; False takes a row out, as anchor and as candidate, and it may hold NaN.
      weights: `[batch]`, the weight of each anchor in the mean; None: 1.
      reduce_fn: `jnp.mean` or `jnp.sum` over the anchors; None: the value of each, `[batch]`.

    Returns:
      A scalar in [0, 2^alpha]. The gradient of a pair that coincides is 0, even for alpha < 2.

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity
      on the Hypersphere, 2020, https://arxiv.org/abs/2005.10242
    """
    rows = prepare({"z1": z1, "z2": z2}, axis_name=axis_name, where=where, weights=weights)
    alpha = positive(alpha, "alpha", rows.dtype)
    u, v = (l2_normalize(z) for z in rows.z)
    square = jnp.sum((u - v) ** 2, axis=1)
    zero = square == 0
    values = jnp.where(zero, 0, jnp.where(zero, 1, square) ** (alpha / 2))
    return reduce_rows(values, rows, reduce_fn)


@over_mesh
def uniformity_loss(
    z: ArrayLike,
    *,
    t: ArrayLike = 2.0,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    block_size: int | None = None,
    exchange: Exchange = None,
    precision: Precision = None,
) -> Array:
    """Uniformity loss: log of the mean Gaussian potential between the rows on the sphere.

    ::

        log mean_{i < j} exp(-t |u_i - u_j|^2),   u = z / |z|

    over the pairs of all devices' rows. Low if the rows cover the sphere evenly; 0 if they are all
    equal, or if there is no pair.

    Example:
      >>> print(f"{uniformity_loss(jnp.array([[1.0, 0.0], [-3.0, 0.0]])):.3f}")  # |u_1 - u_2|^2 = 4
      -8.000

    Args:
      z: `[n, *features]`, any scale; normalized here.
      t: positive scalar.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[n]`; False takes a row out, as anchor and as candidate, and it may hold NaN.
      block_size: edge of the tiles in which the pairs are evaluated; None: chosen by their number.
      exchange: `collectives.gather` the candidates of all devices, or pass them on in a
        `collectives.ring`; None: chosen by their number.
      precision: of the products between rows: a `jax.lax.Precision`, or `jnp.bfloat16`; None:
        `jnp.bfloat16` for embeddings that come in it, `HIGHEST` for others.

    Returns:
      A scalar in [-4 t, 0].

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      Wang and Isola, 2020, as for `alignment_loss`.
    """
    rows = prepare(
        {"z": z},
        axis_name=axis_name,
        where=where,
        evaluation=Evaluation(block_size, exchange, precision),
    )
    t = positive(t, "t", rows.dtype)
    u = l2_normalize(rows.z[0])
    # -t |u_i - u_j|^2 = 2 t u_i . u_j - halves_i - halves_j. The product's rounding, 1e-7, is
    # multiplied by t and goes no further.
    halves, x = t * jnp.sum(u * u, axis=1), jnp.sqrt(2 * t) * u
    channels = [Channel(1, _less_aux, other_ids)]
    (lse,) = cross_channels(rows, x, None, channels, row_aux=halves, col_aux=halves)
    total = collectives.logsumexp(masked_logsumexp(lse, rows.valid, axis=0), axis_name)
    n = collectives.sum(jnp.sum(rows.valid.astype(rows.dtype)), axis_name)
    return jnp.where(n > 1, total - jnp.log(jnp.where(n > 1, n * (n - 1), 1)), 0)


@over_mesh
def koleo_loss(
    z: ArrayLike,
    *,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """KoLeo loss, the Kozachenko-Leonenko estimate of (negative) entropy: drives neighbours apart.

    ::

        mean_i -log(min_{j != i} |u_i - u_j| + 1e-8),   u = z / |z|

    The neighbour is the nearest of all devices' rows; both ends of the distance get its gradient. The
    1e-8, not in the paper, keeps the value finite where rows coincide; their gradient is 0.

    Example:
      >>> print(f"{koleo_loss(jnp.array([[1.0, 0.0], [-3.0, 0.0]])):.4f}")  # -log 2
      -0.6931

    Args:
      z: `[n, *features]`, any scale; normalized here.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[n]`; False takes a row out, as anchor and as candidate, and it may hold NaN.
      weights: `[n]`, the weight of each anchor in the mean; None: 1.
      reduce_fn: `jnp.mean` or `jnp.sum` over the anchors; None: the value of each, `[n]`. A lone
        row is not valid.

    Returns:
      A scalar in [-log 2, 18.5].

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      Sablayrolles et al., Spreading Vectors for Similarity Search, 2019,
      https://arxiv.org/abs/1806.03198
    """
    rows = prepare({"z": z}, axis_name=axis_name, where=where, weights=weights)
    if not len(rows.weights):
        return reduce_rows(rows.weights, rows, reduce_fn)
    u = l2_normalize(rows.z[0])
    all_u, position, valid = collectives.gather((u, rows.position, rows.valid), axis_name)

    def others(i: Array) -> Array:
        return valid[None, :] & (rows.position[i][:, None] != position[None, :])

    neighbour = nearest(*lax.stop_gradient((u, all_u)), others)
    square = jnp.sum((u - all_u[neighbour]) ** 2, axis=1)
    zero = square == 0
    distance = jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))
    rows = rows._replace(valid=rows.valid & (jnp.sum(valid) > 1))
    return reduce_rows(-jnp.log(distance + 1e-8), rows, reduce_fn)


@over_mesh
def variance_loss(
    z: ArrayLike,
    *,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
) -> Array:
    """Variance loss: VICReg's hinge on the standard deviation of every dimension, against collapse.

    ::

        mean_d max(0, 1 - sqrt(Var(z_d) + 1e-4))

    with the unbiased variance over the rows of all devices, as they are; 0 if there are fewer than two
    rows, and so no variance.

    Example:
      >>> print(f"{variance_loss(jnp.ones((4, 3))):.2f}")  # 1 - sqrt(1e-4)
      0.99

    Args:
      z: `[n, *features]`, not normalized.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[n]`; False takes a row out, as anchor and as candidate, and it may hold NaN.

    Returns:
      A scalar in [0, 1).

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      Bardes et al., VICReg, 2021, https://arxiv.org/abs/2105.04906
    """
    rows = prepare({"z": z}, axis_name=axis_name, where=where)
    (z,) = rows.z
    n, total = collectives.sum((jnp.sum(rows.valid.astype(z.dtype)), jnp.sum(z, axis=0)), axis_name)
    mean = (total / jnp.maximum(n, 1))[None, :]
    centred = jnp.where(rows.valid[:, None], z - mean, 0)
    square = collectives.sum(jnp.sum(centred**2, axis=0), axis_name)
    std = jnp.sqrt(square / jnp.maximum(n - 1, 1) + 1e-4)
    return jnp.where(n > 1, jnp.mean(jnp.maximum(1 - std, 0)), 0)


def _less_aux(tile: Array, row_aux: Any, col_aux: Any) -> Array:
    return tile - row_aux - col_aux
