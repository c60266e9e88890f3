"""Rows of batches, read from where the pictures lie: what Grain's workers do.

The unit is a few rows of a batch. A whole batch for each worker would take too much memory, and one row
at a time too many messages.

>>> images = np.arange(12, dtype=np.uint8).reshape(6, 2, 1, 1)
>>> stream = Stream(num_examples=6, seed=0, batch_size=4, steps=range(2))
>>> rows = Rows(images, stream, range(4))
>>> len(rows), rows[0].image.shape, rows[0].examples.tolist() == stream.examples(0).tolist()
(2, (4, 2, 1, 1), True)
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator
from typing import Any, NamedTuple

import grain
import grain.experimental
import numpy as np
from absl import flags

from jaxcon.data.bad_images import BadImages
from jaxcon.data.crops import Box, Crops
from jaxcon.data.decode import crop_views
from jaxcon.data.order import Draw, Stream, words
from jaxcon.data.pixels import to_grey
from jaxcon.data.splits import DataError, ImageSource, StoredImages, Unreadable
from jaxcon.data.stored import decoded

_TOGETHER = 16  # rows
_OTHERS = 10  # pictures tried in place of one that cannot be read
_MOST_WORKERS = 32
_NEVER = 2**62  # bytes


class Bad(NamedTuple):
    """A picture that could not be read, for which another one stood in.

    Attributes:
      example: its number in the split.
      place: its path, or its member and shard.
      reason: why it could not be read.
    """

    example: int
    place: str
    reason: str


class Read(NamedTuple):
    """Some rows of a batch.

    Attributes:
      image: uint8 `[rows, ...]`.
      examples: number in the split of the picture in each row, int64 `[rows]`.
      bad: pictures that belong there and could not be read.
    """

    image: np.ndarray
    examples: np.ndarray
    bad: tuple[Bad, ...]


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of batches in the form Grain wants: a sequence, of a few rows each.

    Args:
      source: the images of a split, or with crops its originals; picklable.
      stream: which examples a step takes.
      local: the rows of the global batch that this host reads.
      crops: how views are cut; None: the images as they are.
      channels: of the views, 3 or 1.
      bad_images: "error", or "skip": the first of up to ten others that can be read, drawn for
        (seed, step, row), stands in.
    """

    source: StoredImages | ImageSource | np.ndarray
    stream: Stream
    local: range
    crops: Crops | None = None
    channels: int = 3
    bad_images: BadImages = "error"

    @property
    def per_step(self) -> int:
        """How many entries make up this host's rows of one batch."""
        return -(-len(self.local) // _TOGETHER)

    def __len__(self) -> int:
        return len(self.stream.steps) * self.per_step

    def __getitem__(self, index: int) -> Read:
        nth, part = divmod(index, self.per_step)
        step = self.stream.steps[nth]
        examples = self.stream.examples(step)
        rows = self.local[part * _TOGETHER : (part + 1) * _TOGETHER]
        crops, images = self.crops, None
        if crops is not None:
            images = np.empty((len(rows), crops.views, crops.side, crops.side, 3), np.uint8)
        outs = [None] * len(rows) if images is None else images
        some = [
            self._row(int(examples[row]), step, row, out)
            for row, out in zip(rows, outs, strict=True)
        ]
        if images is None:
            images = np.stack([image for image, _, _ in some])
        elif self.channels == 1:
            images = to_grey(images)
        taken = np.array([example for _, example, _ in some])
        return Read(images, taken, tuple(bad for *_, every in some for bad in every))

    def _row(
        self, example: int, step: int, row: int, out: np.ndarray | None
    ) -> tuple[np.ndarray, int, list[Bad]]:
        """Returns the image of a row, its example, which may be another one, and what was bad."""
        try:
            return self._image(example, step, row, out), example, []
        except Unreadable as error:
            if self.bad_images == "error":
                raise
            bad = [Bad(example, str(error.path or ""), error.reason)]
        raw = words(_OTHERS, seed=self.stream.seed, step=step, draw=Draw.STAND_IN, row=row)
        for other in (raw % np.uint64(self.stream.num_examples)).tolist():
            try:
                return self._image(other, step, row, out), other, bad
            except Unreadable as error:
                bad.append(Bad(other, str(error.path or ""), error.reason))
        raise DataError(
            f"cannot read the image {bad[0].place} ({bad[0].reason}), nor {_OTHERS} others drawn in "
            "its place; is the folder or disk with the images still there?"
        )

    def _image(self, example: int, step: int, row: int, out: np.ndarray | None) -> np.ndarray:
        if self.crops is None:
            return np.asarray(self.source[example])
        stored: Any = self.source
        seed = self.stream.seed
        return cropped(stored, example, self.crops, seed=seed, step=step, row=row, out=out)


def cropped(
    stored: StoredImages,
    example: int,
    crops: Crops,
    *,
    seed: int,
    step: int,
    row: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the views of one picture in one row of a step: uint8 `[views, side, side, 3]`.

    Args:
      stored: the pictures.
      example: which of them.
      crops: how views are cut.
      seed: seed of the crops.
      step: training step.
      row: row of the global batch.
      out: where to write the views; None: to a new array.

    Raises:
      Unreadable: if it cannot be read or decoded.
    """

    def boxes(size: tuple[int, int]) -> list[Box]:
        views = range(crops.views)
        return [crops.box(size, seed=seed, step=step, row=row, view=view) for view in views]

    return decoded(
        stored, example, lambda content: crop_views(content, boxes, side=crops.side, out=out)
    )


def read(rows: Rows, num_workers: int) -> Generator[Read, None, None]:
    """Yields the entries in their order, the same for any number of workers.

    Args:
      rows: the rows.
      num_workers: number of processes; 0: threads of this one.
    """
    source = grain.MapDataset.source(rows)
    if num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads an absl flag; this program has none
        # A worker is one core's worth; its second thread waits for the disk.
        loader = source.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2))
        # Through pipes: shared memory would save 7 % of a worker's time, but containers have 64 MiB of
        # it unless told otherwise, and who writes more is killed.
        through = grain.experimental.DatasetOptions(min_shm_size=_NEVER)
        loader = grain.experimental.WithOptionsIterDataset(loader, through)
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
        loader = loader.mp_prefetch(options, worker_init_fn=_serve)
    else:
        threads = available_cores()
        loader = source.to_iter_dataset(grain.ReadOptions(threads, 2 * threads))
    with contextlib.closing(iter(loader)) as loaded:
        yield from loaded


def _serve(index: int, count: int) -> None:
    """Makes a worker live as long as the main process: no shorter, no longer.

    Ctrl-C, and a scheduler's SIGTERM, reach all processes of a group; the main one then finishes its
    step, for which it needs the workers. When it is killed, nobody ends them.
    """
    del index, count
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def available_cores() -> int:
    """Returns the number of cores that this process may use.

    Example:
      >>> available_cores() >= 1
      True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers() -> int:
    """Returns how many processes read by default: the cores but one, at most 32; 0 on one core.

    Example:
      >>> 0 <= default_workers() <= 32
      True
    """
    return min(available_cores() - 1, _MOST_WORKERS)
