"""Many texts in one block of bytes: names and captions of a million pictures in little memory.

A tuple of strings needs 50 bytes and more beside the letters of each; this needs 8.

>>> names = Texts.of(["cat/1.jpg", "dog/2.jpg", "grün"])
>>> names[2], len(names), list(names.take([1, 0]))
('grün', 3, ['dog/2.jpg', 'cat/1.jpg'])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class Texts(Sequence[str]):
    """A sequence of texts that is decoded when it is read; equal to a tuple of the same texts.

    Args:
      block: the texts one after the other, in UTF-8; of names that are not, Python's surrogates.
      edges: int64 `[n + 1]`, where each text begins, and where the last ends.
      rows: which of them, int `[m]`; None: all.
    """

    def __init__(self, block: bytes, edges: np.ndarray, rows: np.ndarray | None = None) -> None:
        self.block, self.edges, self.rows = block, edges, rows

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Packs texts."""
        pieces = [text.encode("utf-8", "surrogateescape") for text in texts]
        return cls(b"".join(pieces), _edges([len(piece) for piece in pieces]))

    @classmethod
    def join(cls, parts: Sequence[Texts]) -> Texts:
        """Returns the texts of several, one after the other.

        Example:
          >>> list(Texts.join([Texts.of(["a"]), Texts.of(["b", "c"]).take([1])]))
          ['a', 'c']
        """
        plain = [part.packed() for part in parts]
        lengths = [np.diff(part.edges) for part in plain]
        return cls(
            b"".join(part.block for part in plain),
            _edges(np.concatenate(lengths) if lengths else []),
        )

    def packed(self) -> Texts:
        """Returns the same texts without those that were not taken."""
        return self if self.rows is None else Texts.of(self)

    def take(self, rows: Sequence[int] | np.ndarray) -> Texts:
        """Returns some of the texts, which stay where they are."""
        rows = np.asarray(rows, np.int64)
        return Texts(self.block, self.edges, rows if self.rows is None else self.rows[rows])

    def __len__(self) -> int:
        return len(self.edges) - 1 if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int, /) -> str: ...
    @overload
    def __getitem__(self, index: slice, /) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice, /) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        row = range(len(self))[index]
        row = row if self.rows is None else int(self.rows[row])
        start, stop = int(self.edges[row]), int(self.edges[row + 1])
        return self.block[start:stop].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Texts | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Texts.of({list(self)!r})"


class Grouped(Sequence[tuple[str, ...]]):
    """The texts of each example, such as its captions; equal to a tuple of tuples of the same texts.

    Example:
      >>> captions = Grouped.of([["a cat"], ["a dog", "two dogs"]])
      >>> captions[1], len(captions), captions.take([1]).number
      (('a dog', 'two dogs'), 2, 2)

    Args:
      texts: those of the first example first.
      edges: int64 `[n + 1]`, where those of each example begin, and where the last end.
      rows: which of the examples, int `[m]`; None: all.
    """

    def __init__(self, texts: Texts, edges: np.ndarray, rows: np.ndarray | None = None) -> None:
        self.texts, self.edges, self.rows = texts, edges, rows

    @classmethod
    def of(cls, groups: Iterable[Sequence[str]]) -> Grouped:
        """Packs the texts of each example."""
        groups = list(groups)
        texts = Texts.of(text for group in groups for text in group)
        return cls(texts, _edges([len(group) for group in groups]))

    @classmethod
    def join(cls, parts: Sequence[Grouped]) -> Grouped:
        """Returns the examples of several, one after the other; none has `rows`."""
        counts = [np.diff(part.edges) for part in parts]
        return cls(Texts.join([part.texts for part in parts]), _edges(np.concatenate(counts)))

    @property
    def number(self) -> int:
        """How many texts there are."""
        return int(self.counts().sum())

    def counts(self) -> np.ndarray:
        """Returns how many texts each example has: int64 `[n]`."""
        counts = np.diff(self.edges)
        return counts if self.rows is None else counts[self.rows]

    def take(self, rows: Sequence[int] | np.ndarray) -> Grouped:
        """Returns some of the examples, whose texts stay where they are."""
        rows = np.asarray(rows, np.int64)
        return Grouped(self.texts, self.edges, rows if self.rows is None else self.rows[rows])

    def __len__(self) -> int:
        return len(self.edges) - 1 if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int, /) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, index: slice, /) -> tuple[tuple[str, ...], ...]: ...

    def __getitem__(self, index: int | slice, /) -> tuple[str, ...] | tuple[tuple[str, ...], ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        row = range(len(self))[index]
        row = row if self.rows is None else int(self.rows[row])
        return self.texts[int(self.edges[row]) : int(self.edges[row + 1])]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grouped | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Grouped.of({list(self)!r})"


def _edges(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    edges = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=edges[1:])
    return edges
