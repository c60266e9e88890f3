"""How an experiment ends: with one line if the user can fix it, with a traceback if we must."""

import contextlib
import errno
import json
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import jax

from experiments.running.console import leave
from jaxcon.data.captions import PairDataset
from jaxcon.data.fingerprint import name_of
from jaxcon.data.splits import DataError, Dataset
from jaxcon.stores import StoreError, mirror_of, named
from jaxcon.training import ranks
from jaxcon.training.checkpoint import CorruptCheckpointError
from jaxcon.training.files import write_text
from jaxcon.training.workdir import Workdir, saved_steps

_UNREADABLE = "unreadable.json"
# Errors of the disk and the account, not of the program.
_OF_THE_MACHINE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EPIPE),
)


def fail(text: str, *, at_once: bool = False) -> NoReturn:
    """Prints one line on stderr and ends with exit code 2, as do the run's other processes.

    Args:
      text: what came, what was expected, how to fix it.
      at_once: whether to skip the cleanup of libraries, which would add more about a full disk.
    """
    line = named(" ".join(text.split()))
    print(f"error: {line}", file=sys.stderr)
    ranks.end_with_others(line, 2)
    if at_once:
        leave(2)
    raise SystemExit(2)


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Turns a ValueError into one line on stderr and exit code 2: the user can fix it."""
    try:
        yield
        return
    except ValueError as error:
        said = str(error)
    except (RuntimeError, MemoryError) as error:
        said = _out_of_memory(error)
        if said is None and "home directory" in str(error):  # from pathlib, about ~
            said = "there is no home folder for ~; write the path in full, or set HOME"
        if said is None:
            raise
    fail(said)


@contextlib.contextmanager
def run_errors(workdir: Workdir, dataset: Dataset | PairDataset) -> Iterator[None]:
    """Does the same for what a run may meet once it trains or evaluates; bugs keep their traceback.

    An image that cannot be read is recorded in the folder, because it will change when it is repaired.
    """
    try:
        yield
        return
    except Exception as error:
        said = _mendable(error, workdir, dataset)
        if said is None:
            ranks.end_if_another_is_gone()
            raise
        at_once = isinstance(error, OSError)
    fail(said, at_once=at_once)


def _mendable(error: Exception, workdir: Workdir, dataset: Dataset | PairDataset) -> str | None:
    """Returns the line for what the user can fix; None for a bug."""
    if not workdir.path.exists():
        return f"{workdir.path}: the folder was removed while the run was running"
    if isinstance(error, DataError):
        if (name := name_of(dataset, error)) is not None:
            _note(workdir, name)
        return f"{error}; {_kept(workdir)} with a readable image there, or with --bad-images=skip"
    if isinstance(error, CorruptCheckpointError | FloatingPointError):
        return str(error)
    if isinstance(error, StoreError):
        return f"{error}; {_kept(workdir)} once that is fixed"
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        place = error.filename or workdir.path
        return f"{place}: {error.strerror}; {_kept(workdir)} once that is fixed"
    return _out_of_memory(error)


def _out_of_memory(error: Exception) -> str | None:
    exhausted = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    if not exhausted and not isinstance(error, MemoryError):
        return None
    return (
        f"{'the device' if exhausted else 'the machine'} is out of memory; choose a smaller "
        "--batch-size, --image-size or --encoder, and another --workdir "
        f"({' '.join(str(error).split())[:160]})"
    )


def unreadable(workdir: Any) -> list[str]:
    """Returns the run's images that could not be read: they may have changed since."""
    with contextlib.suppress(OSError, ValueError):
        names = json.loads((workdir / _UNREADABLE).read_bytes())
        return [name for name in names if isinstance(name, str)]
    return []


def _note(workdir: Workdir, name: str) -> None:
    names = sorted({*unreadable(workdir.path), name})
    with contextlib.suppress(OSError, StoreError):
        write_text(workdir.path / _UNREADABLE, json.dumps(names) + "\n")
        workdir.send()


def _kept(workdir: Workdir) -> str:
    mirror = mirror_of(workdir.path)
    steps = saved_steps(workdir.checkpoints) if mirror is None else sorted(mirror.steps)
    saved = f"the state after step {steps[-1]} is saved, and " if steps else ""
    return f"{saved}the same command resumes"
