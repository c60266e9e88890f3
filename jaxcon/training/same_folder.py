"""Several processes in one run: do they all see the folder that the first of them writes to?"""

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from jaxcon.stores import mirror_of
from jaxcon.training._coordinator import all_say
from jaxcon.training.files import PARTIAL, absolute
from jaxcon.training.workdir import Workdir

_PATIENCE = 5.0  # seconds in which a shared disk shows a new file to all hosts


def check_same_folder(path: Path, *, say: Callable[[str], None]) -> None:
    """Raises a ValueError in every process unless all of them see the same folder.

    Each has to restore what the first one saves. A folder in an object store is the same for all; on
    several hosts a line says what is expected of any other. Nothing stays behind.

    Args:
      path: the folder of the run, which may be new.
      say: told the line.

    Raises:
      ValueError: that names the first process that does not see it.
    """
    path = absolute(path)
    if jax.process_count() == 1 or mirror_of(path) is not None:
        return
    hosts = all_say(socket.gethostname())
    if len(set(hosts)) > 1:
        say(
            f"{len(hosts)} processes on {len(set(hosts))} hosts: each needs {path}, on a disk that "
            "they share; without one, choose --workdir=gs://BUCKET/FOLDER or s3://BUCKET/FOLDER"
        )
    with _probe(path) as (depth, name):
        depth, _, name = all_say(f"{depth} {name}")[0].partition(" ")
        folder = [path, *path.parents][int(depth)]
        finished = str(Workdir(path, resumed=True).finished)
        seen = all_say(f"{finished} {not name or _appears(folder / name)}")
    for process, said in enumerate(seen):
        if said != f"{seen[0].split()[0]} True":
            raise ValueError(
                f"--workdir={path}: process {process} on {hosts[process]} does not see the folder that "
                f"process 0 on {hosts[0]} writes to; choose one on a disk that all hosts share, or "
                "gs://BUCKET/FOLDER or s3://BUCKET/FOLDER"
            )


@contextlib.contextmanager
def _probe(path: Path) -> Iterator[tuple[int, str]]:
    """Makes a file, in process 0, in the folder or the nearest that exists; yields where it is.

    Yields how far above the folder it is, and its name; that is empty if nothing can be written there,
    as to a finished run that is kept safe.
    """
    if jax.process_index() != 0:
        yield 0, ""
        return
    folders = [path, *path.parents]
    depth = next(i for i, folder in enumerate(folders) if folder.is_dir())
    try:
        handle, file = tempfile.mkstemp(PARTIAL, ".jaxcon-", folders[depth])
    except OSError:
        yield 0, ""
        return
    os.close(handle)
    try:
        yield depth, Path(file).name
    finally:
        os.unlink(file)


def _appears(file: Path) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
