"""Array aliases, and the one place that defines the keywords that all losses share.

A keyword means the same wherever it appears; the docstring of each loss has a line for it.

`axis_name`
    `None`: this batch alone. The name of a mapped axis (of `vmap`, `pmap` or `shard_map`;
    under `shard_map` also a tuple of names): the candidates of an anchor are the rows of all
    devices, and the returned value is the global one, equal on every device. Average gradients over
    the same axis. A name that is not bound raises a `ValueError`. Without a name, arrays whose rows
    are sharded over Explicit mesh axes are one batch: the loss maps itself over these axes, and the
    result is that of one device, gradients included (docs/devices.md).
`where`
    bool `[batch]`. False removes a row, as anchor *and* as candidate: the padding of a last batch.
    Such a row is never read; NaN in it changes neither the value nor a gradient.
`weights`
    `[batch]`, the weight of each anchor in the mean: in `ntxent_loss` of both views of a row, in
    `clip_loss` of both directions. A row of weight 0 remains a candidate.
`ids`
    int `[batch]`. Pairs that share an id are not negatives of each other; positives stay. For batches
    in which an example may occur twice. 64-bit NumPy integers, here and in `labels`, are not
    truncated to JAX's 32 bits; but JAX itself truncates the arguments of `jax.jit`: renumber those
    first, `np.unique(ids, return_inverse=True)[1]`.
`labels`
    int `[batch]`. Rows that share a label are positives of each other (five captions of an image);
    an anchor's loss is the average over its positives.
`reduce_fn`
    `jnp.mean` (default): `sum w v / sum w` over all devices, 0 where there is no weight, with
    `w = weights * where * (the anchor is valid)`. `jnp.sum`: `sum w v`. `None`: this device's
    values per anchor, unweighted, 0 where invalid. Anything else raises a `ValueError`.
`block_size`
    `None`: the pairs are evaluated as one matrix or in tiles, depending on their number; an int: in
    tiles of that edge, whose memory grows with N rather than N^2. Results agree to rounding. In tiles,
    second derivatives need a reverse-mode inner gradient; pure forward mode raises JAX's `TypeError`.
    `jaxcon.streaming.reduce_pairs` states the rule.
`exchange`
    `collectives.gather`: every device collects all candidates. `collectives.ring`: they travel around
    the devices, and a device holds two devices' rows at a time. `None` (default): a ring for large
    batches; `jaxcon.streaming.rules` holds the numbers. The value and gradient are the same; matters
    only under `axis_name`.
`precision`
    The precision of products between rows. `None` (default): `jnp.bfloat16` if all embeddings are
    bfloat16, `HIGHEST` otherwise. A `jax.lax.Precision`: `HIGHEST` is float32, in six passes of
    bfloat16 on a TPU; `HIGH` is three passes on a TPU and TF32 on NVIDIA GPUs; `DEFAULT`, what JAX
    takes by itself, is one pass on a TPU and TF32 too. `jnp.bfloat16` rounds the rows to it and sums in
    float32. Gradients are typically wrong by up to 1e-6 in `HIGHEST`, 1e-5 in `HIGH` on a TPU, 1e-3 in
    TF32 and 7e-3 in `jnp.bfloat16`, at temperature 0.02; by 3e-7, 3e-7, 1e-5 and 1e-4 at 0.5. Squared
    distances of rows rounded to bfloat16 are products at `HIGH`. A pair's own logit is always computed
    in full. All errors and estimated times: docs/precision.md.
`temperature`
    A positive scalar or traced array; similarities are *divided* by it.
`key`
    A JAX PRNG key: the first argument, split once.

Embeddings are `[batch, *features]` of any float dtype; trailing axes are flattened. Losses compute
and return `promote_types(embedding dtypes, float32)`, and settings are cast to that dtype.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
from jax import lax
from jax.typing import ArrayLike

Array = jax.Array
AxisName = str | tuple[str, ...] | None
ReduceFn = Callable[..., Array] | None
Exchange = Callable[[Any, AxisName], Any] | None
Precision = lax.Precision | type | None


class PairLoss(Protocol):
    """A loss of paired embeddings: row i of `z1` and row i of `z2` belong together."""

    def __call__(
        self,
        z1: ArrayLike,
        z2: ArrayLike,
        *,
        axis_name: AxisName = None,
        where: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        reduce_fn: ReduceFn = ...,
    ) -> Array:
        """Computes the loss; the module's docstring explains the keywords."""
        ...


class LabelLoss(Protocol):
    """A loss of labelled embeddings: rows of `z` with equal `labels` belong together."""

    def __call__(
        self,
        z: ArrayLike,
        labels: ArrayLike,
        *,
        axis_name: AxisName = None,
        where: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        reduce_fn: ReduceFn = ...,
    ) -> Array:
        """Computes the loss; the module's docstring explains the keywords."""
        ...


__all__ = [
    "Array",
    "ArrayLike",
    "AxisName",
    "Exchange",
    "LabelLoss",
    "PairLoss",
    "Precision",
    "ReduceFn",
]
