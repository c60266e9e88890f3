"""How long a run took, kept in `times.json` in its folder because a run may be stopped and resumed.

The metrics contain no times, so that those of a resumed run equal those of an uninterrupted one.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from jaxcon.training.files import write_text


@dataclasses.dataclass(frozen=True)
class Session:
    """A process's share of a run.

    Attributes:
      start: number of steps done before it.
      stop: number of steps done when this was recorded.
      seconds: time from before the first step until then.
      first: the part of that spent on the first step, in which the program is compiled.
    """

    start: int
    stop: int
    seconds: float
    first: float


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

    def tick(self, done: int) -> None:
        """Notes that `done` steps of the run are done; first called after this process's first step."""
        seconds = time.monotonic() - self._began
        first = seconds if self._session is None else self._session.first
        self._session = Session(self._start, done, seconds, first)

    def save(self) -> None:
        """Writes the file."""
        sessions = [*self._before, *([self._session] if self._session else [])]
        rows = [dataclasses.asdict(session) for session in sessions]
        write_text(self._path, json.dumps(rows, indent=1) + "\n")


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
