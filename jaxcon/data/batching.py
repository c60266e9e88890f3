"""Batches whose order is a pure function of (seed, step), so that any step can be the first.

A resumed run, a run on more devices and a run on several hosts see the same examples in the same
order without any iterator state being saved: epoch e is a permutation drawn from (seed, e), step t
takes its next `batch_size` entries, and what is left over at the end of an epoch is dropped
(`order.batch_indices`). Crops are drawn for (seed, step, row, view).

    >>> from jaxcon.data.sources import load
    >>> train = load("digits").train
    >>> first = next(batches(train, seed=0, batch_size=256))
    >>> first["image"].shape, first["index"][:3].tolist()
    ((256, 8, 8, 1), [0, 1, 2])
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxcon.data.ahead import Ahead
from jaxcon.data.bad_images import BadImages
from jaxcon.data.crops import Crops
from jaxcon.data.order import Stream, steps_per_epoch
from jaxcon.data.reading import Bad, Rows, read
from jaxcon.data.skipped import Skipped
from jaxcon.data.splits import DataError, Split

Batch = dict[str, jax.Array]
Beside = Callable[[int, np.ndarray], Mapping[str, np.ndarray]]

_FOREVER = 2**40  # steps; Grain wants a length


def batches(
    split: Split,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    num_steps: int | None = None,
    sharding: jax.sharding.Sharding | None = None,
    crops: Crops | None = None,
    num_workers: int = 0,
    bad_images: BadImages = "error",
    on_bad: Callable[[Bad], None] | None = None,
    beside: Beside | None = None,
) -> Iterator[Batch]:
    """Yields the training batches from `start_step` on.

    A batch is `{"image": uint8 [batch, height, width, channels], "index": int32 [batch]}`. `index`
    is the row's position in the stream of examples, `step * batch_size + row` modulo 2**31: together
    with the step it identifies an augmentation on any number of devices. With `crops`, if the split
    has originals, `image` is `[batch, views, side, side, channels]`, cut out of these.

    Images in memory are put on the devices once and gathered there. Others are read by Grain:
    `num_workers` processes (0: threads of this one) read ahead, every host reads only the rows of its
    own devices, and two batches are on the devices before they are asked for (`Ahead`, which tells
    whether the next one is). Batches are the same for any number of processes, hosts and devices.

    Args:
      split: the images; labels are not used.
      seed: seed of the order and of the crops.
      batch_size: rows of the *global* batch, over all devices and hosts.
      start_step: first step to yield; the stream goes on as if the earlier ones had been taken.
      num_steps: how many batches to yield; None: endlessly.
      sharding: where the batch goes, usually `NamedSharding(mesh, PartitionSpec("batch"))`; None:
        the default device.
      crops: how views are cut out of the originals.
      num_workers: number of processes that read images not held in memory
        (`reading.default_workers()` by the cores).
      bad_images: what to do about an image that cannot be read: "error", or "skip", which puts
        another one in its place, drawn for (seed, step, row).
      on_bad: called once with each image that was skipped, for instance a `skipped.SkippedLog`; from
        another thread.
      beside: maps a step and the examples in its rows, int64 `[batch]`, to further arrays of the
        batch, `[batch, ...]`; from another thread too. Of rows on other hosts, it is not known
        whether another example stands in.

    Raises:
      DataError: if the batch is larger than the split, or a setting is out of its range; raised by
        the call. By `next`: an image cannot be read; with "skip", more than 1 % of them cannot.
    """
    steps_per_epoch(len(split), batch_size)
    if seed < 0:
        raise DataError(f"seed must not be negative, got {seed}")
    if num_workers < 0:
        raise DataError(f"num_workers must not be negative, got {num_workers}")
    if bad_images not in get_args(BadImages):
        raise DataError(f"bad_images: expected 'error' or 'skip', got {bad_images!r:.80}")
    stop = _FOREVER if num_steps is None else start_step + num_steps
    stream = Stream(len(split), seed, batch_size, range(start_step, stop))
    cropped = crops is not None and split.originals is not None
    if isinstance(split.images, np.ndarray) and not cropped:
        return _gathered(split.images, stream, sharding, beside)
    rows = Rows(
        split.originals if cropped else split.images,  # pyright: ignore[reportArgumentType]
        stream,
        _local_rows(batch_size, sharding),
        crops if cropped else None,
        split.image_shape[-1],
        bad_images,
    )
    skipped = Skipped(len(split), on_bad)
    return Ahead(lambda: _streamed(rows, sharding, num_workers, skipped, beside))


def _gathered(
    images: np.ndarray,
    stream: Stream,
    sharding: jax.sharding.Sharding | None,
    beside: Beside | None,
) -> Iterator[Batch]:
    everywhere = sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        everywhere = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    resident = place(images, everywhere)
    for step in stream.steps:
        examples = stream.examples(step)
        rows = place(examples.astype(np.int32), sharding)
        image = _take(resident, rows, sharding=sharding)
        yield {"image": image, **_beside(stream, step, examples, sharding, beside)}


@functools.partial(jax.jit, static_argnames="sharding")
def _take(
    images: jax.Array, rows: jax.Array, *, sharding: jax.sharding.Sharding | None
) -> jax.Array:
    batch = jnp.take(images, rows, axis=0)
    return batch if sharding is None else jax.lax.with_sharding_constraint(batch, sharding)


def _streamed(
    rows: Rows,
    sharding: jax.sharding.Sharding | None,
    num_workers: int,
    skipped: Skipped,
    beside: Beside | None,
) -> Iterator[Batch]:
    stream, local = rows.stream, rows.local
    with contextlib.closing(read(rows, num_workers)) as loaded:
        for step in stream.steps:
            examples = stream.examples(step).copy()
            image, first = np.empty(0, np.uint8), 0
            for part in itertools.islice(loaded, rows.per_step):
                skipped.add(part)
                if not first:
                    image = np.empty((len(local), *part.image.shape[1:]), np.uint8)
                last = first + len(part.image)
                image[first:last] = part.image
                examples[local.start + first : local.start + last] = part.examples
                first = last
            yield {
                "image": place(image, sharding, local, stream.batch_size),
                **_beside(stream, step, examples, sharding, beside),
            }


def _beside(
    stream: Stream,
    step: int,
    examples: np.ndarray,
    sharding: jax.sharding.Sharding | None,
    beside: Beside | None,
) -> Batch:
    """Returns what a batch holds beside the images."""
    arrays = {"index": stream.index(step), **(beside(step, examples) if beside else {})}
    return {name: place(array, sharding) for name, array in arrays.items()}


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
