"""One side of a dual encoder, which makes images and texts comparable."""

from typing import Any, NamedTuple

import flax.linen as nn
from jax import Array

from jaxcon.encoders.layers import LayerNorm


class Embedded(NamedTuple):
    """One side of a batch: embeddings `[batch, dim]`, and log deviations `[batch]` or None."""

    z: Any
    log_std: Any = None


class Side(nn.Module):
    """An encoder and a linear map to embeddings of norm about 1; optionally with a deviation.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> from jaxcon.encoders import TextTransformer
      >>> side = Side(TextTransformer(vocabulary=300, dim=8, depth=1, heads=2), dim=4)
      >>> start = jax.jit(functools.partial(side.init_with_output, train=False))
      >>> start(jax.random.key(0), jnp.ones((2, 3), jnp.int32))[0].z.shape
      (2, 4)

    Attributes:
      encoder: maps inputs to features `[batch, features]`.
      dim: width of the embeddings.
      log_std: initial value of the log deviations; None for embeddings without them.
    """

    encoder: nn.Module
    dim: int
    log_std: float | None = None

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Embedded:
        """Computes embeddings of inputs.

        Args:
          inputs: what the encoder takes.
          train: whether to use and update the batch's statistics.

        Returns:
          float32 `[batch, dim]`, and the deviations `[batch]` if there are any.
        """
        features = LayerNorm()(self.encoder(inputs, train=train))
        scaled = nn.initializers.variance_scaling(1 / self.dim, "fan_in", "normal")
        z = nn.Dense(self.dim, kernel_init=scaled)(features)
        if self.log_std is None:
            return Embedded(z)
        zeros, start = nn.initializers.zeros_init(), nn.initializers.constant(self.log_std)
        log_std = nn.Dense(1, kernel_init=zeros, bias_init=start)(features)
        return Embedded(z, log_std[:, 0])
