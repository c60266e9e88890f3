"""A process to be killed: trains the toy model in a folder and prints the hash of its last state."""

import sys
import time

import jax

from jaxcon.training.checkpoint import Checkpoints
from jaxcon.training.devices import make_mesh, replicate, select_accelerator
from jaxcon.training.digests import state_hash
from jaxcon.training.loop import fit
from jaxcon.training.step import make_train_step, shard_step
from jaxcon.training.workdir import open_workdir
from tests.training.toy import BATCH, make_batch, make_loss, make_state

STEPS = 120


def batches(start):
    for step in range(start, STEPS):
        time.sleep(0.02)  # long enough that a signal arrives on the way
        yield make_batch(step)


def main(folder: str, devices: int) -> None:
    mesh = make_mesh(select_accelerator("cpu", num_devices=devices))
    workdir = open_workdir(folder, {"steps": STEPS})
    step = shard_step(make_train_step(make_loss("batch"), ema_decay=0.9), mesh)
    state, key = replicate(make_state(average=True), mesh), jax.random.key(7)
    with Checkpoints(workdir.checkpoints) as checkpoints:
        restored = checkpoints.restore(state)
        if restored is not None:
            sys.stdout.write(f"resumed {restored[0]}\n")
            state = restored[1]
        result = fit(
            state,
            lambda state, batch: step(state, batch, key),
            batches,
            steps=STEPS,
            batch_size=BATCH,
            chance=1.0,
            folder=workdir.path,
            checkpoints=checkpoints,
            checkpoint_every=7,
            log_every=1,
        )
    word = "finished" if result.finished else "stopped"
    sys.stdout.write(f"{word} {state_hash(result.state)}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
