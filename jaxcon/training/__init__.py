"""Training: a state, a pure step over a device axis, a loop that survives kills.

Nothing here knows a loss, an encoder or a dataset: those are handed in as functions.

| file | what |
|---|---|
| `devices` | which accelerator, how many devices, one mesh axis called "batch" |
| `ranks` | several processes: how they meet, and how all end when one is gone |
| `state` | parameters, statistics, optimizer state, step and an optional moving average |
| `optimizers` | adamw, lars, sgd over a warm-up + cosine schedule counted in steps |
| `decay` | what weight decay shrinks, by name and role |
| `step` | the train step and its two parallel forms: `shard_map` under jit, and `pmap` |
| `checkpoint` | saving with a digest of every leaf (`digests`), restoring only what proves intact |
| `workdir` | the folder of one run: what belongs to it (`files`), and to whom it belongs |
| `loop` | the one loop, `advance`; with progress, checkpoints and clean stops, `fit` |
| `metrics` | a line a step, and TensorBoard |
| `cached` | `cached_value_and_grad`: batches larger than what the encoder's memory holds |
"""

from jaxcon.training.cached import cached_value_and_grad

__all__ = ["cached_value_and_grad"]
