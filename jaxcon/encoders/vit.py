"""A small vision transformer."""

from typing import Any

import flax.linen as nn
import numpy as np
from jax import Array

from jaxcon.encoders.layers import LayerNorm, to_features


class ViT(nn.Module):
    """Patches, fixed sine-cosine positions, pre-norm transformer blocks, mean over tokens.

    There are no batch statistics: `train` and `axis_name` are accepted but change nothing.

    Example:
      >>> from functools import partial
      >>> import jax, jax.numpy as jnp
      >>> net = ViT(patch=2, dim=16, depth=1, heads=2)
      >>> start = jax.jit(partial(net.init_with_output, train=False))
      >>> features, variables = start(jax.random.key(0), jnp.ones((2, 8, 8, 1)))
      >>> features.shape
      (2, 16)

    Attributes:
      patch: edge of the square patches in pixels; divides the image's height and width.
      dim: width of the tokens, a multiple of 4 and of `heads`; the number of features.
      depth: number of blocks.
      heads: attention heads.
      axis_name: unused, so that encoders are interchangeable.
      dtype: dtype of the computation, e.g. `jnp.bfloat16`; parameters stay float32.

    Reference:
      Beyer et al., Better plain ViT baselines for ImageNet-1k, 2022.
    """

    patch: int = 4
    dim: int = 192
    depth: int = 6
    heads: int = 3
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Computes features of images.

        Args:
          images: float, `[batch, height, width, channels]`.
          train: unused.

        Returns:
          `[batch, dim]`, float32.

        Raises:
          ValueError: if the patches do not tile the image.
        """
        del train
        height, width = images.shape[-3:-1]
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"images of {height}x{width} pixels cannot be cut into patches of {self.patch}; "
                "choose a patch size that divides both sides, or resize the images"
            )
        patch = (self.patch, self.patch)
        x = nn.Conv(self.dim, patch, strides=patch, padding="VALID", dtype=self.dtype)(images)
        x = x + sine_positions(x.shape[-3], x.shape[-2], self.dim).astype(x.dtype)
        x = x.reshape(x.shape[0], -1, self.dim)  # (batch, tokens, dim)
        for _ in range(self.depth):
            x = TransformerBlock(self.heads, dtype=self.dtype)(x)
        x = LayerNorm(dtype=self.dtype)(x)
        return to_features(x.mean(-2))


class TransformerBlock(nn.Module):
    """`x + attention(norm(x))`, then `x + mlp(norm(x))`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> start = jax.jit(TransformerBlock(2).init_with_output)
      >>> start(jax.random.key(0), jnp.ones((1, 3, 8)))[0].shape
      (1, 3, 8)

    Attributes:
      heads: attention heads; divides the tokens' width.
      dtype: dtype of the computation.
    """

    heads: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        """Applies the block.

        Args:
          x: `[batch, tokens, dim]`.
          mask: bool, broadcast to `[batch, heads, tokens, tokens]`; True may be attended to.

        Returns:
          An array of the shape of x.
        """
        dim = x.shape[-1]
        y = LayerNorm(dtype=self.dtype)(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype)(y, mask=mask)
        y = LayerNorm(dtype=self.dtype)(x)
        y = nn.gelu(nn.Dense(4 * dim, dtype=self.dtype)(y))
        return x + nn.Dense(dim, dtype=self.dtype)(y)


def sine_positions(height: int, width: int, dim: int) -> np.ndarray:
    """Computes two-dimensional positions: sines and cosines of row and column, a quarter each.

    Example:
      >>> sine_positions(4, 4, 8).shape
      (4, 4, 8)

    Args:
      height: rows of tokens.
      width: columns of tokens.
      dim: a multiple of 4, at least 8.

    Returns:
      `[height, width, dim]`, float32.

    Raises:
      ValueError: if dim is not a multiple of 4, or below 8.
    """
    if dim % 4 or dim < 8:
        raise ValueError(
            f"dim must be a multiple of 4 and at least 8 for sine positions, got {dim}"
        )
    quarter = dim // 4
    frequency = 10_000.0 ** (-np.arange(quarter) / (quarter - 1))
    y = np.arange(height)[:, None, None] * frequency + np.zeros((height, width, 1))
    x = np.arange(width)[None, :, None] * frequency + np.zeros((height, width, 1))
    table = np.concatenate([np.sin(y), np.cos(y), np.sin(x), np.cos(x)], axis=-1)
    return table.astype(np.float32)
