"""The path of `folder:PATH`, and what may be meant by one that leads nowhere."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from jaxcon.data.messages import cut, shown
from jaxcon.data.readers.cache import copied_folder
from jaxcon.data.splits import DataError
from jaxcon.stores import address

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_MANY = 10_000  # too many names to look for a similar one


def user_path(path: str, wanted: str) -> Path:
    """Returns a path that exists, of a file or a folder; of one in an object store, that of a copy.

    Args:
      path: what follows `folder:`.
      wanted: what is expected there, for messages.

    Raises:
      DataError: if the path is empty, or leads nowhere or to an archive.
      StoreError: if a store cannot be read.
    """
    if not path.strip():
        raise DataError(
            f"folder: names no folder (a shell variable that is empty?); expected {wanted}; "
            "the folder you are in is folder:."
        )
    if (url := _in_a_store(path)) is not None:
        return copied_folder(url)
    try:
        found = Path(path).expanduser()
        there = found.exists()
    except (OSError, RuntimeError) as error:  # a name too long; ~ of somebody unknown
        raise DataError(
            f"folder:{cut(path)} cannot be opened ({cut(str(error))}); expected {wanted}"
        ) from error
    if not there:
        hint = _as_meant(path) or near(found)
        raise DataError(f"there is no folder {shown(found)}{hint}; expected {wanted}")
    if found.is_file() and found.suffix.lower() in _ARCHIVES:
        tar = f", or name it as tar:{cut(path)}" if found.suffix.lower() == ".tar" else ""
        raise DataError(f"{shown(found)} is an archive; unpack it, and name the folder{tar}")
    return found


def _in_a_store(path: str) -> str | None:
    try:
        return address(path)
    except ValueError:  # an address of another kind, or what `_as_meant` may know
        return None


def _as_meant(typed: str) -> str:
    """Proposes the path without blanks, quotes, `file://` or shell variables, if that exists."""
    meant = os.path.expandvars(typed.strip(" \t\r\n'\"")).removeprefix("file://")
    there = meant != typed and Path(meant).expanduser().exists()
    return f"; did you mean {shown(meant)}?" if there else ""


def near(path: Path) -> str:
    """Returns `; did you mean NAME?` for a path that leads nowhere, or nothing.

    Looks first for the same name in another case, then for one that only adds an ending, then for one
    with a few different letters. If the parent folder does not exist either, looks for that instead.
    """
    if path.parent != path and not os.path.exists(path.parent):
        return near(path.parent)
    try:
        names = os.listdir(path.parent)
    except (OSError, ValueError):
        return ""
    if len(names) > _MANY:
        return ""
    alike = [name for name in names if name.casefold() == path.name.casefold()]
    alike += [name for name in names if os.path.splitext(name)[0] == path.name]
    alike += difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f"; did you mean {shown(path.parent / alike[0])}?" if alike else ""
