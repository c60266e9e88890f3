"""The folder of a run on this host, and the same in an object store.

What a store holds of a run is what a resumed run needs, and what one wants to look at:

    gs://bucket/run/
      config.json, metrics.jsonl, results.json, report.html, events/, figures/, ...
      checkpoints/STEP/...              the files of a checkpoint
      checkpoints/STEP/complete.json    their names and sizes, written last: without it there is none
      .lease.json                       who is training there

Files are sent before the checkpoint that they belong to, so that a resumed run finds its metrics. A
checkpoint of the store is an empty folder here until it is needed.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from jaxcon.stores.address import address
from jaxcon.stores.lease import Lease
from jaxcon.stores.store import Store

CHECKPOINTS = "checkpoints"
COMPLETE = "complete.json"
_DAMAGED = "damaged.json"
_A_RUN = "config.json"
_SPOOL = "jaxcon-store-"
_OLD = 60.0  # seconds after which a spool without an owner is removed

_mirrors: "list[Mirror]" = []


class Mirror:
    """A folder of this host with what a folder of a store holds, and what is to be sent there.

    Attributes:
      url: address of the folder in the store.
      folder: the folder here, in the temporary folder (`TMPDIR`) until this process ends.
      steps: the checkpoints that are complete in the store.
    """

    def __init__(self, url: str):
        """Makes the folder and fills it.

        Raises:
          StoreError: if the store cannot be read.
        """
        self.url, self.steps = url, set[int]()
        self._store = Store(url)
        self._lease: Lease | None = None
        self._sent: dict[str, tuple[int, int]] = {}
        self._sending = threading.Lock()
        self._spool, self._alive = _new_spool()
        self.folder = Path(self._spool.name, url.rpartition("/")[2])
        self.folder.mkdir()
        self.pull()
        _mirrors.append(self)

    @property
    def disk(self) -> Path:
        """The temporary folder, which can be full."""
        return Path(self._spool.name).parent

    def pull(self) -> None:
        """Fills the folder anew: the files of a run, and an empty folder for each checkpoint.

        Of a folder that is not a run's it only takes the names. Once this process writes there, what is
        here is newer, and nothing happens.
        """
        if self._lease is not None:
            return
        names = {n: size for n, size in self._store.names().items() if not n.startswith(".")}
        if _A_RUN not in names:
            for name, size in names.items():
                place = self.folder / name
                place.mkdir(exist_ok=True) if size is None else place.touch()
            return
        files = [name for name, size in names.items() if size is not None]
        self._store.download(self.folder, files)
        self._sent = {name: _stamp(self.folder / name) for name in files}
        found = self._store.sizes(CHECKPOINTS)
        self.steps = {step for step, name in _by_step(found) if name == COMPLETE}
        here = self.folder / CHECKPOINTS
        for step in self.steps:
            (here / str(step)).mkdir(parents=True, exist_ok=True)
        for step in _steps(here) - self.steps:
            with contextlib.suppress(OSError):  # not empty: made here, and not sent yet
                (here / str(step)).rmdir()

    def fetch(self, step: int) -> None:
        """Copies a checkpoint from the store, unless it is here.

        Raises:
          ValueError: if it is not as it was sent.
        """
        here = self.folder / CHECKPOINTS / str(step)
        if step not in self.steps or any(here.iterdir()):
            return
        prefix = f"{CHECKPOINTS}/{step}"
        try:
            files = json.loads(self._store.read(f"{prefix}/{COMPLETE}") or b"")
            self._store.download(self.folder, [f"{prefix}/{name}" for name in files])
            if odd := [n for n, size in files.items() if (here / n).stat().st_size != size]:
                raise ValueError(f"{odd[0]} has another size than when it was sent")
        except BaseException as error:
            shutil.rmtree(here)
            here.mkdir()  # as before: not here yet
            if isinstance(
                error, FileNotFoundError | json.JSONDecodeError | AttributeError | TypeError
            ):
                raise ValueError("the folder is incomplete") from None
            raise

    def claim(self, *, say: Callable[[str], None] = print) -> None:
        """Takes the right to write there, and clears away what a killed process half sent.

        Raises:
          StoreError: if another process has it.
        """
        lease = Lease(self._store, say=say)
        self.pull()
        self._lease = lease
        found = self._store.sizes(CHECKPOINTS)
        whole = {step for step, name in _by_step(found) if name in (COMPLETE, _DAMAGED)}
        self._store.remove(
            f"{CHECKPOINTS}/{step}/{name}" for step, name in _by_step(found) if step not in whole
        )

    def check_writable(self, option: str) -> None:
        """Raises a StoreError that begins with the option if nothing can be written there."""
        self._store.check_writable(option)

    def push(self) -> None:
        """Sends what has changed: files, then new checkpoints; then removes those removed here.

        Nothing in the folder's checkpoints may change meanwhile. Called by several threads, it sends
        one after the other.

        Raises:
          StoreError: if something cannot be sent, or another process has taken over.
        """
        if self._lease is None:
            return
        with self._sending:
            self._lease.check()
            for name, stamp in _files(self.folder):
                if self._sent.get(name) != stamp:
                    # Read at once: a file that grows has no size to announce.
                    self._store.write(name, (self.folder / name).read_bytes())
                    self._sent[name] = stamp
            here = _steps(self.folder / CHECKPOINTS)
            for step in sorted(here - self.steps):
                self._push_step(step)
            for step in self.steps - here:
                self._lease.check()  # sending may have taken minutes
                self._remove_step(step)

    def set_aside(self, step: int) -> None:
        """Marks a checkpoint of the store as damaged: its files stay, it does not count any more."""
        if self._lease is not None and step in self.steps:
            self._store.write(f"{CHECKPOINTS}/{step}/{_DAMAGED}", b"{}\n")
            self._store.remove([f"{CHECKPOINTS}/{step}/{COMPLETE}"])
        self.steps.discard(step)

    def discard(self) -> None:
        """Removes the folder here."""
        _mirrors.remove(self)
        self._spool.cleanup()
        self._alive.close()

    def _push_step(self, step: int) -> None:
        self._remove_step(step)  # of a damaged one, or one half sent
        folder = self.folder / CHECKPOINTS / str(step)
        names = {
            str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()
        }
        sizes = {name: path.stat().st_size for name, path in names.items()}
        prefix = f"{CHECKPOINTS}/{step}"
        self._store.upload(self.folder, [f"{prefix}/{name}" for name in sizes])
        if self._lease is not None:
            self._lease.check()
        self._store.write(f"{prefix}/{COMPLETE}", json.dumps(sizes).encode())
        self.steps.add(step)

    def _remove_step(self, step: int) -> None:
        prefix = f"{CHECKPOINTS}/{step}"
        names = self._store.sizes(prefix)
        first = f"{prefix}/{COMPLETE}"  # from here on it is none
        self._store.remove([*([first] if first in names else []), *(names.keys() - {first})])
        self.steps.discard(step)


def local(path: str | os.PathLike[str]) -> Path:
    """Returns a path of this machine: for a folder of a store, a mirror that lasts to the end.

    Example:
      >>> local("runs/a")
      PosixPath('runs/a')

    Raises:
      StoreError: if the store cannot be read.
      ValueError: if it is an address of something else.
    """
    url = address(path)
    return Path(path) if url is None else Mirror(url).folder


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path like `local`, whose mirror lasts as long as the block.

    Errors that are raised there name the folder in the store.
    """
    url = address(path)
    if url is None:
        yield Path(path)
        return
    mirror = Mirror(url)
    try:
        yield mirror.folder
    except ValueError as error:
        error.args = tuple(named(a) if isinstance(a, str) else a for a in error.args)
        raise
    finally:
        mirror.discard()


def mirror_of(path: Path) -> Mirror | None:
    """Returns the mirror that a path of this machine lies in, if it does.

    Example:
      >>> mirror_of(Path("runs/a")) is None
      True
    """
    return next((m for m in _mirrors if path.is_relative_to(m.folder)), None)


def refresh(path: Path) -> None:
    """Fills the mirror that a path lies in anew, if it lies in one."""
    if (mirror := mirror_of(path)) is not None:
        mirror.pull()


def named(text: str) -> str:
    """Returns a message with the addresses of folders in stores in place of their mirrors."""
    for mirror in _mirrors:
        text = text.replace(str(mirror.folder), mirror.url)
    return text


def _new_spool() -> tuple[tempfile.TemporaryDirectory[str], IO[bytes]]:
    """Makes a folder that ends with this process, and removes those of processes that were killed.

    Returns the folder, and a file in it whose lock says that its process is alive.
    """
    for old in Path(tempfile.gettempdir()).glob(f"{_SPOOL}*"):
        with contextlib.suppress(OSError):
            if old.stat().st_uid == os.getuid() and time.time() - old.stat().st_mtime > _OLD:
                with (old / ".alive").open("rb") as alive:
                    fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(old, ignore_errors=True)
    spool = tempfile.TemporaryDirectory(prefix=_SPOOL, ignore_cleanup_errors=True)
    alive = Path(spool.name, ".alive").open("wb")  # noqa: SIM115 - open as long as the process
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(alive, fcntl.LOCK_EX)
    return spool, alive


def _files(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields the names of a run's files, but for checkpoints, each with its size and its time."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if name.parts[0] != CHECKPOINTS and not hidden and path.is_file():
            yield str(name), _stamp(path)


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


def _by_step(names: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yields the step of each file of a checkpoint, and its name in there."""
    for name in names:
        if found := re.fullmatch(rf"{CHECKPOINTS}/(\d+)/(.+)", name):
            yield int(found[1]), found[2]


def _steps(checkpoints: Path) -> set[int]:
    with contextlib.suppress(FileNotFoundError):
        return {int(entry.name) for entry in checkpoints.iterdir() if entry.name.isdigit()}
    return set()
