"""ResNet-18 and ResNet-50, with a stem that suits the size of the image.

Above 64 pixels they are torchvision's networks without the last layer, number for number: padding,
max-pool, the stride on a bottleneck's 3x3 ("v1.5"), epsilon. Weights can be loaded: a kernel `w` of
torch is `w.transpose(2, 3, 1, 0)` here, and a norm's weight is `scale`. Flax's padding "SAME" would
make a different network: at stride 2 it is shifted by a pixel on images with even sides.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
from jax import Array

from jaxcon.encoders.convolution import conv as fast_conv
from jaxcon.encoders.layers import BatchNorm, he_normal, to_features


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the block of ResNet-18.

    Example:
      >>> from functools import partial
      >>> import jax, jax.numpy as jnp
      >>> start = jax.jit(partial(BasicBlock(8, stride=2).init_with_output, train=False))
      >>> start(jax.random.key(0), jnp.ones((1, 4, 4, 8)))[0].shape
      (1, 2, 2, 8)

    Attributes:
      width: number of output channels.
      stride: stride of the first convolution.
      axis_name: the mapped axis over which batch statistics are averaged, or None.
      dtype: dtype of the computation.
    """

    width: int
    stride: int = 1
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        conv, norm = _layers(self)
        y = nn.relu(norm()(conv(self.width, 3, self.stride)(x), train=train))
        y = norm(zero_scale=True)(conv(self.width, 3)(y), train=train)
        if self.stride != 1 or x.shape[-1] != y.shape[-1]:
            x = norm()(conv(self.width, 1, self.stride)(x), train=train)
        return nn.relu(x + y)


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut, four times as wide outside: ResNet-50's block.

    Example:
      >>> from functools import partial
      >>> import jax, jax.numpy as jnp
      >>> start = jax.jit(partial(BottleneckBlock(8, stride=2).init_with_output, train=False))
      >>> start(jax.random.key(0), jnp.ones((1, 4, 4, 8)))[0].shape
      (1, 2, 2, 32)

    Attributes:
      width: number of channels inside; the output has four times as many.
      stride: stride of the 3x3 convolution.
      axis_name: the mapped axis over which batch statistics are averaged, or None.
      dtype: dtype of the computation.
    """

    width: int
    stride: int = 1
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        conv, norm = _layers(self)
        y = nn.relu(norm()(conv(self.width, 1)(x), train=train))
        y = nn.relu(norm()(conv(self.width, 3, self.stride)(y), train=train))
        y = norm(zero_scale=True)(conv(4 * self.width, 1)(y), train=train)
        if self.stride != 1 or x.shape[-1] != y.shape[-1]:
            x = norm()(conv(4 * self.width, 1, self.stride)(x), train=train)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A residual network of four stages; mean over the last map.

    Images up to 64 pixels get the CIFAR stem (one 3x3 convolution), larger ones get ImageNet's
    (7x7 with stride 2, then max-pool).

    Example:
      >>> from functools import partial
      >>> import jax, jax.numpy as jnp
      >>> net = ResNet(stages=(1, 1), block=BasicBlock, width=4)
      >>> start = jax.jit(partial(net.init_with_output, train=False))
      >>> features, variables = start(jax.random.key(0), jnp.ones((2, 8, 8, 3)))
      >>> features.shape
      (2, 8)

    Attributes:
      stages: number of blocks in each stage; the map halves and the width doubles in between.
      block: BasicBlock or BottleneckBlock.
      width: channels of the first stage.
      axis_name: the mapped axis over which batch statistics are averaged, or None.
      dtype: dtype of the computation, e.g. `jnp.bfloat16`; parameters stay float32.

    Reference:
      He et al., Deep Residual Learning for Image Recognition, 2016; the stem for small images
      and the zero start of a block's last scale as in SimCLR.
    """

    stages: Sequence[int]
    block: Callable[..., nn.Module]
    width: int = 64
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        """Computes features of images.

        Args:
          images: float, `[batch, height, width, channels]`.
          train: whether to use and update the batch's statistics (`mutable=["batch_stats"]`).

        Returns:
          `[batch, features]`, float32; 512 for ResNet-18, 2048 for ResNet-50.
        """
        conv, norm = _layers(self)
        small = max(images.shape[-3:-1]) <= 64
        x = conv(self.width, 3 if small else 7, 1 if small else 2)(images)
        x = nn.relu(norm()(x, train=train))
        if not small:
            one = ((1, 1), (1, 1))
            x = nn.max_pool(x, (3, 3), (2, 2), padding=one)  # pyright: ignore[reportArgumentType]
        for stage, blocks in enumerate(self.stages):
            for i in range(blocks):
                stride = 2 if stage and i == 0 else 1
                x = self.block(
                    self.width * 2**stage, stride, axis_name=self.axis_name, dtype=self.dtype
                )(x, train=train)
        return to_features(x.mean((-3, -2)))


def resnet18(**settings: Any) -> ResNet:
    """Makes a ResNet-18, with 512 features.

    Example:
      >>> resnet18(axis_name="batch").stages
      (2, 2, 2, 2)

    Args:
      **settings: `axis_name`, `dtype`, `width` of ResNet.

    Returns:
      A ResNet.
    """
    return ResNet(stages=(2, 2, 2, 2), block=BasicBlock, **settings)


def resnet50(**settings: Any) -> ResNet:
    """Makes a ResNet-50, with 2048 features.

    Example:
      >>> resnet50(axis_name="batch").stages
      (3, 4, 6, 3)

    Args:
      **settings: `axis_name`, `dtype`, `width` of ResNet.

    Returns:
      A ResNet.
    """
    return ResNet(stages=(3, 4, 6, 3), block=BottleneckBlock, **settings)


def _layers(module: Any) -> tuple[Callable[..., nn.Conv], Callable[..., BatchNorm]]:
    """Returns the convolution and normalization of a module, with its axis_name and dtype."""

    def conv(features: int, size: int, stride: int = 1) -> nn.Conv:
        return nn.Conv(
            features,
            (size, size),
            strides=stride,
            padding=size // 2,
            use_bias=False,
            dtype=module.dtype,
            kernel_init=he_normal,
            conv_general_dilated=fast_conv,
        )

    def norm(zero_scale: bool = False) -> BatchNorm:
        return BatchNorm(axis_name=module.axis_name, dtype=module.dtype, zero_scale=zero_scale)

    return conv, norm
