"""Pictures in parquet files, `parquet:PATH`, as those of Hugging Face, read a row group at a time."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from jaxcon.data.readers.examples import Examples
from jaxcon.data.readers.index import IN_A_FILE, indexed
from jaxcon.data.readers.parquet_columns import find_columns
from jaxcon.data.readers.parquet_index import cells, index_parquet, open_parquet
from jaxcon.data.readers.sharded import examples_of
from jaxcon.data.readers.shards import find_shards
from jaxcon.data.splits import DataError, Unreadable
from jaxcon.data.stored import StoredFiles, StoredInShards

_ENDINGS = (".parquet",)
_GROUPS = 2  # that are kept
_FILES = 64  # that are kept open, where a process may have 1,024
_LARGE = 2**26  # bytes of a row group: each picture that is read alone takes as many


def find_in_parquet(pattern: str, *, captions: bool) -> Examples:
    """Finds the pictures in parquet files; see `own.find`.

    Args:
      pattern: what follows `parquet:`; see `shards`.
      captions: whether captions are wanted; else classes.
    """
    paths = find_shards(pattern, "parquet", _ENDINGS)
    indexes, notes = indexed(paths, "parquet", index_parquet)
    largest = max(_largest_group(os.fspath(path)) for path in paths[:3])
    if largest > _LARGE:
        notes.append(
            f"row groups of {largest / 2**20:,.0f} MiB, which are read for each picture: written anew "
            "with 100 rows a group, or as tar, they are faster"
        )
    return examples_of(
        f"parquet:{pattern}", paths, indexes, ParquetImages, captions=captions, notes=notes
    )


def _largest_group(path: str) -> int:
    metadata = open_parquet(path).metadata
    groups = range(metadata.num_row_groups)
    return max((metadata.row_group(group).total_byte_size for group in groups), default=0)


class ParquetImages(StoredInShards):
    """Pictures in parquet files, or in files that these name, as `StoredImages`.

    The length of one in a file of its own is `IN_A_FILE`, its name the path from the parquet file.
    """

    _own = ("_open", "_groups", "_lock")

    def __getitem__(self, index: int, /) -> bytes:
        path = self.path(index)
        if self.lengths[index] == IN_A_FILE:
            return StoredFiles([self.place(index)])[0]
        try:
            cell = self._cell(path, int(self.starts[index]))
        except (
            DataError,
            OSError,
            IndexError,
        ) as error:  # pyarrow's errors are of the last two kinds
            reason = " ".join(str(error).split())[:100]
            mend = "bring the file back as it was, or start again"
            raise Unreadable(reason, mend, self.place(index)) from error
        if cell is None:
            raise Unreadable("the cell is empty", "remove the row", self.place(index))
        return cell.to_pybytes()

    def place(self, index: int, /) -> str:
        path = self.path(index)
        if self.lengths[index] == IN_A_FILE:
            return os.path.join(os.path.dirname(path), self.names[index])
        return f"{path} row {int(self.starts[index]) + 1}"

    def _cell(self, path: str, row: int) -> Any:
        """Returns the bytes of a row, out of its row group; one thread reads at a time."""
        with self._lock:
            if path not in self._open:
                file = open_parquet(path)
                counts = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
                self._open[path] = file, np.cumsum([0, *counts])
                while len(self._open) > _FILES:
                    self._open.popitem(last=False)[1][0].close()
            self._open.move_to_end(path)
            file, edges = self._open[path]
            group = int(np.searchsorted(edges, row, side="right")) - 1
            if (path, group) not in self._groups:
                image = find_columns(path, file.schema_arrow).image
                self._groups[path, group] = cells(file, group, image)[0]
                while len(self._groups) > _GROUPS:
                    self._groups.popitem(last=False)
            self._groups.move_to_end((path, group))
            return self._groups[path, group][row - int(edges[group])].as_buffer()

    def _forget(self) -> None:
        self._open: OrderedDict[str, tuple[Any, np.ndarray]] = OrderedDict()
        self._groups: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._lock = threading.Lock()
