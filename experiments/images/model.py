"""The encoder with its projection head, and the loss of a batch of images."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.images.recipes import Images
from experiments.running.encoders import make_encoder
from jaxcon.augment import SIMCLR_COLOURS, Transform, coloured, two_views
from jaxcon.encoders import ProjectionHead
from jaxcon.training.cached import cached_value_and_grad
from jaxcon.training.step import LossFn, ValueAndGrad

Colours = tuple[Transform, Transform]


class Model(nn.Module):
    """Encoder and projection head; only the encoder is kept for use."""

    encoder: nn.Module
    head: nn.Module

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        return self.head(self.encoder(images, train=train), train=train)

    def features(self, images: jax.Array) -> jax.Array:
        """Returns what the encoder makes of images in training."""
        return self.encoder(images, train=True)

    def project(self, features: jax.Array) -> jax.Array:
        """Returns what the head makes of features in training."""
        return self.head(features, train=True)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the features for later use, and the embeddings that the loss sees."""
        features = self.encoder(images, train=False)
        return features, self.head(features, train=False)


def make_model(
    images: Images, precision: str, *, side: int, encoder: nn.Module | None = None
) -> Model:
    """Returns the model for images of `side` pixels; batch statistics are those of the global batch.

    Args:
      images: the options of images.
      precision: "f32" or "bf16".
      side: side of the images, in pixels.
      encoder: used instead of the one that the options name.
    """
    settings = {"axis_name": "batch", "dtype": jnp.bfloat16 if precision == "bf16" else None}
    assert images.encoder is not None
    return Model(
        encoder=encoder or make_encoder(images.encoder, side=side, **settings),
        head=ProjectionHead(dim=images.projection_dim, **settings),
    )


def views_of(
    key: jax.Array, batch: Any, transform: Transform, colours: Colours
) -> tuple[jax.Array, ...]:
    """Returns the two views of a batch's images, which come whole or as two crops of each.

    Args:
      key: of the step.
      batch: "index", the global rows, and "image", `[batch, height, width, channels]`, or cropped by
        the host `[batch, 2, height, width, channels]`.
      transform: makes a view of a whole image.
      colours: make the two views of two crops.
    """
    images, index = batch["image"], batch["index"]
    if images.ndim == 5:
        return coloured(key, images, transforms=colours, index=index)
    return two_views(key, images, transform=transform, index=index)


def make_loss(
    model: Model,
    transform: Transform,
    loss: Callable[..., jax.Array],
    apply: Callable[..., Any] | None = None,
    *,
    colours: Colours = SIMCLR_COLOURS,
) -> LossFn:
    """Returns the loss of a batch: the objective of the embeddings of two views, on all devices.

    Args:
      model: encoder and head.
      transform: maps a key and an image to a view.
      loss: that of an `Objective`.
      apply: takes the place of `model.apply`.
      colours: take the place of the transform where the host made the crops, as in `views_of`.
    """
    apply = apply or model.apply

    def loss_fn(params: Any, carried: Any, batch: Any, key: jax.Array) -> Any:
        views = views_of(key, batch, transform, colours)
        z, carried = apply(
            {"params": params, **carried},
            jnp.concatenate(views),
            train=True,
            mutable=list(carried),
        )
        z1, z2 = jnp.split(z, 2)
        with jax.named_scope("loss"):
            return loss(z1, z2, axis_name="batch"), (carried, {})

    return loss_fn


def make_cached(
    transform: Transform,
    loss: Callable[..., jax.Array],
    apply: Callable[..., Any],
    *,
    chunk_size: int,
    colours: Colours = SIMCLR_COLOURS,
) -> ValueAndGrad:
    """Returns value and gradient of the loss that `make_loss` returns, by the gradient cache.

    The encoder embeds `chunk_size` images at a time, both views of each. Head and loss have the
    features of all, so that the head may normalize by the statistics of the batch.
    """

    def value_and_grad(params: Any, carried: Any, batch: Any, key: jax.Array) -> Any:
        def encode(params: Any, chunk: Any, _: None) -> Any:
            # The key is that of the whole batch: views follow from it and from the global row.
            views = views_of(key, chunk, transform, colours)
            features = apply({"params": params}, jnp.concatenate(views), method="features")
            return jnp.split(features, 2)

        def loss_fn(params: Any, features: Any) -> Any:
            z, moved = apply(
                {"params": params, **carried},
                jnp.concatenate(features),
                method="project",
                mutable=list(carried),
            )
            z1, z2 = jnp.split(z, 2)
            with jax.named_scope("loss"):
                return loss(z1, z2, axis_name="batch"), (moved, {})

        cached = cached_value_and_grad(encode, loss_fn, chunk_size=chunk_size, has_aux=True)
        return cached(params, batch)

    return value_and_grad
