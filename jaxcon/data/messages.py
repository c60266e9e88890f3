"""A user's values in messages: printable, on one line, and no longer than a reader wants.

>>> cut({"bytes": b"x" * 1000})
"{'bytes': b'xxxxxxxxxxx...xxxxxxxxxxxxx'}"
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable

VALUE = 80  # characters of a value
_PATH = 160  # of a path, which names something that has to be found again


def cut(value: object, limit: int = VALUE) -> str:
    r"""Shows a value as text: escapes what cannot be printed, and ends what is too long in dots.

    Example:
      >>> cut("two\nlines"), cut("abcdefgh", 6)
      ('two\\nlines', 'abc...')

    Args:
      value: a text, shown as it is; anything else is shown by its `repr`, shortened.
      limit: number of characters, at least 4.
    """
    text = value[: limit + 1] if isinstance(value, str) else reprlib.repr(value)
    text = printable(text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def shown(path: str | os.PathLike[str]) -> str:
    r"""Shows a path as text; of a very long one the end, where the name is.

    Example:
      >>> shown(os.fsdecode(b"caf\xe9.jpg"))  # a name that is not UTF-8
      'caf\\xe9.jpg'
    """
    text = printable(os.fspath(path))
    return text if len(text) <= _PATH else "..." + text[3 - _PATH :]


def listed(values: Iterable[str], most: int = 3) -> str:
    """Lists the first few of many values.

    Example:
      >>> listed(["a", "b", "c", "d", "e"]), listed(["a", "b"])
      ('a, b, c and 2 more', 'a, b')
    """
    values = list(values)
    more = f" and {len(values) - most:,} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more


def counted(count: int, noun: str, rest: str = "") -> str:
    """Returns a number with its noun and what follows it.

    Example:
      >>> counted(1, "broken link"), counted(1200, "folder", " of runs")
      ('1 broken link', '1,200 folders of runs')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}{rest}"


def is_utf_8(text: str) -> bool:
    r"""Returns False for halves of surrogate pairs, which JSON can spell but no tokenizer takes.

    Example:
      >>> is_utf_8("gr\u00fcn"), is_utf_8("\ud83d")
      (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    r"""Escapes what a line, a figure or a UTF-8 file cannot show.

    Example:
      >>> printable(os.fsdecode(b"caf\xe9")), printable("a\nb")
      ('caf\\xe9', 'a\\nb')
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte of a name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:x}"
    return character.encode("unicode_escape").decode()
