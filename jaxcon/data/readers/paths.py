"""The path of `folder:PATH`, and what was meant by one that leads nowhere."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from jaxcon.data.messages import cut, shown
from jaxcon.data.splits import DataError

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_MANY = 10_000  # names among which no similar one is looked for


def user_path(path: str, wanted: str) -> Path:
    """A path that exists, of a file or a folder.

    Args:
      path: what follows `folder:`.
      wanted: what is expected there, for messages.

    Raises:
      DataError: if it is empty, leads nowhere or to an archive.
    """
    if not path.strip():
        raise DataError(
            f"folder: names no folder (a variable of the shell that is empty?); expected {wanted}; "
            "the folder you are in is folder:."
        )
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
        raise DataError(f"{shown(found)} is an archive; unpack it, and name the folder")
    return found


def _as_meant(typed: str) -> str:
    """What there is without the blanks, quotes, `file://` or variables of the shell that were typed."""
    meant = os.path.expandvars(typed.strip(" \t\r\n'\"")).removeprefix("file://")
    there = meant != typed and Path(meant).expanduser().exists()
    return f"; did you mean {shown(meant)}?" if there else ""


def near(path: Path) -> str:
    """`; did you mean NAME?` of what lies beside a path that leads nowhere, or nothing.

    The same name in another case comes first, then the same without its ending, then one of few
    other letters. Where already the folder is not there, that is what is looked for.
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
