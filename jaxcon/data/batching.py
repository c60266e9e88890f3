"""Batches whose order is a pure function of (seed, step), so that any step can be the first.

A resumed run, a run on more devices and a run on several hosts see the same examples in the same
order without any iterator state being saved: epoch e is a permutation drawn from (seed, e), step t
takes its next `batch_size` entries, and what is left over at the end of an epoch is dropped.

    >>> from jaxcon.data.sources import load
    >>> train = load("digits").train
    >>> first = next(batches(train, seed=0, batch_size=256))
    >>> first["image"].shape, first["index"][:3].tolist()
    ((256, 8, 8, 1), [0, 1, 2])
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from jaxcon.data.splits import DataError, ImageSource, Split

Batch = dict[str, jax.Array]

_INDEX_LIMIT = 2**31  # indices are int32 and start again from 0 there
_FOREVER = 2**40  # steps; Grain wants a length


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Returns `num_examples // batch_size`: the last, incomplete batch is dropped.

    Example:
      >>> steps_per_epoch(1259, 256)
      4

    Raises:
      DataError: if there are too few examples for even one batch.
    """
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, got {batch_size}")
    if batch_size > num_examples:
        raise DataError(
            f"batch_size {batch_size} is larger than the dataset, which has {num_examples} "
            f"training images; choose at most {num_examples}"
        )
    return num_examples // batch_size


def batch_indices(num_examples: int, *, seed: int, batch_size: int, step: int) -> np.ndarray:
    """Returns the indices of the examples of one global batch.

    Step t is batch t mod s of epoch t // s, where s = num_examples // batch_size. The permutation
    of epoch e sorts the raw 64-bit words of Philox with key (seed, e): NumPy promises that this
    stream never changes, but does not promise that for its `permutation`.

    Example:
      >>> both = [batch_indices(6, seed=0, batch_size=3, step=step) for step in (0, 1)]
      >>> sorted(np.concatenate(both).tolist())
      [0, 1, 2, 3, 4, 5]

    Args:
      num_examples: size of the split, at least `batch_size`.
      seed: any int from 0 to 2**64 - 1.
      batch_size: rows of the global batch.
      step: training step, from 0.

    Returns:
      int64 `[batch_size]`, without repetition.
    """
    epoch, batch = divmod(step, steps_per_epoch(num_examples, batch_size))
    order = _epoch_order(num_examples, seed, epoch)
    return order[batch * batch_size : (batch + 1) * batch_size]


@functools.lru_cache(maxsize=4)
def _epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(num_examples)
    order = np.argsort(words, kind="stable")
    order.flags.writeable = False
    return order


def batches(
    split: Split,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    num_steps: int | None = None,
    sharding: jax.sharding.Sharding | None = None,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Yields the training batches from `start_step` on.

    A batch is `{"image": uint8 [batch, height, width, channels], "index": int32 [batch]}`. `index`
    is the row's position in the stream of examples, `step * batch_size + row` modulo 2**31: together
    with the step it identifies an augmentation on any number of devices.

    Images in memory are put on the devices once and gathered there. Others are read by Grain:
    `num_workers` processes (0: threads of this one) read ahead, and every host reads only the rows
    of its own devices.

    Args:
      split: the images; labels are not used.
      seed: seed of the order.
      batch_size: rows of the *global* batch, over all devices and hosts.
      start_step: first step to yield; the stream goes on as if the earlier ones had been taken.
      num_steps: how many batches to yield; None: endlessly.
      sharding: where the batch goes, usually `NamedSharding(mesh, PartitionSpec("batch"))`; None:
        the default device.
      num_workers: number of processes that read images not held in memory.

    Raises:
      DataError: if the batch is larger than the split; raised by the call, not at the first batch.
    """
    steps_per_epoch(len(split), batch_size)
    if seed < 0:
        raise DataError(f"seed must not be negative, got {seed}")
    stop = _FOREVER if num_steps is None else start_step + num_steps
    stream = _Stream(len(split), seed, batch_size, range(start_step, stop))
    if isinstance(split.images, np.ndarray):
        return _gathered(split.images, stream, sharding)
    return _streamed(split.images, stream, sharding, num_workers)


@dataclasses.dataclass(frozen=True)
class _Stream:
    """The examples that each step takes, and their indices."""

    num_examples: int
    seed: int
    batch_size: int
    steps: range

    def examples(self, step: int) -> np.ndarray:
        return batch_indices(
            self.num_examples, seed=self.seed, batch_size=self.batch_size, step=step
        )

    def index(self, step: int) -> np.ndarray:
        first = step * self.batch_size
        return (np.arange(first, first + self.batch_size) % _INDEX_LIMIT).astype(np.int32)


def _gathered(
    images: np.ndarray, stream: _Stream, sharding: jax.sharding.Sharding | None
) -> Iterator[Batch]:
    everywhere = sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        everywhere = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    resident = place(images, everywhere)
    for step in stream.steps:
        rows = place(stream.examples(step).astype(np.int32), sharding)
        image = _take(resident, rows, sharding=sharding)
        yield {"image": image, "index": place(stream.index(step), sharding)}


@functools.partial(jax.jit, static_argnames="sharding")
def _take(
    images: jax.Array, rows: jax.Array, *, sharding: jax.sharding.Sharding | None
) -> jax.Array:
    batch = jnp.take(images, rows, axis=0)
    return batch if sharding is None else jax.lax.with_sharding_constraint(batch, sharding)


def _streamed(
    images: ImageSource,
    stream: _Stream,
    sharding: jax.sharding.Sharding | None,
    num_workers: int,
) -> Iterator[Batch]:
    local = _local_rows(stream.batch_size, sharding)
    rows = grain.MapDataset.source(_Rows(images, stream, local))
    loader = rows.batch(len(local)).to_iter_dataset()
    if num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads an absl flag; this program has none
        loader = loader.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
    with contextlib.closing(iter(loader)) as loaded:
        for step, image in zip(stream.steps, loaded, strict=True):
            yield {
                "image": place(image, sharding, local, stream.batch_size),
                "index": place(stream.index(step), sharding),
            }


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The stream in the form Grain wants: one sequence of the rows that this host reads."""

    images: ImageSource
    stream: _Stream
    local: range

    def __len__(self) -> int:
        return len(self.stream.steps) * len(self.local)

    def __getitem__(self, index: int) -> np.ndarray:
        nth, row = divmod(index, len(self.local))
        examples = self.stream.examples(self.stream.steps[nth])
        return self.images[int(examples[self.local[row]])]


def _local_rows(batch_size: int, sharding: jax.sharding.Sharding | None) -> range:
    """Returns the rows of the global batch that this host's devices hold."""
    if sharding is None:
        return range(batch_size)
    held = sharding.addressable_devices_indices_map((batch_size,)).values()
    bounds = [rows[0].indices(batch_size) for rows in held if rows is not None]
    return range(min(low for low, _, _ in bounds), max(high for _, high, _ in bounds))


def place(
    array: np.ndarray,
    sharding: jax.sharding.Sharding | None,
    local: range | None = None,
    batch_size: int | None = None,
) -> jax.Array:
    """Puts an array on the devices as one global array.

    Args:
      array: all rows, or those of this host.
      sharding: where they go; None: the default device.
      local: the range of rows that `array` holds; None: all.
      batch_size: number of rows on all hosts, needed with `local`.
    """
    if sharding is None:
        return jax.device_put(array)
    first = local.start if local else 0

    def part(index: Any) -> np.ndarray:
        low, high, _ = index[0].indices(batch_size or len(array))
        return array[low - first : high - first]

    return jax.make_array_from_callback(
        (batch_size or len(array), *array.shape[1:]), sharding, part
    )
