"""Images as matrices: what TPUs do faster by products than by moving pixels."""

import jax
import jax.numpy as jnp
from jax import Array


def along_axes(rows: Array, columns: Array, image: Array) -> Array:
    """Multiplies every column of pixels by one matrix, and every row by another, in full float32.

    Example:
      >>> flip = jnp.eye(2)[::-1]
      >>> along_axes(flip, jnp.eye(3), jnp.arange(6.0).reshape(2, 3, 1))[..., 0].tolist()
      [[3.0, 4.0, 5.0], [0.0, 1.0, 2.0]]

    Args:
      rows: `[new height, height]`.
      columns: `[new width, width]`.
      image: `[height, width, channels]`.

    Returns:
      `[new height, new width, channels]`.
    """
    exact = jax.lax.Precision.HIGHEST
    image = jnp.einsum("ih,hwc->iwc", rows, image, precision=exact)
    return jnp.einsum("jw,iwc->ijc", columns, image, precision=exact)
