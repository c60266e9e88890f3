"""What experiments on images and captions share: the dual encoder, its losses, their scores.

A loss here is a function of `Outputs`; so is the score by which images and texts find each other,
for a loss whose embeddings carry a deviation does not rank by cosine.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import _images
from jaxcon.augment import random_affine, two_views
from jaxcon.data.captions import PairSplit
from jaxcon.data.pairs import CaptionTokens
from jaxcon.diagnostics import chance_loss
from jaxcon.encoders import Temperature, TextTransformer
from jaxcon.encoders.dual import Embedded, Side
from jaxcon.encoders.tokenizer import Tokenizer
from jaxcon.evaluation.zero_shot import class_embeddings
from jaxcon.losses import clip_loss, csd_loss, gaussian_clip_loss, npairs_loss, siglip_loss
from jaxcon.similarity import cosine_similarity, squared_distance
from jaxcon.training.step import LossFn

LossName = Literal["clip", "siglip", "npairs", "gaussian", "csd"]

_WEIGHTS = {1: 1.0, 2: 3.0, 3: 4.0, 4: 3.0}


class Outputs(NamedTuple):
    """Both sides of a batch, and the scalars that are learned with them."""

    image: Embedded
    text: Embedded
    scalars: Mapping[str, Any]


def unit_mean(prompts: Embedded) -> Embedded:
    """Return one embedding for the several of a row: the mean of their directions, as in CLIP.

    >>> unit_mean(Embedded(np.array([[[3.0, 0.0], [0.0, 0.1]]]))).z.round(4).tolist()
    [[0.7071, 0.7071]]

    Args:
        prompts: `z` is `[rows, prompts, dim]`, `log_std` `[rows, prompts]` or None.

    Returns:
        `z` is `[rows, dim]`, of norm 1; `log_std` is the mean.
    """
    return Embedded(class_embeddings(prompts.z), _mean_log_std(prompts))


def raw_mean(prompts: Embedded) -> Embedded:
    """Return the mean of the embeddings themselves, where their length has a meaning."""
    return Embedded(prompts.z.mean(axis=1), _mean_log_std(prompts))


def _mean_log_std(prompts: Embedded) -> Any:
    return None if prompts.log_std is None else prompts.log_std.mean(axis=1)


class Objective(NamedTuple):
    """A loss, how it starts, and how its embeddings are compared.

    Attributes:
        loss: of the outputs, over the mapped axis "batch".
        scalars: first values of what it learns beside the embeddings.
        log_std: first value of the log deviations; None where there are none.
        scores: `(queries, candidates) -> [queries, candidates]` of `Embedded`, higher is nearer.
        chance: loss of equal embeddings by the size of the batch, with the best of scalars.
        average: several phrasings of a text as one: `unit_mean`, or `raw_mean` for distances.
    """

    loss: Callable[[Outputs], jax.Array]
    scalars: Mapping[str, float]
    log_std: float | None
    scores: Callable[[Embedded, Embedded], jax.Array]
    chance: Callable[[int], float]
    average: Callable[[Embedded], Embedded] = unit_mean


def make_objective(name: LossName, temperature: float | None) -> Objective:
    """Return the objective that the flag names; a temperature of None is its own first value."""
    objectives = {
        "clip": Objective(_clip, {"temperature": temperature or 0.5}, None, _cosine, chance_loss),
        "siglip": Objective(
            _siglip,
            {"temperature": temperature or 0.1, "bias": -10.0},
            None,
            _cosine,
            _chance_pairs,
        ),
        "npairs": Objective(
            functools.partial(_npairs, temperature=temperature or 1.0),
            {},
            None,
            _cosine,
            chance_loss,
        ),
        "gaussian": Objective(_gaussian, {}, 0.0, _log_density, chance_loss, raw_mean),
        "csd": Objective(
            _csd,
            {"scale": 5.0, "shift": 5.0},
            -4.0,  # dim 128: the variances add 0.04 to squared distances between 0 and 4
            _negative_sampled_distance,
            lambda batch: _chance_pairs(batch) / batch,
        ),
    }
    return objectives[name]


def _clip(outputs: Outputs) -> jax.Array:
    temperature = outputs.scalars["temperature"]
    return clip_loss(outputs.image.z, outputs.text.z, temperature=temperature, axis_name="batch")


def _siglip(outputs: Outputs) -> jax.Array:
    return siglip_loss(outputs.image.z, outputs.text.z, **outputs.scalars, axis_name="batch")


def _npairs(outputs: Outputs, *, temperature: float) -> jax.Array:
    return npairs_loss(outputs.image.z, outputs.text.z, temperature=temperature, axis_name="batch")


def _gaussian(outputs: Outputs) -> jax.Array:
    image, text = outputs.image, outputs.text
    return gaussian_clip_loss(image.z, text.z, image.log_std, text.log_std, axis_name="batch")


def _csd(outputs: Outputs) -> jax.Array:
    image, text = outputs.image, outputs.text
    return csd_loss(
        image.z, text.z, image.log_std, text.log_std, **outputs.scalars, axis_name="batch"
    )


def _cosine(queries: Embedded, candidates: Embedded) -> jax.Array:
    return cosine_similarity(queries.z, candidates.z)


def _log_density(queries: Embedded, candidates: Embedded) -> jax.Array:
    """Of the query under each candidate's Gaussian: what the loss compares."""
    log_std = candidates.log_std
    return -log_std - squared_distance(queries.z, candidates.z) * jnp.exp(-2 * log_std)


def _negative_sampled_distance(queries: Embedded, candidates: Embedded) -> jax.Array:
    """Without the query's own variance, which is the same for all candidates."""
    dim = candidates.z.shape[-1]
    return 2 * cosine_similarity(queries.z, candidates.z) - dim * jnp.exp(2 * candidates.log_std)


def _chance_pairs(batch: int) -> float:
    """Sum over N pairs, one of them right, of the entropy of guessing 1 / N each time.

    >>> round(_chance_pairs(2), 4)  # 2 ln 2
    1.3863
    """
    return batch * math.log(batch) - (batch - 1) * math.log(batch - 1)


class DualEncoder(nn.Module):
    """Two sides and the scalars that a loss learns."""

    image: Side
    text: Side
    scalars: Mapping[str, float]

    @nn.compact
    def __call__(self, images: jax.Array, tokens: jax.Array, *, train: bool) -> Outputs:
        learned = {}
        for name, start in self.scalars.items():
            if name == "temperature":
                learned[name] = Temperature(start)()
            else:
                learned[name] = self.param(name, nn.initializers.constant(start), (), jnp.float32)
        return Outputs(self.image(images, train=train), self.text(tokens, train=train), learned)

    def embed_images(self, images: jax.Array) -> Embedded:
        return self.image(images, train=False)

    def embed_texts(self, tokens: jax.Array) -> Embedded:
        return self.text(tokens, train=False)


def make_model(
    encoder: _images.Encoder,
    objective: Objective,
    *,
    side: int,
    vocabulary: int,
    dim: int,
    precision: str,
) -> DualEncoder:
    """Return the dual encoder; batch statistics are those of the global batch.

    Args:
        encoder: of the images.
        objective: what is learned beside the embeddings.
        side: of the images, in pixels.
        vocabulary: of the tokenizer.
        dim: width of the embeddings.
        precision: "f32" or "bf16".
    """
    settings: dict[str, Any] = {
        "axis_name": "batch",
        "dtype": jnp.bfloat16 if precision == "bf16" else None,
    }
    return DualEncoder(
        image=Side(_images.make_encoder(encoder, side=side, **settings), dim, objective.log_std),
        text=Side(
            TextTransformer(vocabulary, dim=64, depth=1, heads=2, **settings),
            dim,
            objective.log_std,
        ),
        scalars=objective.scalars,
    )


def shifted(key: jax.Array, image: jax.Array) -> jax.Array:
    """Return the image moved by up to a twentieth: nothing that its caption would notice."""
    return random_affine(key, image, translation=0.05, outside="edge")


def make_loss(model: DualEncoder, objective: Objective) -> LossFn:
    """Return the loss of a batch of images and tokens; its metrics are the learned scalars."""

    def loss_fn(params: Any, carried: Any, batch: Any, key: jax.Array) -> Any:
        images, _ = two_views(key, batch["image"], transform=shifted, index=batch["index"])
        outputs, carried = model.apply(
            {"params": params, **carried},
            images,
            batch["tokens"],
            train=True,
            mutable=list(carried),
        )
        return objective.loss(outputs), (carried, dict(outputs.scalars))

    return loss_fn


def caption_tokens(split: PairSplit, tokenizer: Tokenizer) -> CaptionTokens:
    """Return the tokens of all captions; how often one is drawn depends on its grade.

    One of grade 1 teaches little. One that tells all is found by colours and corners before shapes
    are needed, which those of grades 2 and 3 cannot do without.
    """
    texts = [text for captions in split.captions for text in captions]
    weights = None
    if split.grades is not None:
        weights = np.array([_WEIGHTS[grade] for grades in split.grades for grade in grades])
    counts = [len(captions) for captions in split.captions]
    return CaptionTokens(tokenizer.encode(texts, warn=False), counts, weights)
