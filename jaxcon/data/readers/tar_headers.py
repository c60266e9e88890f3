"""The members of a tar file: their names, and where their bytes lie, by reading headers only.

The formats are those that tar programs write: ustar, GNU's long names, and pax. Python's `tarfile`
reads the same, in three times the time: it makes an object of each member.

>>> import tarfile, tempfile
>>> with tempfile.NamedTemporaryFile(suffix=".tar") as file:
...     with tarfile.open(fileobj=file, mode="w") as tar:
...         tar.add(tarfile.__file__, "a.py")
...     _ = file.flush()
...     [member.name for member in read_headers(file.name).members]
['a.py']
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from jaxcon.data.messages import cut, shown
from jaxcon.data.splits import DataError

_BLOCK = 512
_WINDOW = 2**12  # bytes that are read at once: the header of a picture, and small members after it
_FILES = b"0\0007"  # types of a plain file; the last asks for contiguous blocks
_EMPTY = b"123456"  # links, devices, folders and pipes, which nothing follows, whatever their size
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"\x04\x22\x4d\x18": "unlz4",
}


class Member(NamedTuple):
    """A plain file in a tar file.

    Attributes:
      name: its path there, as it is written.
      start: where its bytes begin.
      size: how many they are.
    """

    name: str
    start: int
    size: int


class Headers(NamedTuple):
    """What a tar file holds.

    Attributes:
      members: its plain files, in order.
      links: number of links to other members, which have no bytes of their own.
      ended: whether it has the zeros that a complete file ends with.
    """

    members: list[Member]
    links: int
    ended: bool


class Window:
    """Reads pieces of a file, a little more than is asked for, as the next may be in it.

    Args:
      file: descriptor of the open file.
    """

    def __init__(self, file: int) -> None:
        self._file, self._start, self._bytes = file, 0, b""

    def read(self, start: int, size: int) -> bytes:
        """Returns up to `size` bytes from `start` on; fewer at the end of the file."""
        low = start - self._start
        if low < 0 or low + size > len(self._bytes):
            self._bytes = os.pread(self._file, max(size, _WINDOW), start)
            self._start, low = start, 0
        return self._bytes[low : low + size]


def read_headers(path: str) -> Headers:
    """Reads the headers of a tar file.

    Raises:
      DataError: if it is compressed, damaged or cut off; names the file and what is before that.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"cannot read the tar file {shown(path)}: {error.strerror}") from error
    try:
        walk = _Walk(path, file)
        members = list(walk.members())
    except OSError as error:
        raise DataError(f"cannot read the tar file {shown(path)}: {error.strerror}") from error
    finally:
        os.close(file)
    return Headers(members, walk.links, walk.ended)


class _Walk:
    """Goes from header to header."""

    def __init__(self, path: str, file: int) -> None:
        self.path, self.size = path, os.fstat(file).st_size
        self.links, self.ended = 0, False
        self._window = Window(file)
        self._last = ""

    def members(self) -> Iterator[Member]:
        """Yields the plain files."""
        place, said = 0, {}  # what headers say of the member after them
        while place < self.size:
            header = self._window.read(place, _BLOCK)
            if not any(header):
                self.ended = len(header) == _BLOCK
                return
            size, kind = self._checked(place, header), header[156:157]
            start = place + _BLOCK
            if kind in b"Lx":
                said |= self._said(kind, start, size)
            elif kind in _FILES:
                name = said.get("path") or _name(header)
                size = int(said.get("size", size))
                self._require(name, start, size)
                if not name.endswith("/"):  # how the oldest programs write a folder
                    yield Member(name, start, size)
                self._last, said = name, {}
            elif kind not in b"gK":
                self._refuse_sparse(kind, header)
                self.links += kind in b"12"
                size = 0 if kind in _EMPTY else size
                said = {}
            place = start + -(-size // _BLOCK) * _BLOCK

    def _checked(self, place: int, header: bytes) -> int:
        """Returns the size of a member after checking the sum of its header."""
        if place == 0 and header.startswith(tuple(_COMPRESSED)):
            raise self._damaged(place, header)
        if len(header) < _BLOCK:
            raise self._cut_off(place)
        try:
            told = int(header[148:156].strip(b"\0 ") or b"0", 8)
            size = _number(header[124:136])
        except ValueError:
            raise self._damaged(place, header) from None
        # The eight bytes of the sum itself count as blanks.
        if told != sum(header) - sum(header[148:156]) + 8 * 32:
            raise self._damaged(place, header)
        return size

    def _said(self, kind: bytes, start: int, size: int) -> dict[str, str]:
        """Returns what a header of GNU (a long name) or of pax (also a size) says."""
        self._require("a header", start, size)
        content = self._window.read(start, size)
        if kind == b"L":
            return {"path": _text(content.rstrip(b"\0"))}
        said, rest = {}, content
        while rest:
            length, blank, record = rest.partition(b" ")
            if not blank or not length.isdigit() or not 0 < int(length) <= len(rest):
                raise self._damaged(start, content)
            record, rest = rest[len(length) + 1 : int(length) - 1], rest[int(length) :]
            key, _, value = record.partition(b"=")
            said[key] = _text(value)
        if not said.get(b"size", "0").isdigit():
            raise self._damaged(start, content)
        return {key.decode(): said[key] for key in (b"path", b"size") if key in said}

    def _require(self, name: str, start: int, size: int) -> None:
        if start + size > self.size:
            raise self._cut_off(start, f" within {shown(name)}")

    def _refuse_sparse(self, kind: bytes, header: bytes) -> None:
        if kind == b"S":
            raise DataError(
                f"{shown(self.path)}: {shown(_name(header))} is a sparse file, which has no bytes in "
                "a row; pack it again without --sparse"
            )

    def _cut_off(self, place: int, where: str = "") -> DataError:
        after = f", after {shown(self._last)}" if self._last and not where else ""
        return DataError(
            f"cannot read the tar file {shown(self.path)}: it ends{where or ' within a header'} at "
            f"byte {self.size:,}{after}, as if its copy was interrupted; copy it again"
        )

    def _damaged(self, place: int, header: bytes) -> DataError:
        for start, program in _COMPRESSED.items():
            if place == 0 and header.startswith(start):
                return DataError(
                    f"the tar file {shown(self.path)} is compressed, so that no member can be read "
                    f"alone; run {program} on it (pictures are compressed anyway)"
                )
        after = f" after {shown(self._last)}" if self._last else ""
        found = "" if place else f" (it begins with {cut(header[:16])})"
        return DataError(
            f"cannot read the tar file {shown(self.path)}: byte {place:,}{after} begins no "
            f"member{found}; copy it or pack it again"
        )


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return _text(name)


def _number(field: bytes) -> int:
    """Returns a size: octal digits, or of a large one GNU's bits after a mark."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b"\0 ") or b"0", 8)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
