"""How long a run took, kept in `times.json` in its folder because a run may be stopped and resumed.

The metrics contain no times, so that those of a resumed run equal those of an uninterrupted one; but
for `input_wait`, where batches come from a disk.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

from jaxcon.training.files import write_text

Batch = TypeVar("Batch")


@dataclasses.dataclass(frozen=True)
class Session:
    """A process's share of a run.

    Attributes:
      start: number of steps done before it.
      stop: number of steps done when this was recorded.
      seconds: time from before the first step until then.
      first: the part of that spent on the first step, in which the program is compiled.
      waited: time after the first step in which the devices had nothing to do but wait for input.
    """

    start: int
    stop: int
    seconds: float
    first: float
    waited: float = 0.0


class Clock:
    """Times the steps of this process, and records them after those of earlier processes.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     clock = Clock(Path(folder) / "times.json", start=3)
      ...     clock.tick(4)
      ...     clock.tick(6)
      ...     clock.save()
      ...     [(session.start, session.stop) for session in read_times(Path(folder) / "times.json")]
      [(3, 6)]
    """

    def __init__(self, path: Path, *, start: int):
        """Starts counting, after `start` steps."""
        self._path, self._start = path, start
        self._before = read_times(path)
        self._began = time.monotonic()
        self._session: Session | None = None

    def tick(self, done: int, waited: float = 0.0) -> None:
        """Notes that `done` steps of the run are done; first called after this process's first step.

        Args:
          done: number of steps.
          waited: seconds waited for input since the first of them.
        """
        seconds = time.monotonic() - self._began
        first = seconds if self._session is None else self._session.first
        self._session = Session(self._start, done, seconds, first, waited)

    def save(self) -> None:
        """Writes the file."""
        sessions = [*self._before, *([self._session] if self._session else [])]
        rows = [dataclasses.asdict(session) for session in sessions]
        write_text(self._path, json.dumps(rows, indent=1) + "\n")


class InputWait:
    """Measures how long the devices wait for input.

    A step runs in the background while the next batch is awaited: only what comes after its end counts.

    Example:
      >>> wait = InputWait()
      >>> wait.take(iter([7]), {}), wait.share()
      (7, None)
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._read: float | None = None
        self._before = 0.0
        self._taken = 0
        self._streams = False

    def take(self, batches: Iterator[Batch], pending: Any) -> Batch:
        """Returns the next batch.

        Args:
          batches: if it has a method `ready`, as `data.ahead.Ahead`, that says whether the batch is
            there; otherwise nothing is measured.
          pending: arrays that the last step computes.
        """
        self._taken += 1
        ready = getattr(batches, "ready", None)
        self._streams = ready is not None
        if ready is None or ready():
            return next(batches)
        jax.block_until_ready(pending)
        began = time.monotonic()
        batch = next(batches)
        if self._taken > 1:  # before the first step, readers start and the program is compiled
            self.seconds += time.monotonic() - began
        return batch

    def share(self) -> float | None:
        """Returns the share of the time since the last call; None at the first, or if not measured."""
        now, waited = time.monotonic(), self.seconds - self._before
        passed = None if self._read is None else now - self._read
        self._read, self._before = now, self.seconds
        return min(waited / passed, 1.0) if passed and self._streams else None


def read_times(path: Path) -> list[Session]:
    """Returns the sessions of a run; none if the file is missing or damaged.

    Example:
      >>> read_times(Path("no-such-file"))
      []
    """
    with contextlib.suppress(OSError, ValueError, TypeError):
        return [Session(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    return []


def steps_per_second(sessions: Sequence[Session]) -> float | None:
    """Returns the rate without the first steps, which compile; None if there are no others.

    Example:
      >>> steps_per_second([Session(0, 11, 7.0, 2.0), Session(10, 16, 6.0, 1.0)])  # 15 in 10 seconds
      1.5
    """
    steps = sum(session.stop - session.start - 1 for session in sessions)
    seconds = sum(session.seconds - session.first for session in sessions)
    return steps / seconds if steps > 0 and seconds > 0 else None


def input_wait(sessions: Sequence[Session]) -> float | None:
    """Returns the share of the time after the first steps that was spent waiting for input.

    Example:
      >>> input_wait([Session(0, 11, 7.0, 2.0, 1.0), Session(10, 16, 6.0, 1.0)])  # 1 in 10 seconds
      0.1
    """
    seconds = sum(session.seconds - session.first for session in sessions)
    return sum(session.waited for session in sessions) / seconds if seconds > 0 else None
