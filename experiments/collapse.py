"""How does an encoder leave a collapse? A curve per regularizer.

    python -m experiments.collapse

An encoder starts almost collapsed: all its embeddings lie within a fraction of a degree of one
direction, where the N-pairs loss sits at ln N and its gradient is nearly zero. It then trains on pairs
of noisy views of the digits, with the loss alone or with a regularizer added. Writes
docs/collapse.json, docs/figures/collapse.svg and the table in docs/collapse.md. Takes half a minute on
two CPU cores.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from experiments.collapse_study.page import Curves, write
from experiments.running.ends import usage_errors
from experiments.running.options import parse
from jaxcon import diagnostics, losses
from jaxcon.training.workdir import check_writable
from jaxcon.typing import Array

Loss = Callable[[Array, Array], Array]

BATCH = 128
WIDTHS = (64, 128, 32)


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a nearly collapsed encoder with each regularizer, and write curves and table."""

    steps: int = 400
    """Optimizer steps of each run."""
    spread: float = 1e-3
    """Initial deviation of the embeddings from their common direction, relative to their length."""
    seed: int = 0
    """Seed of the parameters, batches and noise."""
    output: Path = Path("docs")
    """Folder of collapse.json, collapse.md and figures/collapse.svg."""


def both(regularizer: Callable[[Array], Array]) -> Loss:
    """Returns the regularizer averaged over the two views."""
    return lambda z1, z2: (regularizer(z1) + regularizer(z2)) / 2


def n_pairs(z1: Array, z2: Array, *, temperature: float = 1.0) -> Array:
    """Returns the N-pairs loss of cosines, the one that docs/collapse.md asks about."""
    return losses.npairs_loss(z1, z2, temperature=temperature)


def with_n_pairs(regularizer: Loss) -> Loss:
    """Returns the N-pairs loss plus the regularizer."""
    return lambda z1, z2: n_pairs(z1, z2) + regularizer(z1, z2)


OBJECTIVES: dict[str, Loss] = {
    "loss alone, temperature 1": n_pairs,
    "loss alone, temperature 0.1": partial(n_pairs, temperature=0.1),
    "+ uniformity": with_n_pairs(both(losses.uniformity_loss)),
    "+ KoLeo": with_n_pairs(both(losses.koleo_loss)),
    "+ variance hinge": with_n_pairs(both(losses.variance_loss)),
    "+ Barlow Twins, 0.1": with_n_pairs(lambda z1, z2: 0.1 * losses.barlow_twins_loss(z1, z2)),
}
OPTIMIZERS = {"sgd": optax.sgd(0.1, momentum=0.9), "adam": optax.adam(1e-3)}


def init(key: Array, spread: float) -> dict[str, Array]:
    """Returns parameters that give a common direction plus deviations of relative size `spread`."""
    k1, k2, k3 = jax.random.split(key, 3)
    w1 = jax.random.normal(k1, WIDTHS[:2]) * np.sqrt(2 / WIDTHS[0])
    w2 = jax.random.normal(k2, WIDTHS[1:]) * np.sqrt(1 / WIDTHS[1])
    direction = jax.random.normal(k3, WIDTHS[2:])
    return {"w1": w1, "w2": spread * w2, "common": direction}


def encode(params: dict[str, Array], images: Array) -> Array:
    """Returns the embeddings of images: a common direction, plus what distinguishes them."""
    return jax.nn.relu(images @ params["w1"]) @ params["w2"] + params["common"]


def views(key: Array, images: Array) -> tuple[Array, Array]:
    """Returns the images with noise, twice."""
    noise = 0.3 * jax.random.normal(key, (2, *images.shape))
    return images + noise[0], images + noise[1]


def run(config: Config, images: Array, objective: Loss, optimizer: str) -> Curves:
    """Trains once, and returns the curves."""
    tx = OPTIMIZERS[optimizer]
    params = init(jax.random.key(config.seed), config.spread)

    def step(carry: tuple, number: Array) -> tuple[tuple, tuple[Array, Array, Array]]:
        params, state = carry
        key = jax.random.fold_in(jax.random.key(config.seed + 1), number)
        rows, noise = jax.random.split(key)
        batch = images[jax.random.choice(rows, len(images), (BATCH,), replace=False)]
        x1, x2 = views(noise, batch)

        def loss(params: dict[str, Array]) -> Array:
            return objective(encode(params, x1), encode(params, x2))

        gradient = jax.grad(loss)(params)
        z1, z2 = encode(params, x1), encode(params, x2)
        level = n_pairs(z1, z2) / diagnostics.chance_loss(BATCH)
        measured = level, diagnostics.mean_cosine(z1), diagnostics.contrastive_accuracy(z1, z2)
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), measured

    train = jax.jit(partial(jax.lax.scan, step))
    (params, _), measured = train((params, tx.init(params)), jnp.arange(config.steps))
    curves = [[round(float(value), 5) for value in curve] for curve in jax.device_get(measured)]
    x1, x2 = views(jax.random.key(config.seed + 2), images[:512])
    report = diagnostics.collapse_report(encode(params, x1), encode(params, x2), temperature=1.0)
    return Curves(*curves, effective_rank=report.effective_rank)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the comparison of a command line."""
    config = parse(Config, program="collapse", arguments=arguments)
    with usage_errors():
        check_writable(config.output, option="--output")
    images = jnp.asarray(load_digits(return_X_y=True)[0] / 16 - 0.3, jnp.float32)
    runs = {
        name: {optimizer: run(config, images, objective, optimizer) for optimizer in OPTIMIZERS}
        for name, objective in OBJECTIVES.items()
    }
    settings = {"steps": config.steps, "spread": config.spread, "seed": config.seed}
    print(write(config.output, runs, settings))


if __name__ == "__main__":
    main()
