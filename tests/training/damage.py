"""Damage to checkpoints: what is read is a saved state, and an older one is never read in silence."""

import contextlib
import io
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxcon.training.checkpoint import Checkpoints, CorruptCheckpointError, load_variables
from jaxcon.training.digests import state_hash
from jaxcon.training.workdir import saved_steps


def flip(path: Path, moments: random.Random) -> None:
    """One bit of a file is another."""
    content = bytearray(path.read_bytes())
    bit = moments.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))


def cut(path: Path, moments: random.Random) -> None:
    """A file ends early."""
    os.truncate(path, moments.randrange(path.stat().st_size))


def delete(path: Path, moments: random.Random) -> None:
    """A file is gone, or the folder that it lies in."""
    if moments.random() < 0.3:
        shutil.rmtree(path.parent)
    else:
        path.unlink()


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (flip, cut, delete)


def damage(
    checkpoints: Path, template: Any, hashes: dict[int, str], *, number: int, seed: int = 0
) -> str:
    """Damage checkpoints, one way at a time, and read them again.

    Args:
      checkpoints: of a run.
      template: its state.
      hashes: of the state at each step.
      number: of damages.
      seed: of the moments.

    Raises:
      AssertionError: something else than a saved state came back, or an older one in silence.
    """
    moments, found = random.Random(seed), {"whole": 0, "older": 0, "refused": 0}
    for count in range(number):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "checkpoints"
            shutil.copytree(checkpoints, copy)
            steps = sorted(hashes)
            chosen = steps[-1] if moments.random() < 0.8 else moments.choice(steps)
            files = [p for p in sorted((copy / str(chosen)).rglob("*")) if p.is_file()]
            path = moments.choice([p for p in files if p.stat().st_size])
            ruin = moments.choice(DAMAGES)
            ruin(path, moments)
            what = f"{count}: {ruin.__name__} {path.relative_to(copy)}"
            found[_read_again(copy, template, hashes, what)] += 1
    return f"{number} damages: {', '.join(f'{v} {k}' for k, v in found.items())}, none in silence"


def _read_again(copy: Path, template: Any, hashes: dict[int, str], what: str) -> str:
    told: list[str] = []
    left = saved_steps(copy)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            variables = load_variables(copy.parent)  # changes nothing, so it comes first
        with Checkpoints(copy, say=told.append) as checkpoints:
            restored = checkpoints.restore(template)
    except CorruptCheckpointError as error:
        told.append(str(error))
        restored = None
    if restored is None:
        said = told[-1]
        assert "\n" not in said, what
        assert "is intact" in said, what
        return "refused"
    step, state = restored
    assert state_hash(state) == hashes[step], what
    assert state_hash(variables) == state_hash(state.variables(average=True)), what
    # A folder that is gone whole was never there; what is damaged is told.
    assert step == max(hashes) or told or max(hashes) not in left, what
    return "whole" if step == max(hashes) else "older"
