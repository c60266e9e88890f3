"""Encoders as flax linen modules: from a batch of inputs to features `[batch, dim]`.

All image encoders are called the same way and share their last two settings: `axis_name`, the mapped
axis over which batch statistics are averaged, and `dtype`, that of the computation. Parameters and
features are float32. Text becomes numbers in `jaxcon.encoders.tokenizer`.

    >>> from functools import partial
    >>> import jax, jax.numpy as jnp
    >>> images = jnp.ones((2, 8, 8, 1))
    >>> encoder = MLP(widths=(8, 16))
    >>> variables = jax.jit(partial(encoder.init, train=False))(jax.random.key(0), images)
    >>> features, updates = encoder.apply(variables, images, train=True, mutable=["batch_stats"])
    >>> features.shape, features.dtype
    ((2, 16), dtype('float32'))
"""

from jaxcon.encoders.convnet import ConvNet
from jaxcon.encoders.heads import ProjectionHead
from jaxcon.encoders.mlp import MLP
from jaxcon.encoders.resnet import ResNet, resnet18, resnet50
from jaxcon.encoders.temperature import Temperature
from jaxcon.encoders.text import TextTransformer, text_base
from jaxcon.encoders.vit import ViT, vit_b16, vit_l16, vit_s16

__all__ = [
    "MLP",
    "ConvNet",
    "ProjectionHead",
    "ResNet",
    "Temperature",
    "TextTransformer",
    "ViT",
    "resnet18",
    "resnet50",
    "text_base",
    "vit_b16",
    "vit_l16",
    "vit_s16",
]
