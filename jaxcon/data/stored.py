"""Pictures as they are stored: the bytes of a file, or pixels of any size, by their number.

Training crops them at random, evaluation fits them to a square; both read one picture at a time, so
that memory does not grow with the dataset.

>>> import tempfile
>>> from PIL import Image
>>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
...     Image.new("L", (6, 4), 7).save(file.name)
...     stored = StoredFiles([file.name])
...     len(stored), stored[0][1:4], stored.place(0) == file.name
(1, b'PNG', True)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from jaxcon.data.encoded import explained
from jaxcon.data.splits import StoredImages, Unreadable
from jaxcon.data.texts import Texts

Value = TypeVar("Value")


def decoded(
    stored: StoredImages, index: int, decode: Callable[[bytes | np.ndarray], Value]
) -> Value:
    """Returns `decode(stored[index])`.

    Raises:
      Unreadable: if it cannot be read or decoded; names its place, with the reason and how to fix it.
    """
    try:
        content = stored[index]
    except OSError as error:
        reason = error.strerror or str(error)
        mend = "make it readable, or remove it"
        raise Unreadable(reason, mend, stored.place(index)) from error
    try:
        return decode(content)
    except Exception as error:  # decoders raise anything on damaged files
        start = content[:64] if isinstance(content, bytes) else b"pixels"
        raise explained(error, start, stored.place(index)) from error


class StoredFiles:
    """Image files, each of one picture.

    Args:
      paths: paths of the files.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self.paths: tuple[str, ...] = tuple(os.fspath(path) for path in paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> bytes:
        path = self.paths[index]
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unreadable(reason, "make the file readable, or remove it", path) from error

    def place(self, index: int, /) -> str:
        return self.paths[index]


class StoredRows:
    """Some of the pictures of another set, such as those of one split.

    Example:
      >>> rows = StoredRows(StoredFiles(["a.jpg", "b.jpg", "c.jpg"]), [2, 0])
      >>> len(rows), rows.place(0)
      (2, 'c.jpg')

    Args:
      stored: the set.
      rows: numbers in it, int `[n]`.
    """

    def __init__(self, stored: StoredImages, rows: Sequence[int] | np.ndarray) -> None:
        self.stored, self.rows = stored, np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> bytes | np.ndarray:
        return self.stored[int(self.rows[index])]

    def place(self, index: int, /) -> str:
        return self.stored.place(int(self.rows[index]))


class StoredInShards:
    """Pictures in few files, each of many: what kinds of such files have in common.

    Args:
      paths: the files.
      file: which of them each picture is in: int32 `[n]`.
      starts: where it begins there, a byte or a row: int64 `[n]`.
      lengths: its bytes: int64 `[n]`.
      names: what it is called there.
    """

    # What `_forget` sets: files that are open, and locks, which another process must not share.
    _own: tuple[str, ...] = ()

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        file: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        names: Texts,
    ) -> None:
        self.paths: tuple[str, ...] = tuple(os.fspath(path) for path in paths)
        self._sizes = [os.path.getsize(path) for path in self.paths]
        self.file, self.starts, self.lengths, self.names = file, starts, lengths, names
        self._forget()

    def _forget(self) -> None:
        """Begins without open files, as does a copy in another process."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __len__(self) -> int:
        return len(self.file)

    def shards(self) -> dict[str, str]:
        """Returns what tells whether a file was replaced, by its path from the folder around all.

        It is the size of the file, and a digest of where its pictures begin and of their bytes.
        """
        folder = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in self.paths])
        order = np.argsort(self.file, kind="stable")
        edges = np.searchsorted(self.file[order], np.arange(len(self.paths) + 1))
        told = {}
        for i, path in enumerate(self.paths):
            rows = order[edges[i] : edges[i + 1]]
            inside = self.starts[rows].tobytes() + self.lengths[rows].tobytes()
            digest = hashlib.sha256(inside).hexdigest()[:8]
            told[os.path.relpath(os.path.abspath(path), folder)] = f"{self._sizes[i]} {digest}"
        return told

    def path(self, index: int) -> str:
        """Returns the file that a picture is in."""
        return self.paths[int(self.file[index])]

    def place(self, index: int, /) -> str:
        return f"{self.path(index)}:{self.names[index]}"


def all_rows(stored: StoredImages) -> tuple[StoredImages, np.ndarray]:
    """Returns the set that pictures were taken from, and their numbers there.

    Example:
      >>> files = StoredFiles(["a.jpg", "b.jpg", "c.jpg"])
      >>> inner, rows = all_rows(StoredRows(StoredRows(files, [2, 0]), [1]))
      >>> inner is files, rows.tolist()
      (True, [0])
    """
    rows = np.arange(len(stored))
    while isinstance(stored, StoredRows):
        stored, rows = stored.stored, stored.rows[rows]
    return stored, rows
