"""Training: a state, a pure step over a device axis, a loop that survives kills.

Nothing here knows about losses, encoders or datasets: those are passed in as functions.

| file | what |
|---|---|
| `devices` | which accelerator, how many devices, one mesh axis called "batch" |
| `ranks` | several processes: how they meet, and how all end if one is gone |
| `state` | parameters, statistics, optimizer state, step and an optional moving average |
| `optimizers` | adamw, lars, sgd over a warm-up + cosine schedule counted in steps |
| `decay` | what weight decay shrinks, by name and role |
| `step` | the train step and its two parallel forms: `shard_map` under jit, and `pmap` |
| `sharded` | the step of a state that is spread over the devices, and where its arrays go |
| `checkpoint` | saving with a digest of every leaf (`digests`), restoring only what is intact |
| `workdir` | the folder of one run: what belongs to it (`files`), and which run it belongs to |
| `loop` | the one loop, `advance`; with progress, checkpoints and clean stops, `fit` |
| `metrics` | one line per step, and TensorBoard |
| `cached` | `cached_value_and_grad`: batches too large for the encoder's memory |
"""

from jaxcon.training.cached import cached_value_and_grad

__all__ = ["cached_value_and_grad"]
