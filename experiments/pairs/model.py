"""The model for images and captions: the dual encoder, and the loss of a batch."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.pairs.objectives import Objective, Outputs
from experiments.running.encoders import Encoder, TextEncoder, make_encoder, make_text_encoder
from jaxcon.augment import Transform, coloured, one_view, random_affine
from jaxcon.encoders import Temperature
from jaxcon.encoders.dual import Embedded, Side
from jaxcon.training.cached import cached_value_and_grad
from jaxcon.training.step import LossFn, ValueAndGrad


class DualEncoder(nn.Module):
    """Two encoders with their projections, and the scalars that a loss learns."""

    image: Side
    text: Side
    scalars: Mapping[str, float]

    def __call__(self, images: jax.Array, tokens: jax.Array, *, train: bool) -> Outputs:
        image, text = self.image(images, train=train), self.text(tokens, train=train)
        return Outputs(image, text, self.learned())

    @nn.compact
    def learned(self) -> dict[str, jax.Array]:
        """Returns the scalars by their names."""
        learned = {}
        for name, start in self.scalars.items():
            if name == "temperature":
                learned[name] = Temperature(start)()
            else:
                learned[name] = self.param(name, nn.initializers.constant(start), (), jnp.float32)
        return learned

    def embed_images(self, images: jax.Array) -> Embedded:
        return self.image(images, train=False)

    def embed_texts(self, tokens: jax.Array) -> Embedded:
        return self.text(tokens, train=False)


def make_model(
    encoder: Encoder,
    objective: Objective,
    *,
    side: int,
    vocabulary: int,
    dim: int,
    precision: str,
    text: TextEncoder = "small",
    image_encoder: nn.Module | None = None,
    text_encoder: nn.Module | None = None,
) -> DualEncoder:
    """Returns the dual encoder; batch statistics are those of the global batch.

    Args:
      encoder: name of the image encoder.
      objective: says what is learned besides the embeddings.
      side: side of the images, in pixels.
      vocabulary: number of tokens.
      dim: width of the embeddings.
      precision: "f32" or "bf16".
      text: name of the text encoder.
      image_encoder: used instead of the one that `encoder` names.
      text_encoder: used instead of the one that `text` names.
    """
    settings: dict[str, Any] = {
        "axis_name": "batch",
        "dtype": jnp.bfloat16 if precision == "bf16" else None,
    }
    image: nn.Module = image_encoder or make_encoder(encoder, side=side, **settings)
    texts = text_encoder or make_text_encoder(text, vocabulary, **settings)
    return DualEncoder(
        image=Side(image, dim, objective.log_std),
        text=Side(texts, dim, objective.log_std),
        scalars=objective.scalars,
    )


def shifted(key: jax.Array, image: jax.Array) -> jax.Array:
    """Returns the image shifted by up to a twentieth: not enough to make its caption wrong."""
    return random_affine(key, image, translation=0.05, outside="edge")


def unchanged(key: jax.Array, image: jax.Array) -> jax.Array:
    """Returns the image: CLIP's own training crops at random and leaves colours alone."""
    del key
    return image


def view_of(key: jax.Array, batch: Any, transform: Transform, colours: Transform) -> jax.Array:
    """Returns one view of a batch's images, which come whole or cropped.

    Args:
      key: of the step.
      batch: "index", the global rows, and "image", `[batch, height, width, channels]`, or cropped by
        the host `[batch, 1, height, width, channels]`.
      transform: makes the view of a whole image.
      colours: makes the view of a crop.
    """
    images, index = batch["image"], batch["index"]
    if images.ndim == 5:
        return coloured(key, images, transforms=(colours,), index=index)[0]
    return one_view(key, images, transform=transform, index=index)


def make_loss(
    model: DualEncoder,
    objective: Objective,
    transform: Transform = shifted,
    apply: Callable[..., Any] | None = None,
    *,
    colours: Transform = unchanged,
) -> LossFn:
    """Returns the loss of a batch of images and tokens; its metrics are the learned scalars.

    Args:
      model: the dual encoder.
      objective: what is minimized.
      transform: maps a key and an image to what the encoder sees.
      apply: takes the place of `model.apply`.
      colours: takes the place of the transform where the host made the crops, as in `view_of`.
    """
    apply = apply or model.apply

    def loss_fn(params: Any, carried: Any, batch: Any, key: jax.Array) -> Any:
        images = view_of(key, batch, transform, colours)
        outputs, carried = apply(
            {"params": params, **carried},
            images,
            batch["tokens"],
            train=True,
            mutable=list(carried),
        )
        with jax.named_scope("loss"):
            return objective.loss(outputs), (carried, dict(outputs.scalars))

    return loss_fn


def make_cached(
    objective: Objective,
    transform: Transform,
    apply: Callable[..., Any],
    *,
    chunk_size: int,
    colours: Transform = unchanged,
) -> ValueAndGrad:
    """Returns value and gradient of the loss that `make_loss` returns, by the gradient cache.

    Both encoders embed `chunk_size` pairs at a time; the loss has the embeddings of all.
    """

    def value_and_grad(params: Any, carried: Any, batch: Any, key: jax.Array) -> Any:
        def encode(params: Any, chunk: Any, _: None) -> Any:
            # The key is that of the whole batch: what is drawn follows from it and the global row.
            images = view_of(key, chunk, transform, colours)
            outputs = apply({"params": params}, images, chunk["tokens"], train=True)
            return outputs.image, outputs.text

        def loss_fn(params: Any, embedded: Any) -> Any:
            scalars = apply({"params": params}, method="learned")
            image, text = embedded
            with jax.named_scope("loss"):
                return objective.loss(Outputs(image, text, scalars)), (carried, dict(scalars))

        cached = cached_value_and_grad(encode, loss_fn, chunk_size=chunk_size, has_aux=True)
        return cached(params, batch)

    return value_and_grad
