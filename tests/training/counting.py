"""Runs of the loop without a model: their batches are numbers, their state is the sum."""

import math

import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxcon.training.checkpoint import Checkpoints
from jaxcon.training.loop import fit


def count(start):
    """Batches that are their own number."""
    step = start
    while True:
        yield step
        step += 1


def counting_step(loss=lambda batch: 2.0 + batch):
    """A step without a model: the state is its own record of the batches it saw."""

    def step(state, batch):
        bad = not math.isfinite(loss(batch))
        state = state.replace(
            step=state.step + 1, sum=state.sum + batch, skipped=state.skipped + bad
        )
        return state, {"loss": jnp.float32(loss(batch)), "skipped": jnp.int32(state.skipped)}

    return step


@struct.dataclass
class Counter:
    step: np.ndarray
    sum: np.ndarray
    skipped: np.ndarray


def begin(step=0, total=0):
    return Counter(np.array(step), np.array(total), np.array(0))


def run(folder, *, steps, step=None, state=None, batches=count, **settings):
    settings = {"checkpoint_every": 4, "log_every": 3, **settings}
    with Checkpoints(folder / "checkpoints") as checkpoints:
        result = fit(
            state or begin(),
            step or counting_step(),
            batches,
            steps=steps,
            batch_size=8,
            chance=4.0,
            folder=folder,
            checkpoints=checkpoints,
            **settings,
        )
        return result, checkpoints.restore(begin())
