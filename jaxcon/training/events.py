"""TensorBoard's events: what curves are drawn of while a run goes on.

tensorboardX's `SummaryWriter` writes in a thread of its own; once that has died, of a full disk say,
the next values wait for it without end. Here the caller writes, and is told.
"""

import time
from pathlib import Path
from typing import Any

_PATIENCE = 30.0  # seconds until what was written can be seen


class Events:
    """A file of scalars in a folder.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> events = Events(Path(folder.name), start=0)
    >>> events.write(0, {"loss": 2.5})
    >>> events.close()
    >>> [file.name.startswith("events.out.tfevents.") for file in Path(folder.name).iterdir()]
    [True]
    """

    def __init__(self, folder: Path, *, start: int):
        """Begins a file; TensorBoard forgets what older ones say of step `start` and later."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        protocol: Any = event_pb2  # its classes are made at run time
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._event = protocol.Event
        self._writer.write_event(self._event(step=start, file_version="brain.Event:2"))
        begins = protocol.SessionLog(status=protocol.SessionLog.START)
        self._writer.write_event(self._event(step=start, session_log=begins))
        self._seen = time.monotonic()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds the values of one step.

        Raises:
          OSError: the disk is full, say.
        """
        from tensorboardX.summary import scalar

        for name, value in values.items():
            event = self._event(step=step, wall_time=time.time(), summary=scalar(name, value))
            self._writer.write_event(event)
        if time.monotonic() > self._seen + _PATIENCE:
            self._writer.flush()
            self._seen = time.monotonic()

    def close(self) -> None:
        """Writes the rest."""
        self._writer.close()
