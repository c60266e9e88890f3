"""The losses of images and captions, how each starts, and how its embeddings are compared.

Each comes with the score by which images and texts find each other: where embeddings carry a
deviation, the ranking is not by cosine.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxcon.diagnostics import chance_loss
from jaxcon.encoders.dual import Embedded
from jaxcon.evaluation.zero_shot import class_embeddings
from jaxcon.losses import clip_loss, csd_loss, gaussian_clip_loss, npairs_loss, siglip_loss
from jaxcon.similarity import cosine_similarity, squared_distance

LossName = Literal["clip", "siglip", "npairs", "gaussian", "csd"]


class Outputs(NamedTuple):
    """Both sides of a batch, and the scalars that are learned with them."""

    image: Embedded
    text: Embedded
    scalars: Mapping[str, Any]


def unit_mean(prompts: Embedded) -> Embedded:
    """Returns one embedding for the prompts of a row: the mean of their directions, as in CLIP.

    Example:
      >>> import numpy as np
      >>> unit_mean(Embedded(np.array([[[3.0, 0.0], [0.0, 0.1]]]))).z.round(4).tolist()
      [[0.7071, 0.7071]]

    Args:
      prompts: `z` is `[rows, prompts, dim]`, `log_std` `[rows, prompts]` or None.

    Returns:
      `z` is `[rows, dim]`, of norm 1; `log_std` is the mean.
    """
    return Embedded(class_embeddings(prompts.z), _mean_log_std(prompts))


def raw_mean(prompts: Embedded) -> Embedded:
    """Returns the mean of the embeddings themselves, for losses to which their length matters."""
    return Embedded(prompts.z.mean(axis=1), _mean_log_std(prompts))


def _mean_log_std(prompts: Embedded) -> Any:
    return None if prompts.log_std is None else prompts.log_std.mean(axis=1)


class Objective(NamedTuple):
    """A loss, how it starts, and how its embeddings are compared.

    Attributes:
      loss: maps the outputs to a scalar, over the mapped axis "batch".
      scalars: initial values of what it learns besides the embeddings.
      log_std: initial value of the log deviations; None if there are none.
      scores: `(queries, candidates) -> [queries, candidates]` of `Embedded`, higher is nearer.
      chance: maps the batch size to the loss of equal embeddings, with the best scalars.
      average: merges several phrasings of a text: `unit_mean`, or `raw_mean` for distances.
      softmax: whether chance is the logarithm of the batch size.
      told: if not, which embeddings have the loss at chance, in words.
      temperature: the fixed temperature of a loss of cosines; None if it learns it or has none.
    """

    loss: Callable[..., jax.Array]
    scalars: Mapping[str, float]
    log_std: float | None
    scores: Callable[[Embedded, Embedded], jax.Array]
    chance: Callable[[int], float]
    average: Callable[[Embedded], Embedded] = unit_mean
    softmax: bool = False
    told: str = "for equal embeddings"
    temperature: float | None = None


def make_objective(name: LossName, temperature: float | None, **settings: Any) -> Objective:
    """Returns the objective that the flag names.

    Args:
      name: value of the flag.
      temperature: None means its default.
      **settings: of the products between embeddings, which all losses take: `precision`,
        `exchange`, `block_size`.
    """
    objectives = {
        "clip": Objective(
            _clip, {"temperature": temperature or 0.5}, None, cosine, chance_loss, softmax=True
        ),
        "siglip": Objective(
            _siglip,
            {"temperature": temperature or 0.1, "bias": -10.0},
            None,
            cosine,
            _chance_pairs,
        ),
        "npairs": Objective(
            functools.partial(_npairs, temperature=temperature or 1.0),
            {},
            None,
            cosine,
            chance_loss,
            softmax=True,
            temperature=temperature or 1.0,
        ),
        "gaussian": Objective(
            _gaussian, {}, 0.0, _log_density, chance_loss, raw_mean, softmax=True
        ),
        "csd": Objective(
            _csd,
            {"scale": 5.0, "shift": 5.0},
            -4.0,  # dim 128: the variances add 0.04 to squared distances between 0 and 4
            _negative_sampled_distance,
            lambda batch: _chance_pairs(batch) / batch,
        ),
    }
    objective = objectives[name]
    return objective._replace(loss=functools.partial(objective.loss, **settings))


def _clip(outputs: Outputs, **settings: Any) -> jax.Array:
    settings["temperature"] = outputs.scalars["temperature"]
    return clip_loss(outputs.image.z, outputs.text.z, **settings, axis_name="batch")


def _siglip(outputs: Outputs, **settings: Any) -> jax.Array:
    settings |= outputs.scalars
    return siglip_loss(outputs.image.z, outputs.text.z, **settings, axis_name="batch")


def _npairs(outputs: Outputs, **settings: Any) -> jax.Array:
    return npairs_loss(outputs.image.z, outputs.text.z, **settings, axis_name="batch")


def _gaussian(outputs: Outputs, **settings: Any) -> jax.Array:
    image, text = outputs.image, outputs.text
    deviations = image.log_std, text.log_std
    return gaussian_clip_loss(image.z, text.z, *deviations, **settings, axis_name="batch")


def _csd(outputs: Outputs, **settings: Any) -> jax.Array:
    image, text = outputs.image, outputs.text
    settings |= outputs.scalars
    return csd_loss(image.z, text.z, image.log_std, text.log_std, **settings, axis_name="batch")


def cosine(queries: Embedded, candidates: Embedded) -> jax.Array:
    """Returns the cosines `[queries, candidates]`: the scores of a loss without its own."""
    return cosine_similarity(queries.z, candidates.z)


def _log_density(queries: Embedded, candidates: Embedded) -> jax.Array:
    """Returns the query's log density under each candidate's Gaussian, as the loss compares them."""
    log_std = candidates.log_std
    return -log_std - squared_distance(queries.z, candidates.z) * jnp.exp(-2 * log_std)


def _negative_sampled_distance(queries: Embedded, candidates: Embedded) -> jax.Array:
    """Leaves out the query's own variance, which is the same for all candidates."""
    dim = candidates.z.shape[-1]
    return 2 * cosine_similarity(queries.z, candidates.z) - dim * jnp.exp(2 * candidates.log_std)


def _chance_pairs(batch: int) -> float:
    """Returns the sum over N pairs, one of them right, of the entropy of guessing 1 / N.

    Example:
      >>> round(_chance_pairs(2), 4)  # 2 ln 2
      1.3863
    """
    return batch * math.log(batch) - (batch - 1) * math.log(batch - 1)
