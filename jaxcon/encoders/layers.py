"""Layers that several encoders share."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array

from jaxcon.encoders.convolution import conv

# Flax's default variance, E[x^2] - E[x]^2, loses all digits if the mean is large against the deviation.
LayerNorm = partial(nn.LayerNorm, use_fast_variance=False)

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


class BatchNorm(nn.Module):
    """Batch normalization whose statistics are those of the global batch.

    Computes `(x - mean) / sqrt(var + 1e-5) * scale + bias`, with statistics over all axes but the last
    and, in training, over `axis_name`. The variance is the mean square of differences from the mean,
    which stays accurate when the mean is large in comparison, whatever the dtype of x. This takes twice
    as many reductions between devices as E[x^2] - E[x]^2.

    Running averages are `0.9 * old + 0.1 * new` of this biased variance, as in Flax: it is what
    training divides by, and is defined for a single value. PyTorch averages the unbiased variance,
    n / (n - 1) times as large over n values. Running variances from PyTorch need no conversion:
    evaluation takes them as they are.

    Example:
      >>> import jax
      >>> x = jnp.array([[0.0], [2.0]])
      >>> variables = BatchNorm().init(jax.random.key(0), x, train=False)
      >>> y, _ = BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
      >>> y.round(3).tolist()
      [[-1.0], [1.0]]

    Attributes:
      axis_name: the mapped axis to average statistics over, or None.
      dtype: dtype of the computation; None takes the input's. Statistics stay in at least float32.
      zero_scale: whether to start at scale 0, so that a residual branch adds nothing at first.
    """

    axis_name: str | None = None
    dtype: Any = None
    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        init = nn.initializers.zeros_init() if self.zero_scale else nn.initializers.ones_init()
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            use_fast_variance=False,
            dtype=self.dtype,
            axis_name=None if self.is_initializing() else self.axis_name,
            scale_init=init,
        )(x)


class PatchConv(nn.Module):
    """A convolution without bias, padding "SAME", in the form that is fast for its map.

    `nn.Conv` has a kernel of the same name, shape and meaning.

    Example:
      >>> import jax
      >>> jax.jit(PatchConv(4).init_with_output)(jax.random.key(0), jnp.ones((1, 8, 8, 3)))[0].shape
      (1, 8, 8, 4)

    Attributes:
      features: number of output channels.
      size: edge of the square kernel, odd.
      dtype: dtype of the computation; None takes the input's.
    """

    features: int
    size: int = 3
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", he_normal, shape, jnp.float32)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        edge = self.size // 2
        return conv(x, kernel, (1, 1), ((edge, edge), (edge, edge)))


def to_features(x: Array) -> Array:
    """Casts what encoders return to at least float32, whatever they computed in.

    Example:
      >>> to_features(jnp.ones(2, jnp.bfloat16)).dtype
      dtype('float32')

    Args:
      x: any shape.

    Returns:
      The same shape, in the dtype promoted with float32.
    """
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
