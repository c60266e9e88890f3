"""A residual network for images of a few pixels."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from jax import Array

from jaxcon.encoders.layers import BatchNorm, PatchConv, to_features


class ConvNet(nn.Module):
    """Residual stages of 3x3 convolutions, halved between stages; mean over the last map.

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
        axis_name: the mapped axis over which batch statistics are averaged, or None.
        dtype: of the computation, e.g. ``jnp.bfloat16``; parameters stay float32.
    """

    widths: Sequence[int] = (32, 64, 128)
    blocks: int = 1
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Features of images.

        Args:
            images: float, ``[batch, height, width, channels]``.
            train: use and update the batch's statistics (``mutable=["batch_stats"]``).

        Returns:
            ``[batch, widths[-1]]``, float32.
        """
        norm = {"axis_name": self.axis_name, "dtype": self.dtype}
        x = PatchConv(self.widths[0], dtype=self.dtype)(images)
        x = nn.relu(BatchNorm(**norm)(x, train=train))
        for stage, width in enumerate(self.widths):
            if stage:
                x = nn.avg_pool(x, (2, 2), strides=(2, 2), padding="SAME")
            for _ in range(self.blocks):
                x = ConvBlock(width, **norm)(x, train=train)
        return to_features(x.mean((-3, -2)))


class ConvBlock(nn.Module):
    """``relu(x + f(x))`` with f two 3x3 convolutions; starts as ``relu(x)``, for f starts at 0.

    Example:
        >>> from functools import partial
        >>> import jax, jax.numpy as jnp
        >>> start = jax.jit(partial(ConvBlock(4).init_with_output, train=False))
        >>> start(jax.random.key(0), jnp.ones((1, 4, 4, 4)))[0].shape
        (1, 4, 4, 4)

    Attributes:
        width: number of output channels.
        axis_name: the mapped axis over which batch statistics are averaged, or None.
        dtype: of the computation.
    """

    width: int
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        norm = {"axis_name": self.axis_name, "dtype": self.dtype}
        y = PatchConv(self.width, dtype=self.dtype)(x)
        y = nn.relu(BatchNorm(**norm)(y, train=train))
        y = PatchConv(self.width, dtype=self.dtype)(y)
        y = BatchNorm(**norm, zero_scale=True)(y, train=train)
        if x.shape[-1] != self.width:
            x = PatchConv(self.width, size=1, dtype=self.dtype)(x)
            x = BatchNorm(**norm)(x, train=train)
        return nn.relu(x + y)
