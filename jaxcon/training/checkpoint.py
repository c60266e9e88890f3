"""Checkpoints that are restored only if every byte is intact.

They are kept in the folder of a run, `jaxcon.training.workdir`.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization, traverse_util
from jax.tree_util import tree_flatten_with_path, tree_unflatten

from jaxcon.stores import StoreError, reading, refresh
from jaxcon.training._mirrored import Mirrored
from jaxcon.training._orbax import means_full, one_line, quiet
from jaxcon.training._shared import check_count
from jaxcon.training.devices import fetch
from jaxcon.training.digests import digest, leaf_name, state_bytes, state_leaves
from jaxcon.training.files import absolute, check_plain
from jaxcon.training.state import NO_VARIABLES
from jaxcon.training.workdir import saved_steps

KEPT = 3  # checkpoints; while one more is written there are four


class CorruptCheckpointError(ValueError):
    """No checkpoint of the directory is intact; the message names the damaged arrays."""


class DiskFullError(OSError):
    """A checkpoint could not be written; those before it are whole."""


class Checkpoints:
    """The checkpoints of one run, written by Orbax, which itself keeps no digests.

    Example:
      >>> folder = tempfile.TemporaryDirectory()
      >>> with Checkpoints(Path(folder.name) / "checkpoints") as checkpoints:
      ...     checkpoints.save(3, {"w": np.ones(2)})
      ...     checkpoints.wait()
      ...     step, state = checkpoints.restore({"w": np.zeros(2)})
      >>> step, state["w"].tolist()
      (3, [1.0, 1.0])
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int = KEPT,
        say: Callable[[str], None] = print,
        read_only: bool = False,
    ):
        """Opens the directory; reports damaged checkpoints to `say`.

        With `read_only` nothing in it changes: what looks abandoned may be a save by another process.

        Raises:
          ValueError: if fewer than one is to be kept, or a character in the path would keep checkpoints
            from being found again.
        """
        check_count("keep", keep)
        self._directory = Path(directory).absolute()
        check_plain(self._directory, written=not read_only)
        self._say = say
        self._mirrored = Mirrored(self._directory)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else keep,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=not read_only and not self._mirrored,
            save_interval_steps=0 if read_only else 1,
            multiprocessing_options=self._mirrored.processes(),
        )
        self._manager = ocp.CheckpointManager(
            self._directory, options=options, item_names=("state", "digests")
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._mirrored.wait()
            self._manager.close()
        except Exception:
            if kind is None:  # else an error that tells more is on its way
                raise

    def save(self, step: int, state: Any) -> None:
        """Writes the state in the background; raises here if an earlier write failed.

        It hashes exactly what it writes: a copy, because the step is about to reuse the buffers. Every
        host holds the whole state in its memory meanwhile, also of one that is spread over several.

        Raises:
          DiskFullError: if there is no room for this one, or was none for the one before.
        """
        self.wait()
        free, size = shutil.disk_usage(self._directory).free, state_bytes(state)
        if free < size:
            raise DiskFullError(
                errno.ENOSPC,
                f"{free / 2**20:,.0f} MiB free, checkpoint {step} needs {size / 2**20:,.0f}",
                str(self._mirrored.disk),
            )
        leaves = {name: fetch(leaf) for name, leaf in state_leaves(state).items()}
        if not self._mirrored.writes:
            return
        digests = {name: digest(leaf) for name, leaf in leaves.items()}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(leaves), digests=ocp.args.JsonSave(digests)
            ),
        )
        self._mirrored.send(self._manager.wait_until_finished)

    def wait(self) -> None:
        """Returns once everything is on disk, and in the store if the folder mirrors one there.

        Raises:
          DiskFullError: if there was no room to write it.
          StoreError: if it could not be sent.
        """
        try:
            self._mirrored.wait()
            self._manager.wait_until_finished()
        except Exception as error:
            if not means_full(error):
                raise
            reason = "the disk, or its quota, became full while a checkpoint was written"
            raise DiskFullError(errno.ENOSPC, reason, str(self._mirrored.disk)) from error

    def steps(self) -> list[int]:
        """Returns the steps that are saved or being saved."""
        return sorted(self._manager.all_steps())

    def restore(self, template: Any) -> tuple[int, Any] | None:
        """Returns `(step, state)` of the newest intact checkpoint, or None if there is none.

        Args:
          template: a state with the same tree; restored arrays get its shardings, whatever those were
            of the state that was saved.

        Returns:
          The step and the state, or None.

        Raises:
          CorruptCheckpointError: if there are checkpoints, but none is intact.
        """
        self._mirrored.catch_up(self._manager.reload)
        found, damage = self._newest(lambda step: self._read(step, template))
        self._mirrored.check_alike(found and found[0])
        if found is not None:
            self._set_aside(damage)
        return found

    def load(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """Returns the step and the arrays, by dotted path, of the newest intact checkpoint.

        Example:
          >>> folder = tempfile.TemporaryDirectory()
          >>> with Checkpoints(Path(folder.name)) as checkpoints:
          ...     checkpoints.save(3, {"params": {"w": np.ones(2)}})
          ...     checkpoints.wait()
          ...     checkpoints.load()
          (3, {'params.w': array([1., 1.])})

        Raises:
          CorruptCheckpointError: if there are checkpoints, but none is intact.
        """
        return self._newest(self._leaves)[0]

    def _newest(self, read: Callable[[int], Any]) -> tuple[tuple[int, Any] | None, dict[int, str]]:
        """Returns the newest step that can be read, its contents, and what is wrong with later ones."""
        damage: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                with quiet():
                    self._mirrored.fetch(step)
                    return (step, read(step)), damage
            except StoreError:  # a network that is down damages nothing
                raise
            # Whatever a damaged file makes Orbax raise, the answer is an older step or a refusal.
            except Exception as error:
                damage[step] = one_line(error)
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
        restored = tree_unflatten(treedef, [leaves[leaf_name(path)] for path, _ in paths])
        return serialization.from_state_dict(template, restored)

    def _leaves(self, step: int, wanted: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the arrays of a step, placed like those wanted; raises if any is not as saved."""
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
        # Of what is spread over hosts, each reads its part, and has one whole array at a time.
        damaged = [name for name, leaf in leaves.items() if digest(fetch(leaf)) != digests[name]]
        if damaged and wanted is not None:
            name, saved = damaged[0], self._leaves(step)  # Orbax casts to the template's dtype
            raise ValueError(f"{name} is {saved[name].dtype} there, expected {wanted[name].dtype}")
        if damaged:
            raise ValueError(f"{damaged[0]} is damaged ({len(damaged)} of {len(leaves)} arrays)")
        return leaves

    def _set_aside(self, damage: Mapping[int, str]) -> None:
        """Renames damaged steps, as Orbax takes any numbered folder for a checkpoint."""
        if jax.process_index() == 0 or self._mirrored:
            for step in damage:
                self._mirrored.set_aside(step)
                aside = tempfile.mkdtemp(prefix=f"damaged-{step}-", dir=self._directory)
                os.replace(self._directory / str(step), aside)
        if damage:
            self._manager.reload()


def load_variables(workdir: str | Path) -> dict[str, Any]:
    """Returns what a run has learned, for flax's `apply`, from its newest intact checkpoint.

    Args:
      workdir: the folder of a run, finished or not.

    Returns:
      `params` and the other collections, such as `batch_stats`: nested dictionaries of numpy
      arrays; their moving average if the run kept one.

    Raises:
      ValueError: if no run has written a checkpoint there.
      CorruptCheckpointError: if none of its checkpoints is intact.
    """
    return load_newest(workdir)[1]


def load_newest(workdir: str | Path) -> tuple[int, dict[str, Any]]:
    """Returns the step of the newest intact checkpoint, and its `load_variables`.

    Args:
      workdir: the folder of a run, finished, interrupted or still running.

    Raises:
      ValueError: if no run has written a checkpoint there.
      CorruptCheckpointError: if none of its checkpoints is intact.
    """
    with reading(workdir) as path:
        folder = absolute(path) / "checkpoints"
        if not saved_steps(folder):
            raise ValueError(
                f"{path}: expected the folder of a run (its --workdir), found no checkpoint there"
            )
        found = _load_moving(folder)
    assert found is not None
    step, leaves = found
    tree = traverse_util.unflatten_dict(leaves, sep=".")
    variables = {name: part for name, part in tree.items() if name not in NO_VARIABLES}
    return step, variables | tree.get("ema", {})


def _load_moving(folder: Path) -> tuple[int, dict[str, np.ndarray]] | None:
    """Loads the newest step; again if a running process swept it away meanwhile."""
    while True:
        steps = saved_steps(folder)
        try:
            with quiet(), Checkpoints(folder, read_only=True) as checkpoints:
                return checkpoints.load()
        except CorruptCheckpointError:
            refresh(folder)
            if saved_steps(folder) == steps:
                raise


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return np.zeros_like(leaf)
