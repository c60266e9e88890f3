"""Files of a run: written whole or not at all, read with one-line errors, and locked."""

import contextlib
import errno
import json
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from jaxcon.stores import address

PARTIAL = ".partial"
_NOT_WRITTEN = "[*?\\"
_SHOWN = 80  # characters of a value in a message


def write_text(path: Path, text: str) -> None:
    """Writes a file as UTF-8 so that a kill leaves the old one or the new one, never half of one.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_text(Path(folder) / "results.json", "{}")
      ...     print(os.listdir(folder))
      ['results.json']

    Args:
      path: a path in an existing folder.
      text: the whole content.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file like `write_text`.

    Args:
      path: a path in an existing folder.
      content: the whole content.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    partial.write_bytes(content)
    partial.replace(path)


def write_once(path: Path, text: str) -> None:
    """Writes a file like `write_text`, unless another process was faster: then theirs stays.

    Args:
      path: a path in an existing folder.
      text: the whole content.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    partial.write_bytes(text.encode("utf-8"))
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        partial.replace(path)
    partial.unlink(missing_ok=True)


def absolute(path: str | Path) -> Path:
    """Returns the absolute path, with `~` expanded.

    Raises:
      ValueError: if there is no home folder for `~`, or the path leads to an object store.
    """
    if (url := address(path)) is not None:
        raise ValueError(f"{url}: expected a path of this machine; object stores are not read here")
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise ValueError(f"{path}: there is no home folder for ~; write the path in full") from None


def check_plain(path: Path, *, written: bool = True) -> None:
    """Raises a ValueError if checkpoints at this path could not be read, or not be found.

    Orbax looks for their parts by `glob`, to which `[`, `*` and `?` in the path mean other folders;
    tensorstore takes a backslash for a slash, and only takes paths in UTF-8.

    Example:
      >>> check_plain(Path("/data/run [1]"), written=False)
      >>> check_plain(Path("/data/run [1]"))
      Traceback (most recent call last):
      ValueError: /data/run [1]: checkpoints cannot be kept where a path has '['; ...

    Args:
      path: absolute path of a folder.
      written: whether checkpoints are to be written there, not only read.
    """
    text = str(path)
    odd = [f"'{c}'" for c in text if c in (_NOT_WRITTEN if written else "\\")]
    odd += ["a byte that is not UTF-8" for c in text if "\udc80" <= c <= "\udcff"]
    if odd:
        raise ValueError(
            f"{_cut(text)}: checkpoints cannot be kept where a path has {odd[0]}; rename the folder, "
            "or choose another --workdir"
        )


def short(value: Any) -> str:
    """Returns a value as shown in a message: at most 80 characters of it.

    Example:
      >>> short("a" * 100)[-12:]
      'aaaaaaaaaaa…'
    """
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


@contextlib.contextmanager
def told(path: Path, *, done: str = "written to", option: str = "--workdir") -> Iterator[None]:
    """Turns errors of the operating system into a ValueError that names the option."""
    try:
        yield
    except NotADirectoryError:
        raise ValueError(
            f"{option}={path}: expected a folder, found a file; choose another"
        ) from None
    except OSError as error:
        raise ValueError(
            f"{option}={_cut(str(path))}: cannot be {done} ({error.strerror}); choose another"
        ) from None


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Returns a JSON object; anything wrong with the file raises a ValueError with the remedy."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # also: not UTF-8
        raise ValueError(f"{path}: not readable as JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {short(value)}; {remedy}")
    return value


class Lock:
    """The kernel's lock on a file, which ends with its process, however that ends."""

    def __init__(self, file: IO[bytes]):
        self._file = file


_held: "weakref.WeakValueDictionary[Path, Lock]" = weakref.WeakValueDictionary()


def lock_file(path: Path) -> Lock | None:
    """Locks a file until the lock is dropped; returns None on a file system without locks.

    Example:
      >>> import tempfile
      >>> with tempfile.NamedTemporaryFile() as file:
      ...     lock = lock_file(Path(file.name))
      ...     lock is lock_file(Path(file.name))  # this process has it already
      True

    Args:
      path: path of an existing file that is never replaced.

    Raises:
      ValueError: if another process holds the lock.
    """
    import fcntl

    real = path.resolve()
    if (held := _held.get(real)) is not None:
        return held
    file = path.open("rb+")  # opened for writing: network file systems want that
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            return None
        raise ValueError(
            f"{path.parent}: another process is training in this folder; wait for it to end, or "
            "choose another --workdir"
        ) from None
    _held[real] = lock = Lock(file)
    return lock
