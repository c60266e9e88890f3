"""Vision transformers of any size, and those that have names: ViT-S/16, ViT-B/16, ViT-L/16.

>>> vit_b16().dim, vit_b16().depth, vit_b16().heads, vit_b16().patch
(768, 12, 12, 16)
"""

from typing import Any

import flax.linen as nn
import numpy as np
from jax import Array

from jaxcon.encoders.attention import attend
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
            fit = "x".join(str(max(1, round(n / self.patch)) * self.patch) for n in (height, width))
            raise ValueError(
                f"images of {height}x{width} pixels cannot be cut into patches of {self.patch}; "
                f"resize them, to {fit} for example, or choose a patch that divides both sides"
            )
        patch = (self.patch, self.patch)
        x = nn.Conv(self.dim, patch, strides=patch, padding="VALID", dtype=self.dtype)(images)
        x = x + sine_positions(x.shape[-3], x.shape[-2], self.dim).astype(x.dtype)
        x = x.reshape(x.shape[0], -1, self.dim)  # (batch, tokens, dim)
        for _ in range(self.depth):
            x = TransformerBlock(self.heads, dtype=self.dtype)(x)
        x = LayerNorm(dtype=self.dtype)(x)
        return to_features(x.mean(-2))


def vit_s16(**settings: Any) -> ViT:
    """Makes a ViT-S/16: 12 blocks of width 384, 6 heads, patches of 16 pixels; 21.6 million parameters.

    The sizes are those of the papers; the design is that of Beyer et al.: the mean over tokens in place
    of a class token, and fixed positions in place of a learned table. That leaves out as many
    parameters as the table and the token have, 0.1 million at 224 pixels, and weights that were
    trained with them do not fit. Images may have any sides that patches tile, at any time.

    Example:
      >>> vit_s16(axis_name="batch").dim
      384

    Args:
      **settings: `axis_name`, `dtype` of ViT.

    Returns:
      A ViT.

    Reference:
      Touvron et al., Training data-efficient image transformers & distillation through attention,
      2021, for this size; Dosovitskiy et al., An Image is Worth 16x16 Words, 2021, for B and L.
    """
    return ViT(**{"patch": 16, "dim": 384, "depth": 12, "heads": 6, **settings})


def vit_b16(**settings: Any) -> ViT:
    """Makes a ViT-B/16: 12 blocks of width 768, 12 heads; 85.6 million parameters; see `vit_s16`.

    Example:
      >>> vit_b16(axis_name="batch").heads
      12

    Args:
      **settings: `axis_name`, `dtype` of ViT.

    Returns:
      A ViT.
    """
    return ViT(**{"patch": 16, "dim": 768, "depth": 12, "heads": 12, **settings})


def vit_l16(**settings: Any) -> ViT:
    """Makes a ViT-L/16: 24 blocks of width 1024, 16 heads; 303.1 million parameters; see `vit_s16`.

    Example:
      >>> vit_l16(axis_name="batch").depth
      24

    Args:
      **settings: `axis_name`, `dtype` of ViT.

    Returns:
      A ViT.
    """
    return ViT(**{"patch": 16, "dim": 1024, "depth": 24, "heads": 16, **settings})


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
        attention = nn.MultiHeadDotProductAttention(
            self.heads, dtype=self.dtype, attention_fn=attend
        )
        x = x + attention(y, mask=mask)
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
