"""Layers that several encoders share."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array, lax

from jaxcon import collectives
from jaxcon.encoders.convolution import conv

# Flax's default variance, E[x^2] - E[x]^2, loses all digits if the mean is large against the deviation.
LayerNorm = partial(nn.LayerNorm, use_fast_variance=False)

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


class BatchNorm(nn.Module):
    """Batch normalization whose statistics are those of the global batch.

    Computes `(x - mean) / sqrt(var + 1e-5) * scale + bias`, with statistics over all axes but the last
    and, in training, over `axis_name`. They are accurate where the mean is large beside the deviation,
    as far as the dtype of x can tell them apart. In bfloat16 they take one reduction between devices,
    in float32 two; their gradient takes one.

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
        scale = nn.initializers.zeros_init() if self.zero_scale else nn.initializers.ones_init()
        # The name that its variables have in checkpoints of before, when it was Flax's.
        return _Normalized(self.axis_name, self.dtype, scale, name="BatchNorm_0")(x, train=train)


class _Normalized(nn.Module):
    """The variables of `BatchNorm`, named as those of Flax's layer, and what is done with them."""

    axis_name: str | None
    dtype: Any
    scale_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        shape, wide = x.shape[-1:], jnp.promote_types(x.dtype, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
        centre, beyond, var = running_mean.value, 0.0, running_var.value
        if train:
            axis_name = None if self.is_initializing() else self.axis_name
            centre, beyond, var = _statistics(x, near=running_mean.value, axis_name=axis_name)
            if not self.is_initializing():
                running_mean.value = 0.9 * running_mean.value + 0.1 * (centre + beyond)
                running_var.value = 0.9 * running_var.value + 0.1 * var
        factor = scale * lax.rsqrt(var + 1e-5)
        by_channel = jnp.stack([factor, bias - beyond * factor])
        # Together: what sums their gradients over devices is one reduction.
        axes = collectives.varying_axes(x) - collectives.varying_axes(by_channel)
        factor, offset = collectives.to_varying(by_channel, axes)
        y = (x.astype(wide) - centre) * factor + offset
        return y.astype(self.dtype or jnp.result_type(x, scale))


def _statistics(x: Array, *, near: Array, axis_name: str | None) -> tuple[Array, Array, Array]:
    """Returns a constant near the mean of each channel, the mean's distance from it, and the variance.

    The last two have gradients, which do not depend on the constant, as what is normalized does not.
    Around it the variance is `E[(x - centre)^2] - E[x - centre]^2`, which keeps its digits as long as
    the constant is not hundreds of deviations away from the mean. It is the mean itself, which takes
    another pass over x and another reduction between devices. bfloat16 is spared these, and takes the
    running mean: with 8 bits no deviation is less than about 1/256 of the mean, so that even where the
    running mean is still 0, the 24 bits of float32 hold the square of the mean and the variance.
    """
    axes, wide = tuple(range(x.ndim - 1)), jnp.promote_types(x.dtype, jnp.float32)
    coarse, x = jnp.finfo(x.dtype).nmant < 8, x.astype(wide)
    if coarse:
        centre = lax.stop_gradient(near)
        x = x - centre
        moments = jnp.stack([x.mean(axes), (x * x).mean(axes)])
        beyond, second = collectives.mean(moments, axis_name)
    else:
        mean = collectives.mean(x.mean(axes), axis_name)
        centre = lax.stop_gradient(mean)
        beyond = mean - centre  # 0, with the gradient of the mean
        second = collectives.mean(((x - centre) ** 2).mean(axes), axis_name)
    return centre, beyond, jnp.maximum(second - beyond**2, 0)


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
