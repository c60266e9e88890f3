"""A model small enough to be trained by every test: a linear map, batch norm, random noise."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.running.optimizers import OPTIMIZERS
from jaxcon import collectives
from jaxcon.training.checkpoint import Checkpoints
from jaxcon.training.digests import state_hash
from jaxcon.training.state import TrainState, create_state

BUILDS = [rule.make for rule in OPTIMIZERS.values()]  # what every optimizer is held to
BATCH = 16
DATA = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)


class Toy(nn.Module):
    """Global batch statistics, so that the result does not depend on the number of devices."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.Dense(8, use_bias=False)(x)  # a bias would get rounding noise for a gradient
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x)
        return nn.Dense(4)(nn.relu(x))


def make_loss(axis_name):
    """Distance of outputs of two noisy copies: noise by global row, mean over all devices."""
    model = Toy(axis_name)

    def loss_fn(params, carried, batch, key):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(batch["index"])
        noise = jax.vmap(lambda k: jax.random.normal(k, batch["x"].shape[1:], jnp.float32))(keys)
        inputs = (batch["x"] + 0.1 * noise).astype(batch["x"].dtype)
        z, carried = model.apply(
            {"params": params, **carried}, inputs, train=True, mutable=["batch_stats"]
        )
        loss = collectives.mean(jnp.mean((z - jnp.sin(batch["x"][:, :4])) ** 2), axis_name)
        return loss, (carried, {"spread": collectives.mean(jnp.std(z), axis_name)})

    return loss_fn


def make_state(optimizer=None, *, average: bool = False) -> TrainState:
    model = Toy()
    variables = model.init(jax.random.key(0), jnp.asarray(DATA[:2]), train=False)
    variables = jax.tree.map(lambda x: x.astype(DATA.dtype), variables)
    optimizer = optax.sgd(0.05) if optimizer is None else optimizer
    return create_state(variables, optimizer, apply_fn=model.apply, average=average)


def make_batch(step: int) -> dict[str, np.ndarray]:
    rows = np.random.default_rng(step).permutation(len(DATA))[:BATCH]
    index = np.arange(step * BATCH, (step + 1) * BATCH, dtype=np.int32)
    return {"x": DATA[rows], "index": index}


def save_toys(folder, steps=(1, 2, 3)):
    """Checkpoints whose states differ; returns a template and the hash of the state at each step."""
    hashes = {}
    with Checkpoints(folder) as checkpoints:
        for step in steps:
            state = make_state(average=True).replace(step=jnp.int32(step))
            state = state.replace(params=jax.tree.map(lambda x, s=step: x + s, state.params))
            checkpoints.save(step, state)
            hashes[step] = state_hash(state)
    return make_state(average=True), hashes
