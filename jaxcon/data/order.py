"""Which examples a step takes, and what is drawn for each: pure functions of (seed, step, row).

Everything is read off raw 64-bit words of Philox, a generator that counts: any word can be had without
those before it. NumPy promises that this stream never changes, and does not promise that for what it
makes of it, such as `permutation`.

>>> order = batch_indices(6, seed=0, batch_size=6, step=0)
>>> sorted(order.tolist())
[0, 1, 2, 3, 4, 5]
>>> uniform(words(2, seed=0, step=0, draw=Draw.CROP)).shape
(2,)
"""

from __future__ import annotations

import dataclasses
import enum
import functools

import numpy as np

from jaxcon.data.splits import DataError

_INDEX_LIMIT = 2**31  # indices are int32 and start again from 0 there


class Draw(enum.IntEnum):
    """What is drawn: the highest word of Philox's counter, so that no two draws share a word.

    The order of an epoch has counter 0, and another key.
    """

    CAPTION = 1
    CROP = 2
    STAND_IN = 3


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
    of epoch e sorts the raw words of Philox with key (seed, e).

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


@functools.lru_cache(maxsize=2)
def _epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(num_examples)
    order = np.argsort(words, kind="stable")
    order.flags.writeable = False
    return order


def words(
    count: int, *, seed: int, step: int, draw: Draw, row: int = 0, part: int = 0
) -> np.ndarray:
    """Returns the raw words that belong to one row of one step: uint64 `[count]`.

    Example:
      >>> words(3, seed=0, step=5, draw=Draw.CROP, row=7).dtype
      dtype('uint64')

    Args:
      count: how many, at most 2**64.
      seed: any int from 0 to 2**64 - 1.
      step: training step, from 0.
      draw: what they are for.
      row: row of the global batch.
      part: the view of the row, or another number that tells draws of one row apart.
    """
    key = np.array([seed, step], np.uint64)
    return np.random.Philox(key=key, counter=[0, row, part, draw]).random_raw(count)


def uniform(raw: np.ndarray) -> np.ndarray:
    """Converts raw words to floats in [0, 1), all multiples of 2**-53.

    Example:
      >>> uniform(np.array([0, 2**63, 2**64 - 1], np.uint64)).tolist()
      [0.0, 0.5, 0.9999999999999999]
    """
    return (raw >> np.uint64(11)) * 2.0**-53


@dataclasses.dataclass(frozen=True)
class Stream:
    """The examples that each step takes, and their indices.

    Args:
      num_examples: size of the split.
      seed: seed of the order.
      batch_size: rows of the global batch.
      steps: the steps that are taken.
    """

    num_examples: int
    seed: int
    batch_size: int
    steps: range

    def examples(self, step: int) -> np.ndarray:
        """Returns `batch_indices` of one step."""
        return batch_indices(
            self.num_examples, seed=self.seed, batch_size=self.batch_size, step=step
        )

    def index(self, step: int) -> np.ndarray:
        """Returns the positions of one step's rows in the stream, modulo 2**31: int32 `[batch]`."""
        first = step * self.batch_size
        return (np.arange(first, first + self.batch_size) % _INDEX_LIMIT).astype(np.int32)
