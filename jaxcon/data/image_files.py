"""Image files: what is wrong with one, and reading them now or later.

>>> import tempfile
>>> from PIL import Image
>>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
...     Image.new("L", (6, 4), 7).save(file.name)
...     check_images([file.name]).tolist(), read_image(file.name, 2).shape
([[4, 6]], (2, 2, 3))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from jaxcon.data.encoded import ENDS, explained, opened, upright
from jaxcon.data.headers import HEAD, TAIL, quick_size
from jaxcon.data.messages import listed, shown
from jaxcon.data.pixels import fit
from jaxcon.data.splits import DataError, Unreadable

Value = TypeVar("Value")
_AT_A_TIME = 2**14  # as each item that waits for a thread takes a thousand bytes


def read_image(path: str | os.PathLike[str], side: int | None) -> np.ndarray:
    """Reads an image as uint8 `[height, width, 3]`, upright; fits it to a square if `side` is given.

    Raises:
      DataError: if the file cannot be decoded; names it, with the reason and how to fix it.
    """
    try:
        with open(path, "rb") as file:
            image = upright(file)
    except Exception as error:  # pillow's decoders raise anything on damaged files
        raise _explained(path, error) from error
    return np.asarray(image if side is None else fit(image, side))


def check_images(paths: Sequence[str | os.PathLike[str]]) -> np.ndarray:
    """Returns the sizes of image files, reading only their headers: seconds for 10,000 files.

    A JPEG, PNG or GIF without its end, the sign of an interrupted copy, is decoded.

    Args:
      paths: at least one path.

    Returns:
      (height, width) of each, as stored: int `[n, 2]`.

    Raises:
      DataError: if files cannot be read; names the first few, with their reasons.
    """
    return np.array(read_each(_read_size, paths))


def look_at_images(
    paths: Sequence[str | os.PathLike[str]],
) -> tuple[np.ndarray, dict[int, Unreadable]]:
    """Returns the sizes of image files like `check_images`, and what is wrong with some.

    Args:
      paths: at least one path.

    Returns:
      (height, width) of each, int32 `[n, 2]`, (0, 0) if it cannot be read; and the errors of those by
      their numbers.
    """
    found = try_each(_read_size, paths)
    bad = {i: error for i, error in enumerate(found) if isinstance(error, Unreadable)}
    sizes = [(0, 0) if isinstance(size, Unreadable) else size for size in found]
    return np.array(sizes, np.int32), bad


def size_note(sizes: np.ndarray) -> str:
    """Describes the sizes of files in the order that cameras use: width x height.

    Example:
      >>> size_note(np.array([[30, 20], [768, 1024], [64, 64]]))
      'files from 20 x 30 to 1024 x 768'
    """
    order = np.argsort(sizes.prod(axis=1), kind="stable")
    (low, small), (high, large) = sizes[order[0]].tolist(), sizes[order[-1]].tolist()
    if (sizes == sizes[0]).all():
        return f"files of {small} x {low}"
    return f"files from {small} x {low} to {large} x {high}"


def read_each(read: Callable[[Any], Value], items: Sequence[Any]) -> list[Value]:
    """Reads all items in threads, as decoding releases the GIL; raises once for all that fail.

    Example:
      >>> read_each(len, ["a", "bc"])
      [1, 2]

    Args:
      read: called with each item; raises `Unreadable` for one that cannot be read.
      items: for instance paths, or numbers of images.

    Raises:
      DataError: if items cannot be read; names the first few, with their reasons.
    """
    results = try_each(read, items)
    failed = [result for result in results if isinstance(result, Unreadable)]
    if failed:
        raise unreadable(failed, len(items)) from failed[0]
    return [result for result in results if not isinstance(result, Unreadable)]


def try_each(read: Callable[[Any], Value], items: Sequence[Any]) -> list[Value | Unreadable]:
    """Reads all items in threads, and returns the errors of those that fail in their place.

    Example:
      >>> try_each(len, ["a", "bc"])
      [1, 2]
    """

    def attempt(item: Any) -> Value | Unreadable:
        try:
            return read(item)
        except Unreadable as error:
            return error

    results: list[Value | Unreadable] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(items), _AT_A_TIME):
            results += pool.map(attempt, items[start : start + _AT_A_TIME])
    return results


def unreadable(errors: Sequence[Unreadable], total: int) -> DataError:
    """Returns one error for all that cannot be read; names the first few, with their reasons.

    Example:
      >>> errors = [Unreadable("the file is empty", "remove it", f"{i}.png") for i in (1, 2)]
      >>> print(unreadable(errors, 40))
      cannot read 2 of 40 images: 1.png (the file is empty), 2.png (the file is empty); remove it
    """
    if len(errors) == 1:
        return errors[0]
    named = listed(f"{shown(error.path or '')} ({error.reason})" for error in errors)
    mends = {error.mend: None for error in errors}
    return DataError(
        f"cannot read {len(errors):,} of {total:,} images: {named}; {listed(mends, 2)}"
    )


def _read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
            file.seek(-min(TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
            if (size := quick_size(head, file.read(TAIL))) is not None:
                return size
        with open(path, "rb") as file, opened(file) as image:
            width, height = image.size
            end = ENDS.get(image.format or "", b"")
    except Exception as error:
        raise _explained(path, error) from error
    with open(path, "rb") as file:
        file.seek(-len(end), os.SEEK_END)
        ended = file.read() == end
    if not ended:
        read_image(path, None)
    return height, width


def _explained(path: str | os.PathLike[str], error: Exception) -> Unreadable:
    """Returns the error of one file: the reason in words, and how to fix it."""
    if isinstance(error, Unreadable):
        return Unreadable(error.reason, error.mend, path)
    if isinstance(error, FileNotFoundError):
        return Unreadable(
            error.strerror or "no such file", "bring the file back, or name one that exists", path
        )
    if "\0" in os.fspath(path):
        return Unreadable("no file has a name with a NUL in it", "fix the name", path)
    if isinstance(error, OSError) and error.strerror:  # of the system, not of a decoder
        return Unreadable(error.strerror, "make the file readable, or remove it", path)
    with open(path, "rb") as file:
        return explained(error, file.read(64), path)
