"""The folder of a run, which belongs to one configuration, and to one process at a time.

    workdir/
      config.json           what is trained, and on what; the same command resumes, others are refused
      checkpoints/STEP/     the state, and a SHA-256 of each of its arrays
      metrics.jsonl         one line per step, cut back to the restored step
      results.json          written when everything is evaluated
      report.html           written last: a run that has both is finished

It may mirror a folder in an object store (`jaxcon.stores`), which then holds the same.

It is new, resumable or finished; anything else is refused with an error, before anything in it
changes, because the worst that a training run can do is to silently start over, or to continue with
something else.
"""

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxcon.stores import local, mirror_of
from jaxcon.training.files import (
    PARTIAL,
    Lock,
    absolute,
    check_plain,
    lock_file,
    read_json,
    short,
    told,
    write_bytes,
    write_once,
)

_SPARE_BYTES = 64 * 2**20  # for metrics, events, figures and the page
WRITTEN_BY = "written_by"  # the version of jaxcon, for tracing causes


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A checked working directory: where things go, and whether a run is resumed in it.

    It holds the folder's lock: as long as it exists, other processes are refused.
    """

    path: Path
    resumed: bool
    lock: Lock | None = dataclasses.field(default=None, compare=False)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def page(self) -> Path:
        return self.path / "report.html"

    def send(self) -> None:
        """Sends what has changed to the object store that the folder mirrors, if it does."""
        if (mirror := mirror_of(self.path)) is not None:
            mirror.push()

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do; a missing page is drawn again."""
        return self.results.exists() and self.page.exists()

    def read_results(self) -> dict[str, Any] | None:
        """Returns what a finished run has found; None if it is not finished.

        Raises:
          ValueError: if the file cannot be read, or holds no scores.
        """
        if not self.results.exists():
            return None
        remedy = "remove it, and the same command evaluates again"
        results = read_json(self.results, remedy)
        scores = results.get("scores")
        if not isinstance(scores, dict) or not all(isinstance(v, dict) for v in scores.values()):
            raise ValueError(f"{self.results}: holds no scores; {remedy}")
        return results


def open_workdir(
    path: str | Path,
    config: Mapping[str, Any],
    *,
    files: Mapping[str, bytes] | None = None,
    needed: int = 0,
) -> Workdir:
    """Returns the directory, made if missing, with `config` written or compared.

    The folder of a finished run need not be writable. Where several processes
    share a run, the first of them writes and holds the lock.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> open_workdir(folder.name, {"seed": 0}).resumed
      False
      >>> open_workdir(folder.name, {"seed": 1})
      Traceback (most recent call last):
      ValueError: ...: made with another configuration: seed was 0, is 1; ...

    Args:
      path: a directory that may be new, or its address in an object store.
      config: what decides the result, as JSON values; not where or how fast it runs.
      files: other files that belong to the configuration, by name: they are written if they are
        missing or differ. Their digests should be part of `config`.
      needed: bytes that the coming checkpoints need.

    Returns:
      The directory.

    Raises:
      ValueError: if it is a file, not writable, full, or holds something else, another configuration,
        a run that began and has no checkpoint left, or one that another process is training.
    """
    path = absolute(local(path))
    config = json.loads(json.dumps(config))
    resumed = _check(path, config)
    if Workdir(path, resumed).finished:
        with contextlib.suppress(OSError):  # a lost file is replaced where possible
            _write_missing(path, files or {})
        return Workdir(path, resumed)
    check_plain(path)
    check_writable(path, needed=needed)
    if jax.process_index() != 0:
        return Workdir(path, resumed)
    with told(path):
        path.mkdir(parents=True, exist_ok=True)
        if (mirror := mirror_of(path)) is not None:
            mirror.claim()
            resumed = _check(path, config)
        if not resumed:
            write_once(path / "config.json", json.dumps(config, indent=2) + "\n")
        lock = lock_file(path / "config.json")
        _check(path, config)  # another process may have been faster
        _write_missing(path, files or {})
    workdir = Workdir(path, resumed, lock)
    workdir.send()
    return workdir


def read_config(path: str | Path, *, option: str = "--workdir") -> dict[str, Any] | None:
    """Returns the configuration of the run in a folder; None if there is none.

    Example:
      >>> read_config("no/such/folder") is None
      True

    Args:
      path: path of the working directory.
      option: the option that named it.

    Returns:
      JSON values.

    Raises:
      ValueError: if the file cannot be read.
    """
    path = absolute(path)
    remedy = f"restore it from a copy, or choose another {option}"
    reading = told(path, done="read", option=option)
    with reading, contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return read_json(path / "config.json", remedy)
    return None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Returns what differs between two configurations: a sentence for each name, dotted where nested.

    None and a missing value count as equal, and `written_by` is ignored. Long values are cut.

    Example:
      >>> differences({"seed": 0, "model": {"dim": 8}}, {"seed": 0, "model": {"dim": 9}})
      {'model.dim': 'model.dim was 8, is 9'}

    Args:
      before: JSON values.
      now: JSON values.
    """
    old, new = dict(_flat(before)), dict(_flat(now))
    for config in (old, new):
        config.pop(WRITTEN_BY, None)
    return {
        name: f"{name} was {short(old.get(name))}, is {short(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def check_writable(path: str | Path, *, needed: int = 0, option: str = "--workdir") -> None:
    """Raises a ValueError if nothing can be written; makes nothing, only tries.

    Example:
      >>> with tempfile.NamedTemporaryFile() as file:
      ...     check_writable(file.name)
      Traceback (most recent call last):
      ValueError: --workdir=...: expected a folder, found a file; ...

    Args:
      path: path of a folder that may be new.
      needed: bytes that the coming checkpoints need.
      option: the option that named it.

    Raises:
      ValueError: if it is a file or not writable, or the disk is full.
    """
    path = absolute(path)
    mirror = mirror_of(path)
    with told(path, option=option):
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"0")
        free = shutil.disk_usage(there).free
    if free < needed + _SPARE_BYTES:
        disk = f"{option}={path}" if mirror is None else str(mirror.disk)
        another = "choose another disk" if mirror is None else "set TMPDIR to a folder elsewhere"
        raise ValueError(
            f"{disk}: {free / 2**20:,.0f} MiB free, a run needs at least "
            f"{(needed + _SPARE_BYTES) / 2**20:,.0f}; free some, or {another}"
        )
    if mirror is not None:
        mirror.check_writable(option)


def saved_steps(checkpoints: Path) -> list[int]:
    """Returns the steps that have a folder, sound or not."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(int(entry.name) for entry in checkpoints.iterdir() if entry.name.isdigit())
    return []


def _check(path: Path, config: Mapping[str, Any]) -> bool:
    """Returns whether there is a run of this configuration to resume; raises if it is another's."""
    before = read_config(path)
    if before is None:
        _check_empty(path)
        return False
    if differing := differences(before, config):
        raise ValueError(
            f"{path}: made with another configuration: {', '.join(differing.values())}; use the "
            "former values, or choose another --workdir"
        )
    workdir = Workdir(path, resumed=True)
    trained = workdir.metrics.exists() or workdir.results.exists()
    if trained and not saved_steps(workdir.checkpoints):
        raise ValueError(
            f"{path}: training began here, but there is no checkpoint; restore the folder from a "
            "copy, or choose another --workdir to start anew"
        )
    return True


def _write_missing(path: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        if not (path / name).exists() or (path / name).read_bytes() != content:
            write_bytes(path / name, content)


def _check_empty(path: Path) -> None:
    with told(path, done="read"), contextlib.suppress(FileNotFoundError):
        entries = sorted(entry.name for entry in path.iterdir())
        others = [name for name in entries if not name.endswith(PARTIAL)]  # of a killed start
        if others:
            raise ValueError(
                f"{path}: holds {short(others[0])} and no config.json, so it is not the folder of "
                "a run; choose a new or empty --workdir"
            )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
