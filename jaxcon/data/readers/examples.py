"""Pictures that a reader found, with their classes or captions.

All readers of a user's own pictures (folders, tables, tar shards, parquet) return them, and `assembly`
makes a dataset of them, so that the same pictures give the same dataset however they are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxcon.data.bad_images import BadImages
from jaxcon.data.messages import printable
from jaxcon.data.readers.layout import Layout
from jaxcon.data.splits import StoredImages, Unreadable
from jaxcon.data.stored import StoredRows
from jaxcon.data.texts import Grouped


@dataclasses.dataclass(frozen=True)
class Examples:
    """Pictures, each with a class or captions, if it has any.

    Args:
      place: what messages call them.
      stored: the pictures.
      sizes: (height, width) of each as stored, int `[n, 2]`; 0 if it cannot be read.
      layout: their keys, which decide on splits, and the splits that they have of their own.
      bad: what is wrong with those that cannot be read, by their numbers.
      labels: int32 `[n]`, or None.
      class_names: the names of the labels, or None.
      captions: those of each picture, or None.
      notes: phrases on how they were understood.
    """

    place: str
    stored: StoredImages
    sizes: np.ndarray
    layout: Layout
    bad: Mapping[int, Unreadable] = dataclasses.field(default_factory=dict)
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    captions: Sequence[Sequence[str]] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.layout.keys)


class Wishes(NamedTuple):
    """What the caller of `load` or `load_pairs` asked for; they document it."""

    image_size: int | None
    memory_limit: int
    train_share: float | None = None
    bad_images: BadImages = "error"


def classes(names: Sequence[str], *, by_number: bool = False) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names of classes in order, and the number of each example's class: int32 `[n]`.

    Example:
      >>> classes(["10", "9", "10"], by_number=True)
      (('9', '10'), array([1, 0, 1], dtype=int32))

    Args:
      names: the class of each example.
      by_number: whether names that all are numbers are in their order.
    """
    ordered = sorted(set(names))
    if by_number and all(name.isascii() and name.isdigit() for name in ordered):
        ordered = sorted(ordered, key=int)
    numbers = {name: number for number, name in enumerate(ordered)}
    # Figures and tables show them.
    return tuple(map(printable, ordered)), np.array([numbers[name] for name in names], np.int32)


def take(captions: Sequence[Sequence[str]], rows: np.ndarray) -> Grouped:
    """Returns the captions of some examples, in little memory.

    Example:
      >>> take([("a cat",), ("a dog", "two dogs")], np.array([1]))
      Grouped.of([('a dog', 'two dogs')])
    """
    grouped = captions if isinstance(captions, Grouped) else Grouped.of(captions)
    return grouped.take(rows)


def chosen(examples: Examples, rows: np.ndarray, splits: list[str] | None) -> Examples:
    """Returns some of the examples, with splits of their own."""
    places = {row: place for place, row in enumerate(rows.tolist())}
    layout = examples.layout
    return dataclasses.replace(
        examples,
        stored=StoredRows(examples.stored, rows),
        sizes=examples.sizes[rows],
        layout=layout._replace(keys=[layout.keys[row] for row in rows.tolist()], splits=splits),
        bad={places[row]: error for row, error in examples.bad.items() if row in places},
        labels=None if examples.labels is None else examples.labels[rows],
        captions=None if examples.captions is None else take(examples.captions, rows),
    )
