"""Which images a page shows, and their views as the encoder sees them."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.running.process import jit_once
from jaxcon.augment import Transform, two_views
from jaxcon.data.splits import Split
from jaxcon.training.devices import batch_sharding

Pairs = tuple[np.ndarray, np.ndarray]
Views = Callable[[np.ndarray], Pairs]  # from at most 64 images to two views of each
BATCH = 64  # rows of one program, whatever is requested


def spread(total: int, count: int, labels: np.ndarray | None = None) -> np.ndarray:
    """Returns the numbers of `count` of `total` rows, evenly from all classes, always the same.

    Within a class, and between classes if there are more of them than rows, the order is that of a
    digest of the number: the first rows, which come from one folder, would be too similar. Without
    labels, `count` stretches of rows stand in for classes.

    Example:
      >>> labels = np.array([0] * 90 + [1] * 7 + [2] * 3)
      >>> np.bincount(labels[spread(100, 8, labels)]).tolist()
      [3, 3, 2]
      >>> (spread(100, 4) // 25).tolist()
      [0, 1, 2, 3]

    Args:
      total: number of rows.
      count: number of rows wanted; all if there are fewer.
      labels: int `[total]`, or None.

    Returns:
      int `[min(count, total)]`, by class, then by number.
    """
    count = min(count, total)
    if labels is None:
        labels = np.arange(total) * count // max(total, 1)
    digests = [hashlib.sha256(str(row).encode()).digest() for row in range(total)]
    by_class = np.array(sorted(range(total), key=lambda row: (labels[row], digests[row])), int)
    starts = np.searchsorted(labels[by_class], labels[by_class])
    turn = np.empty(total, int)  # the first of every class comes before the second of any
    turn[by_class] = np.arange(total) - starts
    chosen = sorted(range(total), key=lambda row: (turn[row], digests[row]))[:count]
    return np.array(sorted(chosen, key=lambda row: (labels[row], row)), int)


def make_views(transform: Transform, *, seed: int) -> Views:
    """Returns a function that makes two views, in [0, 1], of each of at most 64 images.

    Args:
      transform: the transform used in training.
      seed: seed of the views, which are the same for the same rows.
    """
    views = jit_once(functools.partial(two_views, transform=transform))

    def of(images: np.ndarray) -> Pairs:
        padding = [(0, BATCH - len(images)), *[(0, 0)] * (images.ndim - 1)]
        pair = views(jax.random.key(seed), jnp.asarray(np.pad(images, padding)))
        first, second = jax.device_get(pair)
        return first[: len(images)], second[: len(images)]

    return of


def map_rows(
    apply: Callable[[Any], Any], images: Any, *, batch: int = BATCH, mesh: Mesh | None = None
) -> Any:
    """Returns `apply` of every row as one array; batches of one size need one compilation.

    The next rows are read while the devices are busy.

    Example:
      >>> map_rows(lambda x: x + 1, np.arange(5), batch=2).tolist()
      [1, 2, 3, 4, 5]

    Args:
      apply: maps a batch to an output for each row, or to several by name.
      images: rows.
      batch: rows of a batch, of each device.
      mesh: devices that share a batch; None: batches are NumPy's. Where there are several processes,
        all must call this; each reads the rows of its devices, and `apply` must return whole outputs.
    """
    size = batch if mesh is None else batch * mesh.size
    outputs: list[Any] = []
    waiting: tuple[Any, int] | None = None

    def collect() -> None:
        if waiting is not None:
            output, count = waiting
            outputs.append(jax.tree.map(lambda of_rows: np.asarray(of_rows)[:count], output))

    for start in range(0, len(images), size):
        stop = min(start + size, len(images))
        if mesh is None:
            rows = _padded(images, start, stop, size)
        else:
            rows = _shared(images, start, stop, batch, mesh)
        output = apply(rows)
        collect()
        waiting = output, stop - start
    collect()
    return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)


def _padded(images: Any, start: int, stop: int, size: int) -> np.ndarray:
    """Returns rows from `start` to `stop`, and zeros up to `size` rows."""
    if isinstance(images, np.ndarray):
        rows = images[start:stop]
    else:
        rows = np.stack([images[i] for i in range(start, stop)])
    return np.pad(rows, [(0, size - len(rows)), *[(0, 0)] * (rows.ndim - 1)])


def _shared(images: Any, start: int, stop: int, batch: int, mesh: Mesh) -> jax.Array:
    """Returns rows from `start` to `stop` on the devices; each process reads those of its own."""
    one = np.asarray(images[start])

    def part(index: Any) -> np.ndarray:
        first = start + (index[0].start or 0)
        if first >= stop:
            return np.zeros((batch, *one.shape), one.dtype)
        return _padded(images, first, min(first + batch, stop), batch)

    shape = (batch * mesh.size, *one.shape)
    return jax.make_array_from_callback(shape, batch_sharding(mesh), part)


def take(split: Split, rows: np.ndarray) -> np.ndarray:
    """Returns the images of an array of row numbers: `[*rows.shape, height, width, channels]`."""
    images = np.stack([split.images[int(i)] for i in rows.flat])
    return images.reshape(*rows.shape, *images.shape[1:])
