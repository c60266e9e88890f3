"""TensorBoard's events, from which it draws curves during a run.

tensorboardX's `SummaryWriter` writes in a thread of its own; once that has died, for example from a
full disk, the next values wait for it forever. Here the caller writes, and gets the error.
"""

import time
from pathlib import Path
from typing import Any

_PATIENCE = 30.0  # seconds until what was written is visible


class Events:
    """A file of scalars in a folder.

    Example:
      >>> import tempfile
      >>> folder = tempfile.TemporaryDirectory()
      >>> events = Events(Path(folder.name), start=0)
      >>> events.write(0, {"loss": 2.5})
      >>> events.close()
      >>> [file.name.startswith("events.out.tfevents.") for file in Path(folder.name).iterdir()]
      [True]
    """

    def __init__(self, folder: Path, *, start: int):
        """Starts a file; TensorBoard discards what older ones hold for step `start` and later."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        protocol: Any = event_pb2  # its classes are created at run time
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
          OSError: if writing fails, for example because the disk is full.
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
