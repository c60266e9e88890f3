"""Where data are prepared, copied and indexed, unless told otherwise."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxcon.data.messages import shown
from jaxcon.data.splits import DataError
from jaxcon.stores import Store


def default_data_dir() -> Path:
    """Returns `$XDG_CACHE_HOME/jaxcon`, or `~/.cache/jaxcon`.

    Raises:
      DataError: if the account has no home folder, as in many containers.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxcon"
    except RuntimeError:
        raise DataError(
            "there is no home folder to prepare datasets in; set HOME or XDG_CACHE_HOME, or name a "
            "folder (--data-dir)"
        ) from None


def copied_folder(url: str) -> Path:
    """Returns the path of a copy of an object store's folder, or of a file in it, brought up to date.

    What has another size is copied again; what is no longer there is removed.

    Args:
      url: its address, such as `gs://bucket/pets`.

    Raises:
      DataError: if there is nothing at that address.
      StoreError: if it cannot be read.
    """
    store, name = Store(url), ""
    if (
        not (sizes := store.sizes())
        and "/" in (above := url.rpartition("/")[0]).partition("://")[2]
    ):
        store, name = Store(above), url.rpartition("/")[2]
        sizes = store.sizes()
        sizes = sizes if name in sizes else {}
    if not sizes:
        raise DataError(f"there is nothing in {url}; name a folder with images in an object store")
    root = default_data_dir() / "folders" / store.url.replace("://", "/")
    with one_process_at_a_time(root.parent, root.name):
        copy_missing(store, root, sizes)
        for file in root.rglob("*"):
            if file.is_file() and file.relative_to(root).as_posix() not in sizes:
                file.unlink()
    return root / name


def copy_missing(store: Store, root: Path, sizes: Mapping[str, int]) -> None:
    """Copies the files that are missing or, as after a kill, of another size."""
    there = {file: (root / file).stat().st_size for file in sizes if (root / file).exists()}
    store.download(root, [file for file, size in sizes.items() if there.get(file) != size])


@contextlib.contextmanager
def one_process_at_a_time(root: Path, name: str) -> Iterator[None]:
    """Makes other processes of this host wait until this one is done with a folder.

    TFDS fails if two publish the same one at once, and a file that one copies is no file yet for
    another. The lock is the kernel's, so it ends with its process, however that ends. On a file
    system without locks, two processes are not kept apart.
    """
    import fcntl

    lock = root / f".{name.replace('/', '-')}.lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise DataError(
            f"cannot write to the data folder {shown(root)} ({error.strerror}); name another as "
            "data_dir"
        ) from error
    with lock.open("w", encoding="utf-8") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
