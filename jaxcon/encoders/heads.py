"""The projection head: the loss sees its output; evaluation takes the features before it."""

from typing import Any

import flax.linen as nn
from jax import Array

from jaxcon.encoders.layers import BatchNorm, to_features


class ProjectionHead(nn.Module):
    """A perceptron from features to embeddings; its hidden layers have batch norm and relu.

    Example:
      >>> from functools import partial
      >>> import jax, jax.numpy as jnp
      >>> start = jax.jit(partial(ProjectionHead(hidden=32, dim=16).init_with_output, train=False))
      >>> start(jax.random.key(0), jnp.ones((4, 8)))[0].shape
      (4, 16)

    Attributes:
      hidden: width of the hidden layers.
      dim: width of the embeddings.
      layers: number of layers; 1 is a linear map.
      axis_name: the mapped axis over which batch statistics are averaged, or None.
      dtype: dtype of the computation.

    Reference:
      Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020.
    """

    hidden: int = 256
    dim: int = 128
    layers: int = 2
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, features: Array, *, train: bool) -> Array:
        """Computes embeddings of features.

        Args:
          features: `[batch, features]`.
          train: whether to use and update the batch's statistics (`mutable=["batch_stats"]`).

        Returns:
          `[batch, dim]`, float32.
        """
        x = features
        for _ in range(self.layers - 1):
            x = nn.Dense(self.hidden, use_bias=False, dtype=self.dtype)(x)
            x = BatchNorm(axis_name=self.axis_name, dtype=self.dtype)(x, train=train)
            x = nn.relu(x)
        return to_features(nn.Dense(self.dim, dtype=self.dtype)(x))
