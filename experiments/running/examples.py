"""Which images a page shows, and their views as the encoder sees them."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.running.process import jit_once
from jaxcon.augment import Transform, coloured, two_views
from jaxcon.data.crops import Crops
from jaxcon.data.pixels import to_grey
from jaxcon.data.reading import available_cores, cropped
from jaxcon.data.splits import Split, Unreadable
from jaxcon.training.devices import batch_sharding

Pairs = tuple[np.ndarray, np.ndarray]
# Maps images, and the numbers of at most 64 of them, to views of each.
Views = Callable[[Split, np.ndarray], tuple[np.ndarray, ...]]
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


def make_views(
    transform: Transform, colours: Sequence[Transform], crops: Crops | None, *, seed: int
) -> Views:
    """Returns a function that makes views, in [0, 1], as an encoder sees them in training.

    Args:
      transform: used in training on images that come whole; makes two views of each.
      colours: used, one for each view, on those that are cropped where they are read.
      crops: how those are cropped; None: images come whole.
      seed: seed of the views, which are the same for the same rows.
    """
    whole = jit_once(functools.partial(two_views, transform=transform))
    of_crops = jit_once(functools.partial(coloured, transforms=tuple(colours)))

    def of(split: Split, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        if crops is None or split.originals is None:
            make, images = whole, take(split, rows)
        else:
            numbers = enumerate(rows.tolist())
            read = [_crops(split, example, crops, seed, row) for row, example in numbers]
            make, images = of_crops, np.stack(read)
            if split.image_shape[-1] == 1:
                images = to_grey(images)
        padding = [(0, BATCH - len(images)), *[(0, 0)] * (images.ndim - 1)]
        made = jax.device_get(make(jax.random.key(seed), jnp.asarray(np.pad(images, padding))))
        return tuple(view[: len(images)] for view in made)

    return of


class _Seen:
    """One picture, as `StoredImages`."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self._pixels

    def place(self, index: int, /) -> str:
        return f"image {index}"


def _crops(split: Split, example: int, crops: Crops, seed: int, row: int) -> np.ndarray:
    """Returns the crops of a picture; where it cannot be read, of what evaluation sees in its place."""
    drawn = functools.partial(cropped, crops=crops, seed=seed, step=0, row=row)
    assert split.originals is not None
    try:
        return drawn(split.originals, example)
    except Unreadable:
        return drawn(_Seen(split.images[example]), 0)


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
    else:  # decoding releases the GIL
        with ThreadPoolExecutor(available_cores()) as pool:
            rows = np.stack(list(pool.map(images.__getitem__, range(start, stop))))
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
