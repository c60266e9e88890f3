"""Losses that predict one view's embedding from the other's, without negatives.

>>> import jax
>>> from jaxcon import losses
>>> predictions, targets = jax.random.normal(jax.random.key(0), (2, 8, 4))
>>> print(f"{losses.cosine_regression_loss(predictions, targets):.3f}")
1.532

What the keywords from `axis_name` on mean: `jaxcon.typing`.
"""

import jax.numpy as jnp
from jax import lax

from jaxcon.losses._meshes import over_mesh
from jaxcon.losses._reduce import reduce_rows
from jaxcon.losses._rows import prepare
from jaxcon.similarity import l2_normalize
from jaxcon.typing import Array, ArrayLike, AxisName, ReduceFn


@over_mesh
def cosine_regression_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Cosine regression of normalized targets (BYOL, SimSiam); no gradient flows into the targets.

    ::

        mean_i |p_i / |p_i| - t_i / |t_i||^2  =  mean_i (2 - 2 cos(p_i, t_i))

    SimSiam writes `-cos` instead: half of this, less 1. Symmetric training adds the loss with the
    views exchanged. Nothing here keeps embeddings apart: collapse is a minimum, which the predictor and
    the stopped gradient (in BYOL also a slow target network) must keep training from reaching.

    Example:
      >>> p, t = jnp.array([[2.0, 0.0], [0.0, 3.0]]), jnp.array([[1.0, 0.0], [1.0, 0.0]])
      >>> print(cosine_regression_loss(p, t, reduce_fn=None))
      [0. 2.]

    Args:
      predictions: `[batch, *features]`, the predictor's output, any scale; normalized here.
      targets: `[batch, *features]`, the other view's embedding; held constant here.
      axis_name: mapped axis whose devices share one batch; None: this batch alone. This and the
        keywords below in full: `jaxcon.typing`.
      where: bool `[batch]`; False takes a row out, as anchor and as candidate, and it may hold NaN.
      weights: `[batch]`, the weight of each anchor in the mean; None: 1.
      reduce_fn: `jnp.mean` or `jnp.sum` over the anchors; None: the value of each, `[batch]`.

    Returns:
      A scalar in [0, 4].

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    References:
      Grill et al., Bootstrap Your Own Latent, 2020, https://arxiv.org/abs/2006.07733; Chen and He,
      Exploring Simple Siamese Representation Learning, 2020, https://arxiv.org/abs/2011.10566
    """
    rows = prepare(
        {"predictions": predictions, "targets": targets},
        axis_name=axis_name,
        where=where,
        weights=weights,
    )
    p, t = l2_normalize(rows.z[0]), lax.stop_gradient(l2_normalize(rows.z[1]))
    # The squared difference keeps the digits that 2 - 2 cos loses on aligned rows. A row of 0 has
    # cosine 0, so it lacks 1 of the 2 in |p|^2 + |t|^2.
    missing = jnp.round(2 - jnp.sum(p * p, axis=1) - jnp.sum(t * t, axis=1))
    values = jnp.sum((p - t) ** 2, axis=1) + lax.stop_gradient(missing)
    return reduce_rows(values, rows, reduce_fn)
