"""Pictures in tar files, `tar:PATH`, read one by one where they lie.

`shards` finds the files, `tar_index` what they hold, `sharded` orders it as a folder's.
"""

from __future__ import annotations

import os
import threading

from jaxcon.data.readers.examples import Examples
from jaxcon.data.readers.index import indexed
from jaxcon.data.readers.sharded import examples_of
from jaxcon.data.readers.shards import find_shards
from jaxcon.data.readers.tar_index import index_tar
from jaxcon.data.splits import Unreadable
from jaxcon.data.stored import StoredInShards

_ENDINGS = (".tar",)
_OPEN = 256  # files that are kept open; a process may often have 1,024


def find_in_tars(pattern: str, *, captions: bool) -> Examples:
    """Finds the pictures in tar files; see `own.find`.

    Args:
      pattern: what follows `tar:`; see `shards`.
      captions: whether captions are wanted; else classes.
    """
    paths = find_shards(pattern, "tar", _ENDINGS)
    indexes, notes = indexed(paths, "tar", index_tar)
    return examples_of(f"tar:{pattern}", paths, indexes, TarImages, captions=captions, notes=notes)


class TarImages(StoredInShards):
    """Pictures in tar files, as `StoredImages`."""

    _own = ("_open", "_lock")

    def _forget(self) -> None:
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()

    def __getitem__(self, index: int, /) -> bytes:
        size, start = int(self.lengths[index]), int(self.starts[index])
        try:
            content = self._read(int(self.file[index]), size, start)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unreadable(reason, "make the file readable", self.place(index)) from error
        if len(content) != size:
            raise Unreadable(
                "the tar file has become shorter",
                "bring it back, or start again",
                self.place(index),
            )
        return content

    def _read(self, file: int, size: int, start: int) -> bytes:
        """Reads from an open file, without a position that threads or forked processes would share."""
        if (opened := self._open.get(file)) is not None:
            return os.pread(opened, size, start)
        opened = os.open(self.paths[file], os.O_RDONLY)
        try:
            return os.pread(opened, size, start)
        finally:
            with self._lock:
                keep = len(self._open) < _OPEN and file not in self._open
                if keep:
                    self._open[file] = opened
            if not keep:
                os.close(opened)

    def __del__(self) -> None:
        for opened in self.__dict__.get("_open", {}).values():
            os.close(opened)
