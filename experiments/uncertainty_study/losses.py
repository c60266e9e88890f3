"""The losses of the study of uncertainty: those of `experiments.clip`, and some that isolate a cause.

A control has everything but the part in question: `gaussian-shared` has the distances of `gaussian`
and a learned deviation, but the same one for all samples; `csd-clip` adds to `csd` a term without
deviations.
"""

import functools
from typing import get_args

import jax
import jax.numpy as jnp

from experiments.pairs import objectives
from experiments.pairs.objectives import LossName, Objective, Outputs
from jaxcon.encoders.dual import Embedded
from jaxcon.losses import gaussian_clip_loss
from jaxcon.similarity import squared_distance

NAMES = ("clip", "siglip", "gaussian", "gaussian-shared", "gaussian-exact", "csd", "csd-clip")


def make_objective(name: str) -> Objective:
    """Returns the objective of a name in `NAMES`, with its default initial values.

    Example:
      >>> make_objective("gaussian-shared").log_std is None
      True
    """
    if name in get_args(LossName):
        return objectives.make_objective(name, None)  # pyright: ignore[reportArgumentType]
    gaussian, csd, clip = (
        objectives.make_objective(known, None) for known in ("gaussian", "csd", "clip")
    )
    own = {
        "gaussian-shared": Objective(
            _gaussian_shared, {"log_std": 0.0}, None, _nearness, gaussian.chance, gaussian.average
        ),
        "gaussian-exact": gaussian._replace(loss=_gaussian_exact, scores=_exact_log_density),
        "csd-clip": csd._replace(
            loss=functools.partial(_csd_and_clip, csd=csd, clip=clip),
            scalars={**csd.scalars, **clip.scalars},
            chance=lambda batch: batch * csd.chance(batch) + clip.chance(batch),
        ),
    }
    return own[name]


def _gaussian_shared(outputs: Outputs) -> jax.Array:
    """Computes a softmax over squared distances with a learned temperature: the logarithms cancel."""
    z1, z2 = outputs.image.z, outputs.text.z
    log_std = jnp.broadcast_to(outputs.scalars["log_std"], z1.shape[:1])
    return gaussian_clip_loss(z1, z2, log_std, log_std, axis_name="batch")


def _gaussian_exact(outputs: Outputs) -> jax.Array:
    image, text = outputs.image, outputs.text
    return gaussian_clip_loss(
        image.z, text.z, image.log_std, text.log_std, exact=True, axis_name="batch"
    )


def _csd_and_clip(outputs: Outputs, *, csd: Objective, clip: Objective) -> jax.Array:
    """Adds clip to csd, summed over each anchor's pairs as in siglip: its mean would hardly count."""
    learned = {name: outputs.scalars[name] for name in csd.scalars}
    pairs = jax.lax.axis_size("batch") * len(outputs.image.z)
    return pairs * csd.loss(outputs._replace(scalars=learned)) + clip.loss(outputs)


def _nearness(queries: Embedded, candidates: Embedded) -> jax.Array:
    return -squared_distance(queries.z, candidates.z)


def _exact_log_density(queries: Embedded, candidates: Embedded) -> jax.Array:
    dim, log_std = candidates.z.shape[-1], candidates.log_std
    return -dim * log_std - squared_distance(queries.z, candidates.z) * jnp.exp(-2 * log_std) / 2
