"""Checkpoints that are restored only when every byte proves intact, and the folder they live in.

A working directory belongs to one configuration. It is new, resumable or finished; anything else
is refused with a sentence, for the worst that a training run can do is to start over in silence.

    workdir/
      config.json           what is trained; the same command resumes, another is refused
      checkpoints/STEP/     the state, and a SHA-256 of each of its arrays
      metrics.jsonl         one line a step, cut back to the restored step
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization, traverse_util
from jax.tree_util import keystr, tree_flatten_with_path, tree_unflatten

_FREE_BYTES = 64 * 2**20


class CorruptCheckpointError(ValueError):
    """No checkpoint of the directory is intact; the message names the damaged arrays."""


def state_leaves(state: Any) -> dict[str, Any]:
    """Return the arrays of a state by name.

    >>> state_leaves({"params": {"kernel": 1, "bias": 2}})
    {'params.bias': 2, 'params.kernel': 1}

    Args:
        state: a flax dataclass or a tree.

    Returns:
        Leaves by dotted path.
    """
    tree = serialization.to_state_dict(state)
    return {_name(path): leaf for path, leaf in tree_flatten_with_path(tree)[0]}


def digest(array: Any) -> str:
    """Return the SHA-256 of an array's dtype, shape and bytes.

    >>> digest(np.zeros(2, np.float32))[:12]
    '24e76ceeb262'

    Args:
        array: whole on this host.

    Returns:
        Hexadecimal digits.
    """
    array = np.asarray(array)
    header = f"{array.dtype}{array.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


def state_hash(state: Any) -> str:
    """Return one SHA-256 of all arrays of a state: equal hashes, equal states.

    >>> state_hash({"w": np.ones(2)}) == state_hash({"w": np.ones(2)})
    True

    Args:
        state: a flax dataclass or a tree.

    Returns:
        Hexadecimal digits.
    """
    leaves = {name: digest(leaf) for name, leaf in state_leaves(state).items()}
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()


class Checkpoints:
    """The checkpoints of one run, over Orbax; Orbax itself keeps no digest.

    >>> folder = tempfile.TemporaryDirectory()
    >>> with Checkpoints(Path(folder.name) / "checkpoints") as checkpoints:
    ...     checkpoints.save(3, {"w": np.ones(2)})
    ...     checkpoints.wait()
    ...     step, state = checkpoints.restore({"w": np.zeros(2)})
    >>> step, state["w"].tolist()
    (3, [1.0, 1.0])
    """

    def __init__(self, directory: Path, *, keep: int = 3, say: Callable[[str], None] = print):
        """Open the directory; damaged checkpoints are told to `say`."""
        self._directory = Path(directory).absolute()
        self._say = say
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(
            self._directory, options=options, item_names=("state", "digests")
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, step: int, state: Any) -> None:
        """Write the state in the background; an earlier write's failure is raised here.

        What is hashed is what is written: a copy, for the step is about to reuse the buffers.
        """
        leaves = {name: np.array(leaf) for name, leaf in state_leaves(state).items()}
        digests = {name: digest(leaf) for name, leaf in leaves.items()}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(leaves), digests=ocp.args.JsonSave(digests)
            ),
        )

    def wait(self) -> None:
        """Return once all is on disk; raise where it could not be written."""
        self._manager.wait_until_finished()

    def restore(self, template: Any) -> tuple[int, Any] | None:
        """Return `(step, state)` of the newest intact checkpoint, or None where none was made.

        Args:
            template: a state of the same tree; restored arrays get its shardings.

        Returns:
            The step and the state, or None.

        Raises:
            CorruptCheckpointError: there are checkpoints, and none is intact.
        """
        found, damage = self._newest(lambda step: self._read(step, template))
        if found is not None:
            self._set_aside(damage)
        return found

    def load(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """Return the step and the arrays, by dotted path, of the newest intact checkpoint.

        >>> folder = tempfile.TemporaryDirectory()
        >>> with Checkpoints(Path(folder.name)) as checkpoints:
        ...     checkpoints.save(3, {"params": {"w": np.ones(2)}})
        ...     checkpoints.wait()
        ...     checkpoints.load()
        (3, {'params.w': array([1., 1.])})

        Raises:
            CorruptCheckpointError: there are checkpoints, and none is intact.
        """
        return self._newest(self._leaves)[0]

    def _newest(self, read: Callable[[int], Any]) -> tuple[tuple[int, Any] | None, dict[int, str]]:
        """The newest step that can be read, what was read, and what is wrong with those after it."""
        damage: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return (step, read(step)), damage
            # Whatever a damaged file makes Orbax raise, the answer is an older step or a refusal.
            except Exception as error:
                damage[step] = _one_line(error)
                self._say(f"checkpoint {step} is not used: {damage[step]}")
        if damage:
            newest = max(damage)
            raise CorruptCheckpointError(
                f"{self._directory}: none of {len(damage)} checkpoints is intact "
                f"(step {newest}: {damage[newest]}); restore the folder from a copy, or choose "
                "another --workdir to start anew"
            )
        return None, damage

    def _read(self, step: int, template: Any) -> Any:
        leaves = self._leaves(step, state_leaves(template))
        tree = serialization.to_state_dict(template)
        paths, treedef = tree_flatten_with_path(tree)
        restored = tree_unflatten(treedef, [leaves[_name(path)] for path, _ in paths])
        return serialization.from_state_dict(template, restored)

    def _leaves(self, step: int, wanted: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The arrays of a step, placed like those wanted; each is as it was saved, or it raises."""
        folder = self._directory / str(step)
        if not (folder / "digests").is_dir():
            raise ValueError("the folder is incomplete")
        digests = self._manager.restore(
            step, args=ocp.args.Composite(digests=ocp.args.JsonRestore())
        )["digests"]
        if wanted is not None and (odd := sorted(digests.keys() ^ wanted.keys())):
            raise ValueError(f"it holds another set of arrays, beginning at {odd[0]}")
        template = None if wanted is None else {k: _abstract(v) for k, v in wanted.items()}
        leaves = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(template))
        )["state"]
        damaged = [name for name, leaf in leaves.items() if digest(leaf) != digests[name]]
        if damaged:
            raise ValueError(f"{damaged[0]} is damaged ({len(damaged)} of {len(leaves)} arrays)")
        return leaves

    def _set_aside(self, damage: Mapping[int, str]) -> None:
        """Rename damaged steps: Orbax takes any numbered folder for a checkpoint."""
        if jax.process_index() == 0:
            for step in damage:
                aside = tempfile.mkdtemp(prefix=f"damaged-{step}-", dir=self._directory)
                os.replace(self._directory / str(step), aside)
        if damage:
            self._manager.reload()


def load_variables(workdir: str | Path) -> dict[str, Any]:
    """Return what a run has learned, for flax's `apply`: the newest checkpoint that is intact.

    Args:
        workdir: the folder of a run, finished or not.

    Returns:
        `{"params": ..., "batch_stats": ...}`, nested dictionaries of numpy arrays; their moving
        average where the run kept one.

    Raises:
        ValueError: no run has written a checkpoint there.
        CorruptCheckpointError: none of its checkpoints is intact.
    """
    folder = Path(workdir).expanduser() / "checkpoints"
    if not list(_steps(folder)):
        raise ValueError(
            f"{workdir}: expected the folder of a run (its --workdir), found no checkpoint there"
        )
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.load()
    assert found is not None
    tree = traverse_util.unflatten_dict(found[1], sep=".")
    tree = tree.get("ema", tree)
    return {kind: tree.get(kind, {}) for kind in ("params", "batch_stats")}


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A checked working directory: where things go, and whether a run is resumed in it."""

    path: Path
    resumed: bool

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
        """Written last: a run that has it is finished."""
        return self.path / "results.json"


def open_workdir(path: str | Path, config: Mapping[str, Any]) -> Workdir:
    """Return the directory, made where it is missing, with `config` written or compared.

    >>> folder = tempfile.TemporaryDirectory()
    >>> open_workdir(folder.name, {"seed": 0}).resumed
    False
    >>> open_workdir(folder.name, {"seed": 1})
    Traceback (most recent call last):
    ValueError: ...: made with another configuration: seed was 0, is 1; ...

    Args:
        path: a directory that may be new.
        config: what decides the result, as JSON values; not where or how fast it runs.

    Returns:
        The directory.

    Raises:
        ValueError: a file, not writable, full, holding something else, another configuration, or
            a run that was begun and has no checkpoint left.
    """
    path = Path(path).expanduser().absolute()
    check_writable(path)
    path.mkdir(parents=True, exist_ok=True)
    config = json.loads(json.dumps(config))
    config_file = path / "config.json"
    workdir = Workdir(path, resumed=config_file.exists())
    if not workdir.resumed:
        if others := sorted(entry.name for entry in path.iterdir()):
            raise ValueError(
                f"{path}: holds {others[0]!r} and no config.json, so it is not the folder of a "
                "run; choose a new or empty --workdir"
            )
        if jax.process_index() == 0:
            write_text(config_file, json.dumps(config, indent=2) + "\n")
        return workdir
    _check_same(path, config, _read_config(config_file))
    trained = workdir.metrics.exists() or workdir.results.exists()
    if trained and not list(_steps(workdir.checkpoints)):
        raise ValueError(
            f"{path}: training began here, but there is no checkpoint; restore the folder from a "
            "copy, or choose another --workdir to start anew"
        )
    return workdir


def check_writable(path: str | Path) -> None:
    """Raise a ValueError where no run can be written; nothing is made, only tried.

    >>> with tempfile.NamedTemporaryFile() as file:
    ...     check_writable(file.name)
    Traceback (most recent call last):
    ValueError: --workdir=...: expected a folder, found a file; ...

    Args:
        path: of the working directory.

    Raises:
        ValueError: a file, not writable, or a full disk.
    """
    path = Path(path).expanduser().absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"0")
        free = shutil.disk_usage(there).free
    except NotADirectoryError:
        raise ValueError(
            f"--workdir={path}: expected a folder, found a file; choose another"
        ) from None
    except OSError as error:
        raise ValueError(
            f"--workdir={path}: cannot be written to ({error.strerror}); choose another"
        ) from None
    if free < _FREE_BYTES:
        raise ValueError(
            f"--workdir={path}: {free / 2**20:.0f} MiB free, a run needs at least "
            f"{_FREE_BYTES / 2**20:.0f}; free some, or choose another disk"
        )


def write_text(path: Path, text: str) -> None:
    """Write a file so that a kill leaves the old one or the new one, never half of one.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_text(Path(folder) / "results.json", "{}")
    ...     print(os.listdir(folder))
    ['results.json']

    Args:
        path: in an existing folder.
        text: all of it.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not readable as JSON ({error}); restore it, or choose another --workdir"
        ) from None


def _check_same(path: Path, config: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    names = sorted(n for n in config.keys() | before.keys() if config.get(n) != before.get(n))
    if names:
        differences = ", ".join(f"{n} was {before.get(n)!r}, is {config.get(n)!r}" for n in names)
        raise ValueError(
            f"{path}: made with another configuration: {differences}; go on with the former "
            "values, or choose another --workdir"
        )


def _steps(directory: Path) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):
        yield from (int(entry.name) for entry in directory.iterdir() if entry.name.isdigit())


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return np.zeros_like(leaf)


def _name(path: tuple[Any, ...]) -> str:
    return keystr(path, simple=True, separator=".")


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error) or type(error).__name__)[:300]
