"""A residual network for small images."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxcon.encoders.layers import BatchNorm, PatchConv, to_features


class ConvNet(nn.Module):
    """Residual stages of 3x3 convolutions, halving between stages; mean over the last map.

    Example:
      >>> from functools import partial
      >>> import jax, jax.numpy as jnp
      >>> net = ConvNet(widths=(8, 16))
      >>> start = jax.jit(partial(net.init_with_output, train=False))
      >>> features, variables = start(jax.random.key(0), jnp.ones((2, 8, 8, 1)))
      >>> features.shape
      (2, 16)

    Attributes:
      widths: channels of each stage; the last one is the number of features.
      blocks: residual blocks in a stage.
      patch: edge of the squares of pixels that the first layer takes as one. 4 makes images of 48
        pixels as cheap as images of 12.
      narrow: channels inside the blocks of each stage; their second convolution is then 1x1, which
        makes a block about half as expensive. None: two 3x3 convolutions as wide as the stage.
      layout: whether to return the whole last map instead of its mean, so that the features tell
        where things lie.
      axis_name: the mapped axis over which batch statistics are averaged, or None.
      dtype: dtype of the computation, e.g. `jnp.bfloat16`; parameters stay float32.
    """

    widths: Sequence[int] = (32, 64, 128)
    blocks: int = 1
    patch: int = 1
    narrow: Sequence[int] | None = None
    layout: bool = False
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Computes features of images.

        Args:
          images: float, `[batch, height, width, channels]`.
          train: whether to use and update the batch's statistics (`mutable=["batch_stats"]`).

        Returns:
          `[batch, widths[-1]]`, float32; with `layout`, as many for each place of the last map.
        """
        norm = {"axis_name": self.axis_name, "dtype": self.dtype}
        x = PatchConv(self.widths[0], dtype=self.dtype)(to_patches(images, self.patch))
        x = nn.relu(BatchNorm(**norm)(x, train=train))
        narrow = self.narrow or [None] * len(self.widths)
        for stage, (width, inside) in enumerate(zip(self.widths, narrow, strict=True)):
            if stage:
                x = halve(x)
            for _ in range(self.blocks):
                x = ConvBlock(width, inside, **norm)(x, train=train)
        return to_features(x.reshape(x.shape[0], -1) if self.layout else x.mean((-3, -2)))


def to_patches(images: Array, patch: int) -> Array:
    """Turns squares of pixels into single pixels with more channels.

    If they do not tile the image, its last rows and columns are repeated until they do: images of any
    size are taken, and padding with zeros would add an edge that no image has.

    Example:
      >>> import jax.numpy as jnp
      >>> to_patches(jnp.ones((1, 8, 8, 3)), 4).shape, to_patches(jnp.ones((1, 9, 8, 3)), 4).shape
      ((1, 2, 2, 48), (1, 3, 2, 48))

    Args:
      images: `[batch, height, width, channels]`.
      patch: edge of the squares.

    Returns:
      `[batch, height / patch, width / patch, patch * patch * channels]`, rounded up.
    """
    images = _repeat_rim(images, patch)
    batch, height, width, channels = images.shape
    x = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.swapaxes(2, 3).reshape(batch, height // patch, width // patch, -1)


def halve(x: Array) -> Array:
    """Averages squares of 2x2; at the edge of an odd map, the one or two places that exist.

    Example:
      >>> import jax.numpy as jnp
      >>> halve(jnp.array([[1.0, 2.0, 6.0]])[None, ..., None])[0, ..., 0].tolist()
      [[1.5, 6.0]]

    Args:
      x: `[batch, height, width, channels]`.

    Returns:
      `[batch, height / 2, width / 2, channels]`, rounded up; the dtype of x.
    """
    # Repeated once, a place counts as often as it did: (a + a) / 2 = a.
    return nn.avg_pool(_repeat_rim(x, 2), (2, 2), strides=(2, 2))


def _repeat_rim(x: Array, size: int) -> Array:
    """Repeats the last row and column of a map until squares of `size` tile it."""
    rim = [(0, -side % size) for side in x.shape[1:3]]
    return jnp.pad(x, ((0, 0), *rim, (0, 0)), mode="edge")


class ConvBlock(nn.Module):
    """`relu(x + f(x))` where f is two convolutions; starts as `relu(x)`, because f starts at 0.

    Example:
      >>> from functools import partial
      >>> import jax, jax.numpy as jnp
      >>> start = jax.jit(partial(ConvBlock(4).init_with_output, train=False))
      >>> start(jax.random.key(0), jnp.ones((1, 4, 4, 4)))[0].shape
      (1, 4, 4, 4)

    Attributes:
      width: number of output channels.
      narrow: channels between the convolutions, which are 3x3 and 1x1; None: `width`, both 3x3.
      axis_name: the mapped axis over which batch statistics are averaged, or None.
      dtype: dtype of the computation.
    """

    width: int
    narrow: int | None = None
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        norm = {"axis_name": self.axis_name, "dtype": self.dtype}
        y = PatchConv(self.narrow or self.width, dtype=self.dtype)(x)
        y = nn.relu(BatchNorm(**norm)(y, train=train))
        y = PatchConv(self.width, size=1 if self.narrow else 3, dtype=self.dtype)(y)
        y = BatchNorm(**norm, zero_scale=True)(y, train=train)
        if x.shape[-1] != self.width:
            x = PatchConv(self.width, size=1, dtype=self.dtype)(x)
            x = BatchNorm(**norm)(x, train=train)
        return nn.relu(x + y)
